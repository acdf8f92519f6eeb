// Chapter 9: a place of the output, and the row of each mechanism's matrix that says what it is made of.
(function () {
  "use strict";
  const { figure, make, sigmoid, softmax, argmax, handle, shares, choice, teller, viridis, paint, mean } = window.attnbookLive;
  const SIDES = [10, 15];
  const [HIGH, WIDE] = SIDES;
  const [CELL, LINE] = [40, 4]; // pixels of a drawing: a place, and a row of the matrix
  const PLACES = Array.from({ length: HIGH * WIDE }, (_, n) => [Math.floor(n / WIDE), n % WIDE]);
  const GATES = [0.95, 0.4, 0.4]; // red, green and blue
  const THETA = [[0.6, 0, 0.1], [0, 0.6, 0]];
  const EDGE = [{ strokeStyle: "#000", lineWidth: 8 }, { strokeStyle: "#fff", lineWidth: 4 }];
  const named = ([row, column]) => `(${row + 1}, ${column + 1})`; // counted from 1
  const within = (index, axis) => Math.min(Math.max(index, 0), SIDES[axis] - 1);
  const alone = (n, weight) => PLACES.map((_, m) => (m === n ? weight : 0));
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

  // The row and the column at which the warp reads the input for place n of the output.
  function source(n) {
    const [y, x] = SIDES.map((size, axis) => (2 * PLACES[n][axis] + 1) / size - 1);
    const [across, down] = THETA.map(([a, b, c]) => a * x + b * y + c);
    return [((down + 1) * HIGH - 1) / 2, ((across + 1) * WIDE - 1) / 2];
  }

  // Of each mechanism, row n of its matrix, what places of the input are multiplied by; and that row
  // in words. A channel gate alone has another matrix for each colour.
  const MECHANISMS = {
    "spatial gate": {
      row: (n) => alone(n, sigmoid(10 * (0.6 - Math.hypot(...SIDES.map((size, axis) => 2 * PLACES[n][axis] / (size - 1) - 1))))),
      said: (row, n) => `1 place, itself, times ${row[n].toFixed(2)} in all colours. Other places have other numbers.`,
    },
    "channel gate": {
      row: (n, colour) => alone(n, GATES[colour]),
      said: () => "1 place, itself, times 0.95 in red and 0.40 in green and blue, as everywhere. (The matrix is that of red.)",
    },
    "self-attention": {
      row: (n, colour, units) => [...softmax(units.map((key) => 4 * dot(units[n], key)))],
      said(row, n) {
        let sum = 0;
        const [most, half] = [argmax(row), [...row].sort((a, b) => b - a).findIndex((weight) => { sum += weight; return sum >= 0.5; }) + 1];
        return `all ${row.length} places. The largest weight, ${row[most].toFixed(3)}, lies on ${most === n ? "itself" : named(PLACES[most])}; `
          + `half of all weight lies on the ${half} places that are most like it in colour.`;
      },
    },
    "spatial transformer": {
      row(n) {
        const from = source(n);
        return PLACES.map((place) => place.reduce((share, at, axis) => share * Math.max(0, 1 - Math.abs(from[axis] - at)), 1));
      },
      said(row, n) {
        const read = row.filter((weight) => weight > 1e-9);
        return `${["one", "two", "three", "four"][read.length - 1]} places around (${source(n).map((at) => (at + 1).toFixed(1)).join(", ")}), `
          + `times ${read.map((weight) => weight.toFixed(2)).join(", ")}.`;
      },
    },
    "3 × 3 convolution": {
      row: (n) => PLACES.map((place) => (place.every((at, axis) => Math.abs(at - PLACES[n][axis]) < 2) ? 1 / 9 : 0)),
      said: (row) => `${row.filter(Boolean).length} places, itself and its neighbours, each times 0.11, whatever the picture.`,
    },
  };

  figure("one_row", ["coffee"], (element, { photo }) => {
    const colours = [0, 1, 2].map((c) => Array.from(photo.subarray(c * PLACES.length, (c + 1) * PLACES.length)));
    const units = PLACES.map((_, n) => { // the colours less their mean, all of length 1
      const off = colours.map((one) => one[n] - mean(one));
      return off.map((x) => x / Math.hypot(...off));
    });
    const matrices = (kind) => colours.map((_, colour) => PLACES.map((_, n) => MECHANISMS[kind].row(n, colour, units)));
    const output = (made) => colours.map((one, colour) => made[colour].map((row) => dot(row, one)));

    const at = { place: [3, 7] };
    let pointed = null; // the place under the mouse, until it leaves
    const { parts, tell, say } = teller();
    const canvas = (width, height, label) => make("canvas", { width, height, role: "img", "aria-label": label });
    const views = ["the output", "the input, with the weights of one row"].map((label) => canvas(WIDE * CELL, HIGH * CELL, label));
    const sheet = canvas(LINE * PLACES.length, LINE * PLACES.length, "the matrix, with that row marked");
    const small = canvas(PLACES.length, PLACES.length, "");
    const under = ([across, down]) => [Math.floor(down * HIGH), Math.floor(across * WIDE)].map(within);
    const ring = handle("the place of the output", views[0], {
      drag: (share) => go(under(share)),
      step: ([right, down]) => go([at.place[0] + down, at.place[1] + right]),
    }, say);

    function go(place) {
      at.place = place.map(within);
      pointed = null;
      update();
    }
    function choose(kind) {
      const made = matrices(kind);
      Object.assign(at, { kind, rows: made[0], output: output(made), most: Math.max(...made[0].flat()) });
      paint(small, made[0].flat().map((weight) => Math.sqrt(weight / at.most)), viridis);
      update();
    }
    function draw(view, picture) {
      const pen = view.getContext("2d");
      PLACES.forEach(([row, column], n) => Object.assign(pen, { fillStyle: `rgb(${picture.map((one) => Math.round(255 * one[n]))})` })
        .fillRect(column * CELL, row * CELL, CELL, CELL));
      return pen;
    }
    function update() {
      const place = pointed ?? at.place;
      const n = place[0] * WIDE + place[1];
      const edge = draw(views[0], at.output);
      for (const look of EDGE) Object.assign(edge, look).strokeRect(place[1] * CELL, place[0] * CELL, CELL, CELL);
      const pen = Object.assign(draw(views[1], colours), { fillStyle: "#fff", strokeStyle: "#000", lineWidth: 3 });
      at.rows[n].forEach((weight, m) => { // squares, as large as the weights
        const side = (CELL - 4) * Math.sqrt(weight / at.most);
        const [y, x] = PLACES[m].map((index) => (index + 0.5) * CELL - side / 2);
        if (side > 2) for (const drawn of ["strokeRect", "fillRect"]) pen[drawn](x, y, side, side);
      });
      const lines = Object.assign(sheet.getContext("2d"), { imageSmoothingEnabled: false, strokeStyle: "#ff7f2a", lineWidth: LINE });
      lines.drawImage(small, 0, 0, sheet.width, sheet.height);
      lines.strokeRect(-LINE, LINE * (n - 1), sheet.width + 2 * LINE, 3 * LINE);
      [ring.style.top, ring.style.left] = at.place.map((index, axis) => `${100 * (index + 0.5) / SIDES[axis]}%`);
      tell(`Place ${named(place)} is made of ${MECHANISMS[at.kind].said(at.rows[n], n)}`);
    }

    // A mouse looks by moving, and chooses by a click, as a finger does by a tap.
    const pointing = (view, found) => ({
      onpointermove: (event) => { if (event.pointerType === "mouse") { pointed = found(shares(event, view)); update(); } },
      onpointerleave: () => { pointed = null; update(); },
      onclick: (event) => { if (event.detail) { go(found(shares(event, view))); say(); } },
    });
    const rowUnder = ([, down]) => PLACES[Math.min(Math.floor(down * PLACES.length), PLACES.length - 1)];
    const titled = (attributes, text, ...shown) => make("div", {}, make("div", { class: "live-stage", ...attributes }, ...shown), make("span", {}, text));
    const kinds = Object.keys(MECHANISMS);
    element.append(
      make("p", {}, "Move to the corner (1, 1) of the output. Which of the mechanisms named below can bring something of the cup there? "
        + "(A place is named by its row and column.)"),
      choice("one-row", "Mechanism:", kinds, (n) => { choose(kinds[n]); say(); }),
      make("div", { class: "live-views live-three live-rows" }, titled(pointing(views[0], under), "output: choose a place", views[0], ring),
        titled({}, "input: what it is made of", views[1]), titled(pointing(sheet, rowUnder), "the matrix, and its row", sheet)),
      ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "Self-attention and the spatial transformer. Attention takes a little from everywhere, most from what is as dark as the corner; the transformer reads at (2.8, 4.6), "
        + "on the edge of the cup. A gate has nothing but the place itself, and this convolution nothing but its neighbours.")));
    Object.assign(element, { matrices, output });
    choose(kinds[0]);
  });
})();
