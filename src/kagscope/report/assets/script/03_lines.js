// Line charts. A chart is drawn anew from its description at every change; colours are classes, so the theme applies.
const Lines = (() => {
  const { node } = Svg, format = Format.number;
  const steppy = (first) => (x) => (x <= first ? (0.6 * x) / first : 0.6 + Math.log10(x / first)); // linear to the first step, decades after
  const DIGIT = 6.8; // width of a digit at a tick
  const there = (value) => value !== null && value !== undefined;

  // chart: {series: [{name, colour, dashed, hollow, plain, x, y, low, high, sampled, bars, steps, spike, mark}], xLabel, yLabel, xTicks,
  //         x: "linear|log|step", y: "linear|log", reference, label, file, none, small, keyless}
  function draw(host, chart) {
    const W = host.clientWidth ? Math.max(280, Math.min(1040, host.clientWidth - 16)) : chart.small ? 520 : 900, H = Math.round(Math.max(230, Math.min(380, 150 + W / 4))), R = 14, T = 12, B = 48;
    const words = chart.yLabel.length > (H - B - T) / 6.8 ? chart.yLabel.split(": ") : [chart.yLabel]; // a long label in two lines
    const points = chart.series.flatMap((s) => s.x.map((x, i) => ({ x, y: s.y[i], low: s.low?.[i], high: s.high?.[i] }))).filter((p) => there(p.y));
    if (!points.length) { host.replaceChildren(Dom.make("p", { textContent: chart.none || "Nothing was measured for this choice." })); return; }
    const range = axes(chart, points, { W, H, L: 0, R, T, B }).ys, heights = (chart.y === "log" ? Svg.logTicks(...range) : Svg.ticks(...range)).filter((y) => y >= range[0] && y <= range[1]);
    const texts = Format.ticks(heights), L = 20 + 17 * words.length + DIGIT * Math.max(...texts.map((text) => text.length)); // room for the label and what stands at the ticks
    const { px, py, first, xs, ys } = axes(chart, points, { W, H, L, R, T, B });
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${chart.label || `${chart.yLabel} against ${chart.xLabel}`}; the numbers are in the table that follows` });
    for (const [i, y] of heights.entries()) {
      svg.append(node("line", { x1: L, x2: W - R, y1: py(y), y2: py(y), class: "grid" }));
      svg.append(node("text", { x: L - 6, y: py(y) + 4, "text-anchor": "end", class: "tick" }, texts[i]));
    }
    let places = chart.xTicks;
    if (!places && chart.x === "step") places = [[0, "0"], ...Svg.logTicks(first, xs[1]).map((t) => [t, format(t)])].filter(([t]) => t >= xs[0] && t <= xs[1]);
    if (!places) places = (chart.x === "log" ? Svg.logTicks(...xs) : Svg.ticks(...xs)).map((t) => [t, format(t)]);
    let lastAt = -99;
    for (const [x, text] of places) {
      const at = px(x);
      svg.append(node("line", { x1: at, x2: at, y1: H - B, y2: H - B + 5, class: "frame" }));
      if (at - lastAt < 11 + 6.5 * text.length) continue;
      lastAt = at;
      svg.append(node("text", { x: at, y: H - B + 19, "text-anchor": "middle", class: "tick" }, text));
    }
    svg.append(node("line", { x1: L, x2: W - R, y1: H - B, y2: H - B, class: "frame" }), node("line", { x1: L, x2: L, y1: T, y2: H - B, class: "frame" }));
    svg.append(node("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, chart.xLabel));
    words.forEach((text, i) => svg.append(node("text", { transform: `translate(${15 + 17 * i} ${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, text)));
    if (chart.reference !== undefined && chart.reference >= ys[0] && chart.reference <= ys[1])
      svg.append(node("line", { x1: L, x2: W - R, y1: py(chart.reference), y2: py(chart.reference), class: "reference" }));
    const at = [...new Set(points.map((p) => px(p.x)))].sort((a, b) => a - b), gap = Math.min(...at.slice(1).map((x, i) => x - at[i])); // lines stand side by side, near to their place
    const apart = Math.min(5, (0.4 * gap) / chart.series.length);
    chart.series.forEach((s, place) => svg.append(line(s, place - (chart.series.length - 1) / 2, apart, px, py, H - B)));
    host.replaceChildren(svg, ...(chart.keyless ? [] : [key(chart.series)]), Svg.tools(svg, chart.file || "chart", chart.series.map((s, i) => saved(s, L, H + Svg.ROW * (i + 0.5)))));
  }

  function axes(chart, points, { W, H, L, R, T, B }) {
    const all = points.map((p) => p.x), minX = chart.xMin ?? Math.min(...all), maxX = chart.xMax ?? Math.max(...all);
    let values = points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]);
    if (chart.reference !== undefined) values.push(chart.reference);
    if (chart.y === "log") values = [...points.map((p) => p.y), ...chart.series.map((s) => s.spike?.[1] ?? 0)].filter((y) => y > 0);
    let minY = Math.min(...values), maxY = Math.max(...values);
    if (chart.y === "log") { minY = Math.max(minY / 1.5, maxY * 1e-8); maxY *= 1.5; }
    else { const pad = (maxY - minY || Math.abs(maxY) * 0.1 || 1) * 0.07; minY -= pad; maxY += pad; }
    const first = Math.min(...all.filter((x) => x > 0));
    const fx = chart.x === "log" ? Math.log10 : chart.x === "step" && Number.isFinite(first) ? steppy(first) : (x) => x;
    const fy = chart.y === "log" ? (y) => Math.log10(Math.max(y, minY)) : (y) => y;
    const spanX = fx(maxX) - fx(minX), inset = chart.x === "linear" && !chart.flush ? 26 : 8;
    const px = (x) => L + inset + (spanX ? (fx(x) - fx(minX)) / spanX : 0.5) * (W - L - R - 2 * inset);
    const py = (y) => H - B - ((fy(y) - fy(minY)) / (fy(maxY) - fy(minY) || 1)) * (H - B - T);
    return { px, py, first, xs: [minX, maxX], ys: [minY, maxY] };
  }

  function line(s, offset, apart, px, py, floor) {
    const nudge = s.bars ? apart * offset : 0, group = node("g"), colour = `var(--${s.colour})`;
    const kept = s.x.map((x, i) => ({ i, x: px(x) + nudge, at: x, y: s.y[i], low: s.low?.[i] ?? null, high: s.high?.[i] ?? null })).filter((p) => there(p.y));
    if (!kept.length) return group;
    const banded = kept.filter((p) => p.low !== null && p.high !== null);
    if (s.bars) for (const p of banded) group.append(node("path", { d: `M${p.x} ${py(p.low)}V${py(p.high)}M${p.x - 3} ${py(p.low)}h6M${p.x - 3} ${py(p.high)}h6`, stroke: colour, "stroke-width": 1.3, fill: "none" }));
    else if (banded.length > 1) group.append(node("path", { class: "band", fill: colour, d: "M" + banded.map((p) => `${p.x} ${py(p.high)}`).join("L") + "L" + [...banded].reverse().map((p) => `${p.x} ${py(p.low)}`).join("L") + "Z" }));
    const path = s.steps ? kept.map((p, i) => `${i ? "V" + py(p.y) : "M" + p.x + " " + py(p.y)}H${i + 1 < kept.length ? kept[i + 1].x : p.x}`).join("") : "M" + kept.map((p) => `${p.x} ${py(p.y)}`).join("L");
    group.append(node("path", { d: path, class: "line" + (s.dashed ? " dashed" : ""), stroke: colour }));
    if (s.spike) { const at = px(s.spike[0]) + 6 * offset; group.append(node("line", { x1: at, x2: at, y1: floor, y2: py(s.spike[1]), stroke: colour, "stroke-width": 5 })); }
    if (!s.plain) for (const p of kept) {
      const dot = node("circle", { cx: p.x, cy: py(p.y), r: 4, class: s.hollow ? "hollow" : "", stroke: colour, fill: s.hollow ? "none" : colour });
      dot.append(node("title", {}, `${s.name}: ${format(p.at)} → ${s.sampled?.[p.i] ? "~ " : ""}${format(p.y)}${Format.interval(p.low, p.high)}${s.sampled?.[p.i] ? `, sampled with standard error ${s.sampled[p.i]}` : ""}`));
      group.append(dot);
    }
    const marked = there(s.mark) ? kept.find((p) => p.at === s.mark) : null;
    if (marked) {
      const mark = node("path", { d: `M${marked.x} ${py(marked.y) - 8}l-6 -11h12z`, fill: colour, class: "mark" });
      mark.append(node("title", {}, `${s.name}: onset at step ${s.mark}`));
      group.append(mark);
    }
    return group;
  }

  function mark(s) { // 30 wide, 12 high
    const colour = `var(--${s.colour})`, line = node("line", { x1: 1, x2: 29, y1: 6, y2: 6, stroke: colour, "stroke-width": 2, class: s.dashed ? "dashed" : "" });
    return s.plain ? [line] : [line, node("circle", { cx: 15, cy: 6, r: 4, stroke: colour, class: s.hollow ? "hollow" : "", fill: s.hollow ? "none" : colour })];
  }

  function key(series) {
    const list = Dom.make("div", { className: "key" });
    for (const s of series) {
      const svg = node("svg", { viewBox: "0 0 30 12", "aria-hidden": "true" });
      svg.append(...mark(s));
      list.append(Dom.make("span", {}, svg, Dom.make("bdi", { textContent: s.name })));
    }
    return list;
  }

  function saved(s, x, y) { // a line of the key, below a chart that is saved
    const row = node("g", { transform: `translate(${x} ${y - 6})` });
    row.append(...mark(s), node("text", { x: 38, y: 10 }, s.name));
    return row;
  }
  return { draw, key };
})();
