// Maps in the colours of the figures in print, and a mean image or its outline over those of images.
const Heat = (() => {
  const { node } = Svg, NEAR = Math.log(1.05);
  function rgb(palette, part) { // of a place from 0 to 1
    const stops = Page.data.palettes[palette], at = Math.min(1, Math.max(0, part)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at));
    return stops[i].map((c, j) => Math.round(c + (at - i) * (stops[i + 1][j] - c)));
  }
  const shown = (values, ratio) => values.filter((v) => v !== null && (!ratio || v > 0));
  function middle(values) { // whether 1 is in the middle, as ratio_norm of figures/colours.py has it: ratios on both sides of it, or all near it
    const logs = shown(values, true).map(Math.log), low = Math.min(...logs), high = Math.max(...logs);
    return (low < 0 && high > 0) || Math.max(-low, high) < NEAR || low === high;
  }
  // how numbers become colours: ratios on a log scale, with 1 in the middle where asked for, other numbers evenly
  function scale(values, { ratio = false, centred = ratio && middle(values) }) {
    const size = ratio ? Math.log : Number, sizes = shown(values, ratio).map(size);
    let low = Math.min(...sizes), high = Math.max(...sizes);
    if (centred) { high = Math.max(NEAR, -low, high); low = -high; }
    const palette = centred ? "diverging" : "sequential", at = (part) => low + part * (high - low);
    return { palette, known: (v) => shown([v], ratio).length > 0, rgb: (v) => rgb(palette, (size(v) - low) / (high - low || 1)), at: (part) => (ratio ? Math.exp(at(part)) : at(part)) };
  }
  const dark = (colour) => colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0) < 0.281; // L* < 60
  const css = (colour) => `rgb(${colour.join(",")})`;

  // map: {rows, columns, values, low, high, imageShape, ratio, centred, title, file, picture, overlay: "outline|picture|none"}
  function draw(host, map) {
    const step = (a) => (a.length > 1 ? Math.min(...a.slice(1).map((v, i) => v - a[i])) : 1);
    const dy = step(map.rows), dx = step(map.columns), image = map.imageShape, top = image ? -0.5 : map.rows[0] - dy / 2, left = image ? -0.5 : map.columns[0] - dx / 2;
    const tall = image ? image[0] : map.rows.at(-1) + dy / 2 - top, wide = image ? image[1] : map.columns.at(-1) + dx / 2 - left;
    const size = 380 / Math.max(tall, wide), L = 46, T = 8, W = L + wide * size + 96, H = T + Math.max(tall * size, 90) + 46;
    const finite = shown(map.values, map.ratio);
    if (!finite.length) { host.replaceChildren(Dom.make("p", { textContent: "Nothing was measured for this choice." })); return; }
    const colours = scale(map.values, map);
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${map.title}, from ${Format.number(Math.min(...finite))} to ${Format.number(Math.max(...finite))}; the numbers are in the table that follows` });
    svg.append(node("rect", { x: L, y: T, width: wide * size, height: tall * size, class: "empty" }));
    const under = map.overlay === "picture" && map.picture && image, cells = node("g", under ? { opacity: 0.6 } : {});
    if (under) svg.append(picture(map.picture, image, L, T, size));
    map.rows.forEach((row, r) => map.columns.forEach((column, c) => {
      const at = r * map.columns.length + c, value = map.values[at];
      if (!colours.known(value)) return;
      const x0 = Math.max(0, column - dx / 2 - left), y0 = Math.max(0, row - dy / 2 - top), x1 = Math.min(wide, column + dx / 2 - left), y1 = Math.min(tall, row + dy / 2 - top);
      const cell = node("rect", { x: L + x0 * size, y: T + y0 * size, width: (x1 - x0) * size + 0.4, height: (y1 - y0) * size + 0.4, fill: css(colours.rgb(value)) });
      cell.append(node("title", {}, `row ${row}, column ${column}: ${Format.number(value)}${Format.interval(map.low?.[at], map.high?.[at])}`));
      cells.append(cell);
    }));
    svg.append(cells);
    if (map.overlay === "outline" && map.picture && image) for (const level of [64, 128]) {
      const d = outline(map.picture, image, level).map(([a, b]) => `M${L + a[0] * size} ${T + a[1] * size}L${L + b[0] * size} ${T + b[1] * size}`).join("");
      svg.append(node("path", { d, class: "outline halo" }), node("path", { d, class: "outline" }));
    }
    for (const t of Svg.ticks(0, wide - 1, 5)) if (Number.isInteger(t)) svg.append(node("text", { x: L + (t + 0.5) * size, y: T + tall * size + 16, "text-anchor": "middle", class: "tick" }, String(t)));
    for (const t of Svg.ticks(0, tall - 1, 5)) if (Number.isInteger(t)) svg.append(node("text", { x: L - 6, y: T + (t + 0.5) * size + 4, "text-anchor": "end", class: "tick" }, String(t)));
    svg.append(node("text", { x: L + (wide * size) / 2, y: T + tall * size + 36, "text-anchor": "middle" }, "pixel column"));
    if (tall * size > 80) svg.append(node("text", { transform: `translate(13 ${T + (tall * size) / 2}) rotate(-90)`, "text-anchor": "middle" }, "pixel row"));
    bar(svg, L + wide * size + 20, T, Math.max(tall * size, 90), colours);
    host.replaceChildren(svg, Svg.tools(svg, map.file || "map"));
  }

  function bar(svg, x, top, tall, { palette, at }) {
    for (let i = 0; i < 60; i++) svg.append(node("rect", { x, y: top + (tall * i) / 60, width: 16, height: tall / 60 + 0.5, fill: css(rgb(palette, 1 - (i + 0.5) / 60)) }));
    for (const part of [0, 0.25, 0.5, 0.75, 1]) svg.append(node("text", { x: x + 22, y: top + (1 - part) * tall + (part === 1 ? 10 : part === 0 ? 0 : 4), class: "tick" }, Format.number(at(part), 3)));
  }

  function picture(pixels, [tall, wide], L, T, size) {
    const canvas = Dom.make("canvas", { width: wide, height: tall }), context = canvas.getContext("2d"), data = context.createImageData(wide, tall);
    pixels.forEach((value, i) => data.data.set([255 - value, 255 - value, 255 - value, 255], 4 * i));
    context.putImageData(data, 0, 0);
    return node("image", { href: canvas.toDataURL("image/png"), x: L, y: T, width: wide * size, height: tall * size, class: "pixels" });
  }

  // marching squares: pieces of the line where the picture, between the middles of its pixels, equals the level
  function outline(pixels, [tall, wide], level) {
    const at = (r, c) => (r < 0 || c < 0 || r >= tall || c >= wide ? 0 : pixels[r * wide + c]), pieces = [];
    for (let r = -1; r < tall; r++) for (let c = -1; c < wide; c++) {
      const corners = [[r, c], [r, c + 1], [r + 1, c + 1], [r + 1, c]], cuts = [];
      corners.forEach(([r0, c0], i) => {
        const [r1, c1] = corners[(i + 1) % 4], a = at(r0, c0), b = at(r1, c1);
        if (a >= level === b >= level) return;
        const t = (level - a) / (b - a);
        cuts.push([Math.min(wide, Math.max(0, c0 + t * (c1 - c0) + 0.5)), Math.min(tall, Math.max(0, r0 + t * (r1 - r0) + 0.5))]);
      });
      for (let i = 0; i + 1 < cuts.length; i += 2) pieces.push([cuts[i], cuts[i + 1]]);
    }
    return pieces;
  }
  return { draw, rgb, scale, middle, dark, css, outline };
})();
