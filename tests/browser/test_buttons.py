"""Every button of a page, pressed with a mouse, a finger and the keyboard, on three screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from address import book_address

from .conftest import SETTLED, Visit
from .test_site import width

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("buttons")]

CHAPTER = "book/eca"
HEADER = ".bd-header-article"
HANDS = ["mouse", "finger", "keyboard"]
HAS_FOCUS = "e => e === document.activeElement"
# A ring is seen if it has a style and some width. Menus that are closed have no place to be seen.
WITHOUT_RING = """() => {
    const stops = [...document.querySelectorAll("a[href], button, input, summary, [tabindex]")]
        .filter(e => e.tabIndex >= 0 && e.checkVisibility({visibilityProperty: true}));
    return stops.filter(e => {
        e.focus({focusVisible: true, preventScroll: true});
        const {outlineStyle, outlineWidth} = getComputedStyle(e);
        return document.activeElement === e
            && (outlineStyle === "none" || parseFloat(outlineWidth) < 2);
    }).map(e => e.outerHTML.slice(0, 120));
}"""
STOPS_AT_FORMULAS = """() => [...document.querySelectorAll(".math [tabindex], .math[tabindex]")]
    .filter(e => e.tabIndex >= 0 && e.scrollWidth <= e.clientWidth + 1)
    .map(e => e.textContent.slice(0, 80))"""


def luminance(colour: str) -> float:
    """Return the relative luminance of "rgb(r, g, b)", as WCAG defines it."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module", params=[360, 768, 1440])
