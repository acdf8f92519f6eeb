// Chapter 7: the mask of one place. Two pooled planes, a window on them, a logit and a sigmoid.
(function () {
  "use strict";
  const { figure, map, sigmoid, make, slider, handle, shares, teller, viridis, grey: greys, paint } = window.attnbookLive;
  const [HIGH, WIDE] = [150, 225];
  const SIZES = [1, 3, 5, 7, 9, 11, 13, 15];
  const DIRECTIONS = Array.from({ length: 8 }, (_, n) => [Math.cos(n * Math.PI / 4), Math.sin(n * Math.PI / 4)]);
  const coloured = (most) => (value) => value / most; // as in the figure above
  const within = (n, size) => Math.min(Math.max(n, 0), size - 1);

  // The eight channels: where the picture gets brighter to the right, and so on round the compass.
  function channels(grey) {
    const at = (row, column) => grey[within(row, HIGH) * WIDE + within(column, WIDE)];
    const slopes = (n) => {
      const [row, column] = [Math.floor(n / WIDE), n % WIDE];
      let [right, down] = [0, 0];
      for (const [off, weight] of [[-1, 1], [0, 2], [1, 1]]) {
        right += weight * (at(row + off, column + 1) - at(row + off, column - 1));
        down += weight * (at(row + 1, column + off) - at(row - 1, column + off));
      }
      return [right, down];
    };
    const all = Array.from(grey, (_, n) => slopes(n));
    return DIRECTIONS.map(([cos, sin]) => map(all, ([right, down]) => Math.max(0, cos * right + sin * down)));
  }

  // The gates of the channels, set by hand as in the chapter: open above the average.
  function gatesOf(x) {
    const told = x.map((one) => one.reduce((a, b) => a + b, 0) / one.length + one.reduce((a, b) => Math.max(a, b), 0));
    const average = told.reduce((a, b) => a + b, 0) / told.length;
    return told.map((one) => sigmoid(10 * (one - average)));
  }

  // The mean of the k x k window around each place, with zeros around the picture.
  function windows(plane, k) {
    const reach = (k - 1) / 2;
    const along = (values, step, place, size) => map(values, (_, n) => {
      let sum = 0;
      for (let off = Math.max(-reach, -place(n)); off <= Math.min(reach, size - 1 - place(n)); off++) sum += values[n + off * step];
      return sum / k;
    });
    return along(along(plane, 1, (n) => n % WIDE, WIDE), WIDE, (n) => Math.floor(n / WIDE), HIGH);
  }

  figure("mask_window", ["eyes"], (element, { grey }) => {
    const x = channels(grey);
    const gates = gatesOf(x);
    const at = { row: 56, column: 84, k: 7, threshold: 4, gated: true };
    let found;
    let pointed = null; // the place under the mouse, until it leaves
    const known = new Map();
    function once(name, compute) {
      if (!known.has(name)) known.set(name, compute());
      return known.get(name);
    }
    function pooled(gated) {
      const open = (c) => (gated ? gates[c] : 1);
      const scaled = x.map((one, c) => one.map((value) => open(c) * value));
      return {
        mean: map(grey, (_, n) => scaled.reduce((sum, one) => sum + one[n], 0) / 8),
        most: map(grey, (_, n) => scaled.reduce((best, one) => Math.max(best, one[n]), 0)),
      };
    }
    function look({ k, threshold, gated }) {
      const { mean, most } = once(gated, () => pooled(gated));
      const [means, maxima] = once(`${gated} ${k}`, () => [windows(mean, k), windows(most, k)]);
      const logits = means.map((value, n) => 20 * (value + maxima[n]) - threshold);
      return { mean, most, means, maxima, logits, mask: logits.map(sigmoid) };
    }

    const { parts, tell, say } = teller();
    const canvas = (label) => make("canvas", { width: WIDE, height: HIGH, role: "img", "aria-label": label });
    const views = { photo: canvas("the photograph"), mean: canvas("mean over the channels"), most: canvas("maximum over the channels"), mask: canvas("the mask") };
    const place = handle("the place whose mask is computed", views.photo, {
      drag: ([across, down]) => go(Math.floor(down * HIGH), Math.floor(across * WIDE)),
      step: ([right, down]) => go(at.row + down, at.column + right),
    }, say);
    const size = slider("window:", { min: 0, max: SIZES.length - 1, step: 1, value: SIZES.indexOf(at.k) },
      (value) => { at.k = SIZES[value]; compute(); }, say);
    const limit = slider("threshold:", { min: 0, max: 12, step: 0.25, value: at.threshold },
      (value) => { at.threshold = value; compute(); }, say);
    const gated = make("input", { type: "checkbox", checked: "", onchange: () => { at.gated = gated.checked; compute(); say(); } });

    function go(row, column) {
      Object.assign(at, { row: within(row, HIGH), column: within(column, WIDE) });
      pointed = null;
      update();
    }
    function compute() {
      found = look(at);
      size.shown.textContent = `${at.k} × ${at.k}`;
      limit.shown.textContent = at.threshold.toFixed(2);
      for (const { control, shown } of [size, limit]) control.setAttribute("aria-valuetext", shown.textContent);
      update();
    }
    function update() {
      const { row, column } = pointed ?? at;
      paint(views.photo, grey, greys);
      paint(views.mean, found.mean.map(coloured(0.3)), viridis);
      paint(views.most, found.most.map(coloured(1)), viridis);
      paint(views.mask, found.mask, viridis);
      for (const view of Object.values(views)) {
        Object.assign(view.getContext("2d"), { strokeStyle: "#ff7f2a", lineWidth: 1 })
          .strokeRect(column - at.k / 2, row - at.k / 2, at.k + 1, at.k + 1);
      }
      place.style.left = `${100 * (column + 0.5) / WIDE}%`;
      place.style.top = `${100 * (row + 0.5) / HIGH}%`;
      const n = row * WIDE + column;
      tell(`Row ${row}, column ${column}: in the window the planes are ${found.means[n].toFixed(3)} and ${found.maxima[n].toFixed(3)} on average. `
        + `Logit: 20 × (${found.means[n].toFixed(3)} + ${found.maxima[n].toFixed(3)}) − ${at.threshold} = ${found.logits[n].toFixed(2)}. Mask: ${found.mask[n].toFixed(2)}. `
        + `At the place itself the planes are ${found.mean[n].toFixed(2)} and ${found.most[n].toFixed(2)}.`);
    }
    const stage = make("div", {
      class: "live-stage",
      onpointermove: (event) => {
        const [across, down] = shares(event, views.photo);
        pointed = { row: within(Math.floor(down * HIGH), HIGH), column: within(Math.floor(across * WIDE), WIDE) };
        update();
      },
      onpointerleave: () => { pointed = null; update(); },
      onclick: () => { if (pointed) go(pointed.row, pointed.column); say(); },
    }, views.photo, place);
    const titled = (view, text) => make("div", {}, view, make("span", {}, text));
    element.append(
      make("p", {}, "The marked place, inside the eye, has no edge: its own planes are near 0. Yet its mask is near 1, open. "
        + "Why? Does it stay so when the window is 1 × 1? Find another such place. The sigmoid of the logit below is the mask."),
      make("div", { class: "live-pair" }, titled(stage, "photograph"),
        titled(views.mask, "mask"), titled(views.mean, "mean over the channels (yellow: 0.3 or more)"), titled(views.most, "maximum over the channels (yellow: 1 or more)")),
      make("div", { class: "live-sliders" }, size.label, limit.label),
      make("label", {}, gated, " gate the channels first"), ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "It is open because an edge lies in its window. The mask reads 49 places of the gated map around each place; with a window of 1 × 1 it reads the place alone, "
        + "and it is near 0, closed, wherever there is no edge. Row 72, column 91, in the dark rim of the eye, is another such place.")));
    Object.assign(element, { look, gates: () => gates });
    compute();
  });
})();
