// Every run: sorted by a click on a heading, filtered by words and comparisons, each with its configuration.
const Runs = {
  FIRST: ["width", "training", "seed", "accuracy"],
  REST: ["step", "epoch", "run"],
  values: (run) => ({ ...flat(run.config ?? {}), ...Object.fromEntries([...Runs.FIRST, ...Runs.REST].map((name) => [name, run[name]])), [Page.rest()]: run.training }),
  PATTERN: /^([\w.]+)(<=|>=|<|>|=)(.+)$/,
  unknown(word) { // a comparison with what no run has
    const name = Runs.PATTERN.exec(word)?.[1], known = Page.unique(Page.data.runs.flatMap((run) => Object.keys((run.all ??= Runs.values(run)))));
    if (!name || known.includes(name)) return "";
    const close = known.filter((one) => one.split(".").pop().startsWith(name.slice(0, 3)) || one.includes(name)).slice(0, 4);
    return `No run has “${name}”${close.length ? `; did you mean ${close.join(", ")}?` : `; there are ${known.slice(0, 12).join(", ")} …`}`;
  },
  matches(word, run) { // "augmented", "width=64", "accuracy>0.95"
    const [, name, sign, wanted] = Runs.PATTERN.exec(word) ?? [];
    const values = run.all ??= Runs.values(run);
    if (!name || !(name in values)) return !name && [run.run, run.width, run.training, run.seed].join(" ").toLowerCase().includes(word);
    const value = values[name], number = Number(wanted);
    if (sign === "=") return String(value).toLowerCase() === wanted || (value !== null && value !== "" && Number(value) === number);
    return value !== null && { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number }[sign];
  },
  draw() {
    const first = Runs.FIRST.filter((name) => name !== "width" || Page.set.widths.length > 1); // one width tells nothing
    const head = [...first.map((name) => (name === "training" ? Page.rest() : name)), ...Page.set.runLayers.map((layer) => `PR ratio, ${layer}`), ...Runs.REST, "configuration"], words = Dom.one("[data-filter]").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = Page.data.runs.filter((run) => words.every((word) => Runs.matches(word, run))), byName = new Map(chosen.map((run) => [run.run, run]));
    const rows = chosen.map((run) => [...first.map((name) => run[name]), ...run.pr, ...Runs.REST.map((name) => run[name]), run.config ? JSON.stringify(run.config) : ""]);
    Dom.one("[data-output=runs]").textContent = `${rows.length} of ${Page.data.runs.length}`;
    Dom.one("[data-note=runs]").textContent = words.map(Runs.unknown).filter(Boolean).join(" ");
    Dom.one("[data-part=links]").hidden = Page.set.elsewhere;
    const run = (row) => byName.get(row[head.indexOf("run")]);
    const link = (row) => [Page.set.elsewhere ? run(row).run : Dom.make("a", { href: `runs/${encodeURIComponent(run(row).run)}/config.json`, textContent: run(row).run })];
    const show = (row) => (run(row).config ? [Dom.button("show", () => Runs.open(run(row)), `Show the configuration of ${run(row).run}`)] : ["–"]);
    Runs.sort ??= [head[0], 1];
    Table.show("runs", head, Table.sorted(rows, head.indexOf(Runs.sort[0]), Runs.sort[1]), { open: true, sort: Runs.sort, label: "the runs",
      resort: (column) => { Runs.sort = [column, Runs.sort[0] === column ? -Runs.sort[1] : 1]; Runs.draw(); }, cells: { [head.indexOf("run")]: link, [head.length - 1]: show } });
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
