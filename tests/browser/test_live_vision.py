"""The live figures of chapters 5 to 8 compute what the package does, and are usable."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import live
import nbformat
import pytest
import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor

import attnbook as ab

from .conftest import ROOT, Visit
from .test_live import figure

pytestmark = pytest.mark.book

FIGURES = {
    "squeeze_excitation": ["five_gates", "cue_strip"],
    "eca": ["channel_band", "channel_list"],
    "cbam": ["mask_window", "digit_masks"],
    "spatial_transformer": ["warp_frame", "one_point"],
}
CHAPTERS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"book/{name}"), id=name) for name in FIGURES
]


@pytest.fixture(scope="module", params=CHAPTERS)
def page(request: pytest.FixtureRequest, open_page: Callable[..., Visit]) -> Iterator[Visit]:
    yield from opened(open_page, request.param, FIGURES[request.param])


def opened(open_page: Callable[..., Visit], chapter: str, names: list[str]) -> Iterator[Visit]:
    """Open a chapter, and wait until these figures can be used."""
    visit = open_page(f"book/{chapter}")
    for name in names:
        visit.page.locator(f"attn-live[name={name}]").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"attn-live[name={name}][data-ready]")
    yield visit
    assert visit.complaints == []
    visit.page.close()


def on(chapter: str) -> pytest.MarkDecorator:
    """Run a test on the page of one chapter."""
    (param,) = (one for one in CHAPTERS if one.id == chapter)
    return pytest.mark.parametrize("page", [param], indirect=True)


def parts(visit: Visit, name: str) -> tuple[Any, Any, Any]:
    """Return a figure, what is seen of its finding, and what is heard of it."""
    here = visit.page.locator(f"attn-live[name={name}]")
    return here, here.locator(".live-told"), here.locator("p[aria-live]")


def notebook(chapter: str) -> list[str]:
    """Return the sources of a chapter's cells."""
    return [cell.source for cell in nbformat.read(ROOT / "book" / f"{chapter}.ipynb", 4).cells]


def notebook_outputs(chapter: str, words: str) -> str:
    """Return what the chapter's cells printed with these words in it."""
    cells = nbformat.read(ROOT / "book" / f"{chapter}.ipynb", 4).cells
    texts = [out.get("text", "") for cell in cells for out in cell.get("outputs", [])]
    return next(text for text in texts if words in text)


