// The first chart, which carries the result: PR by scale, layer beside layer; of one model its scores over the layers; of a study what was varied.
const First = {
  MOST: 3, // layers side by side
  LAYERS: 6, // in one chart
  SCORES: ["pr", "kl_uniform", "rr_pr", "zero_rows"],
  draw(host, charts) { // [panel, chart] of each, and one key for all
    host.append(Lines.key([...new Map(charts.flatMap(([, chart]) => chart.series).map((s) => [s.name, s])).values()])); // first: it too takes part in how wide a panel is
    for (const [panel, chart] of charts) Lines.draw(panel, { ...chart, small: charts.length > 1, keyless: true });
  },
  panel(host, title) {
    const chart = Dom.make("div", { className: "chart" });
    host.append(Dom.make("div", {}, Dom.make("h2", { textContent: title }), chart));
    return chart;
  },
  scales(host) {
    const { layers } = Page.set, strongest = Page.strongest(), shown = layers.filter((name) => name).slice(0, First.MOST);
    if (strongest && !shown.includes(strongest)) shown[shown.length - 1] = strongest;
    const drawn = shown.map((layer) => ({ layer, found: Scales.lines({ layer, score: "pr", k: 2, measure: "ratio", axis: "ball", step: "last" }) }));
    const panels = drawn.map(({ layer }) => First.panel(host, `layer ${layer}`)); // all before any is drawn: each takes its share of the width
    First.draw(host, drawn.map(({ layer, found }, i) => [panels[i], { ...found.chart, reference: 1, yLabel: `PR, k = 2: ${Page.WORDS.ratio}`, file: `ratio-${layer}` }]));
  },
  ticks(names) { // what tells the names apart: of encoder.layer.0.intermediate, encoder.layer.1.intermediate, … the numbers
    const parts = names.map((name) => name.split(".")), [one = []] = parts, differ = one.map((_, i) => i).filter((i) => parts.some((p) => p[i] !== one[i]));
    if (one.length > 1 && differ.length === 1 && parts.every((p) => p.length === one.length)) return { labels: parts.map((p) => p[differ[0]]), title: one.map((part, i) => (i === differ[0] ? "*" : part)).join(".") };
    return names.length > 8 ? { labels: names.map((_, i) => String(i)), title: "place of the layer in the model" } : { labels: names, title: Page.set.thing };
  },
  layers(host) {
    const { at, set } = Page, order = set.layers.filter((name) => name);
    const measured = (score, k) => order.map((layer) => Page.data.series.find((s) => s.layer === layer && s.score === score && s.k === k && s.selection === "all" && Page.shown(s)));
    const scores = First.SCORES.map((score) => ({ score, k: score === "zero_rows" ? 1 : 2 })).map(({ score, k }) => ({ score, k, there: measured(score, k).map((s, i) => ({ s, i })).filter(({ s }) => s) })).filter(({ there }) => there.length);
    const { labels, title } = First.ticks(order);
    const panels = scores.map(({ score, k }) => First.panel(host, `${Page.scoreLabel(score)}${k > 1 ? `, k = ${k}` : ""}`));
    First.draw(host, scores.map(({ score, there }, place) => {
      const of = (name) => there.map(({ s }) => at(s, name, Page.last(s)));
      const series = [{ name: Page.names[0], colour: "c0", bars: true, x: there.map(({ i }) => i), y: of("value"), low: of("value_low"), high: of("value_high"), sampled: there.map(({ s }) => (Page.exact(s, Page.last(s)) ? "" : Format.number(at(s, "stderr", Page.last(s)), 2))) }];
      if (of("baseline").some((v) => v !== null)) series.push({ name: Page.names[1], colour: "initial", dashed: true, hollow: true, x: there.map(({ i }) => i), y: of("baseline") });
      return [panels[place], { series, x: "linear", y: "linear", xTicks: labels.map((name, i) => [i, name.length > 16 ? "…" + name.slice(-15) : name]), xLabel: title, yLabel: of("value_low").some((v) => v !== null) ? "mean over the points" : "value", file: `layers-${score}` }];
    }));
  },
  steps(host) { // along training: a line for each layer, the one where most happens among them
    const layers = Page.set.layers.filter((name) => name), strongest = Page.strongest(), shown = layers.slice(0, First.LAYERS);
    if (strongest && !shown.includes(strongest)) shown[shown.length - 1] = strongest;
    const drawn = First.SCORES.slice(0, 2).map((score) => ({ score, found: Page.data.series.filter((s) => s.score === score && s.k === 2 && s.selection === "all" && shown.includes(s.layer)) })).filter(({ found }) => found.length);
    const panels = drawn.map(({ score }) => First.panel(host, `${Page.scoreLabel(score)}, k = 2`));
    First.draw(host, drawn.map(({ score, found }, place) => {
      const column = (s, name) => s.data[Page.column[name]], measure = found.some((s) => column(s, "ratio").some((v) => v !== null)) ? "ratio" : "value";
      const series = found.map((s) => ({ name: `layer ${s.layer}`, colour: "c" + shown.indexOf(s.layer), x: s.step, y: column(s, measure), low: column(s, measure + "_low"), high: column(s, measure + "_high"), mark: s.onset?.step }));
      return [panels[place], { series, x: "step", y: "linear", reference: measure === "ratio" ? 1 : undefined, xLabel: "training step", yLabel: Page.WORDS[measure], file: `steps-${score}` }];
    }));
  },
  axes(host) {
    First.draw(host, [[First.panel(host, Page.state.layer ? `layer ${Page.state.layer}` : "whole net"), Axes.chart()]]);
  },
};
Page.sections.push({
  keys: ["layer", "width", "training", "axisscore", "axisk", "axismeasure", "axisx", "axishue"],
  draw() {
    const host = Dom.one("[data-first]");
    if (!host) return;
    host.replaceChildren();
    First[host.dataset.first](host);
  },
});
