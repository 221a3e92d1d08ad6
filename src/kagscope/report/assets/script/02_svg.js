// Scalable drawings: nodes, ticks, and saving them with the page's looks written into them.
const Svg = (() => {
  const NS = "http://www.w3.org/2000/svg", ROW = 20, LOOKS = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family"];
  function node(tag, attributes = {}, text) {
    const element = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function ticks(low, high, count = 6) {
    const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999), out = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
    return out;
  }
  function logTicks(low, high) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9), every = Math.max(1, Math.ceil((last - first) / 6)), out = [];
    for (let e = first; e <= last; e += every) out.push(10 ** e);
    return out.length > 1 ? out : ticks(low, high, 4).filter((t) => t > 0);
  }
  function standalone(svg, key) { // key: further nodes, a line of text each, which on the page stand beside the chart
    const below = node("g");
    below.append(...key);
    svg.append(below);
    const copy = svg.cloneNode(true), from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
    from.forEach((element, i) => {
      const look = getComputedStyle(element);
      for (const name of LOOKS) to[i].setAttribute(name, look.getPropertyValue(name));
    });
    below.remove();
    const [, , width, tall] = svg.getAttribute("viewBox").split(" ").map(Number), height = tall + ROW * key.length;
    copy.setAttribute("xmlns", NS); copy.setAttribute("width", width); copy.setAttribute("height", height); copy.setAttribute("viewBox", `0 0 ${width} ${height}`);
    copy.prepend(node("rect", { width: "100%", height: "100%", fill: getComputedStyle(svg.parentElement).backgroundColor }));
    return new XMLSerializer().serializeToString(copy);
  }
  function savePng(text, file) {
    const image = new Image();
    image.onload = () => {
      const canvas = Dom.make("canvas", { width: image.width * 2, height: image.height * 2 });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => Format.save(`kagscope-${file}.png`, "image/png", blob));
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  }
  const tools = (svg, file, key = []) => Dom.make("div", { className: "tools" },
    Dom.button("SVG", () => Format.save(`kagscope-${file}.svg`, "image/svg+xml", standalone(svg, key)), `Save the chart ${file} as SVG`),
    Dom.button("PNG", () => savePng(standalone(svg, key), file), `Save the chart ${file} as PNG`));
  return { ROW, node, ticks, logTicks, tools };
})();
