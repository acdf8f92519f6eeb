"""The live figures of the chapter on positions: rotary hands, and ALiBi's price."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch

import attnbook as ab

from .conftest import Visit
from .test_live import figure

CHAPTER = "book/positional_encoding"
pytestmark = [pytest.mark.book, pytest.mark.xdist_group(CHAPTER)]


@pytest.fixture(scope="module")
def page(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page(CHAPTER)
    for name in ("rotary_hands", "alibi"):
        visit.page.locator(f"attn-live[name={name}]").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"attn-live[name={name}][data-ready]")
    yield visit
    assert visit.complaints == []
    visit.page.close()


@pytest.mark.parametrize(("query", "key"), [(1, 2), (6, 7), (5, 2), (0, 40)])
def test_the_hands_turn_as_the_package_does(page, query, key):
    settings = {"query": query, "key": key}
    found = figure(page, "rotary_hands", "(e, settings) => e.look(settings)", settings)
    rotary, right = ab.RotaryEncoding(16), torch.tensor([[1.0, 0.0] * 8]).double()
    ahead = rotary(right, torch.tensor([1.0]).double())  # every pair by one step of its own pace
    turned = [
        rotary(vector, torch.tensor([p]).double()) for vector, p in ((ahead, query), (right, key))
    ]
    assert found["score"] == pytest.approx((turned[0] @ turned[1].T).item(), abs=1e-9)
    assert found["products"][0] == pytest.approx(math.cos(key - query - 1), abs=1e-9)


def test_the_score_is_largest_right_after_the_query(page):
    script = "e => Array.from({length: 41}, (_, key) => e.look({query: 20, key}).score)"
    scores = torch.tensor(figure(page, "rotary_hands", script))
    assert scores.argmax() == 21 and scores[21] == pytest.approx(8)
    assert (scores[18:21].diff() > 0).all() and (scores[21:25].diff() < 0).all()


def test_the_figure_starts_with_the_look_alike_of_the_text_and_names_the_leads(page):
    start = figure(page, "rotary_hands", "e => e.look({query: 6, key: 1}).products")
    here = page.page.locator("attn-live[name=rotary_hands]")
    shown = here.locator(".live-dial").all_inner_texts()
    for text, name, product, lead in zip(
        shown, ("first", "second", "third"), start[:3], ("1.00", "0.32", "0.10"), strict=True
    ):
        assert text.split("\n") == [f"{name} pair", f"lead {lead}", f"cosine {product:.2f}"]
    assert "cosine 0.96" in shown[0] and "cosine -0.32" in shown[1]


def test_the_dot_rides_on_the_curve_of_the_sum_and_starts_at_the_look_alike(page):
    here = page.page.locator("attn-live[name=rotary_hands] .live-sum")
    points = here.locator("polyline").get_attribute("points").split()
    curve = {int(x): -float(y) / 2 for x, y in (point.split(",") for point in points)}
    assert sorted(curve) == list(range(-40, 41))
    assert max(curve, key=curve.get) == 1 and curve[1] == pytest.approx(8)
    for distance in (-40, -1, 7):
        angles = ab.rotary_angles(torch.tensor([distance - 1.0]).double(), 16)
        assert curve[distance] == pytest.approx(angles.cos().sum().item(), abs=1e-9)
    dot = {axis: here.locator("circle").get_attribute(f"c{axis}") for axis in "xy"}
    assert float(dot["x"]) == -5 and -float(dot["y"]) / 2 == pytest.approx(6.44, abs=5e-3)


def test_with_the_distance_locked_the_score_stands_still(page):
    here = page.page.locator("attn-live[name=rotary_hands]")
    told = here.locator(".live-told")
    assert "5 positions before the query" in told.text_content()  # the look-alike of the text
    key = here.get_by_label("position of the key")
    key.focus()
    for _ in range(6):
        page.page.keyboard.press("ArrowRight")
    assert "1 position after the query" in told.text_content()
    assert "8.00 of 8" in told.text_content()
    before = told.text_content()
    here.get_by_label("lock the distance").check()
    query = here.get_by_label("position of the query")
    query.focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowRight")
    assert (query.input_value(), key.input_value()) == ("11", "12")
    assert told.text_content().startswith(before)
    query.press("End")  # the key is at the end of the line before the query is
    assert query.input_value() == "39"
    here.get_by_label("lock the distance").uncheck()
    query.press("Home")
    assert "40 positions after" in told.text_content()
    assert here.locator("p[aria-live]").text_content() == told.text_content()
    assert here.locator(".live-sum circle").get_attribute("cx") == "40"


@pytest.mark.parametrize("exponent", [0, 1, 4.5, 8])
@pytest.mark.parametrize(("query", "causal"), [(32, True), (10, True), (10, False)])
def test_the_bars_are_the_softmax_of_the_price(page, exponent, query, causal):
    settings = {"exponent": exponent, "query": query, "causal": causal}
    script = "(e, settings) => ({...e.look(settings), weights: [...e.look(settings).weights]})"
    found = figure(page, "alibi", script, settings)
    distance = (torch.arange(33) - query).abs()
    scores = -(2.0**-exponent) * distance
    if causal:
        scores[query + 1 :] = -math.inf
    weights = scores.softmax(-1)
    torch.testing.assert_close(torch.tensor(found["weights"]), weights, atol=1e-6, rtol=0)
    near = found["near"]
    assert weights[distance <= near].sum() > 0.5 - 1e-6
    assert near == 0 or weights[distance < near].sum() < 0.5 + 1e-6


def test_alibi_starts_with_the_third_head_and_draws_to_the_tallest_bar(page):
    here = page.page.locator("attn-live[name=alibi]")
    weights = ab.alibi_bias(8, 1, 33)[2, 0].softmax(-1)
    expected = weights[-1]
    heights = "bars => bars.map(bar => Number(bar.style.getPropertyValue('--g')))"
    drawn = torch.tensor(here.locator(".live-bars i").evaluate_all(heights))
    torch.testing.assert_close(drawn, weights / expected, atol=1e-5, rtol=0)
    assert f"tallest bar: {expected:.2f}" in here.text_content()
    assert f"its own position {expected:.2f} of its weight" in here.text_content()
    here.get_by_label("slope").press("End")
    assert "1/256" in here.locator("label").first.text_content()
    assert "0.03 of its weight" in here.locator("p[aria-live]").text_content()
