// A click or a tap on a figure, or its button, shows it as large as the window. The dialog is the
// browser's own: Escape closes it, and the focus goes back to where it was. Where no script runs, a
// link to the picture stands in the button's place.
(function () {
  "use strict";

  const say = (text) => window.attnbookWords?.[text] ?? text; // Chinese pages have a table of words

  function enlarge(figure) {
    const shown = [...figure.querySelectorAll("img")].find((image) => image.offsetWidth > 0);
    const dialog = document.createElement("dialog");
    dialog.className = "figure-dialog";
    dialog.setAttribute("aria-label", say("Enlarged figure"));
    const picture = shown.cloneNode();
    picture.removeAttribute("loading");
    picture.style.setProperty("--shape", picture.getAttribute("width") / picture.getAttribute("height"));
    const box = document.createElement("div");
    box.tabIndex = 0; // the arrow keys scroll it
    box.append(picture);
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = say("Close");
    dialog.append(box, close);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    close.focus();
  }

  // A box that scrolls is reached from the keyboard.
  const sizes = new ResizeObserver((entries) => {
    entries.forEach(({ target }) => {
      if (target.scrollWidth > target.clientWidth + 1) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    });
  });

  window.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".book-figure").forEach((figure) => {
      const [link, box] = [figure.querySelector(".figure-enlarge"), figure.querySelector(".figure-scroll")];
      const button = document.createElement("button");
      button.type = "button";
      button.className = link.className;
      button.textContent = link.textContent;
      button.setAttribute("aria-label", link.getAttribute("aria-label"));
      button.addEventListener("click", () => enlarge(figure));
      link.replaceWith(button);
      box.addEventListener("click", () => {
        button.focus({ preventScroll: true }); // where the focus goes back to
        enlarge(figure);
      });
      sizes.observe(box);
    });
  });
})();
