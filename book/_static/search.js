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

  // What a page says, in its own words: without buttons, and without the TeX of its formulas.
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector("article");
    if (!article) return "";
    article.querySelectorAll(".headerlink, script, style, button, summary, h1").forEach((e) => e.remove());
    article.querySelectorAll(".math").forEach((formula) => {
      const written = formula.querySelector("annotation") || formula;
      const tex = written.textContent.replace(/^\s*\\[([]|\\[)\]]\s*$/g, "").trim();
      formula.textContent = /[\\{}&]/.test(tex) ? "\u2026" : tex;
    });
    const part = anchor && article.querySelector(`#${CSS.escape(anchor.slice(1))}`);
    return ((part && part.closest("dl, section")) || article).textContent.replace(/\s+/g, " ");
  };

  // Where the words of a text stand whose stem is looked for, or which contain it.
  Search.makeSearchSummary = (html, stems, anchor) => {
    const text = Search.htmlToText(html, anchor);
    const found = [...text.matchAll(/[\p{Letter}\p{Number}_]+/gu)].find(([word]) => {
      const lower = word.toLowerCase();
      return [...stems].some((stem) => lower.includes(stem) || stemmer.stemWord(lower) === stem);
    });
    const start = Math.max((found ? found.index : 0) - 120, 0);
    const from = start && text.indexOf(" ", start) + 1;
    const shown = text.slice(from, from + 240).trim();
    if (!shown) return null;
    const summary = document.createElement("p");
    summary.className = "context";
    summary.textContent = (from ? "\u2026 " : "") + shown + (from + 240 < text.length ? " \u2026" : "");
    return summary;
  };
})();
