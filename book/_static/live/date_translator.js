// Chapter 1: type a date in Chinese; the trained translator writes it in English and shows its weights.
(function () {
  "use strict";
  const { figure, map, argmax, join, linear, softmax, gru, make, viridis } = window.attnbookLive;
  const [PADDING, START, END] = [0, 1, 2];
  const CHINESE = /^(\d{1,4})[年/](\d{1,2})[月/](\d{1,2})日?(星期[一二三四五六日])?$/;
  const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December"];

  // What Translator.translate does, one character at a time: [{next, weights, logits}], until END.
  function translate(p, source, steps) {
    const embed = (table, n) => table.subarray(n * table.shape[1], (n + 1) * table.shape[1]);
    const values = source.map((n) => embed(p["source_embedding.weight"], n));
    const read = (suffix, inputs) => {
      let state = new Float32Array(p["encoder.weight_hh_l0"].shape[1]);
      return inputs.map((x) => (state = gru(p, "encoder.", suffix, x, state)));
    };
    const forwards = read("_l0", values);
    const backwards = read("_l0_reverse", values.toReversed?.() ?? [...values].reverse()).reverse();
    const keys = forwards.map((f, j) => join(f, backwards[j]));
    const written = [];
    let state = new Float32Array(p["decoder.weight_hh_l0"].shape[1]);
    for (let next = START; written.length < steps && next !== END; ) {
      state = gru(p, "decoder.", "_l0", embed(p["target_embedding.weight"], next), state);
      const weights = softmax(keys.map((key, j) => source[j] === PADDING ? -Infinity
        : key.reduce((sum, k, h) => sum + k * state[h], 0) / Math.sqrt(key.length)));
      const context = map(values[0], (_, d) => values.reduce((sum, v, j) => sum + weights[j] * v[d], 0));
      const hidden = linear(join(state, context), p["logits.0.weight"], p["logits.0.bias"]);
      const logits = linear(map(hidden, (h) => Math.max(0, h)), p["logits.2.weight"], p["logits.2.bias"]);
      next = argmax(logits);
      written.push({ next, weights, logits });
    }
    return written;
  }

  // The English for a Chinese date, by rule; null if it is none.
  function rightAnswer(text) {
    const [, year, month, day] = (CHINESE.exec(text) ?? []).map(Number);
    const long = new Date(0);
    long.setUTCFullYear(year, month - 1, day);
    return long.getUTCMonth() + 1 === month && long.getUTCDate() === day
      ? `${MONTHS[month - 1]} ${day}, ${year}` : null;
  }

  function noDate(text) {
    return CHINESE.test(text) ? "There is no such day, so nothing is right."
      : "It has learned year, month and day, as in 2041年9月26日 or 2041/9/26; for anything else nothing is right.";
  }

  figure("date_translator", ["translator"], (element, p) => {
    const chinese = ["", "", "", ...p.source];
    const english = ["", "", "", ...p.target];

    // The network was trained on texts padded to one length, and it reads the padding: so do we.
    function read(text) {
      const numbers = [START, ...[...text].map((c) => chinese.indexOf(c)), END];
      while (numbers.length < p.length) numbers.push(PADDING);
      return translate(p, numbers, p.steps);
    }
    const spell = (written) => written.map(({ next }) => english[next]).join("");

    const field = make("input", {
      type: "text", value: p.example, maxlength: p.length - 2, lang: "zh-Hans", autocomplete: "off",
      spellcheck: "false", oninput: update, onchange: () => say(),
    });
    const answer = make("output", { lang: "en" });
    const verdict = make("span");
    const told = make("p", { class: "live-told" });
    const spoken = make("p", { class: "live-hidden", "aria-live": "polite" });
    const table = make("table", { class: "live-heat" });
    const largest = make("span");
    const colours = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((step) => viridis(step / 8)).join(", ");
    const scale = make("p", {}, "Weight: 0 ", make("span", {
      class: "live-scale", style: `background: linear-gradient(to right, ${colours})` }), largest);
    const draw = make("button", { type: "button", onclick: () => { field.value = randomDate(); update(); say(); } },
      "Another date");

    function randomDate() {
      const date = new Date(Date.UTC(1950, 0, 1 + Math.floor(Math.random() * 36525)));
      const [y, m, d] = [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate()];
      const long = `${y}年${m}月${d}日`;
      const styles = [`${long}星期${"日一二三四五六"[date.getUTCDay()]}`, long, `${y}/${m}/${d}`];
      return styles[Math.floor(Math.random() * styles.length)];
    }

    // Says in words where one row looks: the row under the pointer, or the one that has the focus.
    function tell(row) {
      table.querySelector(".is-told")?.classList.remove("is-told");
      table.tBodies[0].rows[row].classList.add("is-told");
      const { next, weights } = element.written[row];
      const read = ["the start sign", ...field.value, "the end sign"];
      const places = read.map((c, j) => ({ c, j, weight: weights[j] }));
      const most = places.sort((a, b) => b.weight - a.weight).slice(0, 3);
      told.replaceChildren(`“${name(next)}” looks at `, ...most.flatMap(({ c, j, weight }, n) => [
        n ? ", " : "", ...([...c].length > 1 ? [make("span", {}, c), `: ${weight.toFixed(2)}`]
          : [make("span", { lang: "zh-Hans" }, c), ` (place ${j}): ${weight.toFixed(2)}`])]), ".");
    }
    const name = (n) => (english[n] === " " ? "␣" : english[n] || "end");

    function move(event, row) {
      const to = table.querySelectorAll("button")[row + ({ ArrowDown: 1, ArrowUp: -1 }[event.key] ?? NaN)];
      if (!to) return;
      event.preventDefault();
      to.focus();
    }

    function say() {
      spoken.textContent = `${answer.textContent}. ${verdict.textContent}`;
    }

    function update() {
      const characters = [...field.value];
      const unknown = characters.filter((c) => !p.source.includes(c));
      field.setAttribute("aria-invalid", unknown.length > 0 || !characters.length);
      if (unknown.length || !characters.length) {
        answer.textContent = verdict.textContent = "";
        table.replaceChildren();
        told.textContent = `The network has only ever read these characters: ${p.source.join(" ")}`;
        return;
      }
      const written = element.written = read(field.value).filter(({ next }) => next !== END);
      answer.textContent = spell(written);
      const right = rightAnswer(field.value);
      verdict.textContent = right === null ? noDate(field.value)
        : right === answer.textContent ? "Right." : `Wrong: it is ${right}.`;
      const top = Math.max(...written.flatMap(({ weights }) => [...weights]));
      const sign = (c) => make("th", { scope: "col", class: "live-sign" }, c);
      const head = [sign("start"), ...characters.map((c) => make("th", { scope: "col", lang: "zh-Hans" }, c)), sign("end")];
      const rows = written.map(({ next, weights }, i) => make("tr", { onmouseenter: () => tell(i) },
        make("th", { scope: "row" }, make("button", {
          type: "button", tabindex: i ? -1 : 0, onfocus: () => tell(i), onkeydown: (event) => move(event, i),
        }, name(next))),
        ...[...weights].slice(0, head.length).map((weight) => make("td", { style: `--c:${viridis(weight / top)}` },
          make("span", { class: "live-hidden" }, weight.toFixed(2))))));
      table.replaceChildren(
        make("caption", {}, "Columns: the Chinese that is read, from start to end sign. Rows: the English that comes next."),
        make("thead", {}, make("tr", {}, make("td"), ...head)), make("tbody", {}, ...rows));
      largest.textContent = ` ${top.toFixed(2)}`;
      if (written.length) tell(0); // the letter that the text begins with
    }

    element.append(
      make("div", { class: "live-row" }, make("label", {}, "A date in Chinese ", field), draw),
      make("p", {}, "The network writes: ", answer, " ", verdict),
      make("div", { class: "live-scroll" }, table), scale, told, spoken);
    element.read = read;
    element.write = (text) => spell(read(text).filter(({ next }) => next !== END));
    update();
  });
})();
