"""The two sites know of each other, and the Chinese one speaks Chinese."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urljoin

import pytest

from .conftest import SITE, Visit, is_stub

PAIRS = sorted(path.relative_to(SITE / "zh").as_posix() for path in SITE.glob("zh/**/*.html"))
PAIRS = [name for name in PAIRS if re.fullmatch(r"search\.html|book/.+", name)]
pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif(not PAIRS, reason="no page is translated yet"),
]

LANGUAGE = re.compile(r'<a class="btn btn-sm language" href="([^"]+)" lang="([\w-]+)"')
# English that a reader sees or hears in a live figure; what it writes in English says so.
ENGLISH = """figure => {
    const found = [];
    const walker = document.createTreeWalker(figure, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const {data, parentElement} = walker.currentNode;
        if (!parentElement.closest("[lang=en], .live-title")) found.push(data);
    }
    figure.querySelectorAll("[aria-label], [aria-valuetext]").forEach(e =>
        found.push(e.getAttribute("aria-label") ?? e.getAttribute("aria-valuetext")));
    return found.filter(text => /(?<![A-Za-z])(?!softmax|February)[A-Za-z]{3,}/.test(text));
}"""


def linked(name: str) -> tuple[str, str]:
    """Return where a page's link to the other language leads, and the language."""
    found = LANGUAGE.findall((SITE / name).read_text(encoding="utf-8"))
    assert len(found) == 1, f"{name} has {len(found)} links to the other language"
    return urljoin(name, found[0][0]), found[0][1]


def test_every_page_leads_to_itself_in_the_other_language():
    for name in PAIRS:
        assert linked(f"zh/{name}") == (name, "en")
        assert linked(name) == (f"zh/{name}", "zh-Hans")
    for path in (SITE / "book" / "api").glob("*.html"):
        target = linked(path.relative_to(SITE).as_posix())
        assert target == ("zh/book/api/index.html", "zh-Hans")


def test_a_page_says_its_language():
    for name in PAIRS:
        text = (SITE / "zh" / name).read_text(encoding="utf-8")
        assert '<html lang="zh-Hans"' in text
        assert '<html lang="en"' in (SITE / name).read_text(encoding="utf-8")


def test_a_page_that_is_not_translated_says_so_and_leads_to_the_english_one():
    for name in PAIRS:
        text = (SITE / "zh" / name).read_text(encoding="utf-8")
        if name.startswith("book/") and is_stub(f"zh/{name.removesuffix('.html')}"):
            link = re.search(
                r'还没有翻译成中文。<a class="reference internal" href="([^"]+)"', text
            )
            assert link
            assert urljoin(f"zh/{name}", link[1]) == name
        else:
            assert "还没有翻译成中文" not in text


@pytest.mark.parametrize("name", [name for name in PAIRS if not is_stub(f"zh/{name[:-5]}")])
def test_headings_have_the_anchors_of_their_english_counterparts(name: str) -> None:
    english = (SITE / name).read_text(encoding="utf-8")
    chinese = (SITE / "zh" / name).read_text(encoding="utf-8")
    anchors = re.findall(r'class="headerlink" href="#([^"]+)"', chinese)
    assert len(anchors) == english.count('class="headerlink"')
    assert [anchor for anchor in anchors if f'id="{anchor}"' not in english] == []
    # No link of the page, its contents included, leads by a number.
    assert re.findall(r'href="[^"]*#id\d+"', chinese) == []


@pytest.mark.xdist_group("zh/book/attention")
def test_the_link_to_the_other_language_keeps_the_place(
    open_page: Callable[..., Visit], address: str
) -> None:
    visit = open_page("zh/book/attention", "#when-to-use-it")
    try:
        visit.page.locator("a.language:visible").first.click()
        visit.page.wait_for_url(f"{address}book/attention.html#when-to-use-it")
        assert "When to use it" in visit.page.locator("#when-to-use-it h2").inner_text()
    finally:
        visit.page.close()


@pytest.mark.xdist_group("search")
@pytest.mark.parametrize("words", ["注意", "权重", "注意力", "掩码"])
def test_two_characters_are_found(open_page: Callable[..., Visit], words: str) -> None:
    visit = open_page("zh/search", f"?q={words}")
    try:
        visit.page.wait_for_selector("#search-results ul.search li a")
        links = visit.page.locator("ul.search a").evaluate_all("a => a.map(e => e.href)")
        assert links
        assert all("/zh/book/" in link for link in links)
        assert visit.complaints == []
    finally:
        visit.page.close()


def test_a_fold_says_what_is_in_it(visit: Visit) -> None:
    if visit.name.startswith("zh/"):
        for fold, what in (("above-input", "代码"), ("below-input", "输出")):
            said = visit.page.locator(f"details.{fold} > summary p").all_text_contents()
            later = f"后文的{what}" if what == "代码" else what
            assert set(said) <= {verb + name for verb in ("显示", "隐藏") for name in (what, later)}


def test_live_figures_speak_chinese(visit: Visit) -> None:
    figures = visit.page.locator("attn-live") if visit.name.startswith("zh/") else None
    for figure in figures.all() if figures else ():
        figure.scroll_into_view_if_needed()
        visit.page.wait_for_function(
            "figure => 'ready' in figure.dataset", arg=figure.element_handle()
        )
        assert figure.evaluate(ENGLISH) == []
        for button in figure.get_by_role("button").filter(has_text="抽取").all():
            button.click()
        for field in figure.locator("input[type=text]").all():
            field.fill("二")
        for box in figure.locator("input[type=checkbox]").all():
            box.check()
        assert figure.evaluate(ENGLISH) == []


def test_alt_texts_stand_under_the_figures(visit: Visit) -> None:
    if not visit.name.startswith("zh/"):
        assert visit.page.locator(".figure-said").count() == 0
        return
    for figure in visit.page.locator(".book-figure").all():
        said = figure.locator("xpath=following-sibling::*[1]").inner_text()
        assert said == figure.locator("img").first.get_attribute("alt")


def test_a_short_verdict_stands_in_one_line(visit: Visit) -> None:
    for verdict in visit.page.locator("table.verdicts td:nth-last-child(2) p").all():
        if verdict.inner_text() != "holds with a correction":
            assert verdict.evaluate("p => p.offsetHeight") < 30
