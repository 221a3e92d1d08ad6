"use strict";
// Small charts as SVG. A chart is drawn anew from its description at every change; colours are classes, so the theme applies.
const Charts = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const node = (tag, attributes = {}, text) => {
    const element = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const format = (value, digits = 4) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 2).replace("-", "−").replace("e+", "e");
    return String(Number(value.toPrecision(digits))).replace("-", "−");
  };
  const raised = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const tickText = (value) => { // far decades as powers of ten, which are short enough to stand beside an axis
    const exponent = Math.round(Math.log10(value));
    const decade = value > 0 && Math.abs(Math.log10(value) - exponent) < 1e-9 && (exponent < -3 || exponent > 4);
    return decade ? `10${String(exponent).replace(/./g, (digit) => raised[digit])}` : format(value);
  };
  function ticks(low, high, count = 6) {
    const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const out = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
    return out;
  }
  function logTicks(low, high) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9), every = Math.max(1, Math.ceil((last - first) / 6));
    const out = [];
    for (let e = first; e <= last; e += every) out.push(10 ** e);
    return out.length > 1 ? out : ticks(low, high, 4).filter((t) => t > 0);
  }
  const steppy = (first) => (x) => (x <= first ? (0.6 * x) / first : 0.6 + Math.log10(x / first)); // linear to the first step, decades after

  // chart: {series: [{name, colour, dashed, hollow, x, y, low, high, bars, steps, fill}], xLabel, yLabel, xTicks, x: "linear|log|step", y: "linear|log", reference, label}
  function lines(host, chart) {
    const narrow = host.clientWidth && host.clientWidth < 480;
    const W = narrow ? 400 : chart.small ? 520 : 900, H = narrow ? 290 : chart.small ? 330 : 380, L = 66, R = 14, T = 12, B = 48;
    const points = chart.series.flatMap((s) => s.x.map((x, i) => ({ x, y: s.y[i], low: s.low?.[i], high: s.high?.[i] }))).filter((p) => p.y !== null && p.y !== undefined);
    host.replaceChildren();
    if (!points.length) {
      const note = document.createElement("p");
      note.textContent = chart.none || "Nothing was measured for this choice.";
      host.append(note);
      return;
    }
    const xs = points.map((p) => p.x), minX = chart.xMin ?? Math.min(...xs), maxX = chart.xMax ?? Math.max(...xs);
    let ys = points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]);
    if (chart.reference !== undefined) ys.push(chart.reference);
    if (chart.y === "log") ys = [...points.map((p) => p.y), ...chart.series.map((s) => s.spike?.[1] ?? 0)].filter((y) => y > 0);
    let minY = Math.min(...ys), maxY = Math.max(...ys);
    if (chart.y === "log") { minY = Math.max(minY / 1.5, maxY * 1e-8); maxY *= 1.5; }
    else { const pad = (maxY - minY || Math.abs(maxY) * 0.1 || 1) * 0.07; minY -= pad; maxY += pad; }
    const first = Math.min(...xs.filter((x) => x > 0));
    const fx = chart.x === "log" ? Math.log10 : chart.x === "step" && Number.isFinite(first) ? steppy(first) : (x) => x;
    const fy = chart.y === "log" ? (y) => Math.log10(Math.max(y, minY)) : (y) => y;
    const spanX = fx(maxX) - fx(minX) || 1, inset = chart.x === "linear" && !chart.flush ? 26 : 8;
    const px = (x) => L + inset + ((fx(x) - fx(minX)) / spanX) * (W - L - R - 2 * inset);
    const py = (y) => H - B - ((fy(y) - fy(minY)) / (fy(maxY) - fy(minY) || 1)) * (H - B - T);
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": chart.label || `${chart.yLabel} against ${chart.xLabel}` });
    for (const y of chart.y === "log" ? logTicks(minY, maxY) : ticks(minY, maxY)) {
      if (y < minY || y > maxY) continue;
      svg.append(node("line", { x1: L, x2: W - R, y1: py(y), y2: py(y), class: "grid" }));
      svg.append(node("text", { x: L - 6, y: py(y) + 4, "text-anchor": "end", class: "tick" }, tickText(y)));
    }
    let places = chart.xTicks;
    if (!places && chart.x === "step") places = [[0, "0"], ...logTicks(first, maxX).map((t) => [t, format(t)])].filter(([t]) => t >= minX && t <= maxX);
    if (!places) places = (chart.x === "log" ? logTicks(minX, maxX) : ticks(minX, maxX)).map((t) => [t, format(t)]);
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
    svg.append(node("text", { transform: `translate(15 ${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, chart.yLabel));
    if (chart.reference !== undefined && chart.reference >= minY && chart.reference <= maxY)
      svg.append(node("line", { x1: L, x2: W - R, y1: py(chart.reference), y2: py(chart.reference), class: "reference" }));
    chart.series.forEach((s, place) => {
      const nudge = s.bars ? 5 * (place - (chart.series.length - 1) / 2) : 0;
      const kept = s.x.map((x, i) => ({ x: px(x) + nudge, at: x, y: s.y[i], low: s.low?.[i] ?? null, high: s.high?.[i] ?? null })).filter((p) => p.y !== null && p.y !== undefined);
      if (!kept.length) return;
      const colour = `var(--${s.colour})`, group = node("g");
      const banded = kept.filter((p) => p.low !== null && p.high !== null);
      if (s.bars) for (const p of banded) group.append(node("path", { d: `M${p.x} ${py(p.low)}V${py(p.high)}M${p.x - 3} ${py(p.low)}h6M${p.x - 3} ${py(p.high)}h6`, stroke: colour, "stroke-width": 1.3, fill: "none" }));
      else if (banded.length > 1) group.append(node("path", { class: "band", fill: colour, d: "M" + banded.map((p) => `${p.x} ${py(p.high)}`).join("L") + "L" + banded.reverse().map((p) => `${p.x} ${py(p.low)}`).join("L") + "Z" }));
      const path = s.steps ? kept.map((p, i) => `${i ? "V" + py(p.y) : "M" + p.x + " " + py(p.y)}H${i + 1 < kept.length ? kept[i + 1].x : p.x}`).join("") : "M" + kept.map((p) => `${p.x} ${py(p.y)}`).join("L");
      group.append(node("path", { d: path, class: "line" + (s.dashed ? " dashed" : ""), stroke: colour }));
      if (s.spike) group.append(node("line", { x1: px(s.spike[0]) + 6 * (place - (chart.series.length - 1) / 2), x2: px(s.spike[0]) + 6 * (place - (chart.series.length - 1) / 2), y1: H - B, y2: py(s.spike[1]), stroke: colour, "stroke-width": 5 }));
      if (!s.plain) for (const p of kept) {
        const dot = node("circle", { cx: p.x, cy: py(p.y), r: 4, class: s.hollow ? "hollow" : "", stroke: colour, fill: s.hollow ? "none" : colour });
        dot.append(node("title", {}, `${s.name}: ${format(p.at)} → ${format(p.y)}` + (p.low !== null ? ` (${format(p.low)} to ${format(p.high)})` : "")));
        group.append(dot);
      }
      svg.append(group);
    });
    host.append(svg, key(chart.series), tools(svg, chart.file || "chart"));
  }
  function key(series) {
    const list = document.createElement("div");
    list.className = "key";
    for (const s of series) {
      const item = document.createElement("span"), mark = node("svg", { viewBox: "0 0 30 12", "aria-hidden": "true" }), colour = `var(--${s.colour})`;
      mark.append(node("line", { x1: 1, x2: 29, y1: 6, y2: 6, stroke: colour, "stroke-width": 2, class: s.dashed ? "dashed" : "" }));
      if (!s.plain) mark.append(node("circle", { cx: 15, cy: 6, r: 4, stroke: colour, class: s.hollow ? "hollow" : "", fill: s.hollow ? "none" : colour }));
      item.append(mark, s.name);
      list.append(item);
    }
    return list;
  }
  // purple below 1, white at 1, orange above, as in the printed maps
  const PURPLE = [[247, 247, 247], [178, 171, 210], [84, 39, 136]], ORANGE = [[247, 247, 247], [253, 184, 99], [179, 88, 6]];
  function shade(part) {
    const stops = part < 0 ? PURPLE : ORANGE, t = Math.min(1, Math.abs(part)) * 2, i = Math.min(1, Math.floor(t)), f = t - i;
    return `rgb(${stops[i].map((c, j) => Math.round(c + f * (stops[i + 1][j] - c))).join(",")})`;
  }
  // map: {rows, columns, values, imageShape, centred, title, file}
  function heat(host, map) {
    host.replaceChildren();
    const step = (a) => (a.length > 1 ? Math.min(...a.slice(1).map((v, i) => v - a[i])) : 1);
    const dy = step(map.rows), dx = step(map.columns), top = map.imageShape ? -0.5 : map.rows[0] - dy / 2, left = map.imageShape ? -0.5 : map.columns[0] - dx / 2;
    const tall = map.imageShape ? map.imageShape[0] : map.rows.at(-1) + dy / 2 - top, wide = map.imageShape ? map.imageShape[1] : map.columns.at(-1) + dx / 2 - left;
    const size = 380 / Math.max(tall, wide), L = 46, T = 8, W = L + wide * size + 96, H = T + tall * size + 46;
    const finite = map.values.filter((v) => v !== null && (!map.centred || v > 0));
    if (!finite.length) { host.textContent = "Nothing was measured for this choice."; return; }
    const reach = map.centred ? Math.max(Math.log(1.05), ...finite.map((v) => Math.abs(Math.log(v)))) : 1;
    const low = Math.min(...finite), high = Math.max(...finite);
    const part = (v) => (map.centred ? Math.log(v) / reach : (v - low) / (high - low || 1));
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": map.title });
    svg.append(node("rect", { x: L, y: T, width: wide * size, height: tall * size, class: "empty" }));
    map.rows.forEach((row, r) => map.columns.forEach((column, c) => {
      const value = map.values[r * map.columns.length + c];
      if (value === null) return;
      const x0 = Math.max(0, column - dx / 2 - left), y0 = Math.max(0, row - dy / 2 - top), x1 = Math.min(wide, column + dx / 2 - left), y1 = Math.min(tall, row + dy / 2 - top);
      const cell = node("rect", { x: L + x0 * size, y: T + y0 * size, width: (x1 - x0) * size + 0.4, height: (y1 - y0) * size + 0.4, fill: shade(part(value)) });
      cell.append(node("title", {}, `row ${row}, column ${column}: ${format(value)}`));
      svg.append(cell);
    }));
    for (const t of ticks(0, wide - 1, 5)) if (Number.isInteger(t)) svg.append(node("text", { x: L + (t + 0.5) * size, y: T + tall * size + 16, "text-anchor": "middle", class: "tick" }, String(t)));
    for (const t of ticks(0, tall - 1, 5)) if (Number.isInteger(t)) svg.append(node("text", { x: L - 6, y: T + (t + 0.5) * size + 4, "text-anchor": "end", class: "tick" }, String(t)));
    svg.append(node("text", { x: L + (wide * size) / 2, y: H - 8, "text-anchor": "middle" }, "pixel column"), node("text", { transform: `translate(13 ${T + (tall * size) / 2}) rotate(-90)`, "text-anchor": "middle" }, "pixel row"));
    const barX = L + wide * size + 20, barH = tall * size;
    for (let i = 0; i < 60; i++) svg.append(node("rect", { x: barX, y: T + (barH * i) / 60, width: 16, height: barH / 60 + 0.5, fill: shade(map.centred ? 1 - (2 * (i + 0.5)) / 60 : 1 - (i + 0.5) / 60) }));
    const marks = map.centred ? [[0, Math.exp(reach)], [0.25, Math.exp(reach / 2)], [0.5, 1], [0.75, Math.exp(-reach / 2)], [1, Math.exp(-reach)]] : [[0, high], [0.5, (high + low) / 2], [1, low]];
    for (const [at, value] of marks) svg.append(node("text", { x: barX + 22, y: T + at * barH + (at === 0 ? 10 : at === 1 ? 0 : 4), class: "tick" }, format(value, 3)));
    host.append(svg, tools(svg, map.file || "map"));
  }
  function save(name, type, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 5000);
  }
  function standalone(svg) { // the page's styles written into the picture itself
    const copy = svg.cloneNode(true), from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
    from.forEach((element, i) => {
      const look = getComputedStyle(element);
      for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family"]) to[i].setAttribute(name, look.getPropertyValue(name));
    });
    const [, , width, height] = svg.getAttribute("viewBox").split(" ");
    copy.setAttribute("xmlns", NS); copy.setAttribute("width", width); copy.setAttribute("height", height);
    const back = node("rect", { width: "100%", height: "100%", fill: getComputedStyle(svg.parentElement).backgroundColor });
    copy.prepend(back);
    return new XMLSerializer().serializeToString(copy);
  }
  function tools(svg, file) {
    const row = document.createElement("div");
    row.className = "tools";
    const button = (text, act) => { const b = document.createElement("button"); b.type = "button"; b.textContent = text; b.addEventListener("click", act); row.append(b); };
    button("SVG", () => save(file + ".svg", "image/svg+xml", standalone(svg)));
    button("PNG", () => {
      const image = new Image(), [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
      image.onload = () => {
        const canvas = document.createElement("canvas");
        canvas.width = width * 2; canvas.height = height * 2;
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => save(file + ".png", "image/png", blob));
      };
      image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(standalone(svg));
    });
    return row;
  }
  return { lines, heat, format, save };
})();
