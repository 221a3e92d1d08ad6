// What is wider or taller than its place says above it that it scrolls.
const Scrolling = {
  look: (host) => {
    const beside = host.scrollWidth > host.clientWidth + 1, below = host.scrollHeight > host.clientHeight + 1;
    if (beside || below) host.dataset.scrolls = `scroll${beside ? " sideways →" : ""}${beside && below ? " and" : ""}${below ? " down ↓" : ""} for more`;
    else delete host.dataset.scrolls;
  },
  watch: (place) => {
    const sizes = new ResizeObserver((seen) => { for (const { target } of seen) Scrolling.look(target.closest(".scroll")); }), known = new WeakSet();
    const add = () => { for (const host of Dom.all(".scroll", place)) for (const part of [host, ...host.children]) if (!known.has(part)) { known.add(part); sizes.observe(part); } };
    new MutationObserver(add).observe(place, { childList: true, subtree: true });
    add();
  },
};
// Tables that the page was written with: sorted by a click on a heading, saved as CSV.
const Sortable = {
  value: (cell) => { const raw = cell.dataset.value ?? cell.textContent.trim(), number = Number(raw); return raw === "" || raw === "–" ? null : Number.isNaN(number) ? raw : number; },
  enhance(table) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = () => [...body.rows];
    heads.forEach((th, place) => {
      const text = th.textContent.trim(), sort = () => {
        const down = th.getAttribute("aria-sort") === "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        th.setAttribute("aria-sort", down ? "ascending" : "descending");
        const keyed = rows().map((row) => ({ row, key: Sortable.value(row.cells[place]) })), sign = down ? 1 : -1;
        keyed.sort((a, b) => (a.key === null ? 1 : b.key === null ? -1 : sign * (typeof a.key === "number" && typeof b.key === "number" ? a.key - b.key : String(a.key).localeCompare(String(b.key)))));
        body.append(...keyed.map(({ row }) => row));
      };
      th.replaceChildren(Dom.button(text, sort, `Sort by ${text}`));
    });
    const name = table.dataset.sortable, csv = () => Format.save(`kagscope-${name}.csv`, "text/csv", Format.csv(heads.map((th) => th.textContent.trim()), rows().map((row) => [...row.cells].map(Sortable.value))));
    (table.closest(".scroll") ?? table).after(Dom.make("div", { className: "tools" }, Dom.button("CSV", csv, `Save the table ${name} as CSV`)));
  },
};
