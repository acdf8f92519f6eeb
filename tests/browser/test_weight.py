"""What a page costs over the wire, gzipped, when nothing of it is there yet."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlparse

import icons
import pytest

from .conftest import ROOT, SITE, Visit

pytestmark = pytest.mark.book

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


@pytest.mark.parametrize(
    ("name", "limit"), [("book/index", 500), *((f"book/{name}", 1000) for name in CHAPTERS)]
)
def test_a_page_is_light(open_page: Callable[..., Visit], address: str, name: str, limit: int):
    visit = open_page(name)
    try:
        # Figures load as the reader comes to them; all of them count.
        visit.page.evaluate(
            "document.querySelectorAll('img').forEach(e => { e.loading = 'eager'; })"
        )
        visit.page.wait_for_load_state("networkidle")
        files = weight([url for url in visit.requests if "/live/" not in url], address)
    finally:
        visit.page.close()
    heaviest = sorted(files.items(), key=lambda item: -item[1])[:5]
    assert sum(files.values()) < limit * 1000, heaviest
    unwanted = ("fontawesome.js", "searchindex.js", "searchtools.js", "tex-mml-chtml.js")
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
