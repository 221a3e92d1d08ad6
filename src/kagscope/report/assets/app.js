// The page's controls. All share one state, kept in the address as #s:layer=1&k=2…, so that a view can be sent to a colleague.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent), set = data.settings, column = Object.fromEntries(data.columns.map((name, i) => [name, i]));
  const all = (selector, root = document) => [...root.querySelectorAll(selector)], one = (selector, root = document) => root.querySelector(selector);
  const unique = (list) => [...new Set(list)], numbers = (list) => unique(list).sort((a, b) => a - b);
  const labels = Object.fromEntries(set.scores), layerLabels = Object.fromEntries(set.layers), WORDS = { ratio: "trained / initial", difference: "trained − initial", value: "value", baseline: "initial value" };
  const colourOf = (width) => "c" + (set.widths.indexOf(width) % 6), state = {}, NOTHING = "Nothing was measured for this choice.";

  // each control: what may be chosen given the choices before it, and how a choice is named
  const here = (test) => data.series.filter((s) => s.layer === state.layer && test(s));
  const mapsHere = (test = () => true) => data.maps.filter((m) => m.layer === state.layer && test(m)), curvesHere = (test = () => true) => data.curves.filter((c) => c.layer === state.layer && test(c));
  const CONTROLS = {
    layer: { label: "layer", options: () => set.layers.map(([name]) => name), name: (v) => layerLabels[v] },
    score: { label: "score", options: () => unique(here(() => true).map((s) => s.score)).sort((a, b) => order(a) - order(b)), name: (v) => labels[v] ?? v, start: "pr" },
    k: { label: "order k", options: () => numbers(here((s) => s.score === state.score).map((s) => s.k)), name: (v) => (v ? String(v) : "none"), start: 2 },
    measure: { label: "show", options: () => ["ratio", "difference", "value"], name: (v) => WORDS[v] },
    axis: { label: "against", options: () => ["ball", "apart"], name: (v) => ({ ball: "ball radius", apart: "minimum distance" })[v] },
    selection: { label: "columns", options: () => unique(here((s) => s.score === state.score && s.k === state.k).map((s) => s.selection)), name: String, start: "all" },
    width: { label: "width", options: () => set.widths, name: String, start: set.widths.at(-1) },
    training: { label: "training", options: () => set.trainings, name: String },
    mapscore: { label: "score", options: () => unique(mapsHere().map((m) => m.score)), name: (v) => labels[v] ?? v, start: "pr" },
    mapk: { label: "order k", options: () => numbers(mapsHere().map((m) => m.k)), name: String, start: 2 },
    mapmeasure: { label: "show", options: () => ["ratio", "value"], name: (v) => WORDS[v] },
    radius: { label: "window radius", options: () => numbers(mapsHere((m) => m.score === state.mapscore).map((m) => m.radius)), name: String },
    curvek: { label: "order k", options: () => numbers(curvesHere().map((c) => c.k)), name: String, start: 2 },
    curveselection: { label: "columns", options: () => unique(curvesHere().map((c) => c.selection)), name: String, start: "all" },
    rankaxis: { label: "rank axis", options: () => ["linear", "log"], name: String },
  };
  const order = (score) => { const at = set.scores.findIndex(([name]) => name === score); return at < 0 ? 999 : at; };
  const steps = () => numbers(here((s) => s.score === state.score && s.k === state.k).flatMap((s) => s.step));

  function settle() { // bring the state to something that exists
    for (const [name, control] of Object.entries(CONTROLS)) {
      const options = control.options(), found = options.find((v) => String(v) === String(state[name]));
      state[name] = found ?? options.find((v) => v === control.start) ?? options[0];
    }
    for (const key of ["widths", "trainings"]) {
      const chosen = state[key] === undefined ? set[key] : set[key].filter((v) => state[key].map(String).includes(String(v)));
      state[key] = chosen;
    }
    const possible = steps();
    if (state.step !== "last" && !possible.includes(Number(state.step))) state.step = "last";
  }
  function readAddress() {
    if (!location.hash.startsWith("#s:")) return false;
    for (const [key, value] of new URLSearchParams(location.hash.slice(3))) {
      if (key === "widths" || key === "trainings") state[key] = value === "" ? [] : value.split("~");
      else if (key in CONTROLS || key === "step") state[key] = value;
    }
    return true;
  }
  function writeAddress() {
    const parts = new URLSearchParams();
    for (const key of [...Object.keys(CONTROLS), "step"]) if (state[key] !== undefined) parts.set(key, state[key]);
    for (const key of ["widths", "trainings"]) if (state[key].length !== set[key].length) parts.set(key, state[key].join("~"));
    try { history.replaceState(null, "", "#s:" + parts); } catch { /* some browsers forbid it for files; the page works without */ }
  }

  function buildControls() {
    for (const host of all("[data-controls]")) for (const key of host.dataset.controls.split(" ")) {
      const label = document.createElement("label"), select = document.createElement("select");
      select.dataset.key = key;
      select.addEventListener("change", () => change({ [key]: select.value }));
      label.append(CONTROLS[key].label, select);
      host.append(label);
    }
    for (const host of all("[data-toggles]")) for (const value of set[host.dataset.toggles]) {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox"; box.value = value; box.dataset.toggle = host.dataset.toggles;
      box.addEventListener("change", () => change({ [box.dataset.toggle]: all(`[data-toggle=${box.dataset.toggle}]`).filter((b) => b.checked).map((b) => b.value) }));
      label.append(box, String(value));
      host.append(label);
    }
    const slider = one("[data-slider=step]");
    slider.addEventListener("input", () => { const s = steps(), at = Number(slider.value); change({ step: at >= s.length - 1 ? "last" : s[at] }); });
    one("[data-play]").addEventListener("click", play);
    one("[data-filter]").addEventListener("input", drawRuns);
    for (const link of all("a[data-view]")) link.addEventListener("click", () => change(Object.fromEntries(new URLSearchParams(link.dataset.view)), false));
  }
  function showControls() {
    for (const select of all("select[data-key]")) {
      const control = CONTROLS[select.dataset.key], options = control.options();
      select.replaceChildren(...options.map((value) => new Option(control.name(value), value, false, String(value) === String(state[select.dataset.key]))));
      select.disabled = options.length < 2;
    }
    for (const box of all("[data-toggle]")) box.checked = state[box.dataset.toggle].map(String).includes(box.value);
    const possible = steps(), slider = one("[data-slider=step]");
    slider.max = Math.max(0, possible.length - 1);
    slider.value = state.step === "last" ? slider.max : possible.indexOf(Number(state.step));
    const text = state.step === "last" ? "trained (last of each run)" : String(state.step);
    slider.setAttribute("aria-valuetext", text);
    one("[data-output=step]").textContent = text;
  }
  let timer = null;
  function play() {
    const button = one("[data-play]");
    if (timer) { clearInterval(timer); timer = null; } else {
      const moves = steps();
      let at = state.step === "last" ? 0 : moves.indexOf(Number(state.step));
      timer = setInterval(() => {
        change({ step: at >= moves.length - 1 ? "last" : moves[at] });
        if (at++ >= moves.length - 1) { clearInterval(timer); timer = null; button.setAttribute("aria-pressed", "false"); button.textContent = "Play"; }
      }, 450);
    }
    button.setAttribute("aria-pressed", String(Boolean(timer)));
    button.textContent = timer ? "Stop" : "Play";
  }

  const shown = (s) => state.widths.includes(s.width) && state.trainings.includes(s.training);
  const look = (s) => ({ name: `width ${s.width}, ${s.training}`, colour: colourOf(s.width), dashed: s.training !== "standard", hollow: s.training !== "standard" });
  const settings = () => set.widths.flatMap((width) => set.trainings.map((training) => ({ width, training }))).filter(shown);
  const at = (s, name, i) => s.data[column[name]][i];
  const reference = () => (state.measure === "ratio" ? 1 : state.measure === "difference" ? 0 : undefined);
  const yLabel = () => `${labels[state.score] ?? state.score}, ${WORDS[state.measure]}`;

  function drawScales() {
    const found = here((s) => s.score === state.score && s.k === state.k && (s.kind === state.axis || s.selection === "all") && shown(s));
    const scales = numbers(found.filter((s) => s.scale !== null).map((s) => s.scale)), largest = scales.at(-1) ?? 0;
    const diagonal = set.imageShape ? Math.hypot(set.imageShape[0] - 1, set.imageShape[1] - 1) : 0;
    const allAt = state.axis === "apart" ? 0 : diagonal > 1.05 * largest ? diagonal : 1.25 * largest || 1;
    const rows = [];
    const series = settings().map((setting) => {
      const line = found.filter((s) => s.width === setting.width && s.training === setting.training)
        .map((s) => ({ s, x: s.selection === "all" ? allAt : s.scale, i: s.step.indexOf(state.step === "last" ? s.last : Number(state.step)) }))
        .filter((p) => p.i >= 0).sort((a, b) => a.x - b.x);
      for (const p of line) rows.push([setting.width, setting.training, p.s.selection, p.s.step[p.i], at(p.s, state.measure, p.i), at(p.s, state.measure + "_low", p.i), at(p.s, state.measure + "_high", p.i), at(p.s, "seeds", p.i), p.s.exact ? "exact" : "sampled"]);
      const pick = (end) => line.map((p) => at(p.s, state.measure + end, p.i));
      return { ...look(setting), bars: true, x: line.map((p) => p.x), y: pick(""), low: pick("_low"), high: pick("_high") };
    }).filter((s) => s.x.length);
    if (state.measure === "value") for (const setting of settings()) { // the nets these started from
      const line = found.filter((s) => s.width === setting.width && s.training === setting.training)
        .map((s) => ({ x: s.selection === "all" ? allAt : s.scale, s, i: s.step.indexOf(s.last) })).filter((p) => p.i >= 0).sort((a, b) => a.x - b.x);
      if (setting.training === state.trainings[0]) series.push({ name: `width ${setting.width}, initial`, colour: "initial", plain: true, dashed: true, x: line.map((p) => p.x), y: line.map((p) => at(p.s, "baseline", p.i)) });
    }
    const xTicks = [...scales.map((x) => [x, String(x)]), [allAt, "all"]].sort((a, b) => a[0] - b[0]);
    Charts.lines(one("[data-chart=scales]"), { series, x: "linear", y: "linear", xTicks, reference: reference(), yLabel: yLabel(), file: "scales", none: NOTHING + " Selections may have been measured at the last step only.",
      xLabel: state.axis === "ball" ? "ball radius (pixels)" : "minimum distance between columns (pixels)" });
    table("scales", ["width", "training", "selection", "step", WORDS[state.measure], "low", "high", "seeds", "how"], rows);
  }
  function drawWhere() {
    const host = one("[data-chart=where]");
    const map = mapsHere((m) => m.score === state.mapscore && m.k === state.mapk && m.width === state.width && m.training === state.training && m.radius === state.radius)[0];
    if (!map) { host.textContent = data.maps.length ? NOTHING : "No windows were measured."; one("[data-table=where]").replaceChildren(); return; }
    Charts.heat(host, { ...map, values: map[state.mapmeasure], centred: state.mapmeasure === "ratio", imageShape: set.imageShape, file: "where", title: `${labels[map.score] ?? map.score} in windows of radius ${map.radius}, ${WORDS[state.mapmeasure]}` });
    table("where", ["row", "column", WORDS[state.mapmeasure]], map.rows.flatMap((r, i) => map.columns.map((c, j) => [r, c, map[state.mapmeasure][i * map.columns.length + j]])));
  }
  function drawMinors() {
    const found = curvesHere((c) => c.k === state.curvek && c.width === state.width && c.selection === state.curveselection), rows = [];
    const pick = (kind) => {
      const initial = found.find((c) => c.curve === kind && c.stage === "initial");
      const trained = set.trainings.map((t, i) => ({ c: found.find((c) => c.curve === kind && c.stage === "trained" && c.training === t), name: "trained, " + t, colour: "c" + (i % 6) })).filter((e) => e.c);
      return [...(initial ? [{ c: initial, name: "initial", colour: "initial" }] : []), ...trained];
    };
    for (const kind of ["histogram", "zipf"]) for (const e of pick(kind)) {
      if (kind === "histogram") rows.push([kind, e.name, "exact zeros", e.c.zeros]);
      e.c.x.forEach((x, i) => rows.push([kind, e.name, x, e.c.y[i]]));
    }
    const bars = pick("histogram"), left = Math.floor(Math.min(...bars.map((e) => leftEnd(e.c)))), right = Math.max(...bars.flatMap((e) => e.c.x)), zeroAt = left - Math.max(1.5, 0.08 * (right - left));
    Charts.lines(one("[data-chart=histogram]"), { small: true, flush: true, x: "linear", y: "log", xMin: zeroAt - 0.5, file: "histogram", xLabel: "log₂(minor / mean minor); left: exact zeros", yLabel: "fraction per ⅛ octave",
      xTicks: bars.length ? [[zeroAt, "0"], ...ticksFor(left, right)] : undefined,
      series: bars.map((e) => ({ name: e.name, colour: e.colour, plain: true, steps: true, x: e.c.x.filter((x) => x >= left), y: e.c.y.filter((_, i) => e.c.x[i] >= left), spike: e.c.zeros > 0 ? [zeroAt, e.c.zeros] : undefined })) });
    Charts.lines(one("[data-chart=zipf]"), { small: true, flush: true, x: state.rankaxis, y: "log", file: "zipf", xLabel: "rank / number of rows", yLabel: "row mean / overall mean",
      series: pick("zipf").map((e) => ({ name: e.name, colour: e.colour, plain: true, dashed: e.name === "initial", x: e.c.x.map((x) => x / e.c.count), y: e.c.y })) });
    table("minors", ["curve", "net", "x", "y"], rows);
  }
  function leftEnd(curve) { // left of it lie fewer than one minor in 10,000
    let sum = 0;
    const i = curve.y.findIndex((y) => (sum += y) >= 1e-4);
    return curve.x[Math.max(0, i)] ?? 0;
  }
  function ticksFor(low, high) {
    const every = [1, 2, 4, 5, 10, 20, 50, 100].find((s) => (high - low) / s <= 7) ?? 200, out = [];
    for (let v = Math.ceil((low + 0.5) / every) * every; v <= high; v += every) out.push([v, String(v).replace("-", "−")]);
    return out;
  }
  function drawTraining() {
    one("[data-heading=score]").textContent = labels[state.score] ?? state.score;
    const found = here((s) => s.score === state.score && s.k === state.k && s.selection === state.selection && shown(s)), rows = [];
    const series = settings().map((setting) => {
      const s = found.find((f) => f.width === setting.width && f.training === setting.training);
      if (!s) return null;
      s.step.forEach((step, i) => rows.push([s.width, s.training, step, at(s, state.measure, i), at(s, state.measure + "_low", i), at(s, state.measure + "_high", i), at(s, "seeds", i)]));
      return { ...look(s), x: s.step, y: s.data[column[state.measure]], low: s.data[column[state.measure + "_low"]], high: s.data[column[state.measure + "_high"]] };
    }).filter(Boolean);
    Charts.lines(one("[data-chart=steps]"), { small: true, x: "step", y: "linear", series, reference: reference(), file: "steps", xLabel: "training step", yLabel: WORDS[state.measure] });
    Charts.lines(one("[data-chart=accuracy]"), { small: true, x: "step", y: "linear", file: "accuracy", xLabel: "training step", yLabel: "test accuracy", none: "No accuracies were recorded.",
      series: data.accuracy.filter(shown).map((a) => ({ ...look(a), x: a.step, y: a.value, low: a.low, high: a.high })) });
    table("training", ["width", "training", "step", WORDS[state.measure], "low", "high", "seeds"], rows);
  }
  let sortBy = ["width", 1];
  function drawRuns() {
    const head = ["run", "width", "training", "seed", "step", "epoch", "accuracy", ...set.runLayers.map((label) => `PR ratio, ${label}`)];
    const wanted = one("[data-filter]").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const rows = data.runs.map((r) => [r.run, r.width, r.training, r.seed, r.step, r.epoch, r.accuracy, ...r.pr]).filter((row) => wanted.every((word) => row.slice(0, 4).join(" ").toLowerCase().includes(word)));
    const place = head.indexOf(sortBy[0]);
    rows.sort((a, b) => sortBy[1] * (a[place] === null ? 1 : b[place] === null ? -1 : typeof a[place] === "string" ? a[place].localeCompare(b[place]) : a[place] - b[place]));
    table("runs", head, rows, { open: true, sortable: true, link: (row) => `runs/${encodeURIComponent(row[0])}/config.json` });
  }

  function cell(value) { return typeof value === "number" ? (Number.isInteger(value) ? String(value) : Charts.format(value)) : value === null || value === undefined ? "–" : String(value); }
  function table(name, head, rows, { open = false, sortable = false, link = null } = {}) {
    const host = one(`[data-table=${name}]`), wasOpen = one("details", host)?.open ?? false, focus = document.activeElement?.dataset?.sort;
    const csv = document.createElement("button");
    csv.type = "button"; csv.textContent = "CSV";
    const quote = (value) => { const text = value === null || value === undefined ? "" : String(value); const safe = typeof value === "string" && /^[=+\-@\t]/.test(text) ? "'" + text : text; return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe; };
    csv.addEventListener("click", () => Charts.save(`kagscope-${name}.csv`, "text/csv", [head, ...rows].map((row) => row.map(quote).join(",")).join("\n") + "\n"));
    const scroll = document.createElement("div");
    scroll.className = "scroll tall"; scroll.tabIndex = 0; scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", `numbers: ${name}`);
    const fill = () => {
      const element = document.createElement("table"), top = element.createTHead().insertRow(), body = element.createTBody();
      head.forEach((text) => {
        const th = document.createElement("th");
        th.scope = "col";
        if (sortable) {
          const b = document.createElement("button");
          b.type = "button"; b.dataset.sort = text; b.textContent = text + (sortBy[0] === text ? (sortBy[1] > 0 ? " ↑" : " ↓") : "");
          if (sortBy[0] === text) th.setAttribute("aria-sort", sortBy[1] > 0 ? "ascending" : "descending");
          b.addEventListener("click", () => { sortBy = [text, sortBy[0] === text ? -sortBy[1] : 1]; drawRuns(); });
          th.append(b);
        } else th.textContent = text;
        top.append(th);
      });
      for (const row of rows) { const tr = body.insertRow(); for (const value of row) { const td = tr.insertCell(); td.textContent = cell(value); if (typeof value === "number") td.className = "number"; }
        if (link) { const a = document.createElement("a"); a.href = link(row); a.textContent = row[0]; tr.cells[0].replaceChildren(a); } }
      scroll.replaceChildren(element);
    };
    const bar = document.createElement("div");
    bar.className = "tools"; bar.append(csv);
    if (open) { fill(); host.replaceChildren(scroll, bar); if (focus) one(`[data-sort="${CSS.escape(focus)}"]`, host)?.focus(); return; }
    const details = document.createElement("details"), summary = document.createElement("summary");
    summary.textContent = `The ${rows.length} numbers shown`;
    details.append(summary, scroll, bar);
    details.addEventListener("toggle", () => { if (details.open && !scroll.firstChild) fill(); });
    if (wasOpen) { details.open = true; fill(); }
    host.replaceChildren(details);
  }

  function draw() { showControls(); drawScales(); drawWhere(); drawMinors(); drawTraining(); }
  function change(changes, address = true) { if (!usable) return; Object.assign(state, changes); settle(); draw(); if (address) writeAddress(); }
  const usable = data.series.length > 0;
  state.step = "last";
  readAddress();
  settle();
  buildControls();
  for (const part of all(".interactive")) part.hidden = false;
  for (const figures of all("details.static")) figures.open = !usable;
  if (usable) draw();
  drawRuns();
  addEventListener("hashchange", () => { if (readAddress()) { settle(); draw(); } });
  addEventListener("beforeprint", () => { for (const figures of all("details.static")) figures.open = true; });
  let wait = 0, wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth === wide) return; wide = innerWidth; clearTimeout(wait); wait = setTimeout(() => usable && draw(), 150); });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
