"""The live figures that run a trained network of chapters 5 to 7 compute what the package does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import live
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from attnbook import studies
from attnbook.cbam import SpatialAttention
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import clutter, cue_strip, neighbours

from .conftest import Visit
from .test_live import figure
from .test_live_vision import drag, opened, parts

pytestmark = pytest.mark.book

FIGURES = {
    "cue_strip": "squeeze_excitation",
    "channel_list": "eca",
    "digit_masks": "cbam",
}


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest, open_page: Callable[..., Visit]) -> Iterator[Visit]:
    yield from opened(open_page, FIGURES[request.param], [request.param])


def of(name: str) -> pytest.MarkDecorator:
    """Run a test on the page of one figure."""
    mark = pytest.mark.xdist_group(f"book/{FIGURES[name]}")
    return pytest.mark.parametrize("page", [pytest.param(name, marks=mark, id=name)], indirect=True)


def loaded(model: nn.Module, name: str) -> nn.Module:
    """Return the package's network with the weights that the page has."""
    model.load_state_dict(live.read(name)[0])
    return model.eval().requires_grad_(False)


def strips() -> tuple[Tensor, Tensor]:
    """Return the pictures that the page has, and the digits that their strips ask for."""
    state, said = live.read("strips")
    right = [
        r if c > 0 else g
        for r, g, c in zip(*(said[what] for what in ("red", "green", "cues")), strict=True)
    ]
    return state["pictures"], torch.tensor(right)


def seen(model: nn.Module, kind: type[nn.Module], images: Tensor) -> Tensor:
    """Return the gates of all layers of a kind, and the logits, of each image in one row."""
    found: list[Tensor] = []

    def hear(layer: nn.Module, given: Any, scores: Tensor) -> None:
        gates = layer.gate(*given) if hasattr(layer, "gate") else scores.sigmoid()
        found.append(gates.flatten(1))

    for layer in model.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(hear)
    logits = model(images)
    return torch.cat([*found, logits], dim=1)


# --- Chapter 5 ------------------------------------------------------------------------------------


@of("cue_strip")
def test_the_strip_opens_the_gates_of_the_package(page: Visit) -> None:
    images, right = strips()
    look = """(e, all) => all.map(x => {
        const {gates, logits} = e.look(x);
        return [...gates[0], ...gates[1], ...logits];
    })"""
    found = torch.tensor(figure(page, "cue_strip", look, images.flatten(1).tolist()))
    model = cue_strip.GatedNetwork(cue_strip.GATES["squeeze-and-excitation"])
    expected = seen(loaded(model, "squeezing"), SqueezeExcitation, images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found[:, -10:].argmax(-1) == right).all()


@of("cue_strip")
def test_an_answer_turns_between_the_strips_and_not_with_held_gates(page: Visit) -> None:
    """What the answer below the figure says, for each of its pictures."""
    turn = """(e, [number, cues]) => {
        const guess = (cue, held) => {
            const {logits, gates} = e.look([...e.picture({number, cue})], held);
            return [[...logits].indexOf(Math.max(...logits)), gates];
        };
        const held = guess(cues[0])[1];
        return [cues.map(cue => guess(cue)[0]), cues.map(cue => guess(cue, held)[0])];
    }"""
    cues = [round(-1 + 0.05 * n, 2) for n in range(41)]
    said = live.read("strips")[1]
    turned = 0
    for number, (red, green) in enumerate(zip(said["red"], said["green"], strict=True)):
        free, held = figure(page, "cue_strip", turn, [number, cues])
        assert len(set(held)) == 1
        if red == green or (free[0], free[-1]) != (green, red):
            continue
        turned += 1
        other = [cue for cue, name in zip(cues, free, strict=True) if name == red]
        assert -0.4 < other[0] < 0.25
    different = sum(r != g for r, g in zip(said["red"], said["green"], strict=True))
    assert turned >= different - 1