def drag(visit: Visit, handle: Any, by: tuple[float, float]) -> None:
    """Drag a handle by so many pixels of the screen."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + by[0], y + by[1], steps=3)
    visit.page.mouse.up()


# --- Chapter 5 ------------------------------------------------------------------------------------


def five_channels() -> Tensor:
    """Return the feature map of the chapter's cell, of the photograph that the page has."""
    cell = next(
        cell for cell in notebook("squeeze_excitation") if cell.startswith("box, edge = torch.ones")
    )
    names: dict[str, Any] = {"torch": torch, "rearrange": rearrange}
    exec(cell.partition("\n\n\n")[0], names)  # its filters
    photo = F.pad(live.read("astronaut")[0]["photo"][None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(photo, names["bank"]).relu()[0]


@on("squeeze_excitation")
def test_five_channels_are_those_of_the_chapter(page: Visit) -> None:
    found = figure(page, "five_gates", "e => e.maps.map(map => [...map])")
    expected = five_channels().flatten(1)
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)


@on("squeeze_excitation")
def test_the_gates_alone_decide_what_is_brighter(page: Visit) -> None:
    x = five_channels()
    open_gates = torch.ones(5)
    random = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    one_shut = 1 - torch.eye(5)
    settings = torch.cat([open_gates[None], random, one_shut])
    look = "(e, all) => all.map(g => { const f = e.look(g); return [...f.means, ...f.sum]; })"
    found = torch.tensor(figure(page, "five_gates", look, settings.tolist()))
    for gates, (suit, wall, *seen) in zip(settings, found.tolist(), strict=True):
        sums = einsum(x, gates, "c h w, c -> h w")
        torch.testing.assert_close(torch.tensor(seen), sums.flatten(), atol=1e-5, rtol=0)
        assert suit == pytest.approx(sums[50:63, 20:30].mean().item(), abs=1e-5)
        assert wall == pytest.approx(sums[7:30, 50:58].mean().item(), abs=1e-5)
    # The answer: only red turns the two round, below about a half, and nothing gets brighter.
    assert (found[:, 0] > found[:, 1])[[0, *range(4, 9)]].tolist() == [
        *(True, True, False, True, True, True)
    ]
    assert (found[:, 2:] <= found[0, 2:] + 1e-6).all()
    half = [[1, red, 1, 1, 1] for red in (0.5, 0.6)]
    below, above = figure(page, "five_gates", look, half)
    assert below[0] < below[1] and above[0] > above[1]


@on("squeeze_excitation")
def test_the_gates_are_moved_by_keys(page: Visit) -> None:
    here, told, spoken = parts(page, "five_gates")
    assert "the suit is brighter" in told.text_content()
    here.get_by_label("red:").focus()
    page.page.keyboard.press("Home")
    assert "the wall is brighter" in told.text_content()
    assert spoken.text_content() == told.text_content()
    here.get_by_role("button", name="edges alone").click()
    assert here.get_by_label("lighter below:").input_value() == "1"
    assert here.get_by_label("light:").input_value() == "0"
    here.get_by_role("button", name="all gates 1").click()
    assert here.get_by_label("light:").input_value() == "1"


# --- Chapter 6 ------------------------------------------------------------------------------------

BY_ANGLE = list(range(12))
ORDERS = [BY_ANGLE, BY_ANGLE[::-1], [3, 7, 0, 11, 5, 1, 9, 4, 10, 2, 8, 6]]


@on("eca")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ring", [False, True])
def test_the_band_is_what_the_package_computes(page: Visit, order: list[int], ring: bool) -> None:
    squeeze = torch.tensor(live.read("bricks")[1]["squeeze"])
    kernel = [-50.0, 80.0, -20.0]
    settings = {"kernel": kernel, "order": order, "ring": ring}
    found = figure(page, "channel_band", "(e, settings) => e.look(settings)", settings)
    layer = ab.EfficientChannelAttention(kernel_size=3).requires_grad_(False)
    layer.conv.weight.copy_(torch.tensor([[kernel]]))
    listed = [order[-1], *order, order[0]] if ring else order
    inside = slice(1, -1) if ring else slice(None)
    gates = torch.empty(12)
    gates[order] = layer.gate(squeeze[listed].view(1, -1, 1, 1)).flatten()[inside]  # by angle
    torch.testing.assert_close(torch.tensor(found["gates"]), gates, atol=1e-5, rtol=0)
    sums = torch.tensor(found["matrix"]).float() @ squeeze
    torch.testing.assert_close(sums.sigmoid(), gates, atol=1e-5, rtol=0)


@on("eca")
def test_the_band_starts_where_the_chapter_stands(page: Visit) -> None:
    printed = notebook_outputs("eca", "squeeze [").split("gate   ")
    squeeze, gates = ([float(n) for n in re.findall(r"\d\.\d+", text)] for text in printed)
    ours = figure(page, "channel_band", "e => e.look({}).gates")
    assert [float(f"{gate:.2f}") for gate in ours] == gates
    assert live.read("bricks")[1]["squeeze"] == pytest.approx(squeeze, abs=6e-4)
    # What the answer says of the border.
    ring = figure(page, "channel_band", "e => e.look({ring: true}).gates")
    assert min(ours[0], ours[11]) > 0.975 and all(0.44 < ring[n] < 0.54 for n in (0, 11))


@on("eca")
def test_the_band_is_shuffled_and_its_kernel_moved(page: Visit) -> None:
    here, told, spoken = parts(page, "channel_band")
    start = told.text_content()
    assert start.startswith("The gate of 90° is 0.91, from the squeezes of 75°, 90°, 105°.")
    page.page.evaluate("Math.random = () => 0.999")  # the last one left, each time: turned round
    here.get_by_role("button", name="Shuffle").click()
    assert "The list: 165°, 150°" in here.text_content()
    turned = told.text_content()
    assert turned.startswith(start + " Against") and "none of the 12" in turned  # symmetric
    assert spoken.text_content() == turned
    here.get_by_label("channel after").focus()
    page.page.keyboard.press("Home")
    assert here.locator("b").nth(2).text_content() == "−100"
    assert spoken.text_content() == told.text_content() != turned
    assert "none of the 12" not in told.text_content() and "of the 12" in told.text_content()
    here.get_by_role("button", name="By angle").click()
    here.get_by_label("the other end").check()
    assert "of the 12" not in told.text_content()  # in order there is nothing to compare
    here.get_by_role("button", name="Kernel").click()
    here.get_by_label("zeros").check()
    assert told.text_content() == start


# --- Chapter 7 ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photograph() -> dict[str, Any]:
    """Run the chapter's first cell, on the photograph that the page has."""
    names: dict[str, Any] = {"ab": ab, "F": F, "math": math, "reduce": reduce, "torch": torch}
    names["rearrange"] = rearrange
    cell = next(cell for cell in notebook("cbam") if cell.startswith("photo = "))
    lines = [line for line in cell.split("\n") if not line.startswith("photo = ")]
    names["photo"] = repeat(live.read("eyes")[0]["grey"], "h w -> color h w", color=3)
    exec("\n".join(lines[:-1]), names)
    return names


@on("cbam")
@pytest.mark.parametrize(
    ("k", "threshold", "gated"), [(7, 4, True), (1, 2.5, True), (15, 4, False)]
)
def test_the_mask_is_what_the_package_computes(
    page: Visit, photograph: dict[str, Any], k: int, threshold: float, gated: bool
) -> None:
    x = photograph["gated"] if gated else photograph["x"]
    gates = photograph["channel"].gate(photograph["x"]).flatten()
    assert figure(page, "mask_window", "e => e.gates()") == pytest.approx(gates.tolist(), abs=1e-4)
    spatial = ab.SpatialAttention(kernel_size=k).requires_grad_(False).eval()
    spatial.conv.conv.weight.fill_(20 / k**2)
    spatial.conv.bn.weight.fill_((1 + 1e-5) ** 0.5)  # evaluation alone divides by it
    spatial.conv.bn.bias.fill_(-threshold)
    look = """(e, settings) => {
        const f = e.look(settings);
        return [f.mean, f.most, f.mask].map(plane => [...plane].filter((_, n) => n % 7 === 0));
    }"""
    settings = {"k": k, "threshold": threshold, "gated": gated}
    found = torch.tensor(figure(page, "mask_window", look, settings))
    expected = torch.stack([x[0].mean(0), x[0].amax(0), spatial.gate(x)[0, 0]]).flatten(1)[:, ::7]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@on("cbam")
def test_the_mask_of_the_chapter_is_the_one_that_is_shown(page: Visit) -> None:
    stored = notebook_outputs("cbam", "channel gates")
    printed = [float(one) for one in re.findall(r"\d\.\d+", stored.partition("]")[0])]
    gates = figure(page, "mask_window", "e => e.gates()")
    assert gates == pytest.approx(printed, abs=0.01)


@on("cbam")
def test_a_place_is_chosen_by_keys_and_by_pointer(page: Visit) -> None:
    here, told, spoken = parts(page, "mask_window")
    photo = here.get_by_label("the photograph")
    photo.scroll_into_view_if_needed()
    box = photo.bounding_box()

    def at(row: int, column: int) -> tuple[float, float]:
        right, down = (column + 0.5) / 225, (row + 0.5) / 150
        return box["x"] + box["width"] * right, box["y"] + box["height"] * down

    def numbers() -> list[float]:
        return [float(number) for number in re.findall(r"\d+\.\d+", told.text_content())]

    *_, mask, mean, most = numbers()  # it starts where no edge is, and the mask is open
    assert mask > 0.9 and mean < 0.03 and most < 0.03
    page.page.mouse.move(*at(20, 200))
    assert told.text_content().startswith("Row 20, column 200:")
    page.page.mouse.move(5, 5)
    assert told.text_content().startswith("Row 56, column 84:")  # it was only looked at
    page.page.mouse.click(*at(72, 90))
    page.page.mouse.move(5, 5)
    here.get_by_label("the place whose mask").focus()
    page.page.keyboard.press("ArrowRight")
    assert told.text_content().startswith("Row 72, column 91:")
    assert spoken.text_content() == told.text_content()
    # The answer: open by its window, shut alone.
    *_, mask, mean, most = numbers()
    assert mask > 0.9 and mean < 0.03 and most < 0.03
    here.get_by_label("window:").focus()
    page.page.keyboard.press("Home")
    *_, mask, mean, most = numbers()
    assert mask < 0.05
    here.get_by_label("threshold").focus()
    page.page.keyboard.press("Home")
    assert "Mask: 0.5" in told.text_content()
    gated = told.text_content()
    here.get_by_label("gate the channels first").uncheck()
    assert told.text_content() != gated
    drag(page, here.get_by_label("the place whose mask"), (box["width"], 0))
    assert spoken.text_content().startswith("Row 72, column 224:")


# --- Chapter 8 ------------------------------------------------------------------------------------

TURNED = [[0.866, -0.5, 0.0], [0.5, 0.866, 0.0]]
HALVED = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
THETAS = torch.randn(60, 2, 3, generator=torch.Generator().manual_seed(0)).double().tolist()
WARPS = """(e, all, pushed) => all.map(theta => {
    const found = e.look({theta, pushed});
    return {...found, output: [...found.output]};
})"""


def theta_of(page: Visit) -> Tensor:
    return torch.tensor(figure(page, "warp_frame", "e => e.theta()"))


def pushed(ink: Tensor, theta: Tensor) -> tuple[Tensor, int, list[int]]:
    """Send each pixel by the inverse map to the nearest place; count what is shown and missed."""
    output, hit = torch.zeros(28, 28).double(), torch.zeros(28, 28, dtype=torch.bool)
    centres = (2 * torch.arange(28).double() + 1) / 28 - 1
    back = theta[:, :2].inverse()
    for row in range(28):
        for column in range(28):
            target = back @ (torch.stack([centres[column], centres[row]]) - theta[:, 2])
            j, i = (((target + 1) * 28 - 1) / 2 + 1e-6).round().int().tolist()
            if 0 <= i < 28 and 0 <= j < 28:
                output[i, j], hit[i, j] = ink[row, column], True
    shown = (ab.affine_grid(theta, 28, 28).abs() < 1).all(-1)
    return output, int(shown.sum()), (shown & ~hit).flatten().nonzero()[:, 0].tolist()


@on("spatial_transformer")
def test_the_frame_reads_what_the_package_reads(page: Visit) -> None:
    ink = live.read("seven")[0]["ink"].double()
    thetas = [TURNED, HALVED, *THETAS]
    found = figure(page, "warp_frame", WARPS, thetas, False)
    for theta, ours in zip(thetas, found, strict=True):
        grid = ab.affine_grid(torch.tensor(theta).double(), 28, 28)
        shown = torch.tensor(ours["output"]).double().view(1, 28, 28)
        for theirs in (
            ab.bilinear_sample(ink[None], grid),
            F.grid_sample(ink[None, None], grid[None], align_corners=False)[0],
        ):
            torch.testing.assert_close(shown, theirs, atol=1e-6, rtol=0)


@on("spatial_transformer")
def test_pixels_that_are_pushed_leave_holes(page: Visit) -> None:
    ink = live.read("seven")[0]["ink"].double()
    thetas = [HALVED, *THETAS[:20]]
    found = figure(page, "warp_frame", WARPS, thetas, True)
    for theta, ours in zip(thetas, found, strict=True):
        output, shown, holes = pushed(ink, torch.tensor(theta).double())
        sent = torch.tensor(ours["output"]).double().view(28, 28)
        torch.testing.assert_close(sent, output, atol=1e-6, rtol=0)
        assert (ours["shown"], ours["holes"]) == (shown, holes)
    # What the answer says: enlarged, there are holes; at the picture's size or less, none.
    assert len(found[0]["holes"]) > 28 * 28 / 2
    straight = [[[s, 0, 0], [0, s, 0]] for s in (1, 1.5)]
    turned, *others = figure(page, "warp_frame", WARPS, [TURNED, *straight], True)
    assert turned["holes"] and not any(one["holes"] for one in others)


@on("spatial_transformer")
def test_the_frame_is_moved_by_keys_and_by_pointer(page: Visit) -> None:
    here, told, spoken = parts(page, "warp_frame")
    torch.testing.assert_close(theta_of(page).float(), torch.eye(2, 3))  # as opened
    here.get_by_role("button", name="turn 30°").click()
    torch.testing.assert_close(theta_of(page), torch.tensor(TURNED))
    here.get_by_role("button", name="identity").click()
    assert "1.00 of the picture's area" in told.text_content()
    assert "as large as before" in told.text_content()
    here.get_by_label("middle of the frame").focus()
    page.page.keyboard.press("ArrowRight")
    assert theta_of(page)[0, 2] == pytest.approx(2 / 28)
    assert spoken.text_content() == told.text_content()

    # A corner is dragged inwards: the one across stays, and the frame stays upright.
    here.get_by_role("button", name="identity").click()
    stage = here.locator(".live-stage canvas").bounding_box()["width"]
    pixel = stage / 44
    drag(page, here.get_by_label("upper left corner"), (14 * pixel, 7 * pixel))
    half = torch.tensor([[0.5, 0, 0.5], [0, 0.75, 0.25]])
    torch.testing.assert_close(theta_of(page), half, atol=0.01, rtol=0)
    assert spoken.text_content() == told.text_content()
    drag(
        page, here.get_by_label("upper left corner"), (14 * pixel, 0)
    )  # as thin as a line: refused
    assert theta_of(page)[0, 0] > 0.005

    here.get_by_role("button", name="identity").click()
    drag(page, here.get_by_label("knob"), (18.9 * pixel, 18.9 * pixel))  # a quarter turn
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0]])
    torch.testing.assert_close(theta_of(page), quarter, atol=0.02, rtol=0)
    assert "turned by 90°" in told.text_content()

    here.get_by_role("button", name="halve x and y").click()
    here.get_by_label("sent by the picture").check()
    assert "in orange, got nothing" in told.text_content()
    here.get_by_label("read by the output").check()
    assert "4.00 times as large" in told.text_content()
    here.get_by_role("button", name="turn 30°").click()


