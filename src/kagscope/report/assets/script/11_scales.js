// Scale explorer: a score against the distance between the columns of a minor, or layer by layer.
const Scales = {
  // the lines of one layer and score: what to draw, the rows of numbers behind it, and the means shown
  lines({ layer, score, k, measure, axis, step }) {
    const { at } = Page, over = axis === "layers", layers = Page.set.layers.filter((name) => name);
    const found = Page.data.series.filter((s) => s.score === score && s.k === k && Page.shown(s) && (over ? s.layer && s.selection === "all" : s.layer === layer && (s.kind === axis || s.selection === "all")));
    const scales = Page.numbers(found.filter((s) => s.scale !== null).map((s) => s.scale)), allAt = Scales.end(axis, scales.at(-1) ?? 0);
    const points = (setting, when) => found.filter((s) => s.width === setting.width && s.training === setting.training)
      .map((s) => ({ s, x: over ? layers.indexOf(s.layer) : s.selection === "all" ? allAt : s.scale, i: when === "last" ? Page.last(s) : s.step.indexOf(Number(when)) }))
      .filter((p) => p.i >= 0).sort((a, b) => a.x - b.x);
    const rows = [], shown = [];
    const series = Page.settings().map((setting) => {
      const line = points(setting, step), pick = (end) => line.map((p) => at(p.s, measure + end, p.i));
      for (const { s, i } of line) rows.push([setting.width, setting.training, over ? s.layer : s.selection, s.step[i], at(s, measure, i), at(s, measure + "_low", i), at(s, measure + "_high", i), at(s, "runs", i), Page.how(s, i)]);
      shown.push(...line);
      return { ...Page.look(setting), bars: true, x: line.map((p) => p.x), y: pick(""), low: pick("_low"), high: pick("_high"), sampled: line.map((p) => (Page.exact(p.s, p.i) ? "" : Format.number(at(p.s, "stderr", p.i), 2))) };
    }).filter((s) => s.x.length);
    if (measure === "value") for (const setting of Page.settings().filter((one, i, all) => all.findIndex((other) => other.width === one.width) === i)) { // the nets these started from: one line for each width
      const line = points(setting, "last");
      if (line.some((p) => at(p.s, "baseline", p.i) !== null)) series.push({ name: Page.named(setting.width, Page.names[1]), colour: "initial", plain: true, dashed: true, x: line.map((p) => p.x), y: line.map((p) => at(p.s, "baseline", p.i)) });
    }
    if (over) { const { labels, title } = First.ticks(layers); return { rows, shown, chart: { series, x: "linear", y: "linear", xTicks: labels.map((name, i) => [i, name]), xLabel: title } }; }
    const unit = Page.set.imageShape && Math.min(...Page.set.imageShape) > 1 ? "pixels" : "positions";
    return { rows, shown, chart: { series, x: "linear", y: "linear", xTicks: [...scales.map((x) => [x, String(x)]), [allAt, "all"]].sort((a, b) => a[0] - b[0]), xLabel: axis === "ball" ? `ball radius (${unit})` : `minimum distance between columns (${unit})` } };
  },
  end(axis, largest) { // where "all" stands on the axis
    const shape = Page.set.imageShape, diagonal = shape ? Math.hypot(shape.at(-2) - 1, shape.at(-1) - 1) : 0;
    return axis === "apart" ? 0 : diagonal > 1.05 * largest ? diagonal : 1.25 * largest || 1;
  },
};
Page.sections.push({
  keys: ["layer", "score", "k", "measure", "axis", "step", "width", "training"],
  draw() {
    const { rows, shown, chart } = Scales.lines(Page.state);
    Lines.draw(Dom.one("[data-chart=scales]"), { ...chart, reference: Page.reference(), yLabel: Page.measured(), file: "scales", none: Page.NOTHING + " Selections may have been measured at the first and last step only." });
    Page.note("scales", shown);
    Table.show("scales", ["width", Page.rest(), Page.state.axis === "layers" ? "layer" : "selection", "step", Page.WORDS[Page.state.measure], "low", "high", "seeds", "how"], rows, { label: "the scale explorer" });
  },
});
