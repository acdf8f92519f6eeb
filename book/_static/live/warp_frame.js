// Chapter 8: a frame over a picture. Its six numbers say where each pixel of the output is read.
(function () {
  "use strict";
  const { figure, make, handle, choice, teller } = window.attnbookLive;
  const SIDE = 28;
  const RIM = 8; // pixels that are seen around the picture
  const ALL = SIDE + 2 * RIM;
  const CORNERS = { "upper left": [-1, -1], "upper right": [1, -1], "lower right": [1, 1], "lower left": [-1, 1] };
  const MAPS = {
    "identity": [[1, 0, 0], [0, 1, 0]],
    "halve x and y": [[0.5, 0, 0], [0, 0.5, 0]],
    "add 0.5 to x": [[1, 0, 0.5], [0, 1, 0]],
    "turn 30°": [[0.866, -0.5, 0], [0.5, 0.866, 0]],
  };
  const ORANGE = "#d55e00";
  const place = (theta, [x, y]) => theta.map((row) => row[0] * x + row[1] * y + row[2]);
  const area = ([[a, b], [c, d]]) => a * d - b * c;
  // How many widths and how many heights of the frame make a vector.
  const solve = ([[a, b], [c, d]], [u, v]) => [(d * u - b * v) / (a * d - b * c), (a * v - c * u) / (a * d - b * c)];
  const centre = (n) => [n % SIDE, Math.floor(n / SIDE)].map((pixel) => (2 * pixel + 1) / SIDE - 1);
  const pixels = (point) => point.map((x) => ((x + 1) * SIDE - 1) / 2);
  const inside = (row, column) => row >= 0 && column >= 0 && row < SIDE && column < SIDE;

  // Each pixel of the output looks where it comes from, and reads between four pixels.
  function read(ink, theta) {
    return ink.map((_, n) => {
      const [x, y] = pixels(place(theta, centre(n)));
      let sum = 0;
      for (const h of [Math.floor(y), Math.floor(y) + 1]) for (const w of [Math.floor(x), Math.floor(x) + 1]) {
        if (inside(h, w)) sum += ink[h * SIDE + w] * (1 - Math.abs(x - w)) * (1 - Math.abs(y - h));
      }
      return sum;
    });
  }

  // Each pixel of the picture is sent, by the inverse map, to the nearest pixel of the output.
  function push(ink, theta) {
    const output = new Float32Array(ink.length);
    const hit = Array(ink.length).fill(false);
    ink.forEach((value, n) => {
      const sent = pixels(solve(theta, centre(n).map((x, i) => x - theta[i][2])));
      const [column, row] = sent.map((x) => Math.round(x + 1e-6)); // midway, always the later one
      if (!inside(row, column)) return;
      output[row * SIDE + column] = value;
      hit[row * SIDE + column] = true;
    });
    const shown = hit.map((_, n) => n).filter((n) => place(theta, centre(n)).every((x) => Math.abs(x) < 1));
    return { output, shown: shown.length, holes: shown.filter((n) => !hit[n]) };
  }

  figure("warp_frame", ["seven"], (element, { ink }) => {
    const at = { theta: MAPS.identity, pushed: false };
    const look = ({ theta, pushed }) => (pushed ? push(ink, theta) : { output: read(ink, theta), holes: [] });
    const { parts, tell, say } = teller();
    const canvas = (side, label) => make("canvas", { width: 10 * side, height: 10 * side, role: "img", "aria-label": label });
    const [above, below] = [canvas(ALL, "the picture, with the frame"), canvas(SIDE, "the output")];
    const numbers = make("tbody");

    // A knob stands above the upper edge of the frame, and turns it.
    const knob = () => {
      const [right, down] = at.theta.map((row) => row[1] / Math.hypot(at.theta[0][1], at.theta[1][1]));
      const [x, y] = place(at.theta, [0, -1]);
      return [x - 0.35 * right, y - 0.35 * down];
    };
    function turn(to) {
      const angle = ([x, y]) => Math.atan2(y - at.theta[1][2], x - at.theta[0][2]);
      const [cos, sin] = [Math.cos, Math.sin].map((of) => of(angle(to) - angle(knob())));
      const [[a, b, x], [c, d, y]] = at.theta;
      at.theta = [[cos * a - sin * c, cos * b - sin * d, x], [sin * a + cos * c, sin * b + cos * d, y]];
    }
    const move = (to) => { at.theta = at.theta.map((row, n) => [row[0], row[1], to[n]]); };
    // One corner comes, the one across stays, and the sides keep their directions.
    function stretch([x, y], to) {
      const across = place(at.theta, [-x, -y]);
      const [wide, high] = solve(at.theta, to.map((one, n) => (one - across[n]) / 2));
      const next = at.theta.map((row, n) => [row[0] * wide * x, row[1] * high * y, (to[n] + across[n]) / 2]);
      if (Math.abs(area(next)) > 0.01) at.theta = next;
    }
    const handles = [
      ...Object.entries(CORNERS).map(([name, corner]) =>
        [`${name} corner`, () => place(at.theta, corner), (to) => stretch(corner, to)]),
      ["middle of the frame", () => place(at.theta, [0, 0]), move],
      ["knob that turns the frame", knob, turn],
    ].map(([name, where, bring]) => {
      const go = (to) => { bring(to.map((one) => Math.min(Math.max(one, -ALL / SIDE), ALL / SIDE))); update(); };
      const drag = (share) => go(share.map((one) => (2 * one - 1) * ALL / SIDE));
      const step = (by) => go(where().map((one, n) => one + 2 * by[n] / SIDE));
      return { where, button: handle(name, above, { drag, step }, say) };
    });
    handles[0].button.classList.add("is-first");

    function paint(pen, values, rim, holes) {
      values.forEach((value, n) => {
        pen.fillStyle = holes.includes(n) ? ORANGE : `rgb(${Array(3).fill(Math.round(255 * (1 - value)))})`;
        pen.fillRect(10 * (rim + n % SIDE), 10 * (rim + Math.floor(n / SIDE)), 10, 10);
      });
    }
    function line(pen, points) {
      pen.beginPath();
      for (const point of points) pen.lineTo(...point.map((one) => 5 * (ALL + one * SIDE)));
      pen.stroke();
    }
    function update() {
      const found = look(at);
      const pen = Object.assign(above.getContext("2d"), { fillStyle: "#c8c8c8", strokeStyle: ORANGE, lineWidth: 5 });
      pen.fillRect(0, 0, 10 * ALL, 10 * ALL);
      paint(pen, ink, RIM, []);
      line(pen, [0, 1, 2, 3, 0].map((n) => handles[n].where()));
      line(pen, [place(at.theta, [0, -1]), knob()]);
      paint(below.getContext("2d"), found.output, 0, found.holes);
      for (const { where, button } of handles) {
        const share = where().map((one) => Math.min(Math.max(0.5 + one * SIDE / ALL / 2, 0.03), 0.97));
        [button.style.left, button.style.top] = share.map((one) => `${100 * one}%`);
      }
      numbers.replaceChildren(...at.theta.map((row) => make("tr", {}, ...row.map((one) =>
        make("td", { style: "" }, one.toFixed(2).replace("-", "−"))))));
      const angle = Math.round(Math.atan2(at.theta[1][0], at.theta[0][0]) * 180 / Math.PI) || 0;
      const size = Math.abs(area(at.theta));
      const grown = (1 / size).toFixed(2);
      tell(`The frame has ${size.toFixed(2)} of the picture's area; its upper edge is turned by ${angle}°. ` + (at.pushed
        ? `${found.shown} pixels of the output show a part of the picture. ${found.holes.length || "None"} of them, in orange, got nothing.`
        : `In the output, what it frames is ${grown === "1.00" ? "as large as before" : `${grown} times as large`}, and that edge lies level.`));
    }

    element.append(
      make("p", {}, "At the identity, the frame is the whole picture. Guess before you drag: where does the seven in the output go when the "
        + "middle of the frame goes up? Then make the seven fill the output, upright. Outside of the picture, where it is grey, "
        + "all pixels count as white. The corners, the middle and the knob can be dragged, or moved by the arrow keys."),
      make("div", { class: "live-row" }, ...Object.entries(MAPS).map(([name, theta]) =>
        make("button", { type: "button", onclick: () => { at.theta = theta; update(); say(); } }, name))),
      choice("warp-frame", "Values are", ["read by the output", "sent by the picture"],
        (n) => { at.pushed = n === 1; update(); say(); }),
      make("div", { class: "live-views" }, make("div", { class: "live-stage" }, above, ...handles.map((one) => one.button)),
        make("div", { class: "live-output" }, below, make("table", { class: "live-matrix" }, make("caption", {}, "θ"), numbers))),
      ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "Lay the frame closely around the seven, and tilt it as the seven is tilted. Pixels that are sent instead leave holes, "
        + "because a picture that is enlarged has more places than pixels that could be sent. A place that reads always gets its value.")));
    Object.assign(element, { look, theta: () => at.theta });
    update();
  });
})();
