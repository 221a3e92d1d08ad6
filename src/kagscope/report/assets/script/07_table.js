// Tables of the numbers shown; they are filled when opened, and saved as CSV.
const Table = (() => {
  const { one, make, button } = Dom;
  // options: open, sort: [column, direction] and resort(column) to sort by a click on a heading, cells: {column index: (row) => nodes}, note
  function show(name, head, rows, { open = false, sort = null, resort = null, cells = {}, label = name } = {}) {
    const host = one(`[data-table=${name}]`), wasOpen = one("details", host)?.open ?? false, focus = document.activeElement?.dataset?.sort;
    const scroll = make("div", { className: "scroll tall", tabIndex: 0, aria: { role: "region", "aria-label": `numbers: ${label}` } });
    const bar = make("div", { className: "tools" }, button("CSV", () => Format.save(`kagscope-${name}.csv`, "text/csv", Format.csv(head, rows)), `Save the numbers of ${label} as CSV`));
    const fill = () => scroll.replaceChildren(build(head, rows, sort, resort, cells));
    if (open) {
      fill(); host.replaceChildren(scroll, bar);
      if (focus) one(`[data-sort="${CSS.escape(focus)}"]`, host)?.focus();
      return;
    }
    const details = make("details", {}, make("summary", { textContent: rows.length === 1 ? "The numbers shown" : `The ${rows.length} rows of numbers shown` }), scroll, bar);
    details.addEventListener("toggle", () => { if (details.open && !scroll.firstChild) fill(); });
    if (wasOpen) { details.open = true; fill(); }
    host.replaceChildren(details);
  }
  function build(head, rows, sort, resort, cells) {
    const element = make("table"), top = element.createTHead().insertRow(), body = element.createTBody();
    for (const text of head) {
      const th = make("th", { scope: "col" });
      if (resort) {
        const mine = sort[0] === text, b = button(text + (mine ? (sort[1] > 0 ? " ↑" : " ↓") : ""), () => resort(text));
        b.dataset.sort = text;
        if (mine) th.setAttribute("aria-sort", sort[1] > 0 ? "ascending" : "descending");
        th.append(b);
      } else th.textContent = text;
      top.append(th);
    }
    for (const row of rows) {
      const tr = body.insertRow();
      row.forEach((value, i) => {
        const td = tr.insertCell();
        if (cells[i]) td.append(...cells[i](row));
        else td.textContent = Format.cell(value);
        if (typeof value === "number") td.className = "number"; else td.dir = "auto";
      });
    }
    return element;
  }
  const sorted = (rows, place, direction) => [...rows].sort((a, b) => (a[place] === null ? 1 : b[place] === null ? -1 : direction * (typeof a[place] === "string" ? a[place].localeCompare(b[place]) : a[place] - b[place])));
  return { show, sorted };
})();
