"""Live figures of the chapter on positions, in a page of their own, opened as a file."""

from __future__ import annotations

import math

import live
import pytest
import torch

import attnbook as ab

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("book/attention")]

FIGURES = ("rotary_hands", "alibi")


@pytest.fixture(scope="module")
def page(context, tmp_path_factory):
    elements = "".join(f"<attn-live name={name}></attn-live>" for name in FIGURES)
    path = tmp_path_factory.mktemp("live") / "page.html"
    script = f'<script src="{(live.FOLDER / "live.js").as_uri()}"></script>'
    path.write_text(f"<!doctype html><meta charset=utf-8>{elements}{script}")
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(error))  # noqa: PLW0108
    page.goto(path.as_uri())
    for name in FIGURES:
        page.wait_for_selector(f"attn-live[name={name}][data-ready]")
    yield page
    assert complaints == []
    page.close()


def look(page, name, settings):
    script = (
        "([name, settings]) => { const f = document.querySelector(`attn-live[name=${name}]`)"
        ".look(settings); return {...f, weights: [...(f.weights ?? [])]}; }"
    )
    return page.evaluate(script, [name, settings])


@pytest.mark.parametrize(("query", "key"), [(1, 2), (6, 7), (5, 2), (0, 40)])
def test_the_hands_turn_as_the_package_does(page, query, key):
    found = look(page, "rotary_hands", {"query": query, "key": key})
    up, right = ([[0.0, 1.0] * 8], [[1.0, 0.0] * 8])
    turned = [
        ab.RotaryEncoding(16)(torch.tensor(vector).double(), torch.tensor([p]).double())
        for vector, p in ((up, query), (right, key))
    ]
    assert found["score"] == pytest.approx((turned[0] @ turned[1].T).item(), abs=1e-9)
    assert found["products"][0] == pytest.approx(math.sin(key - query), abs=1e-9)


def test_with_the_distance_locked_the_score_stands_still(page):
    here = page.locator("attn-live[name=rotary_hands]")
    told = here.locator(".live-told")
    assert "1 position after the query" in told.text_content()
    before = told.text_content()
    here.get_by_label("lock the distance").check()
    query = here.get_by_label("position of the query")
    query.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert (query.input_value(), here.get_by_label("position of the key").input_value()) == (
        "6",
        "7",
    )
    assert told.text_content().startswith(before)
    query.press("End")  # the key is at the end of the line before the query is
    assert query.input_value() == "39"
    here.get_by_label("lock the distance").uncheck()
    query.press("Home")
    assert "40 positions after" in told.text_content()
    assert here.locator("p[aria-live]").text_content() == told.text_content()


@pytest.mark.parametrize("exponent", [0, 1, 4.5, 8])
@pytest.mark.parametrize(("query", "causal"), [(32, True), (10, True), (10, False)])
def test_the_bars_are_the_softmax_of_the_price(page, exponent, query, causal):
    found = look(page, "alibi", {"exponent": exponent, "query": query, "causal": causal})
    distance = (torch.arange(33) - query).abs()
    scores = -(2.0**-exponent) * distance
    if causal:
        scores[query + 1 :] = -math.inf
    weights = scores.softmax(-1)
    torch.testing.assert_close(torch.tensor(found["weights"]), weights, atol=1e-6, rtol=0)
    near = found["near"]
    assert weights[distance <= near].sum() > 0.5 - 1e-6
    assert near == 0 or weights[distance < near].sum() < 0.5 + 1e-6


def test_alibi_starts_where_the_chapter_stands(page):
    here = page.locator("attn-live[name=alibi]")
    expected = ab.alibi_bias(8, 1, 33)[0, 0].softmax(-1)[-1]
    assert f"its own position {expected:.2f} of its weight" in here.text_content()
    here.get_by_label("slope").press("End")
    assert "1/256" in here.locator("label").first.text_content()
    assert "0.03 of its weight" in here.locator("p[aria-live]").text_content()
