// Chapter 6: the channels of a trained network in a list, for its first ECA layer to read in any order.
(function () {
  "use strict";
  const { figure, sigmoid, argmax, linear, shaped, each, pool, mean, convolve, normalise, relu, halve, make, handle, teller } = window.attnbookLive;
  const CHANNELS = ["red", "green", "blue"].flatMap((colour) => [1, 2, 3, 4].map((n) => `${colour} ${n}`));
  const TRAINED = CHANNELS.map((_, n) => n);
  const HUES = ["#d55e00", "#009e73", "#0072b2"];
  const short = (c) => CHANNELS[c].replace(/(.)\w+ /, "$1");
  const [LAST_GREEN, FOLLOWS] = [7, 0.1];

  // ECA's gates of channels that stand in `order`; beyond the ends of the list there is none.
  function gatesOf(kernel, squeeze, order) {
    const gates = new Float32Array(order.length);
    order.forEach((channel, at) => {
      gates[channel] = sigmoid(kernel.reduce((sum, weight, j) => sum + weight * (squeeze[order[at + j - 1]] ?? 0), 0));
    });
    return gates;
  }
  // What the first layer of gates is given, which no order changes.
  const before = (p, picture) => relu(normalise(p, "layers.1", convolve(picture, p["layers.0.weight"])));
  // The rest of the network, whose second layer of gates keeps its list.
  function run(p, x, order) {
    const first = gatesOf(p["layers.3.scores.weight"], pool(x, mean), order);
    x = relu(normalise(p, "layers.6", convolve(halve(each(x, (value, c) => first[c] * value)), p["layers.5.weight"])));
    const second = gatesOf(p["layers.8.scores.weight"], pool(x, mean), [...Array(x.shape[0]).keys()]);
    return { first, second, logits: linear(halve(each(x, (value, c) => second[c] * value)), p["logits.weight"], p["logits.bias"]) };
  }

  figure("channel_list", ["banded", "strips"], (element, p, { pictures, cues, red, green }) => {
    const size = pictures.length / cues.length;
    const maps = cues.map((_, n) => before(p, shaped(pictures.slice(n * size, (n + 1) * size), 3, 8, 28)));
    const named = cues.map((cue, n) => (cue > 0 ? red[n] : green[n]));
    const kernel = p["layers.3.scores.weight"];
    const order = [...TRAINED];
    // How many pictures are right, and the mean gates under the cues +1 and -1.
    function look(list) {
      const found = maps.map((x) => run(p, x, list));
      const under = (cue) => TRAINED.map((c) => {
        const gates = found.filter((_, n) => cues[n] === cue).map(({ first }) => first[c]);
        return gates.reduce((a, b) => a + b, 0) / gates.length;
      });
      return { right: found.filter(({ logits }, n) => argmax(logits) === named[n]).length, plus: under(1), minus: under(-1) };
    }

    const { parts, tell, say } = teller();
    const body = make("tbody");
    const list = make("div", { class: "live-list" });
    const labels = TRAINED.map((c) => {
      const label = handle(`${short(c)}, channel ${CHANNELS[c]}`, list, {
        drag: ([across]) => move(c, Math.min(Math.floor(across * 12), 11)),
        step: ([right, down]) => move(c, Math.min(Math.max(order.indexOf(c) + right + down, 0), 11)),
      }, say);
      label.style.borderColor = HUES[c >> 2];
      label.append(short(c));
      return label;
    });
    list.append(...labels);

    // The others step aside: a button that left the page would be let go.
    function move(channel, to) {
      const from = order.indexOf(channel);
      if (to === from) return;
      order.splice(to, 0, ...order.splice(from, 1));
      for (const c of order.slice(0, to)) labels[channel].before(labels[c]);
      labels[channel].after(...order.slice(to + 1).map((c) => labels[c]));
      update();
    }
    function row(channel, found) {
      const weights = Array(12).fill(0);
      kernel.forEach((weight, j) => { weights[order[order.indexOf(channel) + j - 1]] = weight; });
      const cells = TRAINED.map((c) => {
        const share = Math.round(100 * Math.abs(weights[c]) / Math.max(...kernel.map(Math.abs)));
        return make("td", { style: `--c: color-mix(in srgb, #0072b2 ${share}%, var(--pst-color-background))` },
          make("span", { class: "live-hidden" }, weights[c].toFixed(2)));
      });
      return make("tr", { class: channel === LAST_GREEN ? "is-told" : "" }, make("th", { scope: "row" }, short(channel)), ...cells,
        ...[found.plus, found.minus].map((gates) => make("td", {}, gates[channel].toFixed(2))));
    }
    function update() {
      const found = look(order);
      body.replaceChildren(...TRAINED.map((channel) => row(channel, found)));
      const at = order.indexOf(LAST_GREEN);
      const heard = order.slice(Math.max(at - 1, 0), at + 2).map((c) => CHANNELS[c]).join(", ");
      const follow = TRAINED.slice(0, 8).filter((c) => Math.abs(found.plus[c] - found.minus[c]) > FOLLOWS).map((c) => CHANNELS[c]);
      tell(`${found.right} of ${cues.length} pictures are right. The gate of ${CHANNELS[LAST_GREEN]} hears ${heard}. `
        + `Of the gates of red and green, ${follow.join(", ") || "none"} changes by more than ${FOLLOWS} with the cue.`);
    }
    function arrange(next) {
      order.splice(0, 12, ...next);
      list.append(...order.map((c) => labels[c]));
      update();
      say();
    }
    const left = () => { const rest = [...TRAINED]; return TRAINED.map(() => rest.splice(Math.floor(Math.random() * rest.length), 1)[0]); };
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const head = (text) => make("th", { scope: "col" }, make("span", {}, text));
    element.append(
      make("p", {}, "This is the list that the first ECA layer of the network reads. Drag b1 to the end: what becomes of the outlined gate, g4, and of the right answers? "
        + "Put it back, keep the two together, and shuffle the rest by hand: does that harm as much?"),
      list,
      make("div", { class: "live-row" }, button("Shuffle all", () => arrange(left())), button("As trained", () => arrange(TRAINED))),
      ...parts,
      make("table", { class: "live-heat live-band" }, make("caption", {}, "Rows: gates; columns: squeezes, darker for a weight further from 0 (all three are negative). Then the mean gate under the cues +1 and −1."),
        make("thead", {}, make("tr", {}, make("td"), ...TRAINED.map((c) => head(short(c))), head("+1"), head("−1"))), body),
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "In random orders that part g4 and b1, about half of the pictures are right, as by a guess, because g4 then seldom follows the cue; the order of the other channels matters much less. "
        + "As trained, its gate is nearly 0 under the cue +1. Under −1 it rises to 0.27, less than some others have, but enough for the green digit to win.")));
    Object.assign(element, { right: (other) => look(other).right, look: (x, other) => run(p, before(p, shaped(Float32Array.from(x), 3, 8, 28)), other), order });
    update();
  });
})();
