"""The live figures of chapter 2 compute what the package does, and are usable."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import live
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

import attnbook as ab

from .conftest import Visit
from .test_live import figure

pytestmark = [pytest.mark.book, pytest.mark.xdist_group("book/self_attention")]

START = {
    "x": [[1, 0, 0, 0], [0, 1, 0, 0]],
    "q": [[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    "k": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]],
    "v": [[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]],
}
RANDOM = random.Random(0)
SETTINGS = [
    {
        name: [[RANDOM.randint(-9, 9) for _ in row] for row in matrix]
        for name, matrix in START.items()
    }
    | {"causal": n % 2 == 1}
    for n in range(200)
]


@pytest.fixture(scope="module")
def page(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page("book/self_attention")
    for name in ("two_words", "nine_maps"):
        visit.page.locator(f"attn-live[name={name}]").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"attn-live[name={name}][data-ready]")
    yield visit
    assert visit.complaints == []
    visit.page.close()


def test_two_words_are_what_the_package_makes_of_them(page: Visit) -> None:
    every = [START | {"causal": False}, *SETTINGS]
    found = figure(page, "two_words", "(e, all) => all.map(e.look)", every)
    for settings, ours in zip(every, found, strict=True):
        layer = ab.SelfAttention(4, bias=False, is_causal=settings["causal"]).double()
        for name, projection in zip("qkv", (layer.q_proj, layer.k_proj, layer.v_proj), strict=True):
            projection.weight.data = torch.tensor(settings[name]).double().T
        output, weights = layer.attend(torch.tensor(settings["x"]).double())
        for theirs, name in ((output, "output"), (weights, "weights")):
            shown = torch.tensor(ours[name], dtype=torch.double)
            torch.testing.assert_close(shown, theirs.detach(), atol=1e-9, rtol=0)


def test_two_words_start_where_the_chapter_stands_and_one_number_is_the_answer(page: Visit) -> None:
    here = page.page.locator("attn-live[name=two_words]")
    told, spoken = here.locator(".live-told"), here.locator("p[aria-live]")
    here.get_by_role("button", name="Start again").click()
    assert told.text_content() == (
        "Dog takes 0.88 of itself and 0.12 of bites. Bites takes 0.27 of itself and 0.73 of dog."
    )
    words, asked = ["dog", "bites"], ["animal", "action", "cold", "teeth"]
    rows = [asked[:2], words, words, asked[2:]] + [asked, words] * 2 + [words] * 3
    columns = [asked, words, *[asked] * 7, words, asked]
    tables = here.locator("table")
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        for scope, names in (("row", row), ("col", column)):
            found = tables.nth(n).locator(f"th[scope={scope}]").all_text_contents()
            assert found == names, n
    folded = here.locator("details:not([open]) table")
    assert folded.locator("caption").all_text_contents() == [
        "X", "WQ", "WK", "keys", "WV", "values", "queries", "weights", "new vectors"
    ]  # fmt: skip
    taken = here.locator(".live-taken").all_text_contents()
    assert taken == ["Dog takesdog 88 %bites 12 %", "Bites takesdog 73 %bites 27 %"]
    field = here.get_by_label("W^Q, row animal, column action")
    field.focus()
    for _ in range(3):
        page.page.keyboard.press("ArrowUp")
    assert field.input_value() == "3"
    page.page.keyboard.press("Tab")
    assert "Dog takes 0.27 of itself and 0.73 of bites." in told.text_content()
    assert "more than half" in told.text_content()
    scores = here.locator("table", has_text="scores").locator("td").all_text_contents()
    assert [score for score in scores if score] == ["2", "3", "1", "0"]
    assert spoken.text_content() == told.text_content()
    field.fill("")
    assert field.get_attribute("aria-invalid") == "true"
    here.get_by_role("button", name="WK for both").click()
    keys = [[here.get_by_label(f"W^{m}, row {i}, column {j}").input_value() for m in "QK"]
            for i in asked for j in asked]  # fmt: skip
    assert all(q == k for q, k in keys)
    here.get_by_role("button", name="Start again").click()
    here.get_by_role("button", name="WK for both").click()
    assert told.text_content().endswith("Bites takes 0.88 of itself and 0.12 of dog.")
    here.get_by_role("button", name="Start again").click()
    here.locator("summary").click()
    here.get_by_label("causal mask").check()
    assert told.text_content().startswith("Dog takes 1 of itself and 0 of bites.")
    here.get_by_role("button", name="Start again").click()
    assert not here.get_by_label("causal mask").is_checked()


@pytest.mark.parametrize("sharpness", [0.1, 1, 2, 5, 20])
def test_nine_maps_are_what_attention_weighs(page: Visit, sharpness: float) -> None:
    state, _ = live.read("cat")
    settings = {"sharpness": sharpness, "row": 3, "column": 30, "shift": 0}
    ours = figure(page, "nine_maps", "(e, settings) => e.look(settings)", settings)
    grey = F.pad(state["grey"].double(), (1, 1, 1, 1))
    line = torch.arange(34).double()
    place = torch.cartesian_prod(line, line)
    kernel = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).double()
    total = torch.zeros(34 * 34, dtype=torch.double)
    for n, (r, c) in enumerate(itertools.product((-1, 0, 1), repeat=2)):
        target = place + torch.tensor([r, c])
        context, weights = ab.attend(
            target, place, grey.reshape(-1, 1),
            score=lambda q, k: -sharpness * torch.cdist(q, k) ** 2,
        )  # fmt: skip
        total += kernel[r + 1, c + 1] * context[:, 0]
        seen = rearrange(weights[4 * 34 + 31], "(row column) -> row column", row=34)[2:7, 29:34]
        seen = F.pad(seen, (0, 5 - seen.shape[1]))
        torch.testing.assert_close(
            torch.tensor(ours["maps"][n], dtype=torch.double), seen, atol=1e-6, rtol=0
        )
    inside = rearrange(total, "(row column) -> row column", row=34)[1:-1, 1:-1]
    torch.testing.assert_close(
        torch.tensor(ours["ours"], dtype=torch.double), inside, atol=1e-6, rtol=0
    )
    convolved = F.conv2d(grey[None, None], kernel[None, None])[0, 0]
    torch.testing.assert_close(
        torch.tensor(ours["theirs"], dtype=torch.double), convolved, atol=1e-9, rtol=0
    )
    assert ours["off"] == pytest.approx((inside - convolved).abs().max().item(), abs=1e-6)


def test_the_sharper_the_maps_the_nearer_is_the_convolution(page: Visit) -> None:
    look = "(e, all) => all.map(s => e.look({...s, row: 16, column: 16}))"
    settings = [{"sharpness": s, "shift": 0} for s in (5, 10, 20)]
    off = [found["off"] for found in figure(page, "nine_maps", look, settings)]
    assert off[0] < 0.1 and off[1] < 1e-3 and off[2] < 1e-6
    still, moved = figure(
        page, "nine_maps", look, [{"sharpness": 2, "shift": shift} for shift in (0, 2)]
    )
    still, moved = (torch.tensor(found["ours"])[:, 6:-6] for found in (still, moved))
    torch.testing.assert_close(moved[:, 2:], still[:, :-2], atol=1e-4, rtol=0)


def test_nine_maps_are_moved_by_keys_and_by_pointer(page: Visit) -> None:
    here = page.page.locator("attn-live[name=nine_maps]")
    told, spoken = here.locator(".live-told"), here.locator("p[aria-live]")
    before = told.text_content()
    here.get_by_label("sharpness").focus()
    page.page.keyboard.press("End")
    assert "20" in here.locator("label").first.text_content()
    after = told.text_content()
    assert after != before and spoken.text_content() == after
    assert "e-" in after.rpartition(": ")[2]  # only rounding, and what is below it, is left
    for label, value in (("row of the ring", "1"), ("column", "32")):
        here.get_by_label(label).focus()
        page.page.keyboard.press("Home" if value == "1" else "End")
    canvas = here.get_by_label("the picture", exact=True)
    box = canvas.bounding_box()
    canvas.click(position={"x": 0.52 * box["width"], "y": 0.52 * box["height"]})
    assert here.get_by_label("row of the ring").input_value() == "16"
    here.get_by_label("shift the picture").check()
    assert spoken.text_content() == told.text_content() != after
