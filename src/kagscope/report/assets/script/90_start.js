// Unpacks the data (gzip in base64), then builds the controls and draws.
(async () => {
  const { all, one } = Dom, root = document.documentElement;
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
  }
  one("[data-theme-button]").hidden = false;
  one("[data-theme-button]").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  for (const b of all("[data-save-claims]")) {
    const lines = all("table.claims > tbody > tr:not(.behind)").map((row) => all(":scope > [data-csv]", row).map((cell) => cell.dataset.csv));
    b.addEventListener("click", () => Format.save("kagscope-claims.csv", "text/csv", Format.csv(["claim", "statement", "verdict", "effect", "effect name", "low", "high", "p", "n"], lines.map((line) => line.flatMap((part) => JSON.parse(part))))));
    b.hidden = false;
  }
  for (const table of all("table[data-sortable]")) Sortable.enhance(table);
  Scrolling.watch(document.body);
  addEventListener("beforeprint", () => { for (const figures of all("details.static")) figures.open = true; });
  try {
    Page.begin(await unpacked(one("#data").textContent.trim()));
  } catch (error) {
    one("[data-trouble]").hidden = false; // an old browser; the figures remain
    root.dataset.ready = "failed";
    console.info(String(error));
    return;
  }
  const usable = Page.data.series.length > 0;
  Page.state.step = "last";
  Page.readAddress();
  Page.settle();
  Controls.build();
  for (const part of all(".interactive")) part.hidden = !usable && part.dataset.section !== "runs";
  for (const figures of all("details.static")) figures.open = !usable;
  if (usable) Page.draw();
  one("[data-filter]").addEventListener("input", Runs.draw);
  Runs.draw();
  addEventListener("hashchange", () => { if (usable && Page.readAddress()) { Page.settle(); Page.draw(); } });
  let wait = 0, wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth === wide) return; wide = innerWidth; clearTimeout(wait); wait = setTimeout(() => usable && Page.draw(true), 150); });
  root.dataset.ready = String(Math.round(performance.now()));
})();
