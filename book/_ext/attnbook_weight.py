"""A light page: scripts and letters that it does not use stay out of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# The theme draws its icons twice, from a font and by half a megabyte of script.
ICONS_BY_SCRIPT = r"\s*<script[^>]*scripts/fontawesome\.js[^>]*></script>"
FONT = Path(__file__).parents[1] / "_static" / "icons.woff2"  # of tools/icons.py


def drop_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out sphinx-thebe, declared twice and with a remote address, and MathJax's script."""
    context["script_files"] = [
        script for script in context.get("script_files", []) if not _named(script, "thebe|mathjax")
    ]


def _named(script: object, names: str) -> bool:
    body = str(getattr(script, "attributes", {}).get("body", ""))
    return bool(re.search(names, str(getattr(script, "filename", script)) + body, re.IGNORECASE))


def lighten(app: Sphinx, exception: Exception | None) -> None:
    """Take out what the theme writes into every page, and all icons but those that are shown."""
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        light = re.sub(ICONS_BY_SCRIPT, "", text)
        light = light.replace("fab fa-github", "fas fa-code")  # a font of brands for one icon
        # The theme's script sets the mode at once; a reader without scripts would have none.
        light = light.replace('data-theme="auto"', 'data-theme="light"', 1)
        if light != text:
            path.write_text(light, encoding="utf-8")
    webfonts = Path(app.outdir, "_static", "vendor", "fontawesome", "webfonts")
    shutil.copy2(FONT, webfonts / "fa-solid-900.woff2")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.connect("html-page-context", drop_scripts, priority=900)
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
