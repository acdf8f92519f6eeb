"""A page on paper, and a page while it comes: what is read does not pale, is not cut, stays put."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from .conftest import SETTLED, Visit
from .test_buttons import contrast

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("print")]

COLOURS = """() => [...new Set([...document.querySelectorAll("main *")]
    .filter(e => e.checkVisibility())
    .filter(e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()))
    .map(e => getComputedStyle(e).color))]"""
CUT = """() => [...document.querySelectorAll("main pre")]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
    .map(e => e.textContent.slice(0, 80))"""
TITLES = """() => [...document.querySelectorAll("h1")]
    .filter(e => e.checkVisibility()).map(e => e.innerText)"""
HEARD = """() => {
    window.shifts = [];
    new PerformanceObserver(list => window.shifts.push(...list.getEntries()))
        .observe({type: "layout-shift", buffered: true});
}"""


@pytest.fixture(scope="module")
def printed(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    """A chapter that is read in the dark, as it is printed."""
    visit = open_page("book/eca")
    page = visit.page
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.set_viewport_size({"width": 700, "height": 1000})  # A4 without its margins
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    yield visit
    page.close()


def test_what_is_printed_can_be_read_on_white(printed: Visit) -> None:
    colours = printed.page.evaluate(COLOURS)
    assert len(colours) > 5
    assert [colour for colour in colours if contrast(colour, "rgb(255, 255, 255)") < 4.5] == []


def test_nothing_is_cut_in_print(printed: Visit) -> None:
    assert printed.page.evaluate(CUT) == []


def test_the_printed_title_has_its_number(printed: Visit) -> None:
    titles = printed.page.evaluate(TITLES)
    assert len(titles) == 1
    assert titles[0].startswith("6.")


def test_the_screen_is_dark_again_after_printing(printed: Visit) -> None:
    printed.page.emulate_media(media="screen", color_scheme="dark")
    printed.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    printed.page.emulate_media(media="print", color_scheme="dark")


@pytest.mark.parametrize("pixels", [360, 1440])
@pytest.mark.parametrize("name", ["book/attention", "book/index"])
def test_nothing_jumps_while_a_page_loads(
    context: BrowserContext, address: str, name: str, pixels: int
) -> None:
    browser = context.browser
    assert browser is not None
    screen = browser.new_context(viewport={"width": pixels, "height": 800})
    try:
        page = screen.new_page()
        page.add_init_script(f"({HEARD})()")
        page.goto(f"{address}{name}.html", wait_until="load")
        page.evaluate(SETTLED)
        shifts = page.evaluate("shifts.filter(e => !e.hadRecentInput).map(e => e.value)")
        assert sum(shifts) < 0.05
    finally:
        screen.close()
