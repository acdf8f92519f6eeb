// Chapter 8: one point over a row of pixels. What it reads, and where the derivative pulls it.
(function () {
  "use strict";
  const { figure, make, slider, shares, teller } = window.attnbookLive;
  const [ROW, FIRST, COUNT] = [9, 4, 16]; // of the seven: a cut through the lower edge of its bar, and its stem
  const SIDE = 28;
  const STEP = 20; // units of the drawing, a pixel
  const TOP = 110; // where a value of 0 is drawn; 1 is at 10

  // The value at x, in pixels from 0, and its derivative to the left and to the right of x.
  function look(row, x) {
    const known = (w) => row[w] ?? 0;
    const left = Math.floor(x);
    const share = x - left;
    const slope = known(left + 1) - known(left);
    return {
      left, weights: [1 - share, share], pixels: [known(left), known(left + 1)],
      value: (1 - share) * known(left) + share * known(left + 1),
      slopes: [share === 0 ? known(left) - known(left - 1) : slope, slope],
    };
  }

  figure("one_point", ["seven"], (element, { ink }) => {
    const row = Array.from(ink.slice(SIDE * ROW + FIRST, SIDE * ROW + FIRST + COUNT));
    const { parts, tell, say } = teller();
    const [across, down] = [(x) => STEP * (x + 1.5), (value) => TOP - 100 * value];
    const drawing = make("div", { class: "live-row-of-pixels" });
    const cut = make("canvas", { width: 10 * SIDE, height: 10 * SIDE, role: "img", "aria-label": "the seven, with a frame around the row of pixels" });
    const number = (value) => value.toFixed(2);
    const point = slider("position x̂, in pixels:", { min: -1.5, max: COUNT + 0.5, step: 0.05, value: 12.25 }, update, say);

    // The seven, small, with a frame around the row.
    function mark() {
      const pen = Object.assign(cut.getContext("2d"), { strokeStyle: "#d55e00", lineWidth: 6 });
      ink.forEach((value, n) => {
        pen.fillStyle = `rgb(${Array(3).fill(Math.round(255 * (1 - value)))})`;
        pen.fillRect(10 * (n % SIDE), 10 * Math.floor(n / SIDE), 10, 10);
      });
      pen.strokeRect(10 * FIRST, 10 * ROW, 10 * COUNT, 10);
    }
    function draw(x, { left, weights, value, slopes }) {
      const cells = row.map((u, w) => `<rect x="${across(w - 0.5)}" y="${TOP + 22}" width="${STEP}" height="${STEP}" `
        + `fill="rgb(${Array(3).fill(Math.round(255 * (1 - u)))})" stroke="#767676"/><text x="${across(w)}" y="${TOP + 56}">${w}</text>`);
      const hats = weights.map((weight, n) => `<path class="hat" d="M${across(left + n)} ${TOP}v${-100 * weight}"/>`);
      const curve = [-2, -1, ...row.keys(), COUNT, COUNT + 1].map((w) => `${across(w)},${down(row[w] ?? 0)}`);
      const tangent = slopes.map((slope, n) => [x, x + (n ? 1 : -1)].map((at) => `${across(at)},${down(value + slope * (at - x))}`));
      drawing.innerHTML = `<svg viewBox="0 -6 ${STEP * (COUNT + 2)} ${TOP + 68}" role="img" aria-label="a row of pixels, the value between them as a line, and the point on it">`
        + `${cells.join("")}${hats.join("")}<polyline points="${curve.join(" ")}"/>`
        + [0, 1].map((one) => `<text x="6" y="${down(one) - 4}">${one}</text>`).join("")
        + `<path class="point" d="M0 ${down(1)}H${STEP * (COUNT + 2)}"/>`
        + tangent.map((ends) => `<polyline class="tangent" points="${ends.join(" ")}"/>`).join("")
        + `<path class="point" d="M${across(x)} ${down(value)}V${TOP + 32}"/><circle cx="${across(x)}" cy="${down(value)}" r="6"/></svg>`;
    }

    function update(position) {
      const x = Number(position.toFixed(2));
      const found = look(row, x);
      const [before, after] = found.slopes.map((slope) => (slope > 0 ? "+" : "") + number(slope));
      const names = found.pixels.map((pixel, n) => `${number(found.weights[n])} of pixel ${found.left + n}, which is `
        + (row[found.left + n] === undefined ? "outside and 0" : number(pixel)));
      draw(x, found);
      point.shown.textContent = number(x).replace("-", "−");
      point.control.setAttribute("aria-valuetext", point.shown.textContent);
      tell(`The point reads ${number(found.value)}: ${names.join(", and ")}. ` + (found.weights[1] === 0
        ? `It lies on a pixel, where two lines meet: the derivative is ${before} to the left and ${after} to the right.`
        : `The derivative is ${after}, the difference of the two` + (found.slopes[1] === 0 ? ": nothing moves the point from here." : ".")));
    }
    function point_at(event) {
      if (event.type === "pointermove" && !event.buttons) return;
      const [share] = shares(event, drawing);
      point.control.value = share * (COUNT + 2) - 1.5;
      update(Number(point.control.value));
    }
    for (const type of ["pointerdown", "pointermove"]) drawing.addEventListener(type, point_at);
    drawing.addEventListener("pointerup", say);

    element.append(
      make("div", { class: "live-row-from" }, cut, make("p", {}, "The row is cut from the seven where it is framed: at the left the lower edge of its bar, "
        + "at the right its stem. From where does the derivative lead the point uphill to the stem, from where to the bar, and from where to neither?")),
      make("p", {}, "Line: the value between the pixels. Green: the weights of the two. Orange: the derivative."),
      drawing, make("div", { class: "live-sliders" }, point.label), ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "To the stem it leads between pixels 10 and 15, to the peak over the bar between 2 and 8. Between 8 and 10 all is empty, as it is "
        + "before 2 and after 15: there it is 0, although a stroke may lie one pixel further. On a pixel, PyTorch's sampler takes the derivative to the right.")));
    mark();
    Object.assign(element, { look: (x) => look(row, x), row });
    update(Number(point.control.value));
  });
})();
