// Chapter 6: twelve channels and a kernel of three. The gates depend on the order of the list.
(function () {
  "use strict";
  const { figure, sigmoid, make, slider, choice, teller } = window.attnbookLive;
  const COUNT = 12;
  const KERNEL = [-50, 100, -50];
  const HUES = ["#0072b2", "#d55e00", "#009e73"]; // of the channel before, itself and after, as in the drawings
  const byAngle = Array.from({ length: COUNT }, (_, n) => n);
  const angle = (c) => `${15 * c}°`;

  // The matrix from squeezes to gates, both by angle, for channels that stand in the list in `order`.
  function look(squeeze, { kernel, ring, order }) {
    const matrix = byAngle.map(() => Array(COUNT).fill(0));
    const places = byAngle.map(() => Array(COUNT).fill(0)); // which weight of the kernel stands there
    order.forEach((channel, at) => kernel.forEach((weight, j) => {
      const near = at + j - 1;
      const neighbour = ring ? order[(near + COUNT) % COUNT] : order[near]; // beyond the ends there is none
      if (neighbour === undefined) return;
      matrix[channel][neighbour] += weight;
      places[channel][neighbour] = j;
    }));
    const gates = matrix.map((row) => sigmoid(row.reduce((sum, weight, c) => sum + weight * squeeze[c], 0)));
    return { matrix, places, gates };
  }

  figure("channel_band", ["bricks"], (element, { squeeze }) => {
    const start = { kernel: KERNEL, ring: false, order: byAngle };
    const at = { ...start };
    const { parts, tell, say } = teller();
    const names = ["channel before", "channel itself", "channel after"];
    const sliders = names.map((name, j) => slider(`${name}:`, { min: -100, max: 100, step: 10, value: KERNEL[j] },
      (value) => { at.kernel = at.kernel.map((weight, n) => (n === j ? value : weight)); update(); }, say));
    const body = make("tbody");
    const list = make("p");

    function row(found, channel) {
      const largest = Math.max(...at.kernel.map(Math.abs), 1);
      const cells = found.matrix[channel].map((weight, c) => {
        const share = Math.round(100 * Math.abs(weight) / largest);
        const hue = `color-mix(in srgb, ${HUES[found.places[channel][c]]} ${share}%, var(--pst-color-background))`;
        return make("td", { style: `--c: ${hue}` }, make("span", { class: "live-hidden" }, weight));
      });
      return make("tr", {}, make("th", { scope: "row" }, angle(channel)), ...cells,
        make("td", {}, squeeze[channel].toFixed(3)), make("td", {}, make("b", {}, found.gates[channel].toFixed(2))));
    }
    function update() {
      const found = look(squeeze, at);
      const before = look(squeeze, { ...at, order: byAngle });
      sliders.forEach(({ control, shown }, j) => {
        control.value = at.kernel[j];
        shown.textContent = String(at.kernel[j]).replace("-", "−");
        control.setAttribute("aria-valuetext", shown.textContent);
      });
      list.textContent = `The list: ${at.order.map(angle).join(", ")}.`;
      body.replaceChildren(...byAngle.map((channel) => row(found, channel)));
      const changed = found.gates.filter((gate, c) => Math.abs(gate - before.gates[c]) > 0.05).length;
      const seen = byAngle.filter((c) => found.matrix[6][c] !== 0).map(angle);
      tell(`The gate of 90° is ${found.gates[6].toFixed(2)}, from the squeezes of ${seen.join(", ") || "no channel"}.`
        + (at.order.join() === byAngle.join() ? ""
          : ` Against the list by angle, ${changed || "none"} of the 12 gates differ by more than 0.05.`));
    }
    function set(changes) {
      Object.assign(at, changes);
      update();
      say();
    }
    function shuffled() {
      const left = [...byAngle];
      return byAngle.map(() => left.splice(Math.floor(Math.random() * left.length), 1)[0]);
    }
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);

    element.append(
      make("p", {}, "Press \"Shuffle\". The photograph and its squeezes stay as they are. Do the gates? "
        + "Then press \"By angle\" and close the list to a ring with \"the other end\": which gates were large only because a neighbour was missing?"),
      make("div", { class: "live-row" }, button("Shuffle", () => set({ order: shuffled() })), button("By angle", () => set({ order: byAngle })),
        button("Kernel −50, 100, −50", () => set({ kernel: KERNEL }))),
      make("div", { class: "live-sliders" }, ...sliders.map((one) => one.label)),
      choice("channel-band", "Beyond the ends", ["zeros", "the other end"], (n) => set({ ring: n === 1 })),
      list,
      make("table", { class: "live-heat live-band" }, make("caption", {}, "Rows: gates by angle; columns: squeezes by angle. Blue: the weight for the channel before; orange: for the channel itself; green: for the channel after. The last two columns are the squeeze and the gate."),
        make("thead", {}, make("tr", {}, make("td"), ...byAngle.map((c) => make("th", { scope: "col" }, make("span", {}, angle(c)))),
          make("th", { scope: "col" }, "z"), make("th", { scope: "col" }, "s"))), body),
      ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "They change: a gate is computed from the neighbours in the list, and who these are was a matter of names. "
        + "The gates of 0° and 165° are at 0.98 through the border alone; in a ring both are at about one half.")));
    element.look = (settings) => look(squeeze, { ...start, ...settings });
    update();
  });
})();
