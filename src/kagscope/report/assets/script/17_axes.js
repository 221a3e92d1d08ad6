// What was varied: a score or an outcome against an axis of the study, and over two of them. Runs of one seed count once.
const Axes = {
  T: [12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042], // Student's, 97.5%
  NONE: "none",
  axis: (name) => Page.data.study.axes.find((a) => a.name === name),
  outcomes: () => Page.data.study.outcomes.map((o) => `outcome:${o.name}`),
  here: (test = () => true) => Page.data.study.measures.filter((m) => m.layer === Page.state.layer && test(m)),
  values() { // of every run, or nulls
    const { axisscore: score, axisk: k, axismeasure: measure } = Page.state;
    if (String(score).startsWith("outcome:")) return Page.data.study.outcomes.find((o) => `outcome:${o.name}` === score).values;
    return Axes.here((m) => m.score === score && m.k === k)[0]?.[measure] ?? [];
  },
  label() {
    const { axisscore: score, axisk: k, axismeasure: measure } = Page.state, outcome = Page.data.study.outcomes.find((o) => `outcome:${o.name}` === score);
    return outcome ? outcome.label : `${Page.scoreLabel(score)}${k ? `, k = ${k}` : ""}: ${Page.WORDS[measure]}`;
  },
  ratio: () => Page.state.axismeasure === "ratio" && !String(Page.state.axisscore).startsWith("outcome:"),
  mean(places) { // over seeds of the means over the runs of each, with its interval
    const bySeed = new Map(), values = Axes.values(), { seeds } = Page.data.study;
    for (const i of places) if (values[i] !== null && values[i] !== undefined) bySeed.set(seeds[i], [...(bySeed.get(seeds[i]) ?? []), values[i]]);
    const average = (list) => list.reduce((a, b) => a + b, 0) / list.length, means = [...bySeed.values()].map(average), n = means.length;
    if (!n) return { n, mean: null, low: null, high: null };
    const mean = average(means), spread = n > 1 ? Math.sqrt(means.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1) / n) * (Axes.T[n - 2] ?? 1.96) : null;
    return { n, mean, low: spread === null ? null : mean - spread, high: spread === null ? null : mean + spread };
  },
  cells(x, hue) { // for each value of hue, for each of x
    const all = Page.data.study.seeds.map((_, i) => i), hues = hue ? hue.values.map((name, j) => [name, all.filter((i) => hue.runs[i] === j)]) : [["", all]];
    return hues.map(([name, some]) => ({ name, cells: x.values.map((_, j) => Axes.mean(some.filter((i) => x.runs[i] === j))) }));
  },
  chosen() {
    const x = Axes.axis(Page.state.axisx), hue = Page.state.axishue === Axes.NONE ? null : Axes.axis(Page.state.axishue);
    return { x, hue, lines: Axes.cells(x, hue) };
  },
  chart() {
    const { x, hue, lines } = Axes.chosen();
    const numeric = x.values.every((v) => typeof v === "number"), far = numeric && x.values[0] > 0 && x.values.at(-1) / x.values[0] > 20, at = x.values.map((v, i) => (numeric ? v : i));
    const reference = Axes.ratio() ? 1 : undefined;
    return {
      x: far ? "log" : "linear", y: "linear", reference, xLabel: x.label, yLabel: Axes.label(), file: "axes", xTicks: at.map((place, i) => [place, String(x.values[i])]),
      series: lines.slice(0, Page.FEW).map((line, i) => ({ name: hue ? `${hue.label} ${line.name}` : "mean over everything else", colour: "c" + (i % 6), dashed: i > 5, bars: true, x: at, y: line.cells.map((c) => c.mean), low: line.cells.map((c) => c.low), high: line.cells.map((c) => c.high) })),
    };
  },
  grid(x, hue, lines) { // a table whose cells are shaded by their values
    const values = lines.flatMap((line) => line.cells.map((cell) => cell.mean)).filter((v) => v !== null), colours = Heat.scale(values, { ratio: Axes.ratio() });
    const head = Dom.make("tr", {}, Dom.make("th", { scope: "col", textContent: `${hue.label} by ${x.label}` }), ...x.values.map((v) => Dom.make("th", { scope: "col", textContent: String(v) })));
    const body = lines.map((line) => Dom.make("tr", {}, Dom.make("th", { scope: "row", textContent: String(line.name) }), ...line.cells.map((cell) => {
      const td = Dom.make("td", { className: "number", textContent: cell.mean === null ? "–" : Format.number(cell.mean, 3) });
      if (colours.known(cell.mean)) { const colour = colours.rgb(cell.mean); td.style.background = Heat.css(colour); td.style.color = Heat.dark(colour) ? "#fff" : "#1b1f23"; }
      return td;
    })));
    return Dom.make("div", { className: "scroll", tabIndex: 0, aria: { role: "region", "aria-label": `${Axes.label()} over ${hue.label} and ${x.label}` } }, Dom.make("table", { className: "grid-map" }, Dom.make("thead", {}, head), Dom.make("tbody", {}, ...body)));
  },
};
Object.assign(CONTROLS, {
  axisscore: { label: "score or outcome", options: () => (Page.data.study ? [...Page.unique(Axes.here().map((m) => m.score)), ...Axes.outcomes()] : []), name: (v) => Page.data.study.outcomes.find((o) => `outcome:${o.name}` === v)?.label ?? Page.scoreLabel(v), start: "pr" },
  axisk: { label: "order k", options: () => (Page.data.study ? Page.numbers(Axes.here((m) => m.score === Page.state.axisscore).map((m) => m.k)) : []), name: (v) => (v ? String(v) : "none"), start: 2 },
  axismeasure: { label: "show", options: () => ["ratio", "value"].filter((name) => Page.data.study && Axes.here((m) => m.score === Page.state.axisscore && m.k === Page.state.axisk).some((m) => m[name].some((v) => v !== null))), name: (v) => Page.WORDS[v] },
  axisx: { label: "against", options: () => (Page.data.study?.axes ?? []).map((a) => a.name), name: (v) => Axes.axis(v).label },
  axishue: { label: "lines", options: () => (Page.data.study ? [Axes.NONE, ...Page.data.study.axes.map((a) => a.name).filter((name) => name !== Page.state.axisx)] : []), name: (v) => (v === Axes.NONE ? "one, over all the rest" : `one for each ${Axes.axis(v).label}`), get start() { return CONTROLS.axishue.options().find((name) => name !== Axes.NONE && Axes.axis(name).values.length <= 6); } },
});
Page.sections.push({
  keys: ["layer", "axisscore", "axisk", "axismeasure", "axisx", "axishue"],
  draw() {
    if (!Page.data.study) return;
    const { x, hue, lines } = Axes.chosen();
    Lines.draw(Dom.one("[data-chart=axes]"), Axes.chart());
    Dom.one("[data-note=axes]").textContent = "Means over seeds with 95% intervals (Student’s t); everything that is not chosen here is averaged over." + (lines.length > Page.FEW ? ` The first ${Page.FEW} of ${lines.length} lines are drawn.` : "");
    const rows = lines.flatMap((line) => line.cells.map((cell, i) => [x.values[i], ...(hue ? [line.name] : []), cell.mean, cell.low, cell.high, cell.n]));
    Table.show("axes", [x.label, ...(hue ? [hue.label] : []), Axes.label(), "low", "high", "seeds"], rows, { label: "what was varied" });
    Dom.one("[data-map=axes]").replaceChildren(...(hue ? [Axes.grid(x, hue, lines)] : []));
  },
});
