// What the browser tests ask of every element of a page; each returns the start of what fails.
const start = (e) => e.outerHTML.slice(0, 80);

// controls, regions and pictures that a screen reader could not name
const nameless = () => [...document.querySelectorAll("button, input, select, a[href], [role=region], [role=img], dialog, summary")]
  .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim())).map(start);

// controls, and parts that scroll, where the keyboard does not get
const unreachable = () => [...document.querySelectorAll("*")].filter((e) => {
  if (!e.checkVisibility() || e.tabIndex >= 0) return false;
  const control = ["BUTTON", "SELECT", "INPUT", "SUMMARY", "A"].includes(e.tagName) && !e.disabled;
  return control || (["auto", "scroll"].includes(getComputedStyle(e).overflowY) && e.scrollHeight > e.clientHeight + 1);
}).map(start);

// text of less contrast than 4.5 to 1 with what is behind it (WCAG 2.1, 1.4.3)
function faint() {
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => { const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map(linear); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\)$/.test(c)) return c; } return "rgb(255,255,255)"; };
  const wordy = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.checkVisibility() && !e.disabled && !e.closest("noscript, option");
  return [...document.querySelectorAll("body *")].filter(wordy).map((e) => {
    const look = getComputedStyle(e), svg = e.ownerSVGElement, a = luminance(svg ? look.fill : look.color), b = luminance(behind(svg ? svg.parentElement : e));
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
}

// words of charts that stick out of their drawing
const outside = () => [...document.querySelectorAll(".chart svg text")].filter((t) => {
  const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
  return a.width && (a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1);
}).map((t) => t.textContent);

// charts that are shown at another size than they were drawn at, so that their words are too small or too large
const scaled = () => [...document.querySelectorAll(".chart:not(.map) svg")].filter((e) => e.checkVisibility())
  .map((e) => [e.getAttribute("aria-label"), e.getBoundingClientRect().width / Number(e.getAttribute("viewBox").split(" ")[2])])
  .filter(([, scale]) => scale < 0.97 || scale > 1.03);
