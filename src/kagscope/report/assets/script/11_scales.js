// Scale explorer: a score against the distance between the columns of a minor.
Page.sections.push({
  keys: ["layer", "score", "k", "measure", "axis", "step", "widths", "trainings"],
  draw() {
    const { state, set, WORDS, at } = Page;
    const found = Page.here((s) => Page.ofLayer(s) && (s.kind === state.axis || s.selection === "all") && Page.shown(s));
    const scales = Page.numbers(found.filter((s) => s.scale !== null).map((s) => s.scale)), largest = scales.at(-1) ?? 0;
    const diagonal = set.imageShape ? Math.hypot(set.imageShape[0] - 1, set.imageShape[1] - 1) : 0;
    const allAt = state.axis === "apart" ? 0 : diagonal > 1.05 * largest ? diagonal : 1.25 * largest || 1;
    const line = (setting, step) => found.filter((s) => s.width === setting.width && s.training === setting.training)
      .map((s) => ({ s, x: s.selection === "all" ? allAt : s.scale, i: s.step.indexOf(step === "last" ? s.last : Number(step)) }))
      .filter((p) => p.i >= 0).sort((a, b) => a.x - b.x);
    const rows = [], shown = [];
    const series = Page.settings().map((setting) => {
      const points = line(setting, state.step), pick = (end) => points.map((p) => at(p.s, state.measure + end, p.i));
      for (const { s, i } of points) rows.push([setting.width, setting.training, s.selection, s.step[i], at(s, state.measure, i), at(s, state.measure + "_low", i), at(s, state.measure + "_high", i), at(s, "runs", i), Page.how(s, i)]);
      shown.push(...points);
      return { ...Page.look(setting), bars: true, x: points.map((p) => p.x), y: pick(""), low: pick("_low"), high: pick("_high"), sampled: points.map((p) => (Page.exact(p.s, p.i) ? "" : Format.number(at(p.s, "stderr", p.i), 2))) };
    }).filter((s) => s.x.length);
    if (state.measure === "value") for (const setting of Page.settings()) { // the nets these started from: one line for each width
      if (setting.training !== state.trainings[0]) continue;
      const points = line(setting, "last");
      if (points.some((p) => at(p.s, "baseline", p.i) !== null)) series.push({ name: Page.alone() ? Page.names[1] : `width ${setting.width}, ${Page.names[1]}`, colour: "initial", plain: true, dashed: true, x: points.map((p) => p.x), y: points.map((p) => at(p.s, "baseline", p.i)) });
    }
    const unit = set.imageShape && Math.min(...set.imageShape) > 1 ? "pixels" : "positions";
    Lines.draw(Dom.one("[data-chart=scales]"), {
      series, x: "linear", y: "linear", xTicks: [...scales.map((x) => [x, String(x)]), [allAt, "all"]].sort((a, b) => a[0] - b[0]), reference: Page.reference(), yLabel: Page.measured(), file: "scales",
      xLabel: state.axis === "ball" ? `ball radius (${unit})` : `minimum distance between columns (${unit})`, none: Page.NOTHING + " Selections may have been measured at the first and last step only.",
    });
    Page.note("scales", shown);
    Table.show("scales", ["width", "training", "selection", "step", WORDS[state.measure], "low", "high", "seeds", "how"], rows, { label: "the scale explorer" });
  },
});
