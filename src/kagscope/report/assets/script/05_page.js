// The one state that all controls share, kept in the address as #s:layer=hidden1&k=2…, so that a view can be sent to a colleague.
const Page = {
  WORDS: {}, names: [], // what the networks compared are called
  NOTHING: "Nothing was measured for this choice.",
  FEW: 12, // lines of one chart; of more settings the first are drawn
  ALL: "*", // of a choice of width or training
  data: null, set: null, state: {}, labels: {}, column: {}, sections: [],

  begin(data) {
    Page.data = data; Page.set = data.settings;
    const [after, before] = (Page.names = data.settings.names);
    Page.WORDS = { ratio: `${after} / ${before}`, difference: `${after} − ${before}`, value: "value", baseline: `${before} value` };
    Page.labels = Object.fromEntries(data.settings.scores);
    Page.column = Object.fromEntries(data.columns.map((name, i) => [name, i]));
    const there = new Set(data.series.map((s) => JSON.stringify([s.width, s.training])));
    Page.measuredSettings = data.settings.widths.flatMap((width) => data.settings.trainings.map((training) => ({ width, training }))).filter((s) => there.has(JSON.stringify([s.width, s.training])));
    Page.order = new Map(data.settings.scores.map(([name], i) => [name, i]));
  },
  unique: (list) => [...new Set(list)],
  numbers: (list) => Page.unique(list).sort((a, b) => a - b),

  // what was measured at the chosen layer
  here: (test = () => true) => Page.data.series.filter((s) => s.layer === Page.state.layer && test(s)),
  maps: (test = () => true) => Page.data.maps.filter((m) => m.layer === Page.state.layer && test(m)),
  curves: (test = () => true) => Page.data.curves.filter((c) => c.layer === Page.state.layer && test(c)),
  steps: () => Page.numbers(Page.here((s) => s.score === Page.state.score && s.k === Page.state.k).flatMap((s) => s.step)),
  at: (s, name, i) => s.data[Page.column[name]][i],
  ofLayer: (s) => s.score === Page.state.score && s.k === Page.state.k,

  // the settings (width and training) that are shown, how their lines look, and the one that a picture of one net is of
  chosen: (s) => [Page.ALL, s.width].includes(Page.state.width) && [Page.ALL, s.training].includes(Page.state.training),
  every: () => Page.measuredSettings.filter(Page.chosen),
  settings: () => Page.every().slice(0, Page.FEW),
  shown: (s) => Page.settings().some((one) => one.width === s.width && one.training === s.training),
  one: (key) => (Page.state[key] === Page.ALL ? { width: Page.set.widths.at(-1), training: Page.set.trainings[0] }[key] : Page.state[key]),
  look({ width, training }) {
    const { set } = Page, byWidth = set.widths.length > 1 && set.trainings.length - set.controls.length <= 2, w = set.widths.indexOf(width), t = set.trainings.indexOf(training), name = Page.named(width, training);
    if (Page.alone()) return { name: Page.names[0], colour: "c0", dashed: false, hollow: false };
    if (set.controls.includes(training)) { // grey, from the widest: dashed and full, drawn through and hollow, dashed and hollow
      const place = set.widths.length - 1 - w;
      return { name, colour: "initial", dashed: place % 2 === 0, hollow: place > 0 };
    }
    if (byWidth) return { name, colour: "c" + (w % 6), dashed: t > 0 || w > 5, hollow: t > 0 };
    return { name, colour: "c" + (t % 6), dashed: t % 12 > 5, hollow: w !== set.widths.length - 1 };
  },
  named: (width, rest) => (Page.set.widths.length > 1 ? `width ${width}, ${rest}` : rest), // one width tells nothing apart
  rest: () => (Page.data.study ? "setting" : "training"), // what tells the networks of one width apart
  alone: () => Page.set.widths.length * Page.set.trainings.length === 1, // one setting: its width and training tell nothing apart
  reference: () => (Page.state.measure === "ratio" ? 1 : Page.state.measure === "difference" ? 0 : undefined),
  scoreLabel: (name) => Page.labels[name] ?? name,
  measured: () => `${Page.scoreLabel(Page.state.score)}${Page.state.k ? `, k = ${Page.state.k}` : ""}: ${Page.WORDS[Page.state.measure]}`,

  last: (s) => s.step.indexOf(s.last),
  orAll: (key) => (Page.set[key].length > 1 ? [Page.ALL, ...Page.set[key]] : Page.set[key]),
  strongest() { // the layer where the participation ratio changed most, or is largest where there is no baseline
    const size = (s) => { const i = Page.last(s), ratio = Page.at(s, "ratio", i); return ratio === null ? [0, Page.at(s, "value", i) ?? 0] : [1, Math.abs(Math.log(ratio))]; };
    const found = Page.data.series.filter((s) => s.score === "pr" && s.k === 2 && s.selection === "all").map((s) => ({ layer: s.layer, size: size(s) }));
    return found.sort((a, b) => b.size[0] - a.size[0] || b.size[1] - a.size[1])[0]?.layer;
  },

  exact: (s, i) => s.exact || Page.at(s, "exact", i) === 1,

  // "exact" or what the sampling error of the mean is, and how many points had no value
  how(s, i) {
    const error = Page.at(s, "stderr", i), none = Page.at(s, "undefined", i);
    return (Page.exact(s, i) || !error ? (Page.exact(s, i) ? "exact" : "sampled") : `~ sampled, standard error ${Format.number(error, 2)}`) + (none ? `; ${none} undefined` : "");
  },
  note(host, found) { // under a chart: what of it was sampled, what was undefined
    const sampled = found.filter(({ s, i }) => !Page.exact(s, i)), none = found.reduce((sum, { s, i }) => sum + (Page.at(s, "undefined", i) ?? 0), 0), said = [];
    const worst = Math.max(0, ...sampled.map(({ s, i }) => Math.abs(Page.at(s, "stderr", i) / Page.at(s, "value", i)) || 0));
    if (sampled.length) said.push(`~ ${sampled.length} of these ${found.length} means were sampled; sampling errors are at most ${Format.number(100 * worst, 2)}% of the value.`);
    if (none) said.push(`${none} undefined values were left out of these means (see How computed).`);
    if (found.length && found.every(({ s, i }) => Page.at(s, "value_low", i) === null)) said.push(`One ${Page.set.thing === "layer" ? "network" : Page.set.thing} each: there are no intervals.`);
    if (Page.every().length > Page.FEW) said.push(`${Page.FEW} of ${Page.every().length} settings are drawn; choose a width or a ${Page.rest()} above.`);
    Dom.one(`[data-note=${host}]`).textContent = said.join(" ");
  },

  settle() { // bring the state to something that exists
    const { state } = Page;
    for (const [name, control] of Object.entries(CONTROLS)) {
      const options = control.options(), found = options.find((v) => String(v) === String(state[name]));
      state[name] = found ?? options.find((v) => v === control.start) ?? options[0];
    }
    if (state.step !== "last" && !Page.steps().includes(Number(state.step))) state.step = "last";
  },
  parse(text) {
    const found = {};
    for (const [key, value] of new URLSearchParams(text)) {
      if (key in CONTROLS || key === "step") found[key] = value;
    }
    return found;
  },
  readAddress() {
    if (!location.hash.startsWith("#s:")) return false;
    Object.assign(Page.state, Page.parse(location.hash.slice(3)));
    return true;
  },
  writeAddress() {
    const parts = new URLSearchParams(), { state } = Page;
    for (const key of [...Object.keys(CONTROLS), "step"]) if (state[key] !== undefined) parts.set(key, state[key]);
    try { history.replaceState(null, "", "#s:" + parts); } catch { /* some browsers forbid it for files; the page works without */ }
  },
  draw(anew = false) { // each section whose part of the state has changed
    Controls.show();
    for (const section of Page.sections) {
      const signature = JSON.stringify(section.keys.map((key) => Page.state[key]));
      if (!anew && section.drawn === signature) continue;
      section.drawn = signature;
      section.draw();
    }
  },
  change(changes, address = true) { Object.assign(Page.state, changes); Page.settle(); Page.draw(); if (address) Page.writeAddress(); },
};

