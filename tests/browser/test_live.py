"""Live figures: the page computes what the package does, from the same weights, and is usable."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from typing import Any

import live
import nbformat
import pytest
import torch

import attnbook as ab
from attnbook import datasets
from attnbook.studies import influence

from .conftest import ROOT, Visit

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("book/attention")]

HELD_OUT = datasets.date_pairs(5000)[4000:]
FIGURES = {
    "date_translator": "attn-live[name=date_translator]",
    "square_root": "attn-live[name=square_root]:not([data-with])",
    "temperature": "attn-live[name=square_root][data-with=temperature]",
}


@pytest.fixture(scope="module")
def page(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page("book/attention")
    for figure in FIGURES.values():
        visit.page.locator(figure).scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"{figure}[data-ready]")
    yield visit
    assert visit.complaints == []
    visit.page.close()


@pytest.fixture(scope="module")
def translator() -> tuple[influence.Translator, dict[str, Any]]:
    state, extra = live.read("translator")
    characters = [datasets.Characters(["".join(extra[side])]) for side in ("source", "target")]
    model = influence.Translator(*characters)
    model.load_state_dict(state)
    return model.eval(), extra


def figure(visit: Visit, name: str, script: str, *arguments: Any) -> Any:
    """Call a function of the figure's element and the arguments in the page."""
    element = FIGURES.get(name, f"attn-live[name={name}]")
    return visit.page.evaluate(
        f"args => ({script})(document.querySelector('{element}'), ...args)",
        [*arguments],
    )


def test_live_figures_take_the_place_of_the_stored_ones_but_on_paper(page):
    outputs = ".cell_output:has(+ attn-live), .cell_output:has(+ * attn-live)"

    def seen():
        script = "all => all.map(e => e.checkVisibility())"
        return page.page.eval_on_selector_all(outputs, script)

    assert seen() == [False, False, False]
    page.page.emulate_media(media="print")
    assert seen() == [True, True, True]
    page.page.emulate_media(media="screen")


def test_the_page_translates_as_the_package_does(page, translator):
    model, extra = translator
    texts = [pair.chinese for pair in HELD_OUT]
    source, target = (datasets.Characters(["".join(extra[side])]) for side in ("source", "target"))
    rows = source.encode(["0" * (extra["length"] - 2), *texts])[1:]  # padded as in training
    theirs = target.decode(model.translate(rows, extra["steps"]))
    ours = figure(page, "date_translator", "(e, texts) => texts.map(e.write)", texts)
    assert ours == theirs
    assert sum(text == pair.english for text, pair in zip(ours, HELD_OUT, strict=True)) > 990


def test_the_page_computes_the_weights_of_the_package(page, translator):
    model, extra = translator
    source, target = (datasets.Characters(["".join(extra[side])]) for side in ("source", "target"))
    for pair in HELD_OUT[:20]:
        row = source.encode(["0" * (extra["length"] - 2), pair.chinese])[1:]
        logits, weights = model.attend(row, target.encode([pair.english])[:, :-1])
        steps = figure(
            page,
            "date_translator",
            "(e, text) => e.read(text).map(s => [[...s.weights], [...s.logits]])",
            pair.chinese,
        )
        for n, expected in enumerate((weights, logits)):
            found = torch.tensor([step[n] for step in steps])
            torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)


def test_the_figure_starts_where_the_chapter_stands(page, translator):
    notebook = nbformat.read(ROOT / "book" / "attention.ipynb", as_version=4)
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        if "date_pairs(5000)" in cell.source
        for output in cell.outputs
    )
    shown = re.findall(r"^(\d\S+) → (\w+ \d+, \d+)$", printed, re.MULTILINE)
    assert len(shown) == 3
    for chinese, english in shown:
        assert figure(page, "date_translator", "(e, text) => e.write(text)", chinese) == english
    example = page.page.locator("attn-live[name=date_translator] input").input_value()
    assert example == translator[1]["example"]


def test_a_date_is_typed_and_its_rows_are_walked(page):
    here = page.page.locator("attn-live[name=date_translator]")
    field = here.get_by_label("A date in Chinese")
    field.fill("1989年12月31日")
    assert here.locator("output").text_content() == "December 31, 1989"
    assert "Right." in here.text_content()
    assert here.locator(".is-told th").text_content() == "D"  # it opens on the first letter
    assert "Rows: the English" in here.locator("caption").text_content()
    here.get_by_role("button", name="D", exact=True).focus()
    page.page.keyboard.press("ArrowDown")
    assert here.locator(".is-told th").text_content() == "e"
    assert "“e” looks at" in here.locator(".live-told").text_content()
    signs = here.locator("thead th").all_text_contents()
    assert (signs[0], signs[-1]) == ("start", "end")
    for row in here.locator("tbody tr").all():  # no weight is left out: each row sums to 1
        weights = [float(text) for text in row.locator("td").all_text_contents()]
        assert len(weights) == len(signs) and sum(weights) == pytest.approx(1, abs=0.08)
    assert here.locator("tbody button[tabindex='0']").count() == 1  # one stop for the whole table
    field.fill("2023年2月29日")
    assert "There is no such day" in here.text_content()
    field.fill("3月5日")
    assert "It has learned year, month and day" in here.text_content()
    field.fill("1789年7月14日")
    assert "Wrong: it is July 14, 1789." in here.text_content()
    field.fill("昨天")
    assert "only ever read these characters" in here.locator(".live-told").text_content()
    assert field.get_attribute("aria-invalid") == "true"
    here.get_by_role("button", name="Another date").click()
    assert field.get_attribute("aria-invalid") == "false"
    assert (
        here.locator("p[aria-live]")
        .text_content()
        .startswith(here.locator("output").text_content())
    )