@of("cue_strip")
def test_the_strip_is_turned_by_keys_and_the_gates_are_held(page: Visit) -> None:
    here, told, spoken = parts(page, "cue_strip")
    assert told.text_content().startswith("The network names 8, the red digit")
    slider = here.get_by_label("strip, from yellow")
    assert slider.input_value() == "0.1"  # a strip of neither of the two colours
    slider.focus()
    page.page.keyboard.press("Home")
    assert "the green digit" in told.text_content()
    assert spoken.text_content() == told.text_content()
    here.get_by_role("button", name="Turn the strip round").click()
    assert "the red digit" in told.text_content()
    here.get_by_label("keep the gates").check()
    here.get_by_role("button", name="Turn the strip round").click()
    assert "the red digit" in told.text_content() and "stay as they were" in told.text_content()
    here.get_by_label("keep the gates").uncheck()
    assert "the green digit" in told.text_content()
    assert here.locator(".live-digits span").all_text_contents() == ["a red 8", "a green 0"]
    here.get_by_role("button", name="Another picture").click()
    assert here.locator(".live-digits span").all_text_contents() == ["a red 3", "a green 7"]
    said = here.get_by_role("img").first.get_attribute("aria-label")
    assert said == "a red 3 on a green 7, with the strip at 1.00"


# --- Chapter 6 ------------------------------------------------------------------------------------

TRAINED = list(range(12))


