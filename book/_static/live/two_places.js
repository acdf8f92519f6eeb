// Chapter 4: one head, two places. What it hands over is one mixture of two values.
(function () {
  "use strict";
  const { figure, make, slider, viridis } = window.attnbookLive;
  const SYMBOLS = ["A", "B", "C", "D"];

  // The mean squared errors of the best guess of each value from a v1 + (1 - a) v2, and their mean.
  function errors(first) {
    const second = 1 - first;
    const both = first ** 2 + second ** 2;
    const [ofFirst, ofSecond] = [second ** 2 / both, first ** 2 / both];
    return { first: ofFirst, second: ofSecond, mean: (ofFirst + ofSecond) / 2 };
  }

  function draw(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // The three errors at every weight, and a line that `at` moves to one of them.
  function curves() {
    const line = (error, kind) => draw("polyline", {
      class: `live-${kind}`,
      points: Array.from({ length: 101 }, (_, n) => `${10 + 3 * n},${110 - 100 * errors(n / 100)[error]}`).join(" "),
    });
    const name = (text, x, y, anchor, kind = "") => draw("text", { x, y, "text-anchor": anchor, class: kind }, text);
    const here = draw("line", { class: "live-here", y1: 6, y2: 110 });
    const picture = draw("svg", { class: "live-curves", viewBox: "0 -12 320 142", "aria-hidden": "true" },
      draw("path", { d: "M10,6V110H314" }), here,
      line("first", "first"), line("second", "second"), line("mean", "mean"),
      name("first value", 310, 88, "end", "live-name-first"), name("second value", 14, 88, "start", "live-name-second"),
      name("mean of both", 310, 55, "end", "live-name-mean"), name("squared error", 4, 0, "start"),
      name("1", 4, 14, "middle"), name("0", 4, 114, "middle"),
      name("0", 10, 124, "middle"), name("weight on the first place", 160, 124, "middle"), name("1", 310, 124, "middle"));
    const at = (first) => ["x1", "x2"].forEach((end) => here.setAttribute(end, 10 + 300 * first));
    return { picture, at };
  }

  // For each pair of one-hot symbols, the number of its sum; pairs with the same sum share one.
  function sums(first) {
    const known = [];
    return SYMBOLS.map((_, i) => SYMBOLS.map((_, j) => {
      const sum = SYMBOLS.map((_, n) => ((n === i) * first + (n === j) * (1 - first)).toFixed(6)).join();
      if (!known.includes(sum)) known.push(sum);
      return known.indexOf(sum) + 1;
    }));
  }

  figure("two_places", [], (element) => {
    const at = { first: 0.7, symbols: false, moved: false }; // the mean is the answer, and comes with the first move
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    const levels = Object.fromEntries(["first value", "second value", "mean of both"].map((name) =>
      [name, { bar: make("i"), shown: make("b") }]));
    const bars = make("div", { class: "live-levels" }, ...Object.entries(levels).map(([name, { bar, shown }]) =>
      make("div", { class: `live-of-${name.split(" ")[0]}` }, make("span", {}, name),
        make("span", { class: "live-level", "aria-hidden": "true" }, bar), shown)));
    const drawn = curves();
    const numbers = make("div", {}, drawn.picture, bars);
    const table = make("table", { class: "live-heat live-sums" });
    const weight = slider("weight on the first place:", { min: 0, max: 1, step: 0.01, value: at.first },
      (value) => { Object.assign(at, { first: value, moved: true }); update(); }, say);
    const choices = [["any numbers", false], ["one of four symbols, A to D (each a vector with a single 1)", true]].map(([name, symbols]) =>
      make("label", {}, make("input", {
        type: "radio", name: "two-places", checked: !symbols && "",
        onchange: () => { at.symbols = symbols; update(); say(); },
      }), ` ${name}`));

    function drawSums() {
      const found = sums(at.first);
      const count = Math.max(...found.flat());
      const cell = (n) => {
        const hue = (n - 1) / (count - 1);
        return make("td", { style: `--c:${viridis(hue)};color:${hue < 0.42 ? "#fff" : "#000"}` }, n);
      };
      table.replaceChildren(
        make("caption", {}, "Rows: symbol at the first place; columns: at the second. The same number is the same sum."),
        make("thead", {}, make("tr", {}, make("td"), ...SYMBOLS.map((s) => make("th", { scope: "col" }, s)))),
        make("tbody", {}, ...found.map((row, i) =>
          make("tr", {}, make("th", { scope: "row" }, SYMBOLS[i]), ...row.map(cell)))));
      return `16 pairs make ${count} different sums. `
        + (count === 16 ? "Each sum tells its pair."
          : count === 10 ? "A and B make the same sum as B and A." : "One of the symbols is not read.");
    }

    function drawErrors() {
      const found = errors(at.first);
      for (const [name, error] of [["first value", found.first], ["second value", found.second], ["mean of both", found.mean]]) {
        levels[name].bar.style.setProperty("--g", error);
        levels[name].shown.textContent = error.toFixed(2);
      }
      for (const mean of numbers.querySelectorAll(".live-mean, .live-name-mean, .live-of-mean")) {
        mean.style.visibility = at.moved ? "" : "hidden";
      }
      return `Squared error of the best guess: ${found.first.toFixed(2)} for the first value, `
        + `${found.second.toFixed(2)} for the second${at.moved ? `, ${found.mean.toFixed(2)} in the mean` : ""}.`;
    }

    function update() {
      weight.shown.textContent = at.first.toFixed(2);
      weight.control.setAttribute("aria-valuetext", `${at.first.toFixed(2)} on the first, ${(1 - at.first).toFixed(2)} on the second`);
      drawn.at(at.first);
      numbers.hidden = at.symbols;
      table.hidden = !at.symbols;
      told.textContent = at.symbols ? drawSums() : drawErrors();
    }
    function say() { spoken.textContent = told.textContent; }

    element.append(
      make("p", {}, "Can you find a weight that makes the mean of the two errors smaller?"),
      make("div", { class: "live-sliders" }, weight.label),
      numbers, make("div", { class: "live-scroll" }, table), told, spoken,
      make("details", {}, make("summary", {}, "The answer"),
        make("p", {}, "The mean is 0.50 for every weight.")),
      make("details", {}, make("summary", {}, "And if the values are symbols?"),
        make("fieldset", { class: "live-row" }, make("legend", {}, "The values are"), ...choices),
        make("p", {}, "Two symbols can be told from one sum wherever the weights are unequal and neither is 0.")));
    element.look = (first) => ({ ...errors(first), sums: sums(first) });
    update();
  });
})();
