// Units: what each hidden unit of one net looks at, drawn pixel by pixel, with its numbers.
const Units = {
  SORTS: { unit: ["number", (u) => u.unit], norm: ["row norm, largest first", (u) => -u.row_norm], small: ["row norm, smallest first", (u) => u.row_norm], zero: ["zero rows, most first", (u) => -(u.zero_share ?? -1)], aligned: ["axis alignment, most first", (u) => -(u.alignment ?? -1)] },
  FILTERS: { all: ["all", () => true], some: ["zero at some point", (u) => u.zero_share > 0], half: ["zero at half of the points", (u) => u.zero_share >= 0.5], every: ["zero at every point", (u) => u.zero_share === 1], never: ["never zero", (u) => u.zero_share === 0], axis: ["alignment above the median", (u, m) => u.alignment > m] },
  COLUMNS: ["row_norm", "zero_share", "alignment"],
  net: () => Page.data.units.find((u) => u.layer === Page.state.layer && u.width === Page.one("width") && u.training === Page.one("training")),
  STEPS: 28, ZERO: 63, // as the page's data are packed
  pixels(net) { net.raw ??= Int8Array.from(net.images, (c) => c.charCodeAt(0) - Units.ZERO); return net.raw; },
  list(net) {
    const all = net.unit.map((unit, i) => ({ i, unit, peak: net.peak[i], ...Object.fromEntries(Units.COLUMNS.map((name) => [name, net[name][i]])) }));
    const alignments = all.map((u) => u.alignment).filter((a) => a !== null).sort((a, b) => a - b), median = alignments[alignments.length >> 1];
    const [, by] = Units.SORTS[Page.state.unitsort], [, keep] = Units.FILTERS[Page.state.unitfilter];
    return all.filter((u) => keep(u, median)).sort((a, b) => by(a) - by(b) || a.unit - b.unit);
  },
  paint(canvas, net, unit, range) {
    const [tall, wide] = net.shape, raw = Units.pixels(net), size = raw.length / net.unit.length, context = canvas.getContext("2d"), image = context.createImageData(wide, tall);
    for (let p = 0; p < size; p++) image.data.set([...Heat.rgb("diverging", 0.5 + (raw[unit.i * size + p] / Units.STEPS / 2) * (range ? unit.peak / range : 1)), 255], 4 * p);
    context.putImageData(image, 0, 0);
  },
  said: (u) => [`norm ${Format.number(u.row_norm, 3)}`, u.zero_share === null ? "" : `zero ${Format.number(100 * u.zero_share, 2)}%`, `align ${Format.number(u.alignment, 2)}`].filter(Boolean),
  tile(net, u, range) {
    const [tall, wide] = net.shape, canvas = Dom.make("canvas", { width: wide, height: tall, className: tall * 4 < wide ? "strip" : "" }), flag = u.zero_share === 1 ? "always-zero" : u.zero_share >= 0.5 ? "mostly-zero" : "";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `unit ${u.unit}: row norm ${Format.number(u.row_norm)}, zero row at ${u.zero_share === null ? "an unknown share" : Format.number(100 * u.zero_share) + "%"} of the points, axis alignment ${Format.number(u.alignment)}`);
    Units.paint(canvas, net, u, range);
    return Dom.make("li", { className: flag }, canvas, Dom.make("span", { className: "unit", textContent: `unit ${u.unit}` }), ...Units.said(u).map((textContent) => Dom.make("span", { textContent })), ...(flag ? [Dom.make("span", { className: "flag", textContent: flag.replace("-", " ") })] : []));
  },
  png(net, list, range) { // all tiles as shown, in one picture
    const [tall, wide] = net.shape, zoom = Math.max(1, Math.round(84 / Math.max(tall, wide))), w = wide * zoom + 6, h = tall * zoom + 18, across = Math.min(16, list.length), canvas = Dom.make("canvas", { width: w * across, height: h * Math.ceil(list.length / across) });
    const context = canvas.getContext("2d"), one = Dom.make("canvas", { width: wide, height: tall });
    context.fillStyle = "#fff"; context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false; context.fillStyle = "#1b1f23"; context.font = "11px sans-serif";
    list.forEach((u, n) => {
      const x = (n % across) * w, y = Math.floor(n / across) * h;
      Units.paint(one, net, u, range);
      context.drawImage(one, x, y, wide * zoom, tall * zoom);
      context.fillText(`unit ${u.unit}`, x, y + tall * zoom + 12);
    });
    canvas.toBlob((blob) => Format.save("kagscope-units.png", "image/png", blob));
  },
};
Page.sections.push({
  keys: ["layer", "width", "training", "unitsort", "unitfilter", "unitscale"],
  draw() {
    const host = Dom.one("[data-units]"), net = Units.net(), note = Dom.one("[data-note=units]"), rest = Dom.one("[data-table=units]");
    if (!net) {
      note.textContent = Page.data.units.length ? "The units of this choice are not in this page: it holds those of the first seed of each setting, as far as its size allows, at hidden layers." : "";
      host.replaceChildren(Dom.make("li", { textContent: Page.NOTHING })); rest.replaceChildren();
      return;
    }
    const list = Units.list(net), range = Page.state.unitscale === "common" ? Math.max(...net.peak) : 0, zeros = net.zero_share.filter((s) => s > 0).length;
    const what = net.what === "weights" ? "its incoming weights" : "the mean over the measured points of its row of the Jacobian with respect to the input (what it looks at, through the layers before it)";
    note.textContent = `${list.length} of ${net.total} units of layer ${net.layer}${Page.alone() ? "" : ` of a net of width ${net.width}, ${net.training}, seed ${net.seed}`}${net.unit.length < net.total ? ` (${net.unit.length} of them, evenly spaced, are in this page)` : ""}. Each picture: ${what}, ${net.channels > 1 ? `its ${net.channels} channels side by side, ` : ""}in ${2 * Units.STEPS + 1} steps of colour; brown positive, blue negative. ${net.zero_share[0] === null ? "There is no baseline, so no threshold says which rows are zero." : `${zeros} of ${net.unit.length} have a zero row at some measured point.`}`;
    host.replaceChildren(...list.map((u) => Units.tile(net, u, range)));
    Table.show("units", ["unit", "row norm", "share of points with a zero row", "axis alignment", "largest entry"], list.map((u) => [u.unit, u.row_norm, u.zero_share, u.alignment, u.peak]), { label: "the units" });
    const png = Dom.button("PNG", () => Units.png(net, list, range), "Save the pictures of the units as PNG");
    rest.prepend(Dom.make("div", { className: "tools" }, png));
  },
});
