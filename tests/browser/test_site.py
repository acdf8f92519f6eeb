"""What a reader of the site can rely on, on every page, seen through a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml

from .conftest import DESKTOP, ROOT, SITE, Visit

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

pytestmark = pytest.mark.book

STICKING_OUT = """() => {
    const scrolls = element => {
        for (let e = element; e && e !== document.body; e = e.parentElement) {
            if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(e).overflowX))
                return true;
        }
        return false;
    };
    return [...document.querySelectorAll(".bd-main *")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e))
        .map(e => e.outerHTML.slice(0, 120));
}"""
PROSE = """() => {
    const article = document.querySelector("main").cloneNode(true);
    article.querySelectorAll("pre, code, script, mjx-container, .sig").forEach(e => e.remove());
    return article.textContent;
}"""
# MathJax draws a formula as dozens of elements that are hidden from screen readers, which are given
# MathML instead. Their colour is that of the text around them. Of the coloured words in code, three
# of each kind in each kind of box are looked at (axe judges no single letter); the rest is text.
# So axe is three times as fast. Where a box that scrolls has a shadow, axe judges no colour at all.
AXE = """async rules => {
    const drawn = [...document.querySelectorAll("mjx-math")].map(e => [e.parentElement, e]);
    drawn.forEach(([, formula]) => formula.remove());
    const seen = {};
    const isSeen = word => {
        if (word.childElementCount) return false;
        let kind = "";
        for (let e = word; e !== document.body; e = e.parentElement)
            kind += `${e.tagName} ${e.className} ${e.style.cssText}|`;
        if (word.textContent.trim().length > 1) seen[kind] = (seen[kind] ?? 0) + 1;
        return word.textContent.trim().length < 2 || seen[kind] > 3;
    };
    const code = [...document.querySelectorAll(".highlight pre")].map(pre => {
        const plain = pre.cloneNode(false);
        plain.append(...[...pre.childNodes].map(node =>
            node.tagName !== "SPAN" ? node.cloneNode(true)
                : isSeen(node) ? node.textContent : node.cloneNode(true)));
        plain.normalize();
        return [pre, plain];
    });
    code.forEach(([pre, plain]) => pre.replaceWith(plain));
    const bare = document.createElement("style");
    bare.textContent = ".bd-article * { background-image: none !important; }";
    document.head.append(bare);
    const found = await axe.run(document, {resultTypes: ["violations"], preload: false, rules});
    bare.remove();
    code.forEach(([pre, plain]) => plain.replaceWith(pre));
    drawn.forEach(([parent, formula]) => parent.prepend(formula));
    const say = (rule, node) =>
        `${rule.id}: ${node.target.join(" ")} ${node.any.map(check => check.message).join("; ")}`;
    // A heading that is a formula has words in MathML, which axe does not count.
    const formula = (rule, node) => rule.id === "empty-table-header"
        && document.querySelector(node.target.join(" ")).querySelector(".math");
    return found.violations.flatMap(rule =>
        rule.nodes.filter(node => !formula(rule, node)).map(node => say(rule, node)));
}"""
# What lies left of the box that it stands in is reached by no scrolling.
CUT_OFF = """() => [...document.querySelectorAll("main div.math")]
    .filter(e => e.querySelector("mjx-math")?.getBoundingClientRect().left
        < e.getBoundingClientRect().left - 1)
    .map(e => e.textContent.slice(0, 80))"""
# What is folded is folded once more first, so that it opens before our eyes.
MOVING = """() => {
    const folded = document.querySelectorAll("details");
    folded.forEach(e => { e.open = false; e.getBoundingClientRect(); e.open = true; });
    return document.getAnimations().map(e => e.animationName ?? e.transitionProperty);
}"""
# A resize is heard before the next picture is drawn, and attnbook.js measures 100 ms later.
MEASURED = """async () => {
    await new Promise(requestAnimationFrame);
    await new Promise(done => setTimeout(done, 150));
}"""
# A comma that follows a formula stands on its line, not at the beginning of the next.
LEFT_BEHIND = """() => [...document.querySelectorAll("main span.math")].filter(e => {
    const after = e.nextSibling;
    if (after?.nodeType !== Node.TEXT_NODE || !/^[,.;:!?)]/.test(after.data)) return false;
    const mark = document.createRange();
    mark.setStart(after, 0);
    mark.setEnd(after, 1);
    return mark.getBoundingClientRect().top > e.getBoundingClientRect().bottom;
}).map(e => e.textContent.slice(0, 80))"""
# Tags of cells, what folds them on the page, and what is in it.
FOLDS = [
    ("hide-input", "above-input", ".cell_input"),
    ("hide-output", "below-input", ".cell_output"),
]
UNREACHABLE = """() => [...document.querySelectorAll("main .math, main .math mjx-container")]
    .filter(e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX))
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0)
    .map(e => e.textContent.slice(0, 80))"""


@contextmanager
def width(visit: Visit, pixels: int) -> Iterator[None]:
    """Afterwards the page stays so wide: tests of one width follow each other, and wait once."""
    size: ViewportSize = {**DESKTOP, "width": pixels}
    if visit.page.viewport_size != size:
        visit.page.set_viewport_size(size)
        visit.page.evaluate(MEASURED)
    yield


@contextmanager
def mode(visit: Visit, scheme: str) -> Iterator[None]:
    visit.page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    visit.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
    yield
    visit.page.emulate_media(color_scheme="light")


def sources() -> dict[str, str]:
    """Return the Markdown of every page that has a source, by the page's name."""
    found = {}
    for path in (SITE / "_sources").rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n\n".join(
                "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
            )
        found[path.relative_to(SITE / "_sources").with_suffix("").as_posix()] = text
    return found