// each control: what may be chosen given the choices before it, and how a choice is named
const CONTROLS = {
  layer: { get label() { return Page.set.thing; }, options: () => Page.set.layers, name: (v) => v || "whole net", get start() { return Page.strongest(); } },
  score: { label: "score", options: () => Page.unique(Page.here().map((s) => s.score)).sort((a, b) => Page.order.get(a) - Page.order.get(b)), name: (v) => Page.scoreLabel(v), start: "pr" },
  k: { label: "order k", options: () => Page.numbers(Page.here((s) => s.score === Page.state.score).map((s) => s.k)), name: (v) => (v ? String(v) : "none"), start: 2 },
  measure: { label: "show", options: () => ["ratio", "difference", "value"].filter((name) => name === "value" || Page.here(Page.ofLayer).some((s) => s.data[Page.column[name]].some((v) => v !== null))), name: (v) => Page.WORDS[v] },
  axis: { label: "against", options: () => ["ball", "apart"].filter((kind) => Page.here().some((s) => s.kind === kind)).concat("layers"), name: (v) => ({ ball: "ball radius", apart: "minimum distance", layers: "layers" })[v] },
  selection: { label: "columns", options: () => Page.unique(Page.here(Page.ofLayer).map((s) => s.selection)), name: String, start: "all" },
  width: { label: "width", options: () => Page.orAll("widths"), name: (v) => (v === Page.ALL ? "all" : String(v)) },
  training: { get label() { return Page.rest(); }, options: () => Page.orAll("trainings"), name: (v) => (v === Page.ALL ? "all" : String(v)) },
  mapscore: { label: "score", options: () => Page.unique(Page.maps().map((m) => m.score)), name: (v) => Page.scoreLabel(v), start: "pr" },
  mapk: { label: "order k", options: () => Page.numbers(Page.maps((m) => m.score === Page.state.mapscore).map((m) => m.k)), name: String, start: 2 },
  mapmeasure: { label: "show", options: () => ["ratio", "value"].filter((name) => name === "value" || Page.maps((m) => m.score === Page.state.mapscore && m.k === Page.state.mapk).some((m) => m.ratio.some((v) => v !== null))), name: (v) => Page.WORDS[v] },
  maplabel: { label: "images", options: () => Page.unique(Where.same().map((m) => String(m.label))), name: (v) => Where.label(v), start: "null" },
  radius: { label: "window radius", options: () => Page.numbers(Where.same((m) => String(m.label) === Page.state.maplabel).map((m) => m.radius)), name: String, get start() { return CONTROLS.radius.options()[1]; } },
  maprange: { label: "colours", options: () => (Where.middle() ? ["centred"] : Page.state.mapmeasure === "ratio" ? ["spread", "centred"] : ["spread"]), name: (v) => ({ centred: "white at 1", spread: "over the values shown" })[v] },
  overlay: { label: "mean image", options: () => (Page.data.pictures.mean ? ["outline", "picture", "none"] : ["none"]), name: (v) => ({ outline: "outline", picture: "beneath the map", none: "not shown" })[v] },
  curvek: { label: "order k", options: () => Page.numbers(Page.curves().map((c) => c.k)), name: String, start: 2 },
  curveselection: { label: "columns", options: () => Page.unique(Page.curves((c) => c.k === Page.state.curvek).map((c) => c.selection)), name: String, start: "all" },
  rankaxis: { label: "rank axis", options: () => ["linear", "log"], name: String },
  unitsort: { label: "sort by", options: () => Object.keys(Units.SORTS), name: (v) => Units.SORTS[v][0] },
  unitfilter: { label: "only units", options: () => Object.keys(Units.FILTERS), name: (v) => Units.FILTERS[v][0] },
  unitscale: { label: "colours", options: () => ["own", "common"], name: (v) => ({ own: "each unit’s own range", common: "one range for all" })[v] },
};
