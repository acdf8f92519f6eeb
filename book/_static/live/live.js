// What all live figures share: the element <attn-live>, its loading, the mathematics, the drawing.
// Plain scripts, no modules and no fetch: they also run on a page that is opened as a file.
(function () {
  "use strict";

  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  const figures = new Map(); // name -> {needs, build}
  const networks = new Map(); // name -> parameters
  const scripts = new Map(); // file -> promise

  // --- Loading ---------------------------------------------------------------------------------

  function load(file) {
    if (!scripts.has(file)) {
      scripts.set(file, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `${folder}${file}.js`;
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${file}.js could not be loaded`));
        document.head.append(script);
      }));
    }
    return scripts.get(file);
  }

  // One half-precision number from its 16 bits.
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }

  // A weights file calls this: `shapes` in the order of the numbers, all in float16, in base64.
  function network(name, { shapes, extra }, base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const parameters = { ...extra };
    let at = 0;
    for (const [key, shape] of Object.entries(shapes)) {
      const numbers = new Float32Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < numbers.length; i++, at += 2) numbers[i] = half(view.getUint16(at, true));
      numbers.shape = shape;
      parameters[key] = numbers;
    }
    networks.set(name, parameters);
  }

  class LiveFigure extends HTMLElement {
    connectedCallback() {
      if (this.watch) return;
      this.watch = new IntersectionObserver((entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        this.watch.disconnect();
        this.start();
      }, { rootMargin: "600px" });
      this.watch.observe(this);
    }

    async start() {
      try {
        const name = this.getAttribute("name");
        await load(name);
        const { needs, build } = figures.get(name);
        await Promise.all(needs.map((part) => load(`${part}.weights`)));
        build(this, ...needs.map((part) => networks.get(part)));
        window.attnbookChinese?.(this);
        this.dataset.ready = "";
      } catch (error) {
        this.append(make("p", {}, `This figure cannot run here: ${error.message}.`));
      }
    }
  }

  // --- Mathematics: vectors are Float32Arrays; matrices lie in them row by row ------------------

  const map = (x, f) => Float32Array.from(x, f);
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const argmax = (x) => x.reduce((best, value, i) => (value > x[best] ? i : best), 0);
  const join = (...parts) => Float32Array.from(parts.flatMap((part) => [...part]));

  // W x + b; W is (out, in).
  function linear(x, weight, bias) {
    const out = new Float32Array(weight.length / x.length);
    for (let i = 0, at = 0; i < out.length; i++) {
      let sum = bias ? bias[i] : 0;
      for (let j = 0; j < x.length; j++, at++) sum += weight[at] * x[j];
      out[i] = sum;
    }
    return out;
  }

  function softmax(scores) {
    const top = Math.max(...scores);
    const powers = Array.from(scores, (score) => Math.exp(score - top));
    const total = powers.reduce((a, b) => a + b, 0);
    return map(powers, (power) => power / total);
  }

  // One step of nn.GRU, whose parameters are named `prefix`weight_ih`suffix` and so on.
  function gru(p, prefix, suffix, x, state) {
    const named = (name) => p[`${prefix}${name}${suffix}`];
    const given = linear(x, named("weight_ih"), named("bias_ih"));
    const kept = linear(state, named("weight_hh"), named("bias_hh"));
    const size = state.length;
    return map(state, (old, i) => {
      const reset = sigmoid(given[i] + kept[i]);
      const update = sigmoid(given[size + i] + kept[size + i]);
      const candidate = Math.tanh(given[2 * size + i] + reset * kept[2 * size + i]);
      return (1 - update) * candidate + update * old;
    });
  }

  // Pictures are such vectors, too, and have a shape: channels, rows and columns.
  const shaped = (values, ...shape) => Object.assign(values, { shape });

  // f of each number and of its channel.
  function each(x, f) {
    const [, rows, columns] = x.shape;
    return shaped(map(x, (value, n) => f(value, Math.floor(n / (rows * columns)))), ...x.shape);
  }

  // One number for each channel, from all of its places.
  function pool(x, f) {
    const size = x.shape[1] * x.shape[2];
    return Float32Array.from({ length: x.shape[0] }, (_, c) => f(x.subarray(c * size, (c + 1) * size)));
  }
  const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
  const largest = (x) => x.reduce((a, b) => Math.max(a, b), -Infinity);

  // nn.Conv2d without a bias and with zeros around, so that places keep their places. The weight is
  // (out, in, k, k), in as many groups as its channels go into those of x.
  function convolve(x, weight, stride = 1) {
    const [channels, high, wide] = x.shape;
    const [out, given, k] = weight.shape;
    const [rows, columns] = [high, wide].map((side) => Math.ceil(side / stride));
    const y = shaped(new Float32Array(out * rows * columns), out, rows, columns);
    weight.forEach((w, n) => {
      const [o, down, right] = [Math.floor(n / (given * k * k)), Math.floor(n / k) % k - (k >> 1), n % k - (k >> 1)];
      const c = Math.floor(o * channels / given / out) * given + Math.floor(n / (k * k)) % given;
      for (let row = 0; row < rows; row++) {
        const from = row * stride + down;
        if (from < 0 || from >= high) continue;
        const [target, source] = [(o * rows + row) * columns, (c * high + from) * wide + right];
        for (let column = 0; column < columns; column++) {
          const at = column * stride;
          if (at + right >= 0 && at + right < wide) y[target + column] += w * x[source + at];
        }
      }
    });
    return y;
  }

  // nn.BatchNorm2d as it is after training.
  function normalise(p, name, x) {
    const [weight, bias, middle, variance] = ["weight", "bias", "running_mean", "running_var"].map((part) => p[`${name}.${part}`]);
    return each(x, (value, c) => (value - middle[c]) / Math.sqrt(variance[c] + 1e-5) * weight[c] + bias[c]);
  }

  const relu = (x) => each(x, (value) => Math.max(0, value));

  // nn.MaxPool2d(2).
  function halve(x) {
    const [channels, rows, columns] = [x.shape[0], x.shape[1] >> 1, x.shape[2] >> 1];
    return shaped(Float32Array.from({ length: channels * rows * columns }, (_, n) => {
      const at = 4 * columns * Math.floor(n / columns) + 2 * (n % columns); // sides are even
      return Math.max(x[at], x[at + 1], x[at + 2 * columns], x[at + 2 * columns + 1]);
    }), channels, rows, columns);
  }

  // --- Drawing -----------------------------------------------------------------------------------

  // An element with its attributes and children: make("p", {class: "note"}, "text", child).
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== false) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  // A labelled slider; `input` hears every move, `done` the last one.
  function slider(text, { min, max, step, value }, input, done) {
    const shown = make("b"); // an <output> would be what the label labels
    const control = make("input", {
      type: "range", min, max, step, value,
      oninput: () => input(Number(control.value)),
      onchange: () => done?.(Number(control.value)),
    });
    return { label: make("label", {}, make("span", {}, text, " ", shown), control), control, shown };
  }

  // A button that is dragged over a surface, or moved by the arrow keys. `drag` hears where it is
  // taken, in shares of the surface; `step` hears how many steps to the right and down.
  function handle(name, surface, { drag, step }, done) {
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const button = make("button", {
      type: "button", class: "live-handle", "aria-label": name,
      onpointerdown: (event) => button.setPointerCapture(event.pointerId),
      onpointermove: (event) => button.hasPointerCapture(event.pointerId) && drag(shares(event, surface)),
      onpointerup: done,
      onkeydown: (event) => {
        if (!keys[event.key]) return;
        event.preventDefault();
        step(keys[event.key]);
      },
      onkeyup: (event) => keys[event.key] && done(),
    });
    return button;
  }

  // Where in an element a pointer is, from 0 to 1 in both directions.
  function shares(event, element) {
    const box = element.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
      .map((share) => Math.min(Math.max(share, 0), 1));
  }

  // A row of choices, of which one holds.
  function choice(name, legend, options, chosen) {
    return make("fieldset", { class: "live-row" }, make("legend", {}, legend), ...options.map((text, n) =>
      make("label", {}, make("input", { type: "radio", name, checked: n === 0 && "", onchange: () => chosen(n) }), ` ${text}`)));
  }

  // What a figure finds: seen at once, heard when the reader lets go.
  function teller() {
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    return {
      parts: [told, spoken],
      tell: (text) => { told.textContent = text.replace(/(?<![\w-])-(?=[\d.])/g, "−"); },
      say: () => { spoken.textContent = told.textContent; },
    };
  }

  // The colour map of the book's heat maps, viridis, from its hues at nine places.
  const HUES = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"]
    .map((hue) => [0, 2, 4].map((at) => parseInt(hue.slice(at, at + 2), 16)));
  function viridis(value) {
    const at = Math.min(Math.max(value, 0), 1) * (HUES.length - 1);
    const n = Math.min(Math.floor(at), HUES.length - 2);
    return `rgb(${HUES[n].map((low, c) => Math.round(low + (at - n) * (HUES[n + 1][c] - low)))})`;
  }
  const grey = (value) => `rgb(${Array(3).fill(Math.round(255 * Math.min(Math.max(value, 0), 1)))})`;

  // Fill a canvas with one colour for each of its pixels; `hue` gives the colour of 0 to 1.
  function paint(canvas, values, hue) {
    const hues = Uint32Array.from({ length: 256 }, (_, n) => {
      const [red, green, blue] = hue(n / 255).match(/\d+/g).map(Number);
      return (255 << 24) | (blue << 16) | (green << 8) | red; // as the bytes lie in memory
    });
    const image = new ImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let n = 0; n < pixels.length; n++) pixels[n] = hues[Math.round(255 * Math.min(Math.max(values[n], 0), 1))];
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  window.attnbookLive = {
    figure: (name, needs, build) => figures.set(name, { needs, build }),
    network, networks, map, sigmoid, argmax, join, linear, softmax, gru,
    shaped, each, pool, mean, largest, convolve, normalise, relu, halve,
    make, slider, handle, shares, choice, teller, viridis, grey, paint,
  };
  customElements.define("attn-live", LiveFigure);
})();
