"""What is searched for is found, shown in its own words, and marked where the hit leads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .conftest import SETTLED, Visit

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("search")]

MARKED = """() => [...(CSS.highlights.get("searched") ?? [])].map(range => range.toString())"""
FIRST_IN_SIGHT = """() => {
    const [first] = CSS.highlights.get("searched");
    const {top, bottom} = first.getBoundingClientRect();
    return bottom > top && top >= 0 && bottom <= innerHeight;
}"""


@contextmanager
def searched(open_page: Callable[..., Visit], words: str) -> Iterator[Visit]:
    visit = open_page("search", f"?q={words}")
    try:
        visit.page.wait_for_function(
            "document.querySelector('.search-summary')?.textContent.includes('finished')"
            " || document.querySelector('.search-summary')?.textContent.includes('did not')"
        )
        yield visit
    finally:
        visit.page.close()


@pytest.mark.parametrize(
    ("words", "stem"), [("rotary", "rotary"), ("softmax", "softmax"), ("pooling", "pool")]
)
def test_hits_show_words_of_the_article(
    open_page: Callable[..., Visit], words: str, stem: str
) -> None:
    with searched(open_page, words) as visit:
        hits = visit.page.locator("#search-results ul.search > li")
        shown = hits.locator("p.context")
        visit.page.wait_for_function(
            "[...document.querySelectorAll('ul.search > li')]"
            ".every(e => e.querySelector('p, span'))"
        )
        texts = shown.all_inner_texts()
        assert len(texts) >= 2
        for text in texts:
            assert stem in text.lower()
            assert not re.search(r"\\[a-zA-Z(\[]|\.ipynb|\.md\b|\.pdf|Colab|Show code|¶", text), (
                text
            )
        assert visit.complaints == []


@pytest.mark.parametrize("words", ["rotary", "temperatures"])
def test_a_hit_leads_to_the_words_and_marks_them(
    open_page: Callable[..., Visit], words: str
) -> None:
    with searched(open_page, words) as visit:
        page = visit.page
        page.locator(
            "ul.search a[href$='positional_encoding.html'], ul.search a[href$='attention.html']"
        ).first.click()
        page.wait_for_load_state("load")
        page.evaluate(SETTLED)
        marked = page.evaluate(MARKED)
        assert marked
        assert all(word.lower().startswith(words.rstrip("s")) for word in marked)
        assert page.evaluate(FIRST_IN_SIGHT)
        assert page.locator("main .math:not(:has(mjx-container))").count() == 0
        page.keyboard.press("Escape")
        assert page.evaluate(MARKED) == []
        page.reload()
        assert page.evaluate(MARKED) == []
        assert visit.complaints == []


@pytest.mark.parametrize("words", ["多头", "卷积", "权重", "多头注意力"])
def test_chinese_is_found(open_page: Callable[..., Visit], words: str) -> None:
    with searched(open_page, words) as visit:
        links = visit.page.locator("ul.search a").evaluate_all("a => a.map(e => e.href)")
        assert links
        visit.page.locator("ul.search a").first.click()
        visit.page.wait_for_load_state("load")
        assert words in visit.page.evaluate(MARKED)
        assert visit.page.evaluate(FIRST_IN_SIGHT)


def test_the_index_is_loaded_by_the_search_alone(open_page: Callable[..., Visit]) -> None:
    for name, loaded in (("book/index", False), ("book/eca", False), ("search", True)):
        visit = open_page(name)
        visit.page.close()
        assert any("searchindex" in url for url in visit.requests) is loaded