def formulas(markdown: str) -> int:
    """Count the formulas between dollar signs, outside code."""
    prose = re.sub(r"^( *)(```+).*?^\1\2|`+[^`]+`+", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return len(re.findall(r"\$\$.+?\$\$|(?<![\\$])\$[^$]+\$", prose, flags=re.DOTALL))


def test_a_page_stays_in_one_process(visit: Visit, request: pytest.FixtureRequest) -> None:
    """Not every pytest reads the groups that pytest-xdist writes."""
    grouped = request.config.getoption("loadgroup", default=False)
    assert not grouped or request.node.nodeid.endswith(f"@{visit.name}")


def test_nothing_is_asked_of_the_network(visit: Visit, address: str) -> None:
    assert [url for url in visit.requests if not url.startswith((address, "data:"))] == []


def test_console_is_silent(visit: Visit) -> None:
    assert visit.complaints == []


def test_every_formula_is_typeset(visit: Visit) -> None:
    page = visit.page
    written = formulas(sources().get(visit.name, ""))
    assert page.locator("main .math").count() >= written
    assert page.locator("main .math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert re.findall(r"\$[^$\n]*|\\[(\[].*", page.evaluate(PROSE)) == []


@pytest.mark.parametrize("pixels", [1440, 360])
def test_nothing_sticks_out_sideways(visit: Visit, pixels: int) -> None:
    with width(visit, pixels):
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= pixels
        assert visit.page.evaluate(STICKING_OUT) == []
        assert visit.page.evaluate(UNREACHABLE) == []
        assert visit.page.evaluate(CUT_OFF) == []
        assert visit.page.evaluate(LEFT_BEHIND) == []


def test_verdicts_fit_a_phone(visit: Visit) -> None:
    with width(visit, 360):
        tables = visit.page.locator("div:has(> table.verdicts)")
        assert [e.evaluate("e => e.scrollWidth - e.clientWidth") for e in tables.all()] == (
            [0] * tables.count()
        )


def test_nothing_moves_for_a_reader_who_asks_for_less_motion(visit: Visit) -> None:
    assert visit.page.evaluate(MOVING) == []


@pytest.mark.parametrize(("tag", "fold", "folded"), FOLDS, ids=["code", "output"])
def test_a_fold_opens_at_a_key(visit: Visit, tag: str, fold: str, folded: str) -> None:
    cells = visit.page.locator(f"main .tag_{tag}")
    folds = cells.locator(f"details.{fold}")
    assert folds.count() == cells.count()
    assert f'{fold}" open' not in (SITE / f"{visit.name}.html").read_text(encoding="utf-8")
    if folds.count():
        folds.first.evaluate("fold => { fold.open = false; }")
        assert folds.first.locator(folded).first.is_hidden()
        folds.first.locator("summary").press("Enter")
        assert folds.first.locator(folded).first.is_visible()


def test_pictures_have_words(visit: Visit) -> None:
    for image in visit.page.locator("article img").all():
        alt = image.get_attribute("alt") or ""
        characters = re.findall("[\u4e00-\u9fff]", alt) if visit.name.startswith("zh/") else []
        words = len(alt.split()) + len(characters) // 2  # most Chinese words have two
        assert words >= 4, f"alt text {alt!r} says too little"
        assert not re.search(r"[\w/]+\.(png|svg|jpe?g)\b|[0-9a-f]{16}", alt), f"{alt!r} is a path"


def faults_of_access(visit: Visit, scheme: str, pixels: int, *, colour: bool = True) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    if not visit.page.evaluate("typeof axe === 'object'"):
        visit.page.add_script_tag(path=Path(axe.__path__[0], "axe.min.js"))
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    with width(visit, pixels), mode(visit, scheme):
        return visit.page.evaluate(AXE, {"color-contrast": {"enabled": colour}})


@pytest.mark.parametrize(("scheme", "pixels"), [("dark", 360), ("light", 1440)])
def test_no_fault_of_access(visit: Visit, scheme: str, pixels: int) -> None:
    assert faults_of_access(visit, scheme, pixels) == []


def test_no_fault_of_access_at_a_width_between(visit: Visit) -> None:
    """But the contrast of colours, which takes most of the time and hangs on no width."""
    assert faults_of_access(visit, "light", 768, colour=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_no_fault_of_access_at_a_width_between_colours_too(visit: Visit, scheme: str) -> None:
    assert faults_of_access(visit, scheme, 768) == []


@pytest.mark.parametrize(
    ("scheme", "pixels"), [("dark", 1440), ("light", 360), ("dark", 768), ("light", 768)]
)
def test_no_fault_of_access_in_the_frame_that_all_pages_share(
    open_page: Callable[..., Visit], scheme: str, pixels: int
) -> None:
    visit = open_page("book/index")
    try:
        assert faults_of_access(visit, scheme, pixels) == []
    finally:
        visit.page.close()


def test_links_within_the_site_lead_somewhere(visit: Visit, address: str) -> None:
    base = f"{address}{visit.name}.html"
    for href in visit.page.eval_on_selector_all(
        "a[href]", "a => a.map(e => e.getAttribute('href'))"
    ):
        target, anchor = urldefrag(urljoin(base, href))
        if target.startswith(address):
            path = SITE / unquote(target.removeprefix(address).partition("?")[0] or "index.html")
            assert path.is_file(), f"{href} leads nowhere"
            assert not anchor or f'id="{unquote(anchor)}"' in path.read_text(encoding="utf-8"), href


def test_a_notebook_opens_in_colab(visit: Visit) -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    colab = config["launch_buttons"]["colab_url"]
    repository = config["repository"]["url"].removeprefix("https://github.com/")
    notebook = f"{visit.name.replace('zh/book/', 'book/zh/')}.ipynb"
    links = visit.page.locator(f'.article-header-buttons a[href^="{colab}"]')
    if not (ROOT / notebook).is_file():
        assert links.count() == 0
        return
    branch = config["repository"]["branch"]
    expected = f"{colab}/github/{repository}/blob/{branch}/{notebook}"
    assert [link.get_attribute("href") for link in links.all()] == [expected]


def test_search_finds_a_word(open_page: Callable[..., Visit]) -> None:
    having = {name for name, text in sources().items() if "additive" in text.lower()}
    if not having:
        pytest.skip("no page has the word additive yet")
    visit = open_page("search", "?q=additive")
    try:
        visit.page.wait_for_function(
            "document.querySelector('.search-summary')?.textContent.includes('finished')"
        )
        hrefs = visit.page.eval_on_selector_all(
            "#search-results ul.search li a", "a => a.map(e => e.getAttribute('href'))"
        )
        assert having <= {urldefrag(href).url.partition(".html")[0] for href in hrefs}
        assert visit.complaints == []
    finally:
        visit.page.close()