@on("spatial_transformer")
def test_one_point_reads_and_pulls_as_the_package_does(page: Visit) -> None:
    row = live.read("seven")[0]["ink"][9, 4:20].double()
    torch.testing.assert_close(
        torch.tensor(figure(page, "one_point", "e => e.row")).double(), row, atol=1e-7, rtol=0
    )
    positions = torch.arange(-1.5, 16.5, 0.05).double() + 0.003
    found = figure(page, "one_point", "(e, all) => all.map(e.look)", positions.tolist())
    x = ((2 * positions + 1) / 16 - 1).requires_grad_()
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)[None]
    value = ab.bilinear_sample(row[None, None], grid)[0, 0]
    (slope,) = torch.autograd.grad(value.sum(), x)
    shown = torch.tensor([[one["value"], *one["slopes"]] for one in found]).double()
    torch.testing.assert_close(shown[:, 0], value.detach(), atol=1e-6, rtol=0)
    for side in (1, 2):  # d/dx of normalised positions: 8 pixels each
        torch.testing.assert_close(8 * shown[:, side], slope, atol=1e-5, rtol=0)
    assert all(sum(one["weights"]) == pytest.approx(1) for one in found)


@on("spatial_transformer")
def test_on_a_pixel_pytorch_takes_the_derivative_to_the_right(page: Visit) -> None:
    row = live.read("seven")[0]["ink"][9, 4:20].double()
    found = figure(page, "one_point", "(e, all) => all.map(e.look)", list(range(16)))
    x = ((2 * torch.arange(16).double() + 1) / 16 - 1).requires_grad_()
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)[None, None]
    value = F.grid_sample(row[None, None, None], grid, align_corners=False)
    (slope,) = torch.autograd.grad(value.sum(), x)
    right = torch.tensor([one["slopes"][1] for one in found]).double()
    torch.testing.assert_close(8 * right, slope, atol=1e-6, rtol=0)
    left = [one["slopes"][0] for one in found]
    assert left[1:] == pytest.approx(right[:-1].tolist(), abs=1e-6)
    # What the answer says of where it leads: to the stem, to the bar, nowhere.
    assert all(right[10:13] > 0) and row.argmax() == 13
    assert all(right[13:15] < 0) and all(right[:2] == 0) and right[15] == 0
    assert all(right[2:5] > 0) and all(right[5:8] < 0) and all(right[8:10] == 0)


