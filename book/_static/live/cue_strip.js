// Chapter 5: two digits and a strip. The reader turns the strip; the gates follow, or are kept.
(function () {
  "use strict";
  const { figure, map, sigmoid, argmax, linear, shaped, each, pool, mean, convolve, normalise, relu, halve, make, slider, teller } = window.attnbookLive;
  const [HIGH, WIDE] = [8, 28];
  const PLACES = HIGH * WIDE;
  const inStrip = (n) => n >= 2 * PLACES && n % WIDE >= 16;

  // The network of the study cue_strip, with its own two gates or with some in their place.
  function run(p, picture, held) {
    let x = picture;
    const gates = [0, 5].map((at, n) => {
      x = relu(normalise(p, `layers.${at + 1}`, convolve(x, p[`layers.${at}.weight`])));
      const layer = (z, name) => linear(z, ...["weight", "bias"].map((part) => p[`layers.${at + 3}.${name}.${part}`]));
      const hidden = map(layer(pool(x, mean), "fc1"), (one) => Math.max(0, one));
      const gate = held ? held[n] : map(layer(hidden, "fc2"), sigmoid);
      x = halve(each(x, (value, c) => gate[c] * value));
      return gate;
    });
    return { gates, logits: linear(x, p["logits.weight"], p["logits.bias"]) };
  }

  figure("cue_strip", ["squeezing", "strips"], (element, p, { pictures, cues, red, green }) => {
    const at = { number: 0, cue: 0.1, held: null }; // a pale blue, where no gate is decided yet
    // A picture of the test, noise and all, with its strip at another value.
    const picture = ({ number, cue }) => shaped(
      pictures.slice(number * 3 * PLACES, (number + 1) * 3 * PLACES).map((value, n) => (inStrip(n) ? value + cue - cues[number] : value)), 3, HIGH, WIDE);
    const { parts, tell, say } = teller();
    const canvas = make("canvas", { width: WIDE, height: HIGH, role: "img" });
    const digits = ["red", "green"].map(() => [make("canvas", { width: HIGH, height: HIGH, "aria-hidden": "true" }), make("span")]);
    const bars = make("div", { class: "live-bars live-low", role: "img" });
    let found;

    // How much the filter of each channel favours red over green, from -1 to 1; the bars stand in this order.
    const filters = p["layers.0.weight"].map(Math.abs);
    const favours = Array.from({ length: 16 }, (_, channel) => {
      const [forRed, forGreen] = [0, 1].map((color) => filters.subarray(27 * channel + 9 * color, 27 * channel + 9 * color + 9).reduce((a, b) => a + b));
      return (forRed - forGreen) / (forRed + forGreen);
    });
    const order = [...favours.keys()].sort((a, b) => favours[a] - favours[b]);
    const inks = order.map((channel) => (Math.abs(favours[channel]) < 0.2 ? "mixed" : favours[channel] > 0 ? "red" : "green"));

    // Inks on white, as in the figure: each colour takes the others away; the strip is blue at +1, yellow at -1.
    function draw(x) {
      [canvas, ...digits.map(([one]) => one)].forEach((one, only) => { // all, red alone, green alone
        const image = new ImageData(one.width, HIGH);
        image.data.forEach((_, n) => {
          const place = WIDE * Math.floor((n >> 2) / one.width) + (n >> 2) % one.width;
          const [r, g, cue] = [1, 2, 3].map((channel) => (only && only !== channel ? 0 : x[(channel - 1) * PLACES + place]));
          const taken = [g + Math.max(cue, 0), r + Math.max(cue, 0), r + g + Math.max(-cue, 0), 0][n % 4];
          image.data[n] = 255 * (1 - taken); // clamped
        });
        one.getContext("2d").putImageData(image, 0, 0);
      });
      const names = [`a red ${red[at.number]}`, `a green ${green[at.number]}`];
      digits.forEach(([, name], n) => { name.textContent = names[n]; });
      canvas.setAttribute("aria-label", `${names.join(" on ")}, with the strip at ${at.cue.toFixed(2)}`);
    }
    function update() {
      const x = picture(at);
      found = run(p, x, at.held);
      draw(x);
      strip.control.value = at.cue;
      strip.shown.textContent = at.cue.toFixed(2).replace("-", "−");
      strip.control.setAttribute("aria-valuetext", strip.shown.textContent);
      const first = order.map((channel) => found.gates[0][channel]);
      bars.replaceChildren(...first.map((gate, n) => make("i", { style: `--g: ${gate}`, class: `is-${inks[n]}` })));
      bars.setAttribute("aria-label", `gates behind the first convolution: ${first.map((gate, n) => `${inks[n]} ${gate.toFixed(2)}`).join(", ")}`);
      const guess = argmax(found.logits);
      const which = { [green[at.number]]: "the green digit", [red[at.number]]: "the red digit" }[guess] ?? "which is neither digit";
      tell(`The network names ${guess}, ${which}. `
        + (at.held ? "Its gates stay as they were when you ticked the box." : `Of the 16 gates behind the first convolution, ${found.gates[0].filter((gate) => gate > 0.5).length} are above one half.`));
    }
    function set(changes) {
      Object.assign(at, changes);
      update();
      say();
    }

    const strip = slider("strip, from yellow (−1) to blue (+1):", { min: -1, max: 1, step: 0.05, value: at.cue },
      (value) => { at.cue = value; update(); }, say);
    const hold = make("input", { type: "checkbox", onchange: () => set({ held: hold.checked ? found.gates : null }) });
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    element.append(
      make("p", {}, "This network has gates and learned from strips of −1 and +1 alone. Here the strip starts at a pale blue that it has never seen. Move the strip towards yellow."),
      make("div", { class: "live-digits" }, ...digits.map((parts) => make("div", {}, ...parts))),
      make("div", { class: "live-picture" }, canvas),
      make("div", { class: "live-sliders" }, strip.label),
      make("div", { class: "live-row" }, button("Turn the strip round", () => set({ cue: -at.cue })),
        button("Another picture", () => { const number = (at.number + 1) % cues.length; set({ number, cue: cues[number] }); }),
        make("label", {}, hold, " keep the gates as they are now")),
      ...parts,
      make("p", {}, "Each bar is the gate of one channel behind the first convolution, from 0 to 1. Green bars belong to filters that favour green, red bars to filters that favour red, and the two grey bars to filters that favour neither."),
      bars,
      make("p", {}, "Which gates turn with the answer? And who decides, if you keep the gates and move the strip again?"),
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "For this picture at −0.1, and for all 40 of them but one, whose red 2 it misreads, somewhere between −0.35 and 0.2. There most of these gates cross over. "
        + "With the gates kept, the strip decides nothing any more: the answer stays, whatever its colour.")));
    Object.assign(element, { look: (x, held) => run(p, shaped(Float32Array.from(x), 3, HIGH, WIDE), held), picture });
    update();
  });
})();
