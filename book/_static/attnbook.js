// What depends on the width of the page: formulas that are too wide for it scroll inside
// themselves, and whatever scrolls can be reached from the keyboard. No line begins with the comma
// that follows a formula, and no name is cut in the middle of a word.
(function () {
  "use strict";

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

  // The arrows that unfold the contents have no name of their own.
  function nameTheArrows() {
    document.querySelectorAll("nav.bd-docs-nav details > summary").forEach((summary) => {
      const link = summary.closest("li").querySelector("a");
      summary.setAttribute("aria-label", "Pages of " + link.textContent.trim());
    });
  }

  // A long name breaks behind a dot, an underscore and the like.
  function breakNames() {
    const names = "nav.bd-links a, .prev-next-title, .bd-article h1, .bd-article code.literal .pre";
    document.querySelectorAll(names).forEach((name) => {
      const text = name.firstChild;
      if (!text || text.nodeType !== Node.TEXT_NODE) return;
      const parts = text.data.split(/(?<=[._=([,])(?=\w)/);
      if (parts.length === 1) return;
      text.replaceWith(...parts.flatMap((part) => [part, document.createElement("wbr")]));
    });
  }

  window.addEventListener("load", () => {
    nameTheArrows();
    breakNames();
    const ready = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    Promise.resolve(ready).then(keepTogether).then(fit);
    window.addEventListener("resize", fitSoon);
    document.addEventListener("toggle", fitSoon, true);
  });
})();
