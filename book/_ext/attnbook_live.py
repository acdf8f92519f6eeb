"""Live figures: the chapter's own network, run in the page.

A code cell with the metadata {"attnbook": {"live": "date_translator", "title": "..."}} keeps its
stored figure in Colab, on GitHub and on paper; on the site <attn-live> follows it. A Markdown page
asks for one with the directive `live`:

    :::{live} date_translator
    Title of the figure
    :::

Pages that have one load live.js, which loads the rest when the figure comes near the screen.
"""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "book" / "_static" / "live"
FONT = (
    ROOT / "attnbook" / "fonts" / "NotoSansSC-dates.otf"
)  # for machines that have no Chinese font


def element(name: str, title: str, where: str) -> nodes.raw:
    """Return the element that becomes the live figure of that name."""
    if not (FIGURES / f"{name}.js").is_file():
        known = sorted(path.stem for path in FIGURES.glob("*.js") if "." not in path.stem)
        raise ExtensionError(f"{where}: there is no live figure {name!r}; there are {known}")
    if not title:
        raise ExtensionError(f"{where}: the live figure {name!r} has no title")
    html = (
        f'<attn-live name="{escape(name)}" role="group" aria-label="{escape(title)}">'
        f'<p class="live-title">{escape(title)}</p></attn-live>'
    )
    return nodes.raw("", html, format="html")


class Live(Directive):
    """Puts a live figure into a page that is no notebook."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the element."""
        where = self.state.document.settings.env.docname
        return [element(self.arguments[0], " ".join(self.content).strip(), where)]


def hang(app: Sphinx, doctree: nodes.document) -> None:
    """Hang a figure behind each cell that asks for one, and note which pages have any."""
    for cell in doctree.findall(nodes.container):
        asked = cell.get("cell_metadata", {}).get("attnbook", {})
        if cell.get("nb_element") == "cell_code" and "live" in asked:
            cell.append(element(asked["live"], asked.get("title", ""), app.env.docname))
    if any("<attn-live" in raw.astext() for raw in doctree.findall(nodes.raw)):
        app.env.metadata[app.env.docname]["live"] = True


def add_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Load what live figures share, on pages that have one."""
    if app.env.metadata.get(pagename, {}).get("live"):
        app.add_js_file("live/live.js", loading_method="defer")
        app.add_css_file("live/live.css")


def copy_font(app: Sphinx, exception: Exception | None) -> None:
    """Put the package's font beside the figures."""
    folder = Path(app.outdir, "_static", "live")
    if exception is None and folder.is_dir():
        shutil.copy2(FONT, folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.add_directive("live", Live)
    app.connect("doctree-read", hang)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", copy_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
