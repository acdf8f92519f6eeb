"""Write book/_static/icons.woff2: of the theme's 1,400 icons those that the site shows.

python tools/icons.py     (needs fonttools and brotli)

The icons are those of Font Awesome Free 6, whose fonts are under the SIL Open Font License 1.1.
"""

from __future__ import annotations

import re
from importlib.metadata import files
from pathlib import Path

ICONS = [
    *("angle-down", "angle-left", "angle-right", "angle-up", "arrow-left", "arrow-right"),
    *("arrow-up", "bars", "book", "bookmark", "bug", "check", "chevron-down", "chevron-left"),
    *("chevron-right", "chevron-up", "circle-exclamation", "circle-half-stroke", "circle-info"),
    *("circle-question", "code", "copy", "download", "expand", "file", "file-lines", "file-pdf"),
    *("fire", "flask", "graduation-cap", "lightbulb", "link", "list", "magnifying-glass", "moon"),
    *("outdent", "pen-to-square", "pencil", "pencil-alt", "print", "quote-left", "quote-right"),
    *("rocket", "star", "sun", "triangle-exclamation", "up-right-from-square", "xmark"),
]
TARGET = Path(__file__).parents[1] / "book" / "_static" / "icons.woff2"


def main() -> None:
    from fontTools import subset, ttLib  # noqa: PLC0415 (only who writes the font needs it)

    theme = {path.name: path.locate() for path in files("pydata-sphinx-theme") or []}
    css = Path(str(theme["pydata-sphinx-theme.css"])).read_text(encoding="utf-8")
    codes = []
    for icon in ICONS:
        found = re.search(rf'\.fa-{icon}(?![\w-])[^{{}}]*\{{[^}}]*?"\\([0-9a-f]+)"', css)
        if found is None:
            raise SystemExit(f"The theme has no icon {icon}.")
        codes.append(int(found[1], 16))
    font = ttLib.TTFont(str(theme["fa-solid-900.woff2"]))
    chosen = subset.Subsetter()
    chosen.populate(unicodes=codes)
    chosen.subset(font)
    font.flavor = "woff2"
    font.save(TARGET)


if __name__ == "__main__":
    main()
