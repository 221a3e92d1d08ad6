// Every run: sorted by a click on a heading, filtered by words and comparisons, each with its configuration.
const Runs = {
  sort: ["width", 1],
  HEAD: ["run", "width", "training", "seed", "step", "epoch", "accuracy"],
  values: (run) => ({ ...flat(run.config ?? {}), ...Object.fromEntries(Runs.HEAD.map((name) => [name, run[name]])) }),
  matches(word, run) { // "augmented", "width=64", "accuracy>0.95"
    const [, name, sign, wanted] = /^([\w.]+)(<=|>=|<|>|=)(.+)$/.exec(word) ?? [];
    const values = run.all ??= Runs.values(run);
    if (!name || !(name in values)) return [run.run, run.width, run.training, run.seed].join(" ").toLowerCase().includes(word);
    const value = values[name], number = Number(wanted);
    if (sign === "=") return String(value).toLowerCase() === wanted || (value !== null && value !== "" && Number(value) === number);
    return value !== null && { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number }[sign];
  },
  draw() {
    const head = ["run", "configuration", ...Runs.HEAD.slice(1), ...Page.set.runLayers.map((layer) => `PR ratio, ${layer}`)], words = Dom.one("[data-filter]").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = Page.data.runs.filter((run) => words.every((word) => Runs.matches(word, run))), byName = new Map(chosen.map((run) => [run.run, run]));
    const rows = chosen.map((run) => [run.run, run.config ? JSON.stringify(run.config) : "", ...Runs.HEAD.slice(1).map((name) => run[name]), ...run.pr]);
    Dom.one("[data-output=runs]").textContent = `${rows.length} of ${Page.data.runs.length}`;
    Dom.one("[data-part=links]").hidden = Page.set.elsewhere;
    const link = (row) => [Page.set.elsewhere ? row[0] : Dom.make("a", { href: `runs/${encodeURIComponent(row[0])}/config.json`, textContent: row[0] })];
    const show = (row) => (byName.get(row[0]).config ? [Dom.button("show", () => Runs.open(byName.get(row[0])), `Show the configuration of ${row[0]}`)] : ["–"]);
    Table.show("runs", head, Table.sorted(rows, head.indexOf(Runs.sort[0]), Runs.sort[1]), { open: true, sort: Runs.sort, label: "the runs",
      resort: (column) => { Runs.sort = [column, Runs.sort[0] === column ? -Runs.sort[1] : 1]; Runs.draw(); }, cells: { 0: link, 1: show } });
  },
  open(run) {
    const dialog = Dom.one("[data-config]"), text = JSON.stringify(run.config, null, 1);
    dialog.replaceChildren(Dom.make("h3", {}, "Configuration of ", Dom.make("bdi", { textContent: run.run })), Dom.make("pre", { textContent: text, tabIndex: 0 }),
      Dom.make("div", { className: "tools" }, Dom.button("Save as JSON", () => Format.save("config.json", "application/json", text)), Dom.button("Close", () => dialog.close())));
    dialog.showModal();
  },
};
function flat(object, before = "") { // {"geometry": {"points": 24}} as {"geometry.points": 24}
  return Object.fromEntries(Object.entries(object).flatMap(([name, value]) => (value && typeof value === "object" && !Array.isArray(value) ? Object.entries(flat(value, before + name + ".")) : [[before + name, value]])));
}
