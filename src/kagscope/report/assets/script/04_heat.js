// Maps over an image: purple below 1, white at 1, orange above; where all lie on one side, white to orange; the outline of a mean image over them.
const Heat = (() => {
  const { node } = Svg, PURPLE = [[247, 247, 247], [178, 171, 210], [84, 39, 136]], ORANGE = [[247, 247, 247], [253, 184, 99], [179, 88, 6]];
  function rgb(part) {
    const stops = part < 0 ? PURPLE : ORANGE, t = Math.min(1, Math.abs(part)) * 2, i = Math.min(1, Math.floor(t)), f = t - i;
    return stops[i].map((c, j) => Math.round(c + f * (stops[i + 1][j] - c)));
  }
  const shade = (part) => `rgb(${rgb(part).join(",")})`;

  // map: {rows, columns, values, low, high, imageShape, centred, title, file, picture, overlay: "outline|picture|none"}
  function draw(host, map) {
    const step = (a) => (a.length > 1 ? Math.min(...a.slice(1).map((v, i) => v - a[i])) : 1);
    const dy = step(map.rows), dx = step(map.columns), image = map.imageShape, top = image ? -0.5 : map.rows[0] - dy / 2, left = image ? -0.5 : map.columns[0] - dx / 2;
    const tall = image ? image[0] : map.rows.at(-1) + dy / 2 - top, wide = image ? image[1] : map.columns.at(-1) + dx / 2 - left;
    const size = 380 / Math.max(tall, wide), L = 46, T = 8, W = L + wide * size + 96, H = T + Math.max(tall * size, 90) + 46;
    const finite = map.values.filter((v) => v !== null && (!map.centred || v > 0));
    if (!finite.length) { host.replaceChildren(Dom.make("p", { textContent: "Nothing was measured for this choice." })); return; }
    const reach = map.centred ? Math.max(Math.log(1.05), ...finite.map((v) => Math.abs(Math.log(v)))) : 1;
    const low = Math.min(...finite), high = Math.max(...finite);
    const part = (v) => (map.centred ? Math.log(v) / reach : (v - low) / (high - low || 1));
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${map.title}, from ${Format.number(low)} to ${Format.number(high)}; the numbers are in the table that follows` });
    svg.append(node("rect", { x: L, y: T, width: wide * size, height: tall * size, class: "empty" }));
    const under = map.overlay === "picture" && map.picture && image, cells = node("g", under ? { opacity: 0.6 } : {});
    if (under) svg.append(picture(map.picture, image, L, T, size));
    map.rows.forEach((row, r) => map.columns.forEach((column, c) => {
      const at = r * map.columns.length + c, value = map.values[at];
      if (value === null) return;
      const x0 = Math.max(0, column - dx / 2 - left), y0 = Math.max(0, row - dy / 2 - top), x1 = Math.min(wide, column + dx / 2 - left), y1 = Math.min(tall, row + dy / 2 - top);
      const cell = node("rect", { x: L + x0 * size, y: T + y0 * size, width: (x1 - x0) * size + 0.4, height: (y1 - y0) * size + 0.4, fill: shade(part(value)) });
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
    bar(svg, L + wide * size + 20, T, Math.max(tall * size, 90), map, reach, low, high);
    host.replaceChildren(svg, Svg.tools(svg, map.file || "map"));
  }

  function bar(svg, x, top, tall, map, reach, low, high) {
    for (let i = 0; i < 60; i++) svg.append(node("rect", { x, y: top + (tall * i) / 60, width: 16, height: tall / 60 + 0.5, fill: shade(map.centred ? 1 - (2 * (i + 0.5)) / 60 : 1 - (i + 0.5) / 60) }));
    const marks = map.centred ? [[0, Math.exp(reach)], [0.25, Math.exp(reach / 2)], [0.5, 1], [0.75, Math.exp(-reach / 2)], [1, Math.exp(-reach)]] : [[0, high], [0.5, (high + low) / 2], [1, low]];
    for (const [at, value] of marks) svg.append(node("text", { x: x + 22, y: top + at * tall + (at === 0 ? 10 : at === 1 ? 0 : 4), class: "tick" }, Format.number(value, 3)));
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
  return { draw, rgb, outline };
})();
