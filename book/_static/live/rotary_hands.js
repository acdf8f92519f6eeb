// Chapter 3: a key, (1, 0) in each of its eight pairs, turned by its position, and a query, turned by
// its position and one step more, so that all pairs agree where the key stands right after it. Below
// them, the sum of the cosines over the distance, with a dot where the key stands.
(function () {
  "use strict";
  const { figure, make, slider } = window.attnbookLive;
  const PAIRS = 8;
  const SHOWN = ["first", "second", "third"]; // pairs that are drawn
  const LAST = 40; // position
  const PACE = Array.from({ length: PAIRS }, (_, l) => 10000 ** (-l / PAIRS));

  function draw(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  figure("rotary_hands", [], (element) => {
    const at = { query: 6, key: 1, locked: false }; // the look-alike, six places before the aim

    function look({ query, key }) {
      const angles = PACE.map((pace) => [(query + 1) * pace, key * pace]);
      const products = angles.map(([first, second]) => Math.cos(second - first));
      return { angles, products, score: products.reduce((sum, one) => sum + one, 0) };
    }

    const dials = SHOWN.map((name, l) => {
      const face = draw("svg", { viewBox: "-1.2 -1.2 2.4 2.4", "aria-hidden": "true" });
      face.append(draw("circle", { r: 1 }));
      const hands = ["query", "key"].map((whose) => draw("line", { class: `live-${whose}` }));
      face.append(...hands);
      const lead = make("div", {}, `lead ${PACE[l].toFixed(2)}`); // one step of the pair
      const told = make("div");
      const dial = make("div", { class: "live-dial" }, face, make("div", {}, `${name} pair`), lead, told);
      return { l, hands, told, dial };
    });
    // From 40 before the query to 40 after it; a sum of 8 is 16 units above a sum of 0.
    const height = (distance) => -2 * look({ query: 0, key: distance }).score;
    const curve = draw("svg", { viewBox: `${-LAST - 1} ${-2 * PAIRS - 2} ${2 * LAST + 2} ${2 * PAIRS + 3}`,
      class: "live-sum", "aria-hidden": "true" });
    const places = Array.from({ length: 2 * LAST + 1 }, (_, n) => n - LAST);
    const dot = draw("circle", { r: 1.4 });
    curve.append(draw("line", { x1: 1, x2: 1, y1: 0, y2: -2 * PAIRS }),
      draw("polyline", { points: places.map((n) => `${n},${height(n)}`).join(" ") }), dot);
    const below = make("div", { class: "live-axis" },
      ...["40 before", "sum of all pairs", "40 after"].map((text) => make("span", {}, text)));
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    const bounds = { min: 0, max: LAST, step: 1 };
    const query = slider("position of the query, bites (solid):", { ...bounds, value: at.query },
      (value) => move("query", value), say);
    const key = slider("position of the key (dashed):", { ...bounds, value: at.key },
      (value) => move("key", value), say);
    const lock = make("input", { type: "checkbox", onchange: () => { at.locked = lock.checked; update(); say(); } });

    // With the distance locked both move, as far as neither leaves the line.
    function move(name, value) {
      const step = value - at[name];
      const other = name === "query" ? "key" : "query";
      if (at.locked) {
        const moved = Math.min(Math.max(at[other] + step, 0), LAST);
        at[name] += moved - at[other];
        at[other] = moved;
      } else {
        at[name] = value;
      }
      update();
    }

    function update() {
      const { angles, products, score } = look(at);
      for (const [part, position] of [[query, at.query], [key, at.key]]) {
        part.control.value = position;
        part.shown.textContent = position;
      }
      for (const { l, hands, told: note } of dials) {
        hands.forEach((hand, n) => {
          hand.setAttribute("x2", Math.cos(angles[l][n]));
          hand.setAttribute("y2", -Math.sin(angles[l][n]));
        });
        note.textContent = `cosine ${products[l].toFixed(2)}`;
      }
      dot.setAttribute("cx", at.key - at.query);
      dot.setAttribute("cy", height(at.key - at.query));
      const apart = Math.abs(at.key - at.query);
      const where = apart === 0 ? "at the same position"
        : `${apart} position${apart > 1 ? "s" : ""} ${at.key > at.query ? "after" : "before"} the query`;
      told.textContent = `The key stands ${where}. Dot product of all ${PAIRS} pairs: `
        + `${score.toFixed(2)} of ${PAIRS}.${at.locked ? " The distance is locked: the score stands still." : ""}`;
    }
    function say() { spoken.textContent = told.textContent; }

    element.append(
      make("div", { class: "live-sliders" }, query.label, key.label),
      make("div", { class: "live-row" }, make("label", {}, lock, " lock the distance")),
      make("div", { class: "live-dials" }, ...dials.map(({ dial }) => dial)), curve, below, told, spoken);
    element.look = look;
    update();
  });
})();
