"""The first page, the pages around the book, and what the web is told of each page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from address import UNSET, book_address
from notebooks import appendices

from .conftest import ROOT, SITE, Visit
from .test_site import mode, width

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("book/index")]


@pytest.fixture(scope="module")
def page(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page("book/index")
    yield visit
    assert visit.complaints == []
    visit.page.close()


@pytest.mark.parametrize("pixels", [360, 1440])
def test_the_first_screen_says_what_for_whom_and_where_to_begin(page, pixels):
    with width(page, pixels):
        for what in ("h1", "p:has-text('For people who can')", "a:has-text('Read chapter 1')"):
            assert page.page.locator(f"article {what}").first.bounding_box()["y"] < 640


def test_the_buttons_lead_to_chapter_1(page):
    read, *colab = page.page.locator(".hero > p:last-child a").all()
    assert read.get_attribute("href") == "attention.html"
    address = book_address()
    place = f"{address.owner}/{address.name}/blob/{address.branch}/book/attention.ipynb"
    assert [link.get_attribute("href") for link in colab] == (
        [f"https://colab.research.google.com/github/{place}"] if address.is_set else []
    )


def test_each_chapter_has_a_card(page):
    shown = page.page.eval_on_selector_all(
        ".sd-card", "all => all.map(e => e.querySelector('a').getAttribute('href'))"
    )
    chapters = {path.stem for path in (ROOT / "book").glob("*.ipynb")} - appendices()
    assert sorted(shown) == sorted(f"{name}.html" for name in chapters)


def test_the_numbers_are_counted(page):
    text = page.page.locator("article").inner_text()
    assert "FACT_" not in text
    checked = (ROOT / "book" / "article_checked.md").read_text(encoding="utf-8")
    said = re.search(r"Of (\d+) statements .* (\d+) hold, (\d+) need a .* (\d+) do not", text)
    rows = {
        name: checked.count(f"| {name} |")
        for name in ("holds", "holds with a correction", "does not hold")
    }
    assert [int(number) for number in said.groups()] == [sum(rows.values()), *rows.values()]


def test_every_page_says_what_it_is():
    for path in sorted((SITE / "book").rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for tag in ('property="og:title"', 'name="twitter:card"', "apple-touch-icon"):
            assert tag in text, path.name
        if "api" not in path.parts:
            said = re.search(r'<meta name="description" content="([^"]*)"', text)
            assert said, path.name
            assert 60 < len(said[1]) < 300, path.name


def test_the_pages_around_the_book(address, open_page):
    root = (SITE / "index.html").read_text(encoding="utf-8")
    assert "<title>attnbook" in root
    assert 'href="book/index.html"' in root
    lost = (SITE / "404.html").read_text(encoding="utf-8")
    assert "no such page" in lost
    assert "User-agent" in (SITE / "robots.txt").read_text(encoding="utf-8")
    assert (SITE / "sitemap.xml").is_file() == book_address().is_set


def test_a_reader_can_mend_report_cite_and_print():
    needs_address = {"Edit this page", "Report a mistake"}
    for path in sorted((SITE / "book").rglob("*.html")):
        header = path.read_text("utf-8").partition('class="article-header-buttons"')[2]
        header = header.partition("<article")[0]
        said = set(re.findall(r'title="(.*?)"', header))
        assert {"Cite this book", "Print or save as PDF"} <= said, path.name
        assert needs_address & said == (needs_address if book_address().is_set else set())
        assert UNSET not in header
        cite = re.search(r'<a href="([^"]*#cite)"', header)
        assert (path.parent / (cite[1].partition("#")[0] or path.name)).samefile(
            SITE / "book/index.html"
        )


def test_a_picture_on_a_card_has_no_slab_beneath_it_in_the_dark(page):
    with mode(page, "dark"):
        style = "all => all.map(e => getComputedStyle(e).backgroundColor)"
        grounds = page.page.eval_on_selector_all(".sd-card img", style)
    assert set(grounds) == {"rgba(0, 0, 0, 0)"}


SEEN = "all => all.filter(e => e.checkVisibility()).length"


def test_without_scripts_and_on_paper_the_stored_figure_stands_there(page, context, address):
    still = ".live-still img"
    assert page.page.eval_on_selector_all(still, SEEN) == 0
    page.page.emulate_media(media="print")
    assert page.page.eval_on_selector_all(still, SEEN) == 1
    page.page.emulate_media(media="screen")
    plain = context.browser.new_context(java_script_enabled=False)
    bare = plain.new_page()
    bare.goto(f"{address}book/index.html")
    assert bare.eval_on_selector_all(still, SEEN) == 1
    assert bare.eval_on_selector_all("attn-live", SEEN) == 0
    plain.close()
