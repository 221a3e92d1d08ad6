// Where in the image: windowed scores as a map, over all measured images or those of one class.
const Where = {
  same: (test = () => true) => Page.maps((m) => m.score === Page.state.mapscore && m.k === Page.state.mapk && m.width === Page.one("width") && m.training === Page.one("training") && test(m)),
  label(value) {
    if (value === "null") return "all measured";
    const map = Where.same((m) => String(m.label) === value)[0];
    return `class ${value} (${map.images} image${map.images === 1 ? "" : "s"})`;
  },
  middle() { // whether 1 has to be the middle of the colours; values of another kind have no middle
    const map = Where.map();
    return Boolean(map) && Page.state.mapmeasure === "ratio" && Heat.middle(map.ratio);
  },
  map: () => Where.same((m) => String(m.label) === Page.state.maplabel && m.radius === Page.state.radius)[0],
};
Page.sections.push({
  keys: ["layer", "mapscore", "mapk", "mapmeasure", "width", "training", "maplabel", "radius", "maprange", "overlay"],
  draw() {
    const host = Dom.one("[data-chart=where]"), map = Where.map(), { mapmeasure: measure, overlay } = Page.state, { pictures } = Page.data;
    if (!map) {
      host.replaceChildren(Dom.make("p", { textContent: Page.data.maps.length ? Page.NOTHING : "No windows were measured." }));
      Dom.one("[data-table=where]").replaceChildren(); Dom.one("[data-note=where]").textContent = "";
      return;
    }
    const seeds = Page.set.overPoints ? "" : ` and the seeds${Page.alone() ? "" : ` (nets: ${Page.named(map.width, map.training)})`}`, low = map[measure + "_low"], high = map[measure + "_high"], picture = map.label === null ? pictures.mean : (pictures.classes?.[map.label] ?? pictures.mean);
    Heat.draw(host, { ...map, values: map[measure], low, high, picture, overlay, ratio: measure === "ratio", centred: measure === "ratio" && Page.state.maprange === "centred", imageShape: Page.set.imageShape, file: "where", title: `${Page.scoreLabel(map.score)} in windows of radius ${map.radius}, ${Page.WORDS[measure]}` });
    Dom.one("[data-note=where]").textContent = `${Page.scoreLabel(map.score)}, k = ${map.k}, ${Page.WORDS[measure]}, ${map.label === null ? `mean over the measured images${seeds}` : `mean over ${map.images === 1 ? "one image" : `${map.images} images`} of class ${map.label}${seeds}`}.${overlay === "outline" ? " Lines: where the mean image of the test set has a quarter and half of its largest value." : ""}`;
    const cells = map.rows.flatMap((r, i) => map.columns.map((c, j) => ({ r, c, at: i * map.columns.length + j })));
    Table.show("where", ["row", "column", Page.WORDS[measure], ...(low ? ["low", "high"] : [])], cells.map(({ r, c, at }) => [r, c, map[measure][at], ...(low ? [low[at], high[at]] : [])]), { label: "the map" });
  },
});
