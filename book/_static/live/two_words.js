// Chapter 2: self-attention of two words, in which every number can be changed.
(function () {
  "use strict";
  const { figure, make, viridis } = window.attnbookLive;
  const WORDS = ["dog", "bites"];
  const FEATURES = ["animal", "action", "cold", "teeth"]; // of a word, a query, a key or a value
  const NAMES = { x: "X", q: "W^Q", k: "W^K", v: "W^V" };
  const START = {
    x: [[1, 0, 0, 0], [0, 1, 0, 0]],
    q: [[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    k: [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]],
    v: [[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]],
  };
  const copy = (matrix) => matrix.map((row) => [...row]);
  const turned = (a) => a[0].map((_, j) => a.map((row) => row[j]));
  const times = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, x, i) => sum + x * b[i][j], 0)));

  function softmax(scores) {
    const top = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - top));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / total);
  }

  function look({ x, q, k, v, causal }) {
    const [query, key, value] = [q, k, v].map((w) => times(x, w));
    const dots = times(query, turned(key));
    const scores = dots.map((row, i) => row.map((dot, j) => (causal && j > i ? -Infinity : dot / 2)));
    const weights = scores.map(softmax);
    return { query, key, value, dots, scores, weights, output: times(weights, value) };
  }

  const capital = (word) => word[0].toUpperCase() + word.slice(1);
  const written = (number) => (number === -Infinity ? "−∞" : String(Math.round(100 * number) / 100).replace("-", "−"));

  figure("two_words", [], (element) => {
    const at = { causal: false };
    const names = WORDS.map((word) => make("th", { scope: "row" }, word));
    const heading = (columns) => make("tr", {}, make("td"), ...columns.map((name) => make("th", { scope: "col" }, name)));
    const fields = {};
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    const mask = make("input", { type: "checkbox", onchange: () => { at.causal = mask.checked; update(); say(); } });

    // Rows of a matrix whose entries can be typed, or moved by the arrow keys.
    for (const [id, matrix] of Object.entries(START)) {
      fields[id] = matrix.map((row, i) => row.map((_, j) => make("input", {
        type: "number", min: -9, max: 9, step: 1,
        style: id === "q" && i === 0 ? "outline: 2px solid var(--kind)" : "", // the row to change
        "aria-label": id === "x" ? `X, row ${i + 1}, ${FEATURES[j]}` : `${NAMES[id]}, row ${FEATURES[i]}, column ${FEATURES[j]}`,
        oninput: ({ target }) => {
          const valid = target.value !== "" && Math.abs(target.valueAsNumber) <= 9;
          target.setAttribute("aria-invalid", !valid);
          if (valid) { at[id][i][j] = target.valueAsNumber; update(); }
        },
        onchange: () => say(),
      })));
    }
    function editable(id, from = 0, to = 4) {
      const rows = fields[id].slice(from, to).map((row, i) => make("tr", {}, id === "x" ? names[i] : make("th", { scope: "row" }, FEATURES[from + i]), ...row.map((field) => make("td", {}, field))));
      return make("table", { class: `live-matrix live-${id}` }, make("caption", {}, title(id)), make("thead", {}, heading(FEATURES)), make("tbody", {}, ...rows));
    }
    function title(id) {
      return make("span", {}, ...(id === "x" ? ["X"] : ["W", make("sup", {}, id.toUpperCase())]));
    }

    // A matrix that is computed. Queries, keys and values have the tints that they have in the
    // chapter's figures, the others are as bright as in the book's figures.
    const shown = {};
    function result(id, caption) {
      shown[id] = make("tbody");
      return make("table", { class: `live-matrix live-${id[0]}` }, make("caption", {}, make("span", {}, caption)), shown[id]);
    }
    function fill(body, matrix, tinted) {
      const columns = matrix[0].length === WORDS.length ? WORDS : FEATURES;
      const seen = matrix.flat().filter(Number.isFinite);
      const [least, most] = [Math.min(...seen), Math.max(...seen)];
      body.replaceChildren(heading(columns), ...matrix.map((row, i) => make("tr", {}, make("th", { scope: "row" }, WORDS[i]),
        ...row.map((number) => {
          const share = most > least && number > least ? (number - least) / (most - least) : 0;
          const style = tinted ? `background: color-mix(in srgb, var(--kind) ${number === 0 ? 12 : 40}%, transparent)` :
            `background: ${viridis(share)}; color: ${share > 0.43 ? "#000" : "#fff"}`;
          return make("td", { style }, written(number));
        }))));
    }

    // What a word takes, in words and as two parts of a bar.
    const takers = WORDS.map(() => make("div", { class: "live-taken" }, make("b"), make("span"), make("span")));
    const mixes = WORDS.map(() => make("div", { class: "live-mix" }, make("i"), make("i")));
    function update() {
      const found = look(at);
      for (const [id, body] of Object.entries(shown)) fill(body, found[id], ["query", "key", "value"].includes(id));
      found.weights.forEach((row, i) => {
        const [taker, ...parts] = takers[i].children;
        taker.textContent = `${capital(WORDS[i])} takes`;
        row.forEach((share, j) => {
          parts[j].textContent = `${WORDS[j]} ${Math.round(100 * share)} %`;
          mixes[i].children[j].style.setProperty("--g", share);
        });
      });
      const half = found.weights[0][1] > 0.5; // dog is the first word
      told.textContent = WORDS.map((word, i) =>
        `${capital(word)} takes ${written(found.weights[i][i])} of itself and ${written(found.weights[i][1 - i])} of ${WORDS[1 - i]}.`)
        .join(" ") + (half ? " So dog takes more than half from bites." : "");
    }
    function say() { spoken.textContent = told.textContent; }
    function set(changed) {
      for (const [id, matrix] of Object.entries(changed)) {
        at[id] = copy(matrix);
        fields[id].forEach((row, i) => row.forEach((field, j) => { field.value = matrix[i][j]; field.setAttribute("aria-invalid", false); }));
      }
      update();
      say();
    }
    const button = (onclick, ...text) => make("button", { type: "button", onclick }, ...text);

    element.append(
      make("div", { class: "live-row" },
        button(() => { at.causal = mask.checked = false; set(START); }, "Start again"),
        button(() => set({ q: at.k }), title("k"), " for both")),
      ...mixes.map((mix, i) => make("div", { "aria-hidden": "true" }, takers[i], mix)), told, spoken,
      make("div", { class: "live-matrices" }, editable("q", 0, 2), result("scores", "scores")),
      make("details", {}, make("summary", {}, "All other numbers, and a causal mask"),
        make("div", { class: "live-row" }, make("label", {}, mask, " causal mask")),
        make("div", { class: "live-matrices" }, editable("x"), editable("q", 2)),
        make("div", { class: "live-matrices live-made" }, editable("k"), result("key", "keys"),
          editable("v"), result("value", "values")),
        make("div", { class: "live-matrices" }, result("query", "queries")),
        make("div", { class: "live-matrices" }, result("weights", "weights"), result("output", "new vectors"))));
    element.look = look;
    Object.assign(at, START);
    set(START);
    spoken.textContent = "";
  });
})();
