"""What a page costs over the wire, gzipped, when nothing of it is there yet."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import icons
import pytest

from .conftest import ROOT, SITE, Visit

pytestmark = pytest.mark.book

LIMITS = {"book/index": 500}  # kB; all others 1000
# Figures load as the reader comes to them; all of them count.
LOADED = """() => Promise.all([...document.images].map(e => {
    e.loading = "eager";
    return e.complete || new Promise((done, failed) => { e.onload = done; e.onerror = failed; });
}))"""
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
PACKED = {".woff2", ".woff", ".png", ".jpg"}


def weight(requests: list[str], address: str) -> dict[str, int]:
    """Return the bytes of each file that was asked for."""
    found = {}
    for url in requests:
        if url.startswith(address):
            name = unquote(urlparse(url).path).lstrip("/")
            path = Path(SITE, name)
            data = path.read_bytes()
            found[name] = len(data if path.suffix in PACKED else gzip.compress(data))
    return found


def test_a_page_is_light(visit: Visit, address: str) -> None:
    visit.page.evaluate(LOADED)
    files = weight([url for url in visit.requests if "/live/" not in url], address)
    heaviest = sorted(files.items(), key=lambda item: -item[1])[:5]
    assert sum(files.values()) < LIMITS.get(visit.name.removeprefix("zh/"), 1000) * 1000, heaviest
    unwanted = ("fontawesome.js", "tex-mml-chtml.js")
    unwanted += ("searchindex.js", "searchtools.js") if not visit.name.endswith("search") else ()
    assert not [file for file in files if file.endswith(unwanted)]


def test_formulas_are_in_the_page_itself():
    """No script has to run before they can be read: what a fourth of a processor would wait for."""
    for name in CHAPTERS:
        text = (SITE / "book" / f"{name}.html").read_text(encoding="utf-8")
        assert "<mjx-container" in text
        assert not re.search(r"<script[^>]*mathjax", text, re.IGNORECASE)
    assert "mathjax.css" not in (SITE / "book" / "index.html").read_text(encoding="utf-8")


def test_every_icon_that_is_shown_is_in_the_font():
    shown = set()
    for path in SITE.rglob("*.html"):
        shown |= set(re.findall(r"\bfa-([a-z][a-z-]+)\b", path.read_text(encoding="utf-8")))
    assert shown - {"solid", "lg"} <= set(icons.ICONS)
