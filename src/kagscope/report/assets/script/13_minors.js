// The minors themselves: how large they are, and how the rows of the k-minor matrix share them.
const Minors = {
  OCTAVE: 8, // bins
  pick(kind) {
    const { state, set } = Page, found = Page.curves((c) => c.curve === kind && c.k === state.curvek && c.width === Page.one("width") && c.selection === state.curveselection);
    const initial = found.find((c) => c.stage === "initial"), trainings = set.trainings.filter((t) => [Page.ALL, t].includes(state.training)).slice(0, Page.FEW);
    const trained = trainings.map((t) => ({ c: found.find((c) => c.stage === "trained" && c.training === t), name: Page.alone() ? Page.names[0] : `${Page.names[0]}, ${t}`, colour: "c" + (set.trainings.indexOf(t) % 6), dashed: set.trainings.indexOf(t) % 12 > 5 })).filter((e) => e.c);
    return [...(initial ? [{ c: initial, name: Page.names[1], colour: "initial" }] : []), ...trained];
  },
  edges: (c) => c.y.map((_, i) => (c.first + i) / Minors.OCTAVE),
  leftEnd(c) { // left of it lie fewer than one minor in 10,000
    let sum = c.below;
    return (c.first + Math.max(0, c.y.findIndex((y) => (sum += y) >= 1e-4))) / Minors.OCTAVE;
  },
  ticks(low, high) {
    const every = [1, 2, 4, 5, 10, 20, 50, 100].find((s) => (high - low) / s <= 7) ?? 200, out = [];
    for (let v = Math.ceil((low + 0.5) / every) * every; v <= high; v += every) out.push([v, String(v).replace("-", "−")]);
    return out;
  },
  threshold: () => { // the row mean that 1% of the rows of the initial net do not exceed, read off its curve
    const initial = Minors.pick("zipf").find((e) => e.colour === "initial");
    return initial ? initial.c.y[initial.c.x.findIndex((x) => x >= 0.99 * initial.c.count)] : undefined;
  },
};
Page.sections.push({
  keys: ["layer", "curvek", "width", "curveselection", "rankaxis", "training"],
  draw() {
    const bars = Minors.pick("histogram"), ranks = Minors.pick("zipf"), rows = [];
    for (const e of bars) {
      rows.push(["histogram", e.name, "exact zeros", e.c.zeros, null, null]);
      Minors.edges(e.c).forEach((x, i) => rows.push(["histogram", e.name, x, e.c.y[i], null, null]));
    }
    for (const e of ranks) e.c.x.forEach((x, i) => rows.push(["zipf", e.name, x, e.c.y[i], e.c.low[i], e.c.high[i]]));
    const left = Math.floor(Math.min(...bars.map((e) => Minors.leftEnd(e.c)))), right = Math.max(...bars.map((e) => (e.c.first + e.c.y.length) / Minors.OCTAVE)), zeroAt = left - Math.max(1.5, 0.08 * (right - left));
    Lines.draw(Dom.one("[data-chart=histogram]"), {
      small: true, flush: true, x: "linear", y: "log", xMin: zeroAt - 0.5, file: "histogram", xLabel: "log₂(minor / mean minor); left: exact zeros", yLabel: "fraction per ⅛ octave",
      none: "Distributions of sizes were not measured for this choice.", xTicks: bars.length ? [[zeroAt, "zero"], ...Minors.ticks(left, right)] : undefined,
      series: bars.map((e) => {
        const kept = Minors.edges(e.c).map((x, i) => [x, e.c.y[i]]).filter(([x]) => x >= left);
        return { name: e.name, colour: e.colour, dashed: e.dashed, plain: true, steps: true, x: kept.map(([x]) => x), y: kept.map(([, y]) => y), spike: e.c.zeros > 0 ? [zeroAt, e.c.zeros] : undefined };
      }),
    });
    const limit = Minors.threshold(), zero = ({ c }) => c.x.filter((x, i) => c.y[i] <= limit).length;
    Lines.draw(Dom.one("[data-chart=zipf]"), {
      small: true, flush: true, x: Page.state.rankaxis, y: "log", file: "zipf", xLabel: "rank / number of rows", yLabel: "row mean / overall mean", reference: limit, none: "Row means were not measured for this choice.",
      series: ranks.map((e) => ({ name: e.name, colour: e.colour, plain: true, dashed: e.dashed || e.colour === "initial", x: e.c.x.map((x) => x / e.c.count), y: e.c.y, low: e.c.low, high: e.c.high })),
    });
    const wide = Page.set.widths.length > 1 ? `Nets of width ${Page.one("width")}. ` : "";
    Dom.one("[data-note=minors]").textContent = wide + (limit === undefined || !ranks.some(zero) ? "" : `Dotted in the right chart: what 1% of the rows of the ${Page.names[1]} network do not exceed, the threshold of “zero rows” (here relative to the overall mean of each curve).`);
    Table.show("minors", ["curve", "nets", "x", "y", "low", "high"], rows, { label: "the distributions" });
  },
});
