// Chapter 5: five channels of a photograph, a gate for each, and the sum that the next layer sees.
(function () {
  "use strict";
  const { figure, map, make, slider, teller, viridis, grey, paint } = window.attnbookLive;
  const SIDE = 85;
  const BOX = Array(9).fill(1 / 9);
  const EDGE = [-1, 0, 1, -1, 0, 1, -1, 0, 1];
  const CHANNELS = { // where the filter looks, and how much of red, green and blue it takes
    "light": [BOX, [1 / 3, 1 / 3, 1 / 3]],
    "red": [BOX, [1, -0.5, -0.5]],
    "blue": [BOX, [-0.5, -0.5, 1]],
    "lighter right": [EDGE, [1 / 3, 1 / 3, 1 / 3]],
    "lighter below": [[-1, -1, -1, 0, 0, 0, 1, 1, 1], [1 / 3, 1 / 3, 1 / 3]],
  };
  const SETTINGS = { "all gates 1": [1, 1, 1, 1, 1], "edges alone": [0, 0, 0, 1, 1] };
  const PLACES = { suit: [50, 63, 20, 30, "#fff"], wall: [7, 30, 50, 58, "#0072b2"] }; // rows, columns, colour
  const TOP = 0.8; // of all channels
  const inside = (n) => Math.min(Math.max(n, 0), SIDE - 1); // beyond the edge, the edge goes on

  // One channel: a 3 x 3 filter over a weighted sum of the colours, and a ReLU.
  function channel(photo, [filter, colours]) {
    const mixed = map({ length: SIDE * SIDE }, (_, n) => colours.reduce((sum, share, c) => sum + share * photo[c * SIDE * SIDE + n], 0));
    return map(mixed, (_, n) => Math.max(0, filter.reduce((sum, weight, k) => {
      const [row, column] = [inside(Math.floor(n / SIDE) + Math.floor(k / 3) - 1), inside(n % SIDE + k % 3 - 1)];
      return sum + weight * mixed[row * SIDE + column];
    }, 0)));
  }
  const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))];
  function mean(values, [top, bottom, left, right]) {
    let sum = 0;
    for (let row = top; row < bottom; row++) for (let column = left; column < right; column++) sum += values[row * SIDE + column];
    return sum / (bottom - top) / (right - left);
  }

  figure("five_gates", ["astronaut"], (element, { photo }) => {
    const gates = [...SETTINGS["all gates 1"]];
    const maps = Object.values(CHANNELS).map((filter) => channel(photo, filter));
    const { parts, tell, say } = teller();
    const look = (open) => {
      const sum = map(maps[0], (_, n) => maps.reduce((all, one, c) => all + open[c] * one[n], 0));
      return { sum, means: Object.values(PLACES).map((place) => mean(sum, place)) };
    };
    const brightest = quantile(look(gates).sum, 0.995);

    const canvas = (label) => make("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label });
    const [colour, total] = [canvas("the photograph, with a place on the suit and one on the wall"), canvas("the sum of the gated channels")];
    const small = Object.keys(CHANNELS).map((name) => canvas(`channel ${name}, times its gate`));
    const sliders = Object.keys(CHANNELS).map((name, c) => slider(`${name}:`, { min: 0, max: 1, step: 0.05, value: 1 },
      (value) => { gates[c] = value; update(); }, say));

    function frames(target) {
      for (const [top, bottom, left, right, hue] of Object.values(PLACES)) {
        Object.assign(target.getContext("2d"), { strokeStyle: hue, lineWidth: 1.5 }).strokeRect(left, top, right - left, bottom - top);
      }
    }
    function update() {
      const found = look(gates);
      sliders.forEach(({ control, shown }, c) => {
        control.value = gates[c];
        shown.textContent = gates[c].toFixed(2);
        paint(small[c], maps[c].map((value) => gates[c] * value / TOP), viridis);
      });
      paint(total, found.sum.map((value) => value / brightest), grey);
      frames(total);
      const [suit, wall] = found.means.map((value) => value.toFixed(2));
      tell(`In the sum, the suit is at ${suit} and the wall at ${wall}: ` + (suit === wall ? "equally bright."
        : Number(suit) > Number(wall) ? "the suit is brighter." : "the wall is brighter."));
    }

    const drawn = new ImageData(SIDE, SIDE);
    drawn.data.forEach((_, n) => { drawn.data[n] = n % 4 === 3 ? 255 : Math.round(255 * photo[n % 4 * SIDE * SIDE + (n >> 2)]); });
    colour.getContext("2d").putImageData(drawn, 0, 0);
    frames(colour);
    element.append(
      make("p", {}, "The next layer adds the five channels. With all gates open, the suit (white frame) is brighter in the sum than the wall "
        + "(blue frame). Which single gate can turn that round, and how far must it close? Can any setting make a place brighter than it was?"),
      make("div", { class: "live-row" }, ...Object.entries(SETTINGS).map(([name, open]) =>
        make("button", { type: "button", onclick: () => { gates.splice(0, 5, ...open); update(); say(); } }, name))),
      make("div", { class: "live-channels" }, ...small.map((one, c) => make("div", {}, one, sliders[c].label))),
      make("div", { class: "live-pair" }, ...[[colour, "photograph"], [total, "sum"]].map(([one, name]) => make("div", {}, one, make("span", {}, name)))),
      ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "The gate of red, below about a half. Closing any other one leaves the suit the brighter. "
        + "And no setting brightens anything: a gate is at most 1, and no channel is negative.")));
    Object.assign(element, { look, maps });
    update();
  });
})();
