// What the theme leaves undone: menus that open and close, words of a search that are marked, pages
// that print light. And what depends on the width of the page: formulas that are too wide for it
// scroll inside themselves, and whatever scrolls can be reached from the keyboard. No line begins
// with the comma that follows a formula or with the % of a number, and no name is cut in the
// middle of a word.
(function () {
  "use strict";

  const say = (text) => window.attnbookWords?.[text] ?? text; // Chinese pages have a table of words

  function fit() {
    document.querySelectorAll(".bd-article span.math").forEach((span) => {
      span.classList.remove("is-wide");
      const formula = span.querySelector("mjx-container");
      if (formula) span.classList.toggle("is-wide", formula.offsetWidth > span.clientWidth + 1);
    });
    const mayScroll = ["div.math mjx-container", "span.math", "pre", ".pst-scrollable-table-container"];
    const article = document.querySelector(".bd-article");
    if (article) article.querySelectorAll(mayScroll.join(", ")).forEach((element) => {
      if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0) {
        element.tabIndex = 0;
      } else {
        element.removeAttribute("tabindex");
      }
    });
  }

  let waiting = 0;
  function fitSoon() {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(fit, 100);
  }

  // Between a formula and the text beside it a browser may always begin a new line.
  function keepTogether() {
    document.querySelectorAll(".bd-article span.math").forEach((span) => {
      let [before, after] = [span.previousSibling, span.nextSibling];
      const opening = before && before.nodeType === Node.TEXT_NODE && before.data.match(/[([\u2018\u201c]+$/);
      const closing = after && after.nodeType === Node.TEXT_NODE && after.data.match(/^[,.;:!?)\]\u2019\u201d]+/);
      if (!opening && !closing) return;
      if (opening) before = before.splitText(opening.index);
      if (closing) after.splitText(closing[0].length);
      const together = document.createElement("span");
      together.className = "keep-together";
      span.replaceWith(together);
      together.append(...(opening ? [before] : []), span, ...(closing ? [after] : []));
    });
  }

  // A number and its sign are read together: 95 %, ± 0.3.
  function keepSigns() {
    document.querySelectorAll(".bd-article :is(p, li, td):not(.figure-said)").forEach((block) => {
      block.childNodes.forEach((node) => {
        if (node.nodeType !== Node.TEXT_NODE) return;
        node.data = node.data.replace(/(\d) %/g, "$1\u00a0%").replace(/± (?=\d)/g, "±\u00a0");
      });
    });
  }

  // On a phone what a cell prints wraps, but a table with columns scrolls: its numbers stay below each other.
  function findColumns() {
    document.querySelectorAll(".bd-article .cell_output :is(.stream, .text_plain) pre").forEach((pre) => {
      const rows = pre.textContent.split("\n").filter((row) => /\S {2,}\S/.test(row) || /\d\s+[\d.]+\s+[\d.]+/.test(row));
      pre.classList.toggle("columns", rows.length > 2);
    });
  }

  // The arrows that unfold the contents have no name of their own.
  function nameTheArrows() {
    document.querySelectorAll("nav.bd-docs-nav details > summary").forEach((summary) => {
      const link = summary.closest("li").querySelector("a");
      summary.setAttribute("aria-label", say("Pages of ") + link.textContent.trim());
    });
  }

  // Headings have the same names in both languages, so the other page opens at the same place.
  function keepThePlace() {
    document.querySelectorAll("a.language").forEach((link) => {
      link.addEventListener("click", () => { link.hash = window.location.hash; });
    });
  }

  // A long name breaks behind a dot, an underscore and the like; a short one, as [0], stays whole.
  function breakNames() {
    const names = "nav.bd-links a, .prev-next-title, .bd-article h1, .bd-article code.literal .pre";
    document.querySelectorAll(names).forEach((name) => {
      const text = name.firstChild;
      if (!text || text.nodeType !== Node.TEXT_NODE) return;
      if (text.data.length < 12) {
        name.classList.add("short-name");
        return;
      }
      const parts = text.data.split(/(?<=[._=([,])(?=\w)/);
      if (parts.length === 1) return;
      text.replaceWith(...parts.flatMap((part, n) => (n ? [document.createElement("wbr"), part] : [part])));
    });
  }

  // The theme listens to the first button of each kind, which stands in a header that is not shown
  // (pydata-sphinx-theme#2451). Its sidebars open as dialogs, which it closes with Escape only, or
  // with a click beside them.
  function mendMenus() {
    ["primary", "secondary"].forEach((side) => {
      const shown = document.querySelector(`.bd-header-article .${side}-toggle`);
      const heard = document.querySelector(`#pst-header .${side}-toggle`);
      const menu = document.getElementById(`pst-${side}-sidebar`);
      if (!shown || !heard || !menu) return;
      shown.addEventListener("click", () => heard.click());
      const dialog = document.getElementById(`pst-${side}-sidebar-modal`);
      giveBackFocus(dialog, shown);
      const close = document.createElement("button");
      close.type = "button";
      close.className = "close-menu";
      close.textContent = "\u00d7";
      close.setAttribute("aria-label", say("Close the menu"));
      menu.prepend(close);
      menu.setAttribute("role", "region");
      menu.setAttribute("aria-label", shown.getAttribute("aria-label"));
      dialog.addEventListener("click", (event) => {
        const link = event.target.closest("a[href^='#']");
        if (event.target !== close && !link) return;
        dialog.close();
        // The button that gets the focus back is scrolled to; a link is to have the last word.
        const target = link && document.getElementById(decodeURIComponent(link.hash.slice(1)));
        if (target) dialog.addEventListener("close", () => target.scrollIntoView(), { once: true });
      });
    });
    const search = document.querySelector(".bd-header-article .search-button");
    if (search) giveBackFocus(document.getElementById("pst-search-dialog"), search);
  }

  // Not every browser gives a button that was pressed the focus, and the theme takes it away again.
  function giveBackFocus(dialog, button) {
    button.addEventListener("click", () => {
      dialog.addEventListener("close", () => button.focus({ preventScroll: true }), { once: true });
    });
  }

  // The text of the article, and where in it each of its text nodes begins.
  function words(article) {
    const skipped = ".math, button, script, style, .headerlink, svg";
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest(skipped) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
    const nodes = [];
    let text = "";
    while (walker.nextNode()) {
      nodes.push([text.length, walker.currentNode]);
      text += walker.currentNode.data;
    }
    return [text, nodes];
  }

  // Words that were searched for are marked, and the first is scrolled to. They are marked without
  // a change of the page, so that no formula and no figure is touched.
  function markSearched() {
    const searched = localStorage.getItem("sphinx_highlight_terms");
    localStorage.removeItem("sphinx_highlight_terms");
    const article = document.querySelector(".bd-article");
    const fromSearch = /\/search\.html(\?|$)/.test(document.referrer);
    if (!searched || !article || !fromSearch || !window.Highlight) return;
    // A stem that ends in i may be that of a word in y: rotari, rotary.
    const starts = searched.split(" ").map((word) => word.replace(/i$/, "[iy]"));
    const han = /^\p{Script=Han}/u;
    const pattern = starts.map((start) => (han.test(start) ? start : `${start}[\\p{L}\\p{N}_]*`)).join("|");
    const [text, nodes] = words(article);
    const ranges = [...text.matchAll(new RegExp(`(?:${pattern})`, "giu"))].map((match) => {
      const range = document.createRange();
      const at = (place) => {
        const [begin, node] = nodes.findLast(([begin]) => begin < place) || nodes[0];
        return [node, place - begin];
      };
      range.setStart(...at(match.index + 1));
      range.setStart(range.startContainer, range.startOffset - 1);
      range.setEnd(...at(match.index + match[0].length));
      return range;
    });
    if (!ranges.length) return;
    CSS.highlights.set("searched", new Highlight(...ranges));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") CSS.highlights.delete("searched");
    });
    if (window.location.hash) return;
    const first = ranges[0].startContainer.parentElement;
    for (let e = first.closest("details"); e; e = e.parentElement.closest("details")) e.open = true;
    first.scrollIntoView({ block: "center", behavior: "instant" });
  }

  // A page is printed light, whatever it looks like on the screen.
  function printLight() {
    const root = document.documentElement;
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    window.matchMedia("print").addEventListener("change", (event) => {
      const { mode } = root.dataset;
      const onScreen = mode === "auto" ? (dark.matches ? "dark" : "light") : mode;
      root.dataset.theme = event.matches ? "light" : onScreen;
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    nameTheArrows();
    breakNames();
    keepThePlace();
    mendMenus();
    printLight();
    keepSigns(); // before words are marked: a mark would lose its place
    markSearched();
  });

  window.addEventListener("load", () => {
    keepTogether();
    findColumns();
    document.fonts.ready.then(fit);
    window.addEventListener("resize", fitSoon);
    document.addEventListener("toggle", fitSoon, true);
  });
})();
