"""Live figures: the chapter's own network, run in the page.

A code cell with the metadata {"attnbook": {"live": "date_translator", "title": "..."}} keeps its
stored figure in Colab, on GitHub and on paper; on the site <attn-live> follows it, or with
"instead": true takes its place. "with": "temperature" is handed on, for a figure that can show
more in one place than in another. A Markdown page asks for one with the directive `live`:

    :::{live} date_translator
    :still: attention

    Title of the figure
    :::

Where scripts do not run, and on paper, such a page shows the figure that the chapter named by
`still` has stored.

Pages that have one load live.js, which loads the rest when the figure comes near the screen.
"""

from __future__ import annotations

import json
import os
import shutil
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from attnbook_languages import chinese
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "book" / "_static" / "live"
FONT = (
    ROOT / "attnbook" / "fonts" / "NotoSansSC-dates.otf"
)  # for machines that have no Chinese font


def element(name: str, title: str, where: str, more: str = "") -> nodes.raw:
    """Return the element that becomes the live figure of that name."""
    if not (FIGURES / f"{name}.js").is_file():
        known = sorted(path.stem for path in FIGURES.glob("*.js") if "." not in path.stem)
        raise ExtensionError(f"{where}: there is no live figure {name!r}; there are {known}")
    if not title:
        raise ExtensionError(f"{where}: the live figure {name!r} has no title")
    handed = f' data-with="{escape(more)}"' if more else ""
    html = (
        f'<attn-live name="{escape(name)}"{handed} role="group" aria-label="{escape(title)}">'
        f'<p class="live-title">{escape(title)}</p></attn-live>'
    )
    return nodes.raw("", html, format="html")


class Live(Directive):
    """Puts a live figure into a page that is no notebook."""

    has_content = True
    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"still": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the element, and the figure that stands in its place without it."""
        env = self.state.document.settings.env
        name = self.arguments[0]
        live = element(name, " ".join(self.content).strip(), env.docname)
        return [live, still(env, name, self.options["still"])] if self.options else [live]


def still(env: BuildEnvironment, name: str, chapter: str) -> nodes.container:
    """Return the figure that a chapter has stored of the cell that becomes the live one."""
    path = Path(env.doc2path(f"book/{chapter}"))
    if path.suffix != ".ipynb":  # a chapter that is not translated yet
        path = ROOT / "book" / f"{chapter}.ipynb"
    env.note_dependency(str(path))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["metadata"].get("attnbook", {}).get("live") != name:
            continue
        stored = next(o["data"] for o in cell["outputs"] if "image/svg+xml" in o.get("data", {}))
        target = Path(env.app.doctreedir, f"{name}.svg")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(stored["image/svg+xml"]), encoding="utf-8")
        uri = "/" + Path(os.path.relpath(target, env.srcdir)).as_posix()
        image = nodes.image(uri=uri, alt=cell["metadata"]["mystnb"]["image"]["alt"])
        return nodes.container("", image, classes=["live-still", "cell_output"])
    raise ExtensionError(f"{env.docname}: no cell of {chapter} has the live figure {name!r}")


def hang(app: Sphinx, doctree: nodes.document) -> None:
    """Hang a figure behind each cell that asks for one, and note which pages have any."""
    for cell in doctree.findall(nodes.container):
        asked = cell.get("cell_metadata", {}).get("attnbook", {})
        if cell.get("nb_element") == "cell_code" and "live" in asked:
            for part in cell.children if asked.get("instead") else ():
                if part.get("nb_element") == "cell_code_output":
                    part["classes"].append("live-still")
            title, more = asked.get("title", ""), asked.get("with", "")
            cell.append(element(asked["live"], title, app.env.docname, more))
    if any("<attn-live" in raw.astext() for raw in doctree.findall(nodes.raw)):
        app.env.metadata[app.env.docname]["live"] = True


def add_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Load what live figures share, on pages that have one."""
    if app.env.metadata.get(pagename, {}).get("live"):
        if chinese(app):
            app.add_js_file("live/zh.js", loading_method="defer")
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
