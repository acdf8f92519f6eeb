// Chapter 1: one query and 32 random keys. What the size of the scores does to the softmax. With
// data-with="temperature" there is a second slider, of what the scores are divided by besides.
(function () {
  "use strict";
  const { figure, map, softmax, make, slider } = window.attnbookLive;
  const KEYS = 32;
  const LARGEST = 1024; // features

  // Normal numbers by Box and Muller, from a generator with 32 bits of state (a Weyl sequence, mixed).
  function normal(count, seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x9e3779b9) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
      mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
      return (((mixed ^ (mixed >>> 16)) >>> 0) + 0.5) / 2 ** 32;
    };
    return map({ length: count }, () =>
      Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
  }

  // The Frobenius norm of diag(a) - a a^T: how much the weights answer to a change of the scores.
  function slope(weights) {
    const squares = weights.reduce((sum, a) => sum + a * a, 0);
    const cubes = weights.reduce((sum, a) => sum + a ** 3, 0);
    return Math.sqrt(Math.max(0, squares - 2 * cubes + squares ** 2));
  }

  figure("square_root", [], (element) => {
    const heated = element.dataset.with === "temperature";
    const at = { exponent: 10, temperature: 0, seed: 11 }; // powers of 2 and of 10
    let query, keys;

    function draw() {
      query = normal(LARGEST, at.seed);
      keys = normal(KEYS * LARGEST, at.seed + 1);
    }

    function look({ exponent, scaled, temperature = 0 }) {
      const d = 2 ** exponent;
      const divisor = (scaled ? Math.sqrt(d) : 1) * 10 ** temperature;
      const scores = map({ length: KEYS }, (_, j) => {
        let sum = 0;
        for (let n = 0; n < d; n++) sum += query[n] * keys[j * LARGEST + n];
        return sum / divisor;
      });
      const weights = softmax(scores);
      return { d, scores, weights, largest: Math.max(...weights), slope: slope(weights) };
    }

    const panels = [["Not divided", false], ["Divided by √d", true]].map(([name, scaled]) => ({
      name, scaled,
      bars: make("div", { class: "live-bars", "aria-hidden": "true" },
        ...Array.from({ length: KEYS }, () => make("i", { class: "is-weight" }))),
      told: make("p", { class: "live-told" }),
    }));
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    const size = slider("features d:", { min: 1, max: 10, step: 1, value: at.exponent },
      (value) => { at.exponent = value; update(); }, say);
    const heat = heated && slider("temperature τ:", { min: -2, max: 2, step: 0.05, value: at.temperature },
      (value) => { at.temperature = value; update(); }, say);

    function update() {
      size.shown.textContent = 2 ** at.exponent;
      size.control.setAttribute("aria-valuetext", `${2 ** at.exponent} features`);
      if (heat) {
        heat.shown.textContent = (10 ** at.temperature).toPrecision(2);
        heat.control.setAttribute("aria-valuetext", heat.shown.textContent);
      }
      panels.forEach(({ bars, told, scaled }) => {
        const found = look({ ...at, scaled });
        [...bars.children].forEach((bar, j) => bar.style.setProperty("--g", found.weights[j]));
        told.textContent = `Largest of ${KEYS} weights: ${found.largest.toFixed(2)}. `
          + (heated ? `Size of the derivatives: ${found.slope < 0.0001 ? "below 0.0001" : found.slope.toPrecision(2)}. ` : "")
          + (found.slope < 0.01 ? "Next to nothing reaches the scores."
            : found.largest < 2 / KEYS ? "The softmax hardly prefers any key." : "");
      });
    }
    function say() {
      spoken.replaceChildren(...panels.flatMap(({ name, told }) => [
        make("span", {}, `${name}:`), " ", make("span", {}, told.textContent), " "]));
    }

    element.append(
      make("div", { class: "live-sliders" }, size.label, ...(heat ? [heat.label] : [])),
      make("div", { class: "live-row" },
        make("button", { type: "button", onclick: () => { at.seed += 2; draw(); update(); say(); } }, "New draw")),
      make("div", { class: "live-panels" }, ...panels.map(({ name, bars, told }) =>
        make("div", {}, make("p", {}, `${name}:`), bars, told))),
      spoken);
    element.look = (settings) => ({ ...look(settings), query, keys });
    draw();
    update();
  });
})();
