// Chapter 7: a digit and three pieces, laid by the reader, and the second mask of the trained network beside its average.
(function () {
  "use strict";
  const { figure, map, sigmoid, argmax, linear, softmax, shaped, each, pool, mean, largest, convolve, normalise, relu, halve, make, handle, shares, teller, viridis, grey, paint } = window.attnbookLive;
  const SIDE = 28;
  const INK = 0.3; // a pixel at least this bright is ink
  const SIZES = [14, 6, 6, 6];
  const NAMES = ["the digit", "piece 1", "piece 2", "piece 3"];
  const MIDDLE = [[0, 0], [9, 7], [9, 14], [14, 11]];

  // The network of the study clutter: both masks and five logits of a (1, 28, 28) picture.
  function run(p, picture) {
    let x = relu(normalise(p, "stem.1", convolve(picture, p["stem.0.weight"], 2)));
    const masks = [0, 1].map((n) => {
      const gate = (name) => p[`gates.${n}.${name}.weight`];
      x = normalise(p, `branches.${n}.1`, convolve(n ? halve(x) : x, p[`branches.${n}.0.weight`]));
      const f = (z) => linear(map(linear(z, gate("channel.fc1")), (one) => Math.max(0, one)), gate("channel.fc2"));
      const [means, maxima] = [mean, largest].map((how) => f(pool(x, how)));
      x = each(x, (value, c) => value * sigmoid(means[c] + maxima[c]));
      const [channels, rows, columns] = x.shape;
      const planes = shaped(new Float32Array(2 * rows * columns), 2, rows, columns);
      for (let at = 0; at < rows * columns; at++) {
        const here = Float32Array.from({ length: channels }, (_, c) => x[c * rows * columns + at]);
        [planes[at], planes[rows * columns + at]] = [mean(here), largest(here)];
      }
      const mask = map(normalise(p, `gates.${n}.spatial.conv.bn`, convolve(planes, gate("spatial.conv.conv"))), sigmoid);
      x = relu(shaped(x.map((value, i) => value * mask[i % mask.length]), ...x.shape));
      return mask;
    });
    return { masks, logits: linear(pool(x, largest), p["logits.weight"], p["logits.bias"]) };
  }

  // Where parts lie on one another, the brighter one shows. The digit comes first.
  function lay(drawn, places) {
    const picture = shaped(new Float32Array(SIDE * SIDE), 1, SIDE, SIDE);
    const [alone] = drawn.map((part, n) => {
      part.forEach((value, i) => {
        const at = (places[n][0] + Math.floor(i / SIZES[n])) * SIDE + places[n][1] + i % SIZES[n];
        picture[at] = Math.max(picture[at], value);
      });
      return picture.slice();
    });
    return { picture, alone };
  }

  // A mask as large as the picture, read between its places.
  function enlarge(mask) {
    const side = Math.sqrt(mask.length);
    const line = Array.from({ length: SIDE }, (_, n) => {
      const at = Math.max(0, (n + 0.5) * side / SIDE - 0.5);
      return [Math.floor(at), Math.min(Math.floor(at) + 1, side - 1), at % 1];
    });
    return line.flatMap(([up, down, v]) => line.map(([left, right, h]) => (1 - v) * ((1 - h) * mask[up * side + left] + h * mask[up * side + right])
      + v * ((1 - h) * mask[down * side + left] + h * mask[down * side + right])));
  }

  // How often a map is larger on a pixel of the digit's ink than on one of a piece's.
  function share(large, { picture, alone }) {
    const [digit, piece] = [large.filter((_, n) => alone[n] > INK), large.filter((_, n) => picture[n] > INK && alone[n] <= INK)];
    const won = digit.reduce((sum, one) => sum + piece.filter((other) => one > other).length + piece.filter((other) => one === other).length / 2, 0);
    return won / (digit.length * piece.length);
  }

  figure("digit_masks", ["masks", "pieces"], (element, p, all) => {
    const average = enlarge(p.averages[1].map((hundredths) => hundredths / 100));
    const at = { number: 0, places: [], scored: false }; // neither mask 2 nor scores before the reader has guessed
    const drawn = () => SIZES.map((size, n) => all[`part ${n}`].subarray(at.number * size * size, (at.number + 1) * size * size));
    const { parts, tell, say } = teller();
    const canvas = (side, label) => make("canvas", { width: side, height: side, role: "img", "aria-label": label });
    const photo = canvas(SIDE, "the picture");
    const views = ["mask 2", "the average of mask 2"].map((name) => canvas(10 * SIDE, name));
    const captions = views.map(() => make("span", {}));
    function look(places) {
      const laid = lay(drawn(), places);
      const { masks, logits } = run(p, laid.picture);
      const large = enlarge(masks[1]);
      return { ...laid, masks, logits, large, share: share(large, laid), usual: share(average, laid) };
    }
    const move = (n, place) => {
      at.places[n] = place.map((one) => Math.min(Math.max(Math.round(one), 0), SIDE - SIZES[n]));
      update();
    };
    let grip; // where in a part it was taken
    const handles = SIZES.map((size, n) => {
      const button = handle(NAMES[n], photo, {
        drag: ([x, y]) => move(n, [SIDE * y - grip[0], SIDE * x - grip[1]]),
        step: ([right, down]) => move(n, [at.places[n][0] + down, at.places[n][1] + right]),
      }, say);
      button.addEventListener("pointerdown", (event) => { grip = shares(event, photo).reverse().map((one, axis) => SIDE * one - at.places[n][axis]); });
      button.classList.add("live-part");
      button.style.width = button.style.height = `${100 * size / SIDE}%`;
      return button;
    });

    function update() {
      const found = look(at.places);
      paint(photo, found.picture, (value) => grey(1 - value));
      handles.forEach((button, n) => {
        [button.style.top, button.style.left] = at.places[n].map((one) => `${100 * (one + SIZES[n] / 2) / SIDE}%`);
      });
      [found.large, average].forEach((large, n) => {
        const pen = views[n].getContext("2d");
        if (!n && !at.scored) {
          captions[0].textContent = "mask 2, covered until you have guessed";
          Object.assign(pen, { fillStyle: "#999" }).fillRect(0, 0, 10 * SIDE, 10 * SIDE);
          return;
        }
        const [low, high] = [Math.min(...large), Math.max(...large)]; // each map for itself, as it is scored
        captions[n].textContent = `${["mask 2", "its average over many pictures, always the same"][n]}: ${low.toFixed(2)} (dark) to ${high.toFixed(2)} (yellow)`
          + "; dots: the digit orange, the pieces blue";
        large.forEach((value, i) => {
          const [x, y] = [10 * (i % SIDE), 10 * Math.floor(i / SIDE)];
          pen.fillStyle = viridis((value - low) / (high - low));
          pen.fillRect(x, y, 10, 10);
          if (found.picture[i] <= INK) return;
          [["#000", 2, 6], [found.alone[i] > INK ? "#ff7f2a" : "#66ccff", 3, 4]].forEach(([hue, off, wide]) => {
            pen.fillStyle = hue;
            pen.fillRect(x + off, y + off, wide, wide);
          });
        });
      });
      const guess = argmax(found.logits);
      const percent = (one) => (Number.isNaN(one) ? "none" : `${(100 * one).toFixed(0)} %`);
      const verdict = !(found.share > 0.5) ? "So mask 2 does not beat a guess here."
        : found.usual > 0.5 ? "So both beat a guess here." : "So mask 2 beats a guess here, and its average does not.";
      tell(`The network names ${guess}, with a probability of ${softmax(found.logits)[guess].toFixed(2)}; it is a ${all.labels[at.number]}. `
        + (at.scored ? `Mask 2 scores ${percent(found.share)}, its average ${percent(found.usual)} (a guess: 50 %). ${verdict}` : ""));
    }
    function start(number, places) {
      Object.assign(at, { number, places: places.map((place) => [...place]) });
      update();
      say();
    }
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const score = button("Show mask 2 and the scores", () => {
      at.scored = !at.scored;
      score.textContent = at.scored ? "Hide mask 2 and the scores" : "Show mask 2 and the scores";
      update();
      say();
    });
    const titled = (view, text) => make("div", {}, view, make("span", {}, text));
    element.append(
      make("p", {}, "Digits are large and often reach the middle; here the pieces lie there. Guess where mask 2 is bright, and show it. "
        + "Then drag the digit (orange frame) and the pieces (blue), or move them by the arrow keys: does mask 2 follow the digit?"),
      make("div", { class: "live-views live-three" }, titled(make("div", { class: "live-stage" }, photo, ...handles), "the picture"),
        ...views.map((view, n) => make("div", {}, view, captions[n]))),
      make("div", { class: "live-row" }, score, button("Digit to a corner, pieces to the middle", () => start(at.number, MIDDLE)),
        button("The original picture", () => start(at.number, all.places[at.number])),
        button("Another picture", () => { const next = (at.number + 1) % all.labels.length; start(next, all.places[next]); })),
      ...parts,
      make("details", {}, make("summary", {}, "The answer"), make("p", {},
        "Not always. With the digit in the corner this network's mask 2 scores 51 to 97 percent in seven of the eight pictures, and 37 in one; "
        + "its average, which knows only where digits usually lie, scores 5 at most.")));
    Object.assign(element, { look, run: (x) => run(p, shaped(Float32Array.from(x), 1, SIDE, SIDE)), at });
    start(0, MIDDLE);
  });
})();
