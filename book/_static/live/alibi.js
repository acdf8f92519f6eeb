// Chapter 3: one query, 33 keys that all score alike, and ALiBi's price on their distance.
(function () {
  "use strict";
  const { figure, softmax, make, slider } = window.attnbookLive;
  const KEYS = 33;

  figure("alibi", [], (element) => {
    const at = { exponent: 3, query: KEYS - 1, causal: true };

    function look({ exponent, query, causal }) {
      const slope = 2 ** -exponent;
      const scores = Array.from({ length: KEYS }, (_, j) =>
        causal && j > query ? -Infinity : -slope * Math.abs(query - j));
      const weights = softmax(scores);
      let near = -1; // how far the nearest keys reach that have half of the weight
      for (let sum = 0; sum < 0.5 && near < KEYS;) {
        near++;
        sum = weights.reduce((all, a, j) => all + (Math.abs(query - j) <= near ? a : 0), 0);
      }
      return { slope, weights, near };
    }

    const bars = make("div", { class: "live-bars", "aria-hidden": "true" },
      ...Array.from({ length: KEYS }, () => make("i")));
    const top = make("div", { "aria-hidden": "true" });
    const axis = make("div", { class: "live-axis", "aria-hidden": "true" },
      ...[0, 8, 16, 24, 32].map((position) => make("span", {}, String(position))));
    const under = make("div", { class: "live-under", "aria-hidden": "true" }, "position of the key (other colour: the query's own)");
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    const slope = slider("slope m:", { min: 0, max: 8, step: 0.5, value: at.exponent },
      (value) => { at.exponent = value; update(); }, say);
    const query = slider("position of the query:", { min: 0, max: KEYS - 1, step: 1, value: at.query },
      (value) => { at.query = value; update(); }, say);
    const mask = make("input", { type: "checkbox", onchange: () => { at.causal = mask.checked; update(); say(); } });
    mask.checked = at.causal;

    function update() {
      const found = look(at);
      slope.shown.textContent = Number.isInteger(at.exponent)
        ? (at.exponent ? `1/${2 ** at.exponent}` : "1") : found.slope.toFixed(4);
      slope.control.setAttribute("aria-valuetext", slope.shown.textContent);
      query.shown.textContent = at.query;
      const tallest = Math.max(...found.weights);
      top.textContent = `weight (tallest bar: ${tallest.toFixed(2)})`;
      [...bars.children].forEach((bar, j) => {
        bar.style.setProperty("--g", found.weights[j] / tallest);
        bar.classList.toggle("is-query", j === at.query);
      });
      told.textContent = `The query gives its own position ${found.weights[at.query].toFixed(2)} of its weight. `
        + (found.near === 0 ? "That is half of it, or more."
          : `Half of it lies at most ${found.near} position${found.near > 1 ? "s" : ""} away.`);
    }
    function say() { spoken.textContent = told.textContent; }

    element.append(
      make("div", { class: "live-sliders" }, slope.label, query.label),
      make("div", { class: "live-row" }, make("label", {}, mask, " causal mask: only keys up to the query")),
      top, bars, axis, under, told, spoken);
    element.look = look;
    update();
  });
})();
