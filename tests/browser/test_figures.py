"""A chapter's figures: in the page's colours, readable at 360 pixels, enlarged by click and key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import nbformat
import pytest

from .conftest import ROOT, SITE, Visit
from .test_site import mode, width

pytestmark = pytest.mark.book

CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
GROUND = {"light": (255, 255, 255), "dark": (20, 23, 27)}
# Of each figure that is shown the colour of two corners, and its smallest lettering on the screen:
# what matplotlib scales by 0.1 is 10 units large, in the units of the picture's own width.
FIGURES = """async () => {
    const shown = [...document.querySelectorAll(".cell_output img")].filter(e => e.offsetWidth);
    const pixel = (image) => {
        const canvas = new OffscreenCanvas(400, 200).getContext("2d");
        canvas.drawImage(image, 0, 0, 400, 200);
        return [[2, 2], [397, 197]]
            .map(at => [...canvas.getImageData(...at, 1, 1).data.slice(0, 3)]);
    };
    return Promise.all(shown.map(async e => {
        e.loading = "eager";
        await e.decode();
        const svg = await (await fetch(e.src)).text();
        const scales = [...svg.matchAll(/\\) scale\\(([\\d.]+) -\\1\\)/g)].map(found => +found[1]);
        const units = svg.match(/viewBox="\\S+ \\S+ (\\S+)/)[1];
        return {
            corners: pixel(e),
            lettering: 100 * Math.min(...scales) * e.getBoundingClientRect().width / units,
            shapes: [e.getAttribute("width") / e.getAttribute("height"),
                e.offsetWidth / e.offsetHeight],
            inside: e.closest(".figure-scroll") !== null,
        };
    }));
}"""
OPENED = """() => {
    const image = document.querySelector("dialog.figure-dialog[open] img");
    return image && [image.getAttribute("alt"), image.offsetWidth];
}"""
# In a cell with a figure: how far the button that enlarges it lies below its folded code, and if
# a click on the middle of the button meets it.
FOOTNOTES = """() => [...document.querySelectorAll("div.cell:has(> details.above-input)")]
    .map(e => [e.querySelector("summary"), e.querySelector(".figure-enlarge")])
    .filter(([_, button]) => button?.offsetWidth && !button.closest(":has(> attn-live)"))
    .map(([fold, button]) => {
        button.scrollIntoView({block: "center"});
        const [there, at] = [fold.getBoundingClientRect(), button.getBoundingClientRect()];
        const met = document.elementFromPoint((at.left + at.right) / 2, (at.top + at.bottom) / 2);
        return [Math.round(at.top - there.top), met === button];
    })"""
FOCUSED = "() => document.activeElement.className"


def figures_of(page: str) -> tuple[int, int]:
    """Return how many figures are stored in a chapter, and how many give way to one that runs."""
    cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
    drawn = [
        cell
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/svg+xml" in output.get("data", {}) or "image/png" in output.get("data", {})
    ]
    return len(drawn), sum(
        cell.metadata.get("attnbook", {}).get("instead", False) for cell in drawn
    )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(f"book/{name}", marks=pytest.mark.xdist_group(f"book/{name}"))
        for name in ("attention", "spatial_transformer")
    ],
)
def chapter(request: pytest.FixtureRequest, open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page(request.param)
    yield visit
    visit.page.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_has_a_twin_a_size_and_a_way_to_enlarge_it(name: str) -> None:
    page = SITE / "book" / f"{name}.html"
    if not page.is_file():
        pytest.skip("no built site: `make book` builds it")
    html = page.read_text(encoding="utf-8")
    images = re.findall(r'<img [^>]*src="\.\./_images/[^>]*>', html)
    for light, dark in zip(images[::2], images[1::2], strict=True):
        for image, kind, ground in ((light, "light", "#ffffff"), (dark, "dark", "#14171b")):
            source = re.search(r'src="\.\./(.*?)"', image)
            assert source and f'class="only-{kind}"' in image
            assert re.search(r'width="\d+" height="\d+"', image) and 'loading="lazy"' in image
            svg = (SITE / source[1]).read_text(encoding="utf-8")
            assert re.findall(r"fill: (#\w+)", svg)[0] == ground
    assert html.count('class="figure-enlarge"') == len(images) / 2 > 0


@pytest.mark.parametrize(("scheme", "pixels"), [("light", 360), ("dark", 1440)])
def test_figures_have_the_ground_of_the_page_and_lettering_that_can_be_read(
    chapter: Visit, scheme: str, pixels: int
) -> None:
    with width(chapter, pixels), mode(chapter, scheme):
        figures = chapter.page.evaluate(FIGURES)
        stored, replaced = figures_of(chapter.name)
        assert len(figures) == stored - replaced > 0
        for figure in figures:
            assert figure["inside"]
            assert figure["corners"] == [[*GROUND[scheme]]] * 2
            assert figure["lettering"] >= 9
            assert figure["shapes"][0] == pytest.approx(figure["shapes"][1], rel=0.02)


def test_the_code_of_a_figure_is_a_footnote_of_it(chapter: Visit) -> None:
    for pixels in (1440, 360):
        with width(chapter, pixels):
            closed = chapter.page.evaluate(FOOTNOTES)
            assert closed == [[0, True]] * len(closed) != []
            folds = chapter.page.locator("div.cell > details.above-input")
            folds.evaluate_all("folds => folds.forEach(e => { e.open = true; })")
            assert chapter.page.evaluate(FOOTNOTES) == closed
            folds.evaluate_all("folds => folds.forEach(e => { e.open = false; })")


def test_figures_are_enlarged_by_key_and_click_and_give_the_focus_back(chapter: Visit) -> None:
    page = chapter.page
    with width(chapter, 360):
        figure = page.locator(".book-figure").first
        link = figure.locator(".figure-enlarge")
        alt = figure.locator("img").first.get_attribute("alt")
        link.focus()
        assert link.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        for press in (lambda: page.keyboard.press("Enter"), figure.locator(".figure-scroll").click):
            press()
            opened = page.evaluate(OPENED)
            assert opened[0] == alt and opened[1] >= 800
            page.keyboard.press("ArrowRight")
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog.figure-dialog", state="detached")
            assert page.evaluate(FOCUSED) == "figure-enlarge"
        link.click()
        page.get_by_role("button", name="Close", exact=True).click()
        page.wait_for_selector("dialog.figure-dialog", state="detached")
        assert page.evaluate(FOCUSED) == "figure-enlarge"


def test_paper_gets_black_on_white(chapter: Visit) -> None:
    stored, _ = figures_of(chapter.name)
    with mode(chapter, "dark"):
        chapter.page.emulate_media(media="print")
        for kind, shown in (("light", "block"), ("dark", "none")):
            images = chapter.page.locator(f".book-figure img.only-{kind}").all()
            assert len(images) == stored
            for image in images:
                assert image.evaluate("e => getComputedStyle(e).display") == shown
        chapter.page.emulate_media(media="screen")
