// Along training: a score and the accuracy against the step, with the onset marked.
Page.sections.push({
  keys: ["layer", "score", "k", "measure", "selection", "width", "training"],
  draw() {
    const { state, at, WORDS } = Page, found = Page.here((s) => Page.ofLayer(s) && s.selection === state.selection && Page.shown(s)), rows = [], shown = [], onsets = [];
    Dom.one("[data-heading=accuracy]").textContent = Page.set.accuracy;
    Dom.one("[data-heading=score]").textContent = Page.scoreLabel(state.score);
    const series = Page.settings().map((setting) => {
      const s = found.find((f) => f.width === setting.width && f.training === setting.training);
      if (!s) return null;
      s.step.forEach((step, i) => {
        shown.push({ s, i });
        rows.push([s.width, s.training, step, at(s, state.measure, i), at(s, state.measure + "_low", i), at(s, state.measure + "_high", i), at(s, "runs", i), Page.how(s, i), s.onset && s.onset.step === step ? "onset" : ""]);
      });
      if (s.onset) onsets.push([Page.look(s).name, s.onset]);
      const of = (end) => s.data[Page.column[state.measure + end]];
      return { ...Page.look(s), x: s.step, y: of(""), low: of("_low"), high: of("_high"), mark: s.onset?.step, sampled: s.exact ? null : s.step.map((_, i) => (Page.exact(s, i) ? "" : Format.number(at(s, "stderr", i), 2))) };
    }).filter(Boolean);
    Lines.draw(Dom.one("[data-chart=steps]"), { small: true, x: "step", y: "linear", series, reference: Page.reference(), file: "steps", xLabel: "training step", yLabel: `${WORDS[state.measure]}${state.k ? ` (k = ${state.k})` : ""}` });
    Lines.draw(Dom.one("[data-chart=accuracy]"), { small: true, x: "step", y: "linear", file: "accuracy", xLabel: "training step", yLabel: Page.set.accuracy, none: "No accuracies were recorded.",
      series: Page.settings().map((one) => Page.data.accuracy.find((a) => a.width === one.width && a.training === one.training)).filter(Boolean).map((a) => ({ ...Page.look(a), x: a.step, y: a.value, low: a.low, high: a.high })) });
    const host = Dom.one("[data-onsets]");
    host.replaceChildren(...(onsets.length ? [Dom.make("p", { className: "small", textContent: `▼ Onset: the first measured step at which the interval of the ratio, over ${onsets[0][1].over}, leaves that of the baseline, and is outside at the next measured step too.` }),
      Dom.make("ul", { className: "small onsets" }, ...onsets.map(([name, o]) => Dom.make("li", {}, Dom.make("bdi", { textContent: name }), o.step === null ? `: no onset (${o.reason})` : `: step ${o.step}, confirmed at ${o.confirmed}, ratio ${Format.number(o.ratio)}`)))] : []));
    Page.note("training", shown);
    Table.show("training", ["width", Page.rest(), "step", WORDS[state.measure], "low", "high", "seeds", "how", "onset"], rows, { label: "the training curve" });
    for (const part of Dom.all("[data-part=accuracy]")) part.hidden = !Page.data.accuracy.some((a) => a.value.some((v) => v !== null));
    const accuracies = Page.data.accuracy.filter(Page.shown).flatMap((a) => a.step.map((step, i) => [a.width, a.training, step, a.value[i], a.low[i], a.high[i]]));
    Table.show("accuracy", ["width", Page.rest(), "step", Page.set.accuracy, "low", "high"], accuracies, { label: "the accuracies" });
  },
});
