"""Formulas, typeset while the site is built: MathJax runs here, once, and not in every page.

A page then has its formulas at once, in MathJax's own markup and fonts, with MathML for screen
readers, and loads no script for them. MathJax is in the package django-static-mathjax; mini-racer
is the engine that runs it.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from importlib.metadata import files
from pathlib import Path

from py_mini_racer import MiniRacer
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PARTS = [
    *("loader", "core", "adaptors/liteDOM", "input/tex-full", "output/chtml"),
    *("output/chtml/fonts/tex", "a11y/assistive-mml"),
]
# `physics` gives other meanings to common names such as \div, and is left out.
TYPESETTER = r"""
var {mathjax} = MathJax._.mathjax, {TeX} = MathJax._.input.tex_ts;
var {CHTML} = MathJax._.output.chtml_ts, {TeXFont} = MathJax._.output.chtml.fonts.tex_ts;
var {AllPackages} = MathJax._.input.tex.AllPackages;
var adaptor = MathJax._.adaptors.liteAdaptor.liteAdaptor();
var handler = MathJax._.handlers.html_ts.RegisterHTMLHandler(adaptor);
MathJax._.a11y["assistive-mml"].AssistiveMmlHandler(handler);
var font = new TeXFont({fontURL: "mathjax"});
var output = new CHTML({font, adaptiveCSS: false, mtextInheritFont: true});
var input = new TeX({packages: AllPackages.filter((name) => name !== "physics")});
var page = mathjax.document("", {InputJax: input, OutputJax: output});
var typeset = (tex, display) =>
  adaptor.outerHTML(page.convert(tex, {display, em: 16, ex: 8, containerWidth: 1280}));
var style = () => adaptor.textContent(output.styleSheet(page));
"""
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="(?P<classes>[^"]*\bmath\b[^"]*)"(?P<rest>[^>]*)>'
    r"(?P<before>.*?)\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]](?P<after>.*?)</(?P=tag)>",
    re.DOTALL,
)


def mathjax_folder() -> Path:
    """Return the folder of MathJax 3 in the installed package django-static-mathjax."""
    script = next(
        file
        for file in files("django-static-mathjax") or []
        if file.name == "loader.js" and file.parent.name == "es5"
    )
    return Path(str(script.locate())).parent


class Typesetter:
    """MathJax in an engine of its own, started when the first formula comes."""

    def __init__(self) -> None:
        self.engine: MiniRacer | None = None
        self.done: dict[tuple[str, bool], str] = {}

    def call(self, script: str) -> str:
        """Return what the script says, a string."""
        if self.engine is None:
            self.engine = MiniRacer()
            self.engine.eval("globalThis.MathJax = {config: {}}")
            for part in PARTS:
                self.engine.eval((mathjax_folder() / f"{part}.js").read_text(encoding="utf-8"))
            self.engine.eval(TYPESETTER + "1")
        return str(self.engine.eval(script))

    def typeset(self, tex: str, display: bool) -> str:
        """Return the markup of a formula."""
        if (tex, display) not in self.done:
            made = self.call(f"typeset({json.dumps(tex)}, {json.dumps(display)})")
            if "data-mjx-error" in made or "<mjx-merror" in made:
                raise ExtensionError(f"MathJax cannot read the formula {tex}")
            self.done[tex, display] = made
        return self.done[tex, display]

    def close(self) -> None:
        """Stop the engine."""
        if self.engine is not None:
            self.engine.close()


def typeset_pages(app: Sphinx, exception: Exception | None) -> None:
    """Put finished formulas where TeX stands, in the contents too, and the style they need."""
    if exception is not None or app.builder.format != "html":
        return
    typesetter = Typesetter()

    def finished(found: re.Match[str]) -> str:
        made = typesetter.typeset(html.unescape(found["tex"]).strip(), found["open"] == "[")
        tag, before, after = found["tag"], found["before"], found["after"]
        opening = f'<{tag} class="{found["classes"]}"{found["rest"]}>'
        return f"{opening}{before}{made}{after}</{tag}>"

    for path in sorted(Path(app.outdir).rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        typeset = FORMULA.sub(finished, text)
        if typeset != text:
            root = "../" * (len(path.relative_to(app.outdir).parts) - 1)
            style = f'<link rel="stylesheet" href="{root}_static/mathjax.css" />'
            path.write_text(typeset.replace("</head>", f"{style}\n</head>", 1), encoding="utf-8")
    static = Path(app.outdir, "_static")
    (static / "mathjax.css").write_text(typesetter.call("style()"), encoding="utf-8")
    fonts = mathjax_folder() / "output" / "chtml" / "fonts" / "woff-v2"
    shutil.copytree(fonts, static / "mathjax", dirs_exist_ok=True)
    typesetter.close()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.connect("build-finished", typeset_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
