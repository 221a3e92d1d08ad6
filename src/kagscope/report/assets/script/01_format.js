"use strict";
// Numbers as people write them, files to save. Everything in this folder is joined in the order of its names into one script.
const Format = (() => {
  function number(value, digits = 4) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 2).replace("-", "−").replace("e+", "e");
    return String(Number(value.toPrecision(digits))).replace("-", "−");
  }
  const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const power = (exponent) => `10${String(exponent).replace(/./g, (digit) => RAISED[digit])}`;
  function ticks(values) { // of one axis, short enough to stand beside it: decades, or multiples of one power of ten
    const exponents = values.map((value) => Math.round(Math.log10(value)));
    if (values.every((value, i) => value > 0 && Math.abs(Math.log10(value) - exponents[i]) < 1e-9))
      return values.map((value, i) => (exponents[i] < -3 || exponents[i] > 4 ? power(exponents[i]) : number(value)));
    const most = Math.floor(Math.log10(Math.max(...values.map(Math.abs))));
    if (most > -4 && most < 6) return values.map((value) => number(value));
    return values.map((value) => (value === 0 ? "0" : `${number(value / 10 ** most)}·${power(most)}`));
  }
  function cell(value) {
    if (typeof value === "number") return Number.isInteger(value) ? String(value).replace("-", "−") : number(value);
    return value === null || value === undefined || value === "" ? "–" : String(value);
  }
  const interval = (low, high) => (low === null || low === undefined || high === null || high === undefined ? "" : ` (${number(low)} to ${number(high)})`);
  function csvField(value) {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text; // no formula in a spreadsheet
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }
  const csv = (head, rows) => [head, ...rows].map((row) => row.map(csvField).join(",")).join("\n") + "\n";
  function save(name, type, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 5000);
  }
  return { number, ticks, cell, interval, csv, save };
})();

const Dom = {
  all: (selector, root = document) => [...root.querySelectorAll(selector)],
  one: (selector, root = document) => root.querySelector(selector),
  make(tag, properties = {}, ...children) {
    const { aria = {}, ...rest } = properties, element = Object.assign(document.createElement(tag), rest);
    for (const [name, value] of Object.entries(aria)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  },
  button: (text, act, label) => { const b = Dom.make("button", { type: "button", textContent: text }); if (label) b.setAttribute("aria-label", label); b.addEventListener("click", act); return b; },
};
