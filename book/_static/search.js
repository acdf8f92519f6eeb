// The search page: Sphinx searches, this says what a hit shows and which words its page marks.
(function () {
  "use strict";

  const stemmer = new Stemmer();
  const parse = Search._parseQuery;

  // Sphinx would mark the word as it was typed, and Chinese in pairs of characters, as it is indexed.
  // A page marks words that begin with what was typed or with its stem, and Chinese as it was typed.
  Search._parseQuery = (query) => {
    const parts = parse(query);
    const whole = query.toLowerCase().split(/[^\p{Letter}\p{Number}_]+/u)
      .filter((word) => word && !stopwords.includes(word));
    parts[3] = new Set(whole);
    const marked = new Set([...whole, ...whole.map((word) => stemmer.stemWord(word))]);
    localStorage.setItem("sphinx_highlight_terms", [...marked].join(" "));
    return parts;
  };

  // What a page says, in its own words: without buttons, and without the TeX of its formulas. A text
  // without its code comes first, for what is searched for is better explained there.
  function texts(html, anchor) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector("article");
    if (!article) return [];
    article.querySelectorAll(".headerlink, script, style, button, summary, h1").forEach((e) => e.remove());
    article.querySelectorAll(".math").forEach((formula) => {
      const written = formula.querySelector("annotation") || formula;
      const tex = written.textContent.replace(/^\s*\\[([]|\\[)\]]\s*$/g, "").trim();
      formula.textContent = /[\\{}&]/.test(tex) ? "\u2026" : tex;
    });
    const part = anchor && article.querySelector(`#${CSS.escape(anchor.slice(1))}`);
    const shown = (part && part.closest("dl, section")) || article;
    const whole = shown.textContent;
    shown.querySelectorAll(".cell_input").forEach((e) => e.remove());
    return [shown.textContent, whole].map((text) => text.replace(/\s+/g, " "));
  }

  // Around the first word that has a stem that is looked for, or, where there is none, contains it.
  Search.makeSearchSummary = (html, stems, anchor) => {
    const candidates = texts(html, anchor);
    const matches = [
      (word) => [...stems].includes(stemmer.stemWord(word)),
      (word) => [...stems].some((stem) => word.includes(stem)),
    ];
    let [text, place] = [candidates[0], 0];
    for (const [match, candidate] of matches.flatMap((m) => candidates.map((c) => [m, c]))) {
      const found = [...candidate.matchAll(/[\p{Letter}\p{Number}_]+/gu)]
        .find(([word]) => match(word.toLowerCase()));
      if (found) {
        [text, place] = [candidate, found.index];
        break;
      }
    }
    if (!text) return null;
    const start = Math.max(place - 120, 0);
    const from = start && text.indexOf(" ", start) + 1;
    const summary = document.createElement("p");
    summary.className = "context";
    const [before, after] = [from ? "\u2026 " : "", from + 240 < text.length ? " \u2026" : ""];
    summary.textContent = before + text.slice(from, from + 240).trim() + after;
    return summary;
  };
})();
