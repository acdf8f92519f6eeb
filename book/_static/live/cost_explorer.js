// Chapter 9: what five layers cost, and what each of them waits for on a machine.
(function () {
  "use strict";
  const { figure, make, slider, argmax, choice, teller } = window.attnbookLive;
  // What a slider says, its values, and the one it starts with.
  const FIRST = {
    C: ["channels C:", [32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048], 256],
    side: ["side of the map:", [1, 2, 4, 7, 14, 28, 56, 112], 28],
  };
  const MORE = {
    batch: ["batch:", [1, 2, 4, 8, 16, 32, 64], 1],
    r: ["reduction r:", [1, 2, 4, 8, 16, 32], 16],
    k: ["ECA's kernel k:", [3, 5, 7, 9, 11, 13, 15], 5],
    window: ["CBAM's kernel:", [1, 3, 5, 7, 9, 11], 7],
    heads: ["heads:", [1, 2, 4, 8, 16, 32], 8],
  };
  const MACHINE = {
    bandwidth: ["memory, GB/s:", [5, 10, 25, 44.5, 100, 250, 500, 1000, 2000, 3350, 5000], 44.5],
    peak: ["arithmetic, G/s:", [10, 25, 55.9, 100, 250, 1000, 5000, 10000, 33500, 100000, 500000], 55.9],
    launch: ["launch, µs:", [0, 1, 2, 5, 10, 20], 5],
  };
  const MACHINES = { "two cores": { bandwidth: 44.5, peak: 55.9, launch: 5 }, "an H100": { bandwidth: 3350, peak: 33500, launch: 5 } };
  const BYTES = ["the least", "by each operator", "by each, attention unfused"];
  const LIMITS = ["memory", "arithmetic", "launches"];

  // Of each layer: parameters and multiply-adds, as attnbook.costs counts them; how many operations
  // are done with single numbers; how often its operators read or write the map; operators.
  function count({ C, side, batch, heads, r, k, window, bytes, bandwidth, peak, launch }) {
    const n = side ** 2;
    const map = batch * n * C;
    const squeezed = 2 * C * C / r;
    const fused = bytes < 2; // if not, scores and weights are written and read, too
    const layers = {
      attention: [4 * C * C + 4 * C, 4 * n * C * C + 2 * n * n * C, heads * n * n, 12, fused ? 5 : 7],
      SE: [squeezed + C + C / r, squeezed, 2 * n * C, 3, 7],
      ECA: [k, k * C, 2 * n * C, 3, batch > 1 ? 7 : 6],
      CBAM: [squeezed + 2 * window ** 2 + 2, 2 * squeezed + 2 * window ** 2 * n, 6 * n * C, 8, 20],
      warp: [6 * (16 * C + 1), 6 * 16 * C, 5 * n * C, 3, 21],
    };
    return Object.fromEntries(Object.entries(layers).map(([name, [parameters, products, elements, passes, operators]]) => {
      const weights = fused || name !== "attention" ? 0 : 4 * batch * heads * n * n;
      const moved = 4 * ((bytes ? passes : 2) * map + weights + parameters);
      const work = batch * (products + elements);
      const times = [moved / bandwidth / 1e3, work / peak / 1e3, operators * launch]; // µs
      return [name, { parameters, products: batch * products, others: batch * elements, bytes: moved, intensity: work / moved, operators, times, waits: argmax(times) }];
    }));
  }

  // Whole numbers below a million, else three digits and a letter.
  function short(number, units = ["", "", " M", " G", " T"]) {
    const power = number < (units[1] ? 1e3 : 1e6) ? 0 : Math.min(Math.floor(Math.log10(number) / 3), units.length - 1);
    const shown = number / 1000 ** power;
    return (shown < 1000 ? rounded(shown) : Math.round(shown)).toLocaleString("en-US") + units[power];
  }
  const inBytes = (number) => short(number, [" B", " kB", " MB", " GB", " TB"]);
  const inTime = (number) => short(number, [" µs", " ms", " s"]);
  const rounded = (number) => Number(number.toPrecision(3));
  const list = (names) => names.join(", ").replace(/, ([^,]+)$/, " and $1");

  // What is drawn: its values, how they are written, and the powers of ten at both ends of the axis.
  const MEASURES = {
    "multiply-adds": [(layer) => [layer.products], short, 1, 14],
    "least time": [(layer) => layer.times, inTime, -1, 10],
  };
  const ROWS = {
    "parameters": (layer) => short(layer.parameters),
    "multiply-adds": (layer) => short(layer.products),
    "by element": (layer) => short(layer.others),
    "bytes": (layer) => inBytes(layer.bytes),
    "operations a byte": (layer) => short(layer.intensity),
    "operators": (layer) => layer.operators,
    ...Object.fromEntries(LIMITS.map((limit, n) => [`time for ${limit}`, (layer) => inTime(layer.times[n])])),
    "waits for": (layer) => LIMITS[layer.waits],
  };

  figure("cost_explorer", [], (element) => {
    const settings = { ...FIRST, ...MORE, ...MACHINE };
    const at = { bytes: 0, drawn: "multiply-adds" };
    const { parts, tell, say } = teller();
    const bars = make("div", { class: "live-levels live-costs" });
    const key = make("p", { class: "live-costs-key" }, ...LIMITS.map((limit) => make("span", {}, make("i"), limit)));
    const body = make("tbody");
    const sliders = Object.fromEntries(Object.entries(settings).map(([name, [text, values]]) => [name,
      slider(text, { min: 0, max: values.length - 1, step: 1, value: 0 }, (index) => set({ [name]: values[index] }), say)]));
    const group = (chosen) => make("div", { class: "live-sliders live-many" }, ...Object.keys(chosen).map((name) => sliders[name].label));

    function set(changed) {
      Object.assign(at, changed);
      for (const [name, { control, shown }] of Object.entries(sliders)) {
        control.value = settings[name][1].indexOf(at[name]);
        shown.textContent = at[name].toLocaleString("en-US");
        control.setAttribute("aria-valuetext", shown.textContent);
      }
      const counts = count(at);
      const layers = Object.entries(counts);
      draw(counts, ...MEASURES[at.drawn]);
      for (const [drawn, asked] of Object.entries(questions)) for (const part of asked) part.hidden = drawn !== at.drawn;
      body.replaceChildren(...Object.entries(ROWS).map(([name, written]) => make("tr", {}, make("th", { scope: "row" }, name),
        ...layers.map(([, layer]) => make("td", {}, written(layer))))));
      const { attention, SE } = counts;
      const ratio = (ours, theirs) => rounded(ours / theirs).toLocaleString("en-US");
      const limits = [...new Set(layers.map(([, layer]) => layer.waits))];
      const waiting = limits.map((limit) => {
        const names = layers.flatMap(([name, layer]) => (layer.waits === limit ? [name] : []));
        return `${limits.length === 1 ? "all five" : list(names)} ${names.length > 1 ? "wait" : "waits"} for ${LIMITS[limit]}`;
      }).join("; ");
      const timed = `, and ${ratio(Math.max(...attention.times), Math.max(...SE.times))} times its time. ${waiting[0].toUpperCase()}${waiting.slice(1)}`;
      tell(`Attention takes ${short(attention.products)} multiply-adds, ${ratio(attention.products, SE.products)} times those of SE`
        + `${at.drawn === "least time" ? timed : ""}.`);
    }
    function draw(counts, values, written, low, high) {
      key.hidden = values(counts.SE).length < 2;
      const share = (number) => Math.max(0, (Math.log10(number) - low) / (high - low));
      const ticks = [0, 3, 6, 9, 12].filter((power) => power >= low && power <= high);
      bars.style.setProperty("--n", high - low);
      // On this axis a bar of 63,500 times looks three times as long, so the factor stands in the picture.
      const times = ({ products }, value) => (key.hidden ? { "data-times": `${short(rounded(products / counts.SE.products))} ×`, "data-long": share(value) > 0.5 } : {});
      bars.replaceChildren(...Object.entries(counts).map(([name, layer]) => make("div", {}, make("span", {}, name),
        make("span", { class: "live-level" }, ...values(layer).map((value) => make("i", { style: `--g:${share(value)}`, ...times(layer, value) }))),
        make("b", {}, written(Math.max(...values(layer)))))),
      make("div", { "aria-hidden": "true" }, make("span"), make("span", { class: "live-ticks" }, ...ticks.map((power) =>
        make("span", { style: `left:${100 * share(10 ** power)}%` }, written(10 ** power))))));
    }

    const [measures, names] = [Object.keys(MEASURES), ["attention", "SE", "ECA", "CBAM", "warp"]];
    const asked = (question, answer, ...more) => [make("p", {}, question),
      make("div", {}, ...more, make("details", {}, make("summary", {}, "The answer"), make("p", {}, answer)))];
    const questions = {
      "multiply-adds": asked(
        "Make the side of the map twice as long, 56 places. By what factor do attention's multiply-adds grow, and by what factor those of SE? Guess, then move the slider. (Each line of the axis stands for ten times the one before it. The number at a bar says how many times SE's multiply-adds it is.)",
        "Attention's multiply-adds grow 11.3 times, from 520 M to 5.86 G. There are four times as many places, so its projections grow 4 times, and comparing and averaging grow 16 times. SE's multiply-adds stay as they were, because its matrices see only the means. But SE also goes over the map twice, which is not counted here, and that grows 4 times."),
      "least time": asked(
        "Each layer has three bars, and takes at least as long as the longest, whose time stands beside it. On two cores attention takes far longer than SE. On an H100, a GPU of data centres, too? Guess, then press its button.",
        "Not for a single picture, by this model, which gives each layer the least time that its speeds allow. On two cores attention's least time is 255 times that of SE, because SE waits for its map to be moved. "
        + "On an H100 both would wait until their operators are launched, 5 of attention and 7 of SE, so the ratio is 0.714. At a batch of 32 attention is behind there, too: the ratio is 14.3 (in float32, without tensor cores; in bf16 with them, by the same model, about 1, or 1.3 if bytes are counted by each operator). No H100 was run, so none is a measured time.",
        make("div", { class: "live-row" }, "Machine:", ...Object.entries(MACHINES).map(([name, machine]) =>
          make("button", { type: "button", onclick: () => { set(machine); say(); } }, name)))),
    };
    const [first, last] = [0, 1].map((n) => Object.values(questions).map((asked) => asked[n]));
    element.append(
      ...first,
      choice("cost-drawn", "Draw:", measures, (n) => { set({ drawn: measures[n] }); say(); }),
      key, bars, ...parts, group(FIRST), ...last,
      make("details", { class: "live-fold" }, make("summary", {}, "All sizes, the machine's speeds and every count"),
        group(MORE), group(MACHINE),
        choice("cost-bytes", "Bytes moved:", BYTES, (bytes) => { set({ bytes }); say(); }),
        make("div", { class: "live-scroll", tabindex: "0", role: "group", "aria-label": "every count" }, make("table", { class: "live-counts" }, make("thead", {}, make("tr", {}, make("td"), ...names.map((name) => make("th", { scope: "col" }, name)))), body))),
      make("details", {}, make("summary", {}, "How it is counted"), make("p", {},
        "“Warp” is the spatial transformer; it finds its six numbers by one linear layer, on the map pooled to 4 × 4 places. "
        + "“By element” are poolings, products with gates, blends of pixels and, in attention, the softmax, with one operation for each score of each head. Numbers have four bytes. The least that can be moved is the map once in and once out, and the parameters. The operators of the book's modules go over the map 12 times "
        + "in attention, 3 times in SE, ECA and the warp and 8 times in CBAM; unfused attention also writes its scores and its weights, and reads them. "
        + "The time is at least the longest of three: bytes by the memory's speed, operations by that of arithmetic (in G multiply-adds a second), and a launch for each operator. A map that stays in a cache is moved faster. "
        + "The H100's numbers are those of NVIDIA's data sheet for SXM: 3,350 GB/s, and 67 teraflops in float32, where a multiply-add is two. "
        + "The two cores' 44.5 GB/s and 55.9 G/s were measured beside the chapter's times, in its section on memory and arithmetic, which prints those of your machine when you run it. 5 µs is a round number; to find it, time a gate on a map of one place and divide by its operators.")));
    element.count = count;
    set(Object.fromEntries(Object.entries(settings).map(([name, [, , start]]) => [name, start])));
  });
})();
