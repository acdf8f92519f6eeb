// What depends on the width of the page: formulas that are too wide for it scroll inside
// themselves, and whatever scrolls can be reached from the keyboard.
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

  // The arrows that unfold the contents have no name of their own.
  function nameTheArrows() {
    document.querySelectorAll("nav.bd-docs-nav details > summary").forEach((summary) => {
      const link = summary.closest("li").querySelector("a");
      summary.setAttribute("aria-label", "Pages of " + link.textContent.trim());
    });
  }

  window.addEventListener("load", () => {
    nameTheArrows();
    const ready = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    Promise.resolve(ready).then(fit);
    window.addEventListener("resize", fitSoon);
    document.addEventListener("toggle", fitSoon, true);
  });
})();
