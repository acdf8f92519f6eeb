"""What a reader of the site can rely on, on every page, seen through a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml
from address import book_address

from attnbook.studies import heads

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
# Before axe looks at a page, what would take most of its time and is hidden from readers goes away:
# MathJax draws a formula as dozens of elements, beside the MathML that a screen reader is given.
# Their colour is that of the text around them. Of the coloured words in code, three of each kind in
# each kind of box stay (axe judges no single letter); the rest is text. Where a box that scrolls
# has a shadow, axe judges no colour at all.
STRIPPED = """() => {
    document.querySelectorAll("details").forEach(e => { e.open = true; });
    document.querySelectorAll("mjx-math").forEach(e => e.remove());
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
    axe.configure({rules: [{id: "color-contrast", selector: "[data-coloured]"}]});
}"""
# A text is as legible as its ink on the grounds of the boxes that it stands in. Of the texts of an
# article that are alike in all of these, axe judges the contrast of a few.
AXE = """async ([within, rules, alike]) => {
    const grounds = new Map([[null, 0]]), kinds = {}, judged = {};
    const numbered = kind => (kinds[kind] ??= Object.keys(kinds).length + 1);
    const ground = e => {
        if (!grounds.has(e)) {
            const s = getComputedStyle(e);
            grounds.set(e, numbered([ground(e.parentElement), s.backgroundColor, s.backgroundImage,
                s.opacity, s.filter, s.mixBlendMode, s.position, s.clipPath].join()));
        }
        return grounds.get(e);
    };
    const isJudged = e => {
        if (!e.closest(".bd-article") || e.matches("button, input, select")) return true;
        const said = [...e.childNodes].filter(n => n.nodeType === Node.TEXT_NODE);
        const {width, height} = e.getBoundingClientRect();
        if (!said.some(n => n.data.trim().length > 1) || Math.min(width, height) < 2) return false;
        const s = getComputedStyle(e);
        const kind = [ground(e), s.color, s.fontSize, s.fontWeight, s.textShadow, s.visibility];
        judged[kind] = (judged[kind] ?? 0) + 1;
        return judged[kind] <= alike;
    };
    document.body.querySelectorAll("*").forEach(e =>
        e.toggleAttribute("data-coloured", isJudged(e)));
    const found = await axe.run(within, {resultTypes: ["violations"], preload: false, rules});
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
# A resize is heard before the next picture is drawn, and attnbook.js measures 100 ms later: so long
# a wait that begins then ends behind its own.
MEASURED = """async () => {
    await new Promise(requestAnimationFrame);
    await new Promise(done => setTimeout(done, 100));
}"""
# A comma that follows a formula or a name in code stands on its line, not at the beginning of the
# next.
LEFT_BEHIND = """() => [...document.querySelectorAll("main span.math, main code")].filter(e => {
    const after = e.nextSibling;
    if (after?.nodeType !== Node.TEXT_NODE || !/^[,.;:!?)]/.test(after.data)) return false;
    const mark = document.createRange();
    mark.setStart(after, 0);
    mark.setEnd(after, 1);
    return mark.getBoundingClientRect().top > e.getBoundingClientRect().bottom;
}).map(e => e.textContent.slice(0, 80))"""
# A name breaks only where it is long: half of `[0]` on the next line is not read as one.
TORN_NAMES = """() => [...document.querySelectorAll("main code .pre")]
    .filter(e => e.textContent.length < 12 && e.getClientRects().length > 1)
    .map(e => e.textContent)"""
# Between a number and its sign no line is broken.
TORN_SIGNS = r"""() => [...document.querySelectorAll(".bd-article :is(p, li, td)")]
    .filter(e => !e.matches(".figure-said"))
    .flatMap(e => [...e.childNodes].filter(n => n.nodeType === Node.TEXT_NODE))
    .map(n => n.data).filter(text => /\d %|± \d/.test(text))"""
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


@cache
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


# Headings in the list beside the text that reach beyond the window.
CLIPPED = """() => [...document.querySelectorAll(".bd-sidebar-secondary a")]
    .filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.textContent.trim())"""


@pytest.mark.parametrize("pixels", [1440, 360])
def test_nothing_sticks_out_sideways(visit: Visit, pixels: int) -> None:
    with width(visit, pixels):
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= pixels
        assert visit.page.evaluate(STICKING_OUT) == []
        assert visit.page.evaluate(UNREACHABLE) == []
        assert visit.page.evaluate(CUT_OFF) == []
        assert visit.page.evaluate(LEFT_BEHIND) == []
        assert visit.page.evaluate(TORN_NAMES) == []
        assert visit.page.evaluate(TORN_SIGNS) == []
        assert pixels < 1200 or visit.page.evaluate(CLIPPED) == []


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
        assert folds.locator("summary[aria-label]").count() == 0  # its words are its name
        folds.first.evaluate("fold => { fold.open = false; }")
        assert folds.first.locator(folded).first.is_hidden()
        folds.first.locator("summary").press("Enter")
        assert folds.first.locator(folded).first.is_visible()


def test_a_fold_without_an_output_says_what_its_code_is_for(visit: Visit) -> None:
    cells = visit.page.locator("main .cell.tag_hide-input")
    later = ("显示后文的代码", "Show code for later cells")[not visit.name.startswith("zh/")]
    for cell in cells.all():
        said = cell.locator("summary p.collapsed").first.text_content()
        alone = cell.locator(".cell_output, attn-live").count() == 0
        assert (said == later) == alone, said


def test_a_fold_of_a_figure_holds_what_prepares_it_and_no_code_is_lost(visit: Visit) -> None:
    notebook = ROOT / f"{visit.name}.ipynb"
    if not notebook.is_file():
        return
    stored = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    written = ["".join(c["source"]).strip() for c in stored if c["cell_type"] == "code"]
    shown = visit.page.locator("main .cell_input pre").all_text_contents()
    assert "\n\n\n".join(written) == "\n\n\n".join(block.strip() for block in shown)
    bare = ".tag_hide-input:not(:has(.cell_output, attn-live))"
    cells = visit.page.locator("main .cell:has(.cell_input)").all()
    for cell, after in pairwise(cells):
        if cell.and_(visit.page.locator(bare)).count():
            assert not after.and_(visit.page.locator(".tag_hide-input")).count()


def test_pictures_have_words(visit: Visit) -> None:
    for image in visit.page.locator("article img").all():
        alt = image.get_attribute("alt") or ""
        characters = re.findall("[\u4e00-\u9fff]", alt) if visit.name.startswith("zh/") else []
        words = len(alt.split()) + len(characters) // 2  # most Chinese words have two
        assert words >= 4, f"alt text {alt!r} says too little"
        assert not re.search(r"[\w/]+\.(png|svg|jpe?g)\b|[0-9a-f]{16}", alt), f"{alt!r} is a path"


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
    if not book_address().is_set or not (ROOT / notebook).is_file():
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


def faults_of_access(
    visit: Visit,
    scheme: str,
    pixels: int,
    *,
    within: str = "html",
    colour: bool = True,
    alike: int = 3,
) -> list[str]:
    """Return what axe finds; the page is left without its formulas, so these tests come last."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    if not visit.page.evaluate("typeof axe === 'object'"):
        visit.page.add_script_tag(path=Path(axe.__path__[0], "axe.min.js"))
        visit.page.evaluate(STRIPPED)
    with width(visit, pixels), mode(visit, scheme):
        return visit.page.evaluate(AXE, [within, {"color-contrast": {"enabled": colour}}, alike])


@pytest.mark.parametrize(("scheme", "pixels"), [("dark", 360), ("light", 1440)])
def test_no_fault_of_access(visit: Visit, scheme: str, pixels: int) -> None:
    assert faults_of_access(visit, scheme, pixels) == []


def test_no_fault_of_access_at_a_width_between(visit: Visit) -> None:
    """But the contrast of colours, which takes most of the time and hangs on no width."""
    assert faults_of_access(visit, "light", 768, colour=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_no_fault_of_access_at_a_width_between_all_colours_too(visit: Visit, scheme: str) -> None:
    assert faults_of_access(visit, scheme, 768, alike=10**6) == []


@pytest.fixture(scope="module")
def front(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page("book/index")
    yield visit
    visit.page.close()


@pytest.mark.xdist_group("book/index")
@pytest.mark.parametrize(
    ("scheme", "pixels"), [("dark", 1440), ("dark", 768), ("light", 768), ("light", 360)]
)
def test_no_fault_of_access_in_the_frame_that_all_pages_share(
    front: Visit, scheme: str, pixels: int
) -> None:
    assert faults_of_access(front, scheme, pixels) == []


# What is too small for a finger: a button or a field is 24 pixels high and wide. The letters of a
# translated date, one button each, are as wide as letters are.
SMALL = """() => [...document.querySelectorAll("attn-live :is(button, input)")]
    .filter(e => e.checkVisibility())
    .filter(e => e.getBoundingClientRect().height < 24
        || e.getBoundingClientRect().width < (e.closest("[name=date_translator]") ? 8 : 23.5))
    .map(e => e.outerHTML)"""
WIDER = """() => [...document.querySelectorAll("attn-live")]
    .filter(e => e.scrollWidth > e.clientWidth).map(e => e.getAttribute("name"))"""


@pytest.mark.parametrize(("scheme", "pixels"), [("light", 360), ("dark", 1440)])
def test_live_figures_can_be_used_by_all(visit: Visit, scheme: str, pixels: int) -> None:
    figures = visit.page.locator("attn-live")
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        visit.page.wait_for_function("e => 'ready' in e.dataset", arg=figure.element_handle())
    for widest in figures.get_by_label(heads.EXAMPLES[2]).all():
        widest.check()
    if figures.count():
        assert faults_of_access(visit, scheme, pixels, within="attn-live") == []
        assert visit.page.evaluate(SMALL) == []
        assert visit.page.evaluate(WIDER) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= pixels