@of("channel_list")
def test_the_list_is_read_as_the_package_reads_it(page: Visit) -> None:
    images, right = strips()
    model = loaded(neighbours.network(neighbours.ECA, "apart", seed=0), "banded")
    look = """(e, [all, order]) => all.map(x => {
        const {first, second, logits} = e.look(x, order);
        return [...first, ...second, ...logits];
    })"""
    flat = images.flatten(1).tolist()
    found = torch.tensor(figure(page, "channel_list", look, [flat, TRAINED]))
    expected = seen(model, neighbours.Pattern, images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    named = (found[:, -10:].argmax(-1) == right).sum().item()
    assert named == figure(page, "channel_list", "(e, order) => e.right(order)", TRAINED)


@of("channel_list")
def test_two_neighbours_carry_the_cue(page: Visit) -> None:
    """The answer below the figure, in some of the 30,000 orders that were tried for it."""
    right = "(e, orders) => orders.map(e.right)"
    shuffled = [torch.randperm(12).tolist() for _ in range(40)]
    apart = [o for o in shuffled if o.index(8) - o.index(7) != 1 and o.index(7) - o.index(8) != 1]
    assert max(counts := figure(page, "channel_list", right, apart)) <= 30
    assert 18 <= sorted(counts)[len(counts) // 2] <= 22
    together = []
    for order in shuffled:
        rest = [c for c in order if c != 8]
        rest.insert(rest.index(7) + 1, 8)
        together.append(rest)
    assert min(figure(page, "channel_list", right, together)) >= 31


@of("channel_list")
def test_a_channel_is_moved_by_keys_and_by_pointer(page: Visit) -> None:
    here, told, spoken = parts(page, "channel_list")
    start = told.text_content()
    assert start.startswith("37 of 40") and "hears green 3, green 4, blue 1" in start
    label = here.get_by_label("channel blue 1")
    label.focus()
    page.page.keyboard.press("ArrowRight")
    assert "hears green 3, green 4, blue 2" in told.text_content()
    assert spoken.text_content() == told.text_content()
    assert label.evaluate("e => e === document.activeElement")
    page.page.keyboard.press("ArrowLeft")
    assert told.text_content() == start
    wide = here.locator(".live-list").bounding_box()["width"]
    drag(page, label, (wide / 4, 0))
    assert "hears green 3, green 4, blue 2" in told.text_content()
    here.get_by_role("button", name="As trained").click()
    assert told.text_content() == start
    page.page.evaluate("Math.random = () => 0.999")
    here.get_by_role("button", name="Shuffle all").click()
    assert "hears blue 1, green 4, green 3" in told.text_content()
    here.get_by_role("button", name="As trained").click()


# --- Chapter 7 ------------------------------------------------------------------------------------


@of("digit_masks")
def test_the_masks_are_those_of_the_package(page: Visit) -> None:
    model = loaded(clutter.network(clutter.CHANNEL_FIRST), "masks")
    count = studies.stored("clutter")["settings"]["tested"]
    images, labels, _ = clutter.cluttered(count, part="test", seed=0)
    look = """(e, all) => all.map(x => {
        const {masks, logits} = e.run(x);
        return [...masks[0], ...masks[1], ...logits];
    })"""
    found = torch.tensor(figure(page, "digit_masks", look, images[:8].flatten(1).tolist()))
    expected = seen(model, SpatialAttention, images[:8])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    pieces = live.read("pieces")[1]
    lay = "(e, [n, places]) => { e.at.number = n; return [...e.look(places).picture]; }"
    assert pieces["labels"] == labels[:8].tolist()
    for n, places in enumerate(pieces["places"]):
        laid = figure(
            page,
            "digit_masks",
            lay,
            [n, places],
        )
        torch.testing.assert_close(torch.tensor(laid), images[n].flatten(), atol=1e-3, rtol=0)


MIDDLE = [[0, 0], [9, 7], [9, 14], [14, 11]]


@of("digit_masks")
def test_the_second_mask_follows_the_digit_into_a_corner(page: Visit) -> None:
    """What the answer below the figure says, for each of its pictures."""
    here, _, _ = parts(page, "digit_masks")
    shares = []
    for _ in range(8):
        here.get_by_role("button", name="Digit to a corner").click()
        look = """e => {
            const f = e.look(e.at.places);
            return [[f.share, f.usual], [...f.masks[0]], [...f.picture], [...f.alone]];
        }"""
        told, *maps = figure(page, "digit_masks", look)
        mask, picture, alone = (
            rearrange(torch.tensor(one), "(h w) -> 1 1 h w", h=int(len(one) ** 0.5)) for one in maps
        )
        first = clutter.scored([mask], picture, alone)["digit or piece"][0]
        shares.append([first, *told])
        here.get_by_role("button", name="Another picture").click()
    first, second, usual = torch.tensor(shares).T
    assert (second > 0.5).sum() == 7 and (first > 0.5).sum() == 2
    assert usual.max() < 0.055
    assert 0.36 < second.min() < 0.38 and 0.96 < second.max() < 0.98


@of("digit_masks")
def test_each_map_says_from_which_number_to_which_it_is_drawn(page: Visit) -> None:
    here, _, _ = parts(page, "digit_masks")
    scales = here.get_by_text(re.compile(r"\(dark\) to .* \(yellow\)"))
    here.get_by_role("button", name="Show mask 2").click()
    here.get_by_role("button", name="The original picture").click()
    mask, average = scales.all_text_contents()
    large = figure(page, "digit_masks", "e => [...e.look(e.at.places).large]")
    assert f"mask 2: {min(large):.2f} (dark) to {max(large):.2f} (yellow)" in mask
    assert "0.55 (dark) to 0.71 (yellow)" in average
    here.get_by_role("button", name="Digit to a corner").click()
    moved, same = scales.all_text_contents()
    assert moved != mask and same == average
    here.get_by_role("button", name="Hide mask 2").click()


@of("digit_masks")
def test_the_scores_are_told_when_they_are_asked_for(page: Visit) -> None:
    here, told, spoken = parts(page, "digit_masks")
    view = """e => [...e.querySelector("canvas[aria-label='mask 2']").getContext("2d")
        .getImageData(0, 0, 280, 280).data].filter((_, n) => n % 4 < 3)"""
    assert "Mask 2 scores" not in told.text_content()
    assert set(figure(page, "digit_masks", view)) == {0x99}  # covered
    here.get_by_role("button", name="Show mask 2").click()
    assert here.get_by_text(re.compile(r"mask 2: .* \(dark\)")).count() == 1
    assert "Mask 2 scores" in told.text_content()
    share, usual = figure(
        page, "digit_masks", "e => [e.look(e.at.places)].flatMap(f => [f.share, f.usual])"
    )
    verdict = "both beat" if usual > 0.5 else "its average does not"
    assert (verdict if share > 0.5 else "mask 2 does not beat") in told.text_content()
    assert spoken.text_content() == told.text_content()
    here.get_by_role("button", name="Hide mask 2").click()
    assert "Mask 2 scores" not in told.text_content()


@of("digit_masks")
def test_a_digit_is_moved_by_keys_and_by_pointer(page: Visit) -> None:
    here, told, spoken = parts(page, "digit_masks")
    here.get_by_role("button", name="Show mask 2").click()
    here.get_by_role("button", name="The original picture").click()
    start = told.text_content()
    digit = here.get_by_label("the digit", exact=False).first
    digit.focus()
    page.page.keyboard.press("ArrowLeft")
    assert told.text_content() != start and spoken.text_content() == told.text_content()
    page.page.keyboard.press("ArrowRight")
    assert told.text_content() == start
    side = here.get_by_label("the picture").bounding_box()["width"]
    drag(page, digit, (-side, -side))
    assert figure(page, "digit_masks", "e => e.at.places[0]") == [0, 0]
    here.get_by_role("button", name="The original picture").click()
    assert told.text_content() == start