@pytest.mark.parametrize("exponent", [1, 6, 10])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("temperature", [None, -1.0, 0.0, 2.0])
def test_the_sliders_compute_a_softmax(page, exponent, scaled, temperature):
    settings = {"exponent": exponent, "scaled": scaled}
    if temperature is not None:
        settings["temperature"] = temperature
    found = figure(
        page,
        "square_root" if temperature is None else "temperature",
        "(e, settings) => { const f = e.look(settings); return {...f, query: [...f.query],"
        " keys: [...f.keys], weights: [...f.weights]}; }",
        settings,
    )
    d = found["d"]
    query, keys = torch.tensor(found["query"]), torch.tensor(found["keys"]).view(32, -1)
    assert abs(query.std() - 1) < 0.15 and abs(keys.mean()) < 0.05
    query = query[None, :d].double() / 10 ** (temperature or 0)
    dots = ab.dot_product_score(query, keys[:, :d].double())[0]  # divided by the root
    weights = (dots if scaled else dots * d**0.5).softmax(-1)
    torch.testing.assert_close(torch.tensor(found["weights"]).double(), weights, atol=1e-5, rtol=0)
    jacobian = weights.diag() - weights.outer(weights)
    assert found["slope"] == pytest.approx(jacobian.norm().item(), abs=1e-5)


def test_the_slider_is_moved_by_keys(page):
    here = page.page.locator(FIGURES["square_root"])
    assert here.get_by_label("temperature").count() == 0
    told = here.locator(".live-told")

    def numbers(pattern):
        return [float(re.search(pattern, said)[1]) for said in told.all_text_contents()]

    assert "1024" in here.locator("label").first.text_content()
    sharp, soft = told.all_text_contents()  # what the root is for is seen at once
    assert "Next to nothing reaches" in sharp and "reaches" not in soft
    assert "derivatives" not in sharp + soft  # a number that only the second figure explains
    here.get_by_label("features d").focus()
    for _ in range(8):
        page.page.keyboard.press("ArrowLeft")
    assert "4" in here.locator("label").first.text_content()  # where nothing is wrong yet
    assert max(numbers(r"weights: (\d\.\d+)")) < 0.4
    assert not any("reaches" in said for said in told.all_text_contents())
    page.page.keyboard.press("End")
    assert "1024" in here.locator("label").first.text_content()
    sharp, soft = here.locator(".live-told").all_text_contents()
    assert "Next to nothing reaches" in sharp
    largest = numbers(r"weights: (\d\.\d+)")
    assert largest[0] > 0.9
    assert largest[1] < 0.5
    heard = here.locator("p[aria-live]").text_content()
    assert heard.strip() == f"Not divided: {sharp} Divided by √d: {soft}".strip()
    here.get_by_role("button", name="New draw").click()
    assert here.locator(".live-told").last.text_content() != soft


def test_the_temperature_is_moved_by_keys_and_mouse(page):
    here = page.page.locator(FIGURES["temperature"])
    told = here.locator(".live-told")

    def largest():
        return [
            float(re.search(r"weights: (\d\.\d+)", said)[1]) for said in told.all_text_contents()
        ]

    heat = here.get_by_label("temperature")
    at_first = largest()
    sharp, soft = told.all_text_contents()
    assert "derivatives: below 0.0001." in sharp and "derivatives: 0.2" in soft
    assert at_first[0] > 0.9
    assert at_first[1] < 0.5
    heat.focus()
    for _ in range(30):  # steps of 0.05: to 10**1.5, which is about the root of 1024
        page.page.keyboard.press("ArrowRight")
    assert "32" in here.locator("label").nth(1).text_content()
    assert largest()[0] == pytest.approx(at_first[1], abs=0.02)
    assert heat.get_attribute("aria-valuetext") == "32"
    box = heat.bounding_box()
    page.page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)  # the coldest
    assert min(largest()) > 0.9
    assert float(heat.get_attribute("aria-valuetext")) < 0.02
    page.page.keyboard.press("End")
    assert max(largest()) < 0.1  # the hottest
    told = here.locator(".live-told").all_text_contents()
    heard = here.locator("p[aria-live]").text_content()
    assert heard.strip() == f"Not divided: {told[0]} Divided by √d: {told[1]}".strip()
    here.get_by_role("button", name="New draw").click()
    assert here.locator(".live-told").all_text_contents() != told


def test_on_paper_the_stored_figure_stands_alone(page):
    page.page.emulate_media(media="print")
    assert not page.page.locator("attn-live").first.is_visible()
    page.page.emulate_media(media="screen")


def test_what_live_figures_weigh():
    """210 kB gzipped a page, 450 kB for the book: half of that is kept for the chapters to come."""
    files = [path for path in live.FOLDER.iterdir() if path.suffix in (".js", ".css")]
    weight = sum(len(gzip.compress(path.read_bytes())) for path in files)
    assert weight < 450_000
    shared = {
        "live.js",
        "live.css",
        "date_translator.js",
        "square_root.js",
        "translator.weights.js",
    }
    page_weight = sum(len(gzip.compress((live.FOLDER / name).read_bytes())) for name in shared)
    assert page_weight < 210_000