@on("spatial_transformer")
def test_one_point_is_moved_by_keys_and_by_pointer(page: Visit) -> None:
    here, told, spoken = parts(page, "one_point")
    here.locator("input").focus()
    page.page.keyboard.press("ArrowRight")
    assert told.text_content().startswith("The point reads 0.70: 0.70 of pixel 12, which is 0.57")
    assert spoken.text_content() == told.text_content()
    page.page.keyboard.press("End")
    assert "outside and 0" in told.text_content() and "nothing moves" in told.text_content()
    box = here.locator("svg").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 10.5 / 18, box["y"] + 20)
    page.page.mouse.down()
    assert "pixel 9, which is 0.00" in told.text_content()
    page.page.mouse.move(box["x"] + box["width"] * 14.5 / 18, box["y"] + 20)
    page.page.mouse.up()
    assert "where two lines meet" in told.text_content()
    assert "−0.34 to the right" in told.text_content()
    assert spoken.text_content() == told.text_content()


# --- All of them ----------------------------------------------------------------------------------


def test_on_paper_the_stored_figures_stand_alone(page: Visit) -> None:
    page.page.emulate_media(media="print")
    assert not any(one.is_visible() for one in page.page.locator("attn-live").all())
    before = ":is(.cell_output:has(+ attn-live), .cell_output:has(+ * attn-live))"
    stored = page.page.locator(f"{before} img.only-light").all()
    notebook = nbformat.read(ROOT / f"{page.name}.ipynb", as_version=4)
    live = [cell for cell in notebook.cells if "live" in cell.metadata.get("attnbook", {})]
    drawn = ["image/svg+xml" in str(cell.outputs) for cell in live]
    assert live and len(stored) == sum(drawn) and all(one.is_visible() for one in stored)
    page.page.emulate_media(media="screen")


def test_a_page_of_live_figures_is_light(page: Visit) -> None:
    names = {url.rpartition("/")[2] for url in page.requests if "/_static/live/" in url}
    names = {name.partition("?")[0] for name in names}
    weight = sum(len(gzip.compress((live.FOLDER / name).read_bytes())) for name in names)
    assert len(names) >= 4 and weight < 210_000
