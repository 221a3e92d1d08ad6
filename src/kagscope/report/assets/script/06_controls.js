// Building the controls once, showing the state in them at every change.
const Controls = (() => {
  const { all, one, make } = Dom;
  const SLIDERS = {
    step: { options: () => [...Page.steps().slice(0, -1), "last"], text: (v) => (v === "last" ? "trained (last of each run)" : String(v)), optional: true },
    radius: { options: () => CONTROLS.radius.options(), text: (v, all) => `${v} pixels${all.length < 2 ? " (the one measured)" : ""}` },
  };
  const OPTIONAL = new Set(["layer", "width", "training", "mapscore", "mapk", "maplabel", "maprange", "overlay"]); // not shown where there is no choice
  function build() {
    for (const host of all("[data-controls]")) for (const key of host.dataset.controls.split(" ")) {
      const select = make("select");
      select.dataset.key = key;
      select.addEventListener("change", () => Page.change({ [key]: select.value }));
      host.append(make("label", {}, CONTROLS[key].label, select));
    }
    for (const slider of all("[data-slider]")) slider.addEventListener("input", () => Page.change({ [slider.dataset.slider]: SLIDERS[slider.dataset.slider].options()[Number(slider.value)] }));
    one("[data-play]").addEventListener("click", play);
    for (const link of all("a[data-view]")) link.addEventListener("click", () => {
      Page.change(Page.parse(link.dataset.view), false);
      const target = one(`${link.getAttribute("href")} [data-evidence]`);
      for (const other of all("[data-evidence]")) other.hidden = other !== target;
      target.textContent = `The controls stand as they show the evidence for ${link.dataset.claim}.`;
    });
  }
  function show() {
    for (const select of all("select[data-key]")) {
      const key = select.dataset.key, control = CONTROLS[key], options = control.options();
      select.replaceChildren(...options.map((value) => new Option(control.name(value), value, false, String(value) === String(Page.state[key]))));
      select.disabled = options.length < 2;
      select.parentElement.hidden = options.length < 2 && (OPTIONAL.has(key) || Page.alone());
    }
    for (const bar of all(".bar")) bar.hidden = all("label", bar).every((label) => label.hidden);
    for (const slider of all("[data-slider]")) {
      const name = slider.dataset.slider, { options, text } = SLIDERS[name], possible = options();
      slider.max = Math.max(0, possible.length - 1);
      slider.disabled = possible.length < 2;
      if (SLIDERS[name].optional) for (const part of [slider.parentElement, one("[data-play]")]) part.hidden = possible.length < 2 || document.body.dataset.without.includes("training");
      slider.value = Math.max(0, possible.findIndex((v) => String(v) === String(Page.state[name])));
      const words = possible.length ? text(Page.state[name], possible) : "–";
      slider.setAttribute("aria-valuetext", words);
      one(`[data-output=${name}]`).textContent = words;
    }
  }
  let timer = null;
  function stop() {
    clearInterval(timer); timer = null;
    const button = one("[data-play]");
    button.setAttribute("aria-pressed", "false"); button.textContent = "▶ Play";
  }
  function play() {
    if (timer) { stop(); return; }
    const moves = SLIDERS.step.options(), button = one("[data-play]");
    let at = Page.state.step === "last" ? 0 : moves.indexOf(Number(Page.state.step));
    button.setAttribute("aria-pressed", "true"); button.textContent = "■ Stop";
    const next = () => { Page.change({ step: moves[at] }); if (++at >= moves.length) stop(); };
    timer = setInterval(next, 450);
    next();
  }
  return { build, show };
})();
