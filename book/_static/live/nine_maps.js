// Chapter 2: nine layers of attention, each of which looks at one neighbour, beside a convolution.
(function () {
  "use strict";
  const { figure, make, slider, viridis } = window.attnbookLive;
  const SIDE = 34; // 32 pixels and a ring of black ones
  const SHARPNESS = [0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20];
  const NEAR = [-1, 0, 1];
  const KERNEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]; // upright edges
  const range = (count) => [...Array(count).keys()];

  // The weight of place p for target t is a product: one part for the row, one for the column.
  function parts(sharpness) {
    return range(SIDE).map((target) => {
      const powers = range(SIDE).map((place) => Math.exp(-sharpness * (target - place) ** 2));
      const total = powers.reduce((a, b) => a + b, 0);
      return powers.map((power) => power / total);
    });
  }
  const times = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, x, i) => sum + x * b[i][j], 0)));
  const turned = (a) => a[0].map((_, j) => a.map((row) => row[j]));

  // What the layers of one kernel add up to: each target's value, times the kernel's number for it.
  function added(values) {
    return range(SIDE - 2).map((row) => range(SIDE - 2).map((column) => {
      let sum = 0;
      for (const r of NEAR) for (const c of NEAR) sum += KERNEL[r + 1][c + 1] * values[row + 1 + r][column + 1 + c];
      return sum;
    }));
  }

  figure("nine_maps", ["cat"], (element, { grey }) => {
    const at = { sharpness: 2, row: 16, column: 16, shift: 0 };

    function look({ sharpness, row, column, shift }) {
      const picture = range(SIDE).map((r) => range(SIDE).map((c) => {
        const [y, x] = [r - 1, c - 1 - shift];
        return y >= 0 && y < SIDE - 2 && x >= 0 && x < SIDE - 2 && c < SIDE - 1 ? grey[y * (SIDE - 2) + x] : 0;
      }));
      const part = parts(sharpness);
      const ours = added(times(times(part, picture), turned(part)));
      const theirs = added(picture);
      const maps = NEAR.flatMap((r) => NEAR.map((c) => range(5).map((y) => range(5).map((x) =>
        (part[row + 1 + r][row + y - 1] ?? 0) * (part[column + 1 + c][column + x - 1] ?? 0)))));
      const off = Math.max(...ours.flatMap((line, y) => line.map((value, x) => Math.abs(value - theirs[y][x]))));
      return { picture, ours, theirs, maps, off };
    }

    function paint(canvas, matrix, color, ring) {
      const size = canvas.width / matrix.length;
      const pen = canvas.getContext("2d");
      matrix.forEach((row, y) => row.forEach((value, x) => {
        pen.fillStyle = color(value);
        pen.fillRect(x * size, y * size, size, size);
      }));
      pen.strokeStyle = "#ff7f2a";
      pen.lineWidth = 3;
      pen.beginPath();
      pen.arc((ring[1] + 0.5) * size, (ring[0] + 0.5) * size, Math.max(7, 0.35 * size), 0, 2 * Math.PI);
      pen.stroke();
    }
    const canvas = (width, label) => make("canvas", { width, height: width, role: "img", "aria-label": label });
    const titled = (drawn, text) => make("div", {}, drawn, make("span", {}, text));
    const signed = (number) => `${number > 0 ? "+" : ""}${number}`.replace("-", "−");

    const places = NEAR.flatMap((r) => NEAR.map((c) => `${signed(r)}, ${signed(c)}`));
    const maps = places.map((place) => canvas(80, `weights of the layer that looks at ${place}`));
    const pictures = { picture: canvas(192, "the picture"), ours: canvas(192, "output of the nine layers"), theirs: canvas(192, "output of the convolution") };
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });

    function control(text, key, most, values) {
      const one = slider(text, { min: 0, max: most, step: 1, value: values ? values.indexOf(at[key]) : at[key] },
        (value) => { at[key] = values ? values[value] : value; update(); }, say);
      one.update = () => {
        one.shown.textContent = values ? at[key] : at[key] + 1;
        one.control.value = values ? values.indexOf(at[key]) : at[key];
        one.control.setAttribute("aria-valuetext", one.shown.textContent);
      };
      return one;
    }
    const controls = [control("sharpness λ:", "sharpness", SHARPNESS.length - 1, SHARPNESS),
      control("row of the ring:", "row", SIDE - 3), control("column:", "column", SIDE - 3)];
    const move = make("input", { type: "checkbox", onchange: () => { at.shift = move.checked ? 2 : 0; update(); say(); } });
    pictures.picture.addEventListener("pointerdown", (event) => {
      const box = pictures.picture.getBoundingClientRect();
      const inside = (share) => Math.min(SIDE - 3, Math.max(0, Math.floor(share * (SIDE - 2))));
      at.row = inside((event.clientY - box.top) / box.height);
      at.column = inside((event.clientX - box.left) / box.width);
      update();
      say();
    });

    function update() {
      const found = look(at);
      controls.forEach((one) => one.update());
      found.maps.forEach((map, n) => paint(maps[n], map, viridis, [2, 2]));
      const ring = [at.row, at.column];
      const gray = (value) => `rgb(${Array(3).fill(Math.round(255 * value))})`;
      paint(pictures.picture, found.picture.slice(1, -1).map((row) => row.slice(1, -1)), gray, ring);
      for (const id of ["ours", "theirs"]) paint(pictures[id], found[id], (value) => viridis(0.5 + value / 3), ring);
      told.textContent = `At the ring the nine layers give ${found.ours[at.row][at.column].toFixed(3)}, the convolution `
        + `${found.theirs[at.row][at.column].toFixed(3)}. Largest difference in the picture: ${found.off.toPrecision(1)}.`;
    }
    function say() { spoken.textContent = told.textContent; }

    element.append(
      make("div", { class: "live-sliders" }, ...controls.map((one) => one.label)),
      make("label", {}, move, " shift the picture by two pixels"),
      make("div", { class: "live-maps" }, ...maps.map((map, n) => titled(map, places[n]))),
      make("div", { class: "live-maps" }, titled(pictures.picture, "picture"), titled(pictures.ours, "nine layers"), titled(pictures.theirs, "convolution")),
      told, spoken);
    element.look = look;
    update();
  });
})();