def page(request: pytest.FixtureRequest, context: BrowserContext, address: str) -> Iterator[Page]:
    browser = context.browser
    assert browser is not None
    screen = browser.new_context(
        viewport={"width": request.param, "height": 800},
        has_touch=True,
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = screen.new_page()
    page.goto(f"{address}{CHAPTER}.html")
    page.evaluate(SETTLED)
    page.set_default_timeout(10_000)
    yield page
    screen.close()


def wide(page: Page) -> bool:
    return page.evaluate("innerWidth") >= 1200


def press(button: Locator, hand: str) -> None:
    if hand == "mouse":
        button.click()
    elif hand == "finger":
        button.tap()
    else:
        button.focus()
        button.press("Enter")


def wait_for_focus(element: Locator) -> None:
    """A dialog says that it closed, and its button takes the focus, after it is gone."""
    element.page.wait_for_function(HAS_FOCUS, arg=element.element_handle())


def open_menu(page: Page, side: str, hand: str) -> tuple[Locator, Locator]:
    button = page.locator(f"{HEADER} .{side}-toggle")
    press(button, hand)
    menu = page.locator(f"#pst-{side}-sidebar-modal[open]")
    menu.locator("nav a").first.wait_for(state="visible")
    return button, menu


@pytest.mark.parametrize("hand", HANDS)
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_menus_open_and_close(page: Page, side: str, hand: str) -> None:
    if wide(page):
        pytest.skip("both menus stand beside the text")

    def escape(menu: Locator) -> None:
        page.keyboard.press("Escape")

    def beside(menu: Locator) -> None:
        x = {"primary": page.evaluate("innerWidth") - 10, "secondary": 10}[side]
        page.touchscreen.tap(x, 400) if hand == "finger" else page.mouse.click(x, 400)

    def cross(menu: Locator) -> None:
        press(menu.get_by_role("button", name="Close the menu"), hand)

    for close in (escape, beside, cross):
        button, menu = open_menu(page, side, hand)
        assert menu.evaluate("e => e.contains(document.activeElement)")
        close(menu)
        menu.wait_for(state="detached")
        wait_for_focus(button)


@pytest.mark.parametrize("hand", HANDS)
def test_contents_give_way_on_a_wide_screen(page: Page, hand: str) -> None:
    if not wide(page):
        pytest.skip("the contents are a menu")
    contents, button = (
        page.locator(".bd-sidebar-primary"),
        page.locator(f"{HEADER} .primary-toggle"),
    )
    assert page.locator(f"{HEADER} .secondary-toggle").is_hidden()
    for state in ("hidden", "visible"):
        press(button, hand)
        contents.wait_for(state=state)
        wait_for_focus(button)


def test_a_link_of_the_page_contents_closes_them(page: Page) -> None:
    if wide(page):
        pytest.skip("the contents stand beside the text")
    _, menu = open_menu(page, "secondary", "mouse")
    link = menu.locator("nav a").nth(2)
    anchor = link.get_attribute("href")
    link.click()
    menu.wait_for(state="detached")
    assert page.evaluate("location.hash") == anchor
    assert (
        0
        <= page.locator(f"{anchor} > :is(h2, h3)").evaluate("e => e.getBoundingClientRect().y")
        < 400
    )


@pytest.mark.parametrize("hand", HANDS)
def test_downloads_open_and_close(page: Page, hand: str) -> None:
    button = page.locator(f"{HEADER} .dropdown-download-buttons > button")
    menu = page.locator(f"{HEADER} .dropdown-download-buttons .dropdown-menu")
    for close in ("Escape", "beside", "button"):
        press(button, hand)
        menu.wait_for(state="visible")
        assert menu.locator("a, button").all_inner_texts() == [".ipynb", "Print or save as PDF"]
        box = menu.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= page.evaluate("innerWidth")
        if close == "Escape":
            page.keyboard.press("Escape")
        elif close == "beside":
            # In the header, where nothing stands; a figure would open.
            menu_button = page.locator(f"{HEADER} .primary-toggle").bounding_box()
            assert menu_button
            page.mouse.click(menu_button["x"] + 60, menu_button["y"] + 10)
        else:
            press(button, hand)
        menu.wait_for(state="hidden")
        if close != "beside":
            wait_for_focus(button)


@pytest.mark.parametrize("hand", HANDS)
def test_modes_follow_each_other(page: Page, hand: str) -> None:
    seen = []
    for _ in range(3):
        press(page.locator(f"{HEADER} .theme-switch-button"), hand)
        seen.append(page.evaluate("document.documentElement.dataset.mode"))
    assert sorted(seen) == ["auto", "dark", "light"]


@pytest.mark.parametrize("hand", HANDS)
def test_search_opens_and_closes(page: Page, hand: str) -> None:
    if wide(page):
        pytest.skip("the search stands in the contents")
    button = page.locator(f"{HEADER} .search-button")
    press(button, hand)
    wait_for_focus(page.locator("#pst-search-dialog input"))
    page.keyboard.press("Escape")
    page.locator("#pst-search-dialog").wait_for(state="hidden")
    wait_for_focus(button)


def test_no_menu_has_one_entry(page: Page) -> None:
    menus = page.locator(f"{HEADER} .dropdown-menu").all()
    assert [menu.locator("li").count() for menu in menus if menu.locator("li").count() < 2] == []
    colab = page.locator(f"{HEADER} a[href^='https://colab']")
    assert colab.count() == book_address().is_set
    assert all(link.is_visible() for link in colab.all())


@pytest.mark.parametrize("hand", HANDS)
def test_back_to_top(page: Page, hand: str) -> None:
    if wide(page):
        pytest.skip("the page's contents have a link to its top")
    button = page.locator("#pst-back-to-top")
    page.mouse.move(200, 400)
    page.mouse.wheel(0, 3000)
    page.wait_for_function("scrollY > 2000")
    page.mouse.wheel(0, -300)
    button.wait_for(state="visible")
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    assert contrast(*button.evaluate(colours)) >= 4.5
    press(button, hand)
    page.wait_for_function("scrollY === 0")


def test_no_name_covers_the_page_after_a_tap(page: Page) -> None:
    """Chromium does not say that a finger hovers not, so the rule is looked for."""
    rule = """() => [...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
        .some(r => r.media?.mediaText === "(hover: none)" && /tooltip.*none/s.test(r.cssText))"""
    assert page.evaluate(rule)


@pytest.mark.parametrize("name", [CHAPTER, "book/index", "book/api/eca", "search"])
def test_what_has_the_keyboard_is_seen(open_page: Callable[..., Visit], name: str) -> None:
    visit = open_page(name)
    try:
        for pixels in (1440, 360):
            with width(visit, pixels):
                assert visit.page.evaluate(WITHOUT_RING) == []
                assert visit.page.evaluate(STOPS_AT_FORMULAS) == []
    finally:
        visit.page.close()


def test_what_is_copied_runs(context: BrowserContext, address: str) -> None:
    browser = context.browser
    assert browser is not None
    screen = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    try:
        page = screen.new_page()
        page.goto(f"{address}book/api/eca.html")
        example = page.locator("div.highlight:has(pre .gp)").first
        example.hover()
        example.locator("button.copybtn").click()
        example.locator("button.copybtn.success").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied
        assert ">>>" not in copied
        compile(copied, "copied", "exec")
    finally:
        screen.close()
