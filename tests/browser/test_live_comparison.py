"""The live figures of the chapter that compares: a row of each matrix, and what layers cost."""

from __future__ import annotations

import base64
import gzip
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import live
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import attnbook as ab
from attnbook import costs

from .conftest import Visit
from .test_live import figure
from .test_live_vision import drag, opened, parts
from .test_site import width

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

CHAPTER = "book/comparison"
pytestmark = [pytest.mark.book, pytest.mark.xdist_group(CHAPTER)]


@pytest.fixture(scope="module")
def page(open_page: Callable[..., Visit]) -> Iterator[Visit]:
    for visit in opened(open_page, "comparison", ["one_row", "cost_explorer"]):
        fold = visit.page.locator("attn-live[name=cost_explorer] .live-fold")
        assert not fold.locator("table").is_visible()  # it begins with two sliders
        fold.locator("summary").click()
        told = visit.page.locator("attn-live[name=one_row] .live-told").text_content()
        assert told.startswith("Place (4, 8) is made of 1 place, itself")  # and with the easiest
        yield visit


# --- A place of the output, and its row -----------------------------------------------------------

HIGH, WIDE = 10, 15
COUNT = HIGH * WIDE
WHITE, NOTHING = (255, 255, 255), (68, 1, 84)  # of a square; what 0 is in a matrix


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return live.read("coffee")[0]["photo"].double()


@pytest.fixture(scope="module")
def treatments(photo: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What each mechanism makes of pictures (b, 3, h, w), its weights being those of the photo."""
    squeeze = ab.SqueezeExcitation(3, hidden_channels=1).double().requires_grad_(False)
    for parameter in squeeze.parameters():
        parameter.zero_()
    assert squeeze.fc2.bias is not None
    squeeze.fc2.bias.copy_(torch.tensor([0.95, 0.4, 0.4]).double().logit())
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, HIGH).double(), torch.linspace(-1, 1, WIDE).double(), indexing="ij"
    )
    disc = torch.sigmoid(10 * (0.6 - (x**2 + y**2).sqrt()))
    tokens = rearrange(photo, "color row col -> (row col) color")
    score = ab.CosineScore(4.0).double().requires_grad_(False)
    centred = tokens - tokens.mean(0)
    _, weights = ab.attend(centred, centred, tokens, score=score)
    theta = torch.tensor([[0.6, 0.0, 0.1], [0.0, 0.6, 0.0]]).double()
    grid = ab.affine_grid(theta, HIGH, WIDE)
    blur = torch.full((3, 1, 3, 3), 1 / 9).double()

    def attend(pictures: Tensor) -> Tensor:
        mixed = weights @ rearrange(pictures, "b color row col -> b (row col) color")
        return rearrange(mixed, "b (row col) color -> b color row col", row=HIGH)

    return {
        "3 × 3 convolution": lambda pictures: F.conv2d(pictures, blur, padding=1, groups=3),
        "channel gate": lambda pictures: pictures * squeeze.gate(pictures),
        "spatial gate": lambda pictures: pictures * disc,
        "self-attention": attend,
        "spatial transformer": lambda pictures: ab.bilinear_sample(pictures, grid),
    }


KINDS = [
    "spatial gate", "channel gate", "self-attention", "spatial transformer", "3 × 3 convolution"
]  # fmt: skip


def matrices(treatment: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the matrix of each colour, (color, output place, input place), place by place."""
    single = repeat(torch.eye(COUNT).double(), "m (h w) -> m color h w", color=3, h=HIGH)
    return rearrange(treatment(single), "m color h w -> color (h w) m")


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrices_are_those_of_the_package(page, treatments, photo, kind) -> None:
    expected = matrices(treatments[kind])
    found = torch.tensor(figure(page, "one_row", "(e, kind) => e.matrices(kind)", kind)).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    shown = torch.tensor(
        figure(page, "one_row", "(e, kind) => e.output(e.matrices(kind))", kind)
    ).double()
    output = rearrange(treatments[kind](photo[None]), "1 color h w -> color (h w)")
    torch.testing.assert_close(shown, output, atol=1e-6, rtol=0)


def drawn(page: Visit, view: int) -> Image.Image:
    """Return one of the figure's three pictures: the output, the input and the matrix."""
    url = figure(page, "one_row", "(e, n) => e.querySelectorAll('canvas')[n].toDataURL()", view)
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


@pytest.mark.parametrize("kind", KINDS)
def test_the_row_is_drawn_where_its_weights_lie(page, treatments, photo, kind) -> None:
    here, _, _ = parts(page, "one_row")
    here.get_by_label(kind).check()
    choose(page, 2, 4)
    n = 2 * WIDE + 4
    output, under, sheet = (drawn(page, view).getpixel for view in range(3))
    row = matrices(treatments[kind])[0, n]
    largest = matrices(treatments[kind])[0].max()
    for m, weight in enumerate(row.tolist()):
        x, y = 40 * (m % WIDE) + 20, 40 * (m // WIDE) + 20
        side = 36 * math.sqrt(weight / largest)
        colour = [round(255 * value) for value in photo[:, m // WIDE, m % WIDE].tolist()]
        if side > 4:
            assert under((x, y)) == WHITE, m
        elif side < 1.5:
            assert under((x, y)) == pytest.approx(colour, abs=1), m
        # Beyond its edge, the square is as wide as its weight says.
        if 4 < side < 34:
            assert under((int(x + side / 2 - 2), y)) == WHITE, m
            assert under((int(x + side / 2 + 2.5), y)) == pytest.approx(colour, abs=1), m
    # The output place itself, by the treated picture; and its row in the matrix, between two lines.
    made = 255 * treatments[kind](photo[None])[0, :, 2, 4]
    assert output((40 * 4 + 20, 40 * 2 + 20)) == pytest.approx(made.tolist(), abs=1)
    assert output((40 * 4, 40 * 2 + 20)) == WHITE  # its edge
    for y in (4 * n - 4, 4 * n + 7):
        assert sheet((300, y)) == (255, 127, 42)
    m = int(row.argmax())
    assert sheet((4 * m + 2, 4 * n + 2)) != NOTHING
    if kind != "self-attention":
        assert sheet((4 * ((m + 75) % COUNT) + 2, 4 * n + 2)) == NOTHING


def choose(page: Visit, row: int, column: int) -> None:
    """Go to a place of the output by keys."""
    page.page.locator("attn-live[name=one_row]").get_by_label("place of the output").focus()
    keys = {"ArrowUp": HIGH, "ArrowLeft": WIDE, "ArrowDown": row, "ArrowRight": column}
    for key, times in keys.items():
        for _ in range(times):
            page.page.keyboard.press(key)


@pytest.mark.parametrize(
    ("kind", "place", "said"),
    [
        ("3 × 3 convolution", (3, 7), "9 places, itself and its neighbours, each times 0.11,"),
        ("3 × 3 convolution", (0, 7), "6 places, itself"),
        ("3 × 3 convolution", (9, 14), "4 places, itself"),
        ("channel gate", (3, 7), "1 place, itself, times 0.95 in red and 0.40 in green and blue"),
        ("spatial gate", (3, 7), "1 place, itself, times 0.94 in all colours."),
        ("spatial gate", (0, 0), "1 place, itself, times 0.00 in all colours."),
        ("self-attention", (3, 7), "all 150 places. The largest weight, 0.022, lies on itself;"),
        ("spatial transformer", (3, 7), "four places around (4.6, 8.8), times 0.10, 0.30, 0.15, 0"),
        ("spatial transformer", (2, 0), "two places around (4.0, 4.6), times 0.45, 0.55."),
    ],
)
def test_one_sentence_says_what_the_place_is_made_of(page, treatments, kind, place, said) -> None:
    here, told, spoken = parts(page, "one_row")
    here.get_by_label(kind).check()
    choose(page, *place)
    row, column = (index + 1 for index in place)  # a reader counts from 1
    assert told.text_content().startswith(f"Place ({row}, {column}) is made of {said}")
    assert spoken.text_content() == told.text_content()
    if kind == "self-attention":
        row = matrices(treatments[kind])[0, place[0] * WIDE + place[1]]
        half = int((row.sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1
        assert f"on the {half} places" in told.text_content()


def test_the_answer_on_the_corner_holds(treatments, photo) -> None:
    reach = {kind: matrices(treatments[kind])[0, 0].view(HIGH, WIDE) for kind in KINDS}
    assert reach["3 × 3 convolution"].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    for gate in ("channel gate", "spatial gate"):
        assert reach[gate].nonzero().tolist() == [[0, 0]]
    warped = (reach["spatial transformer"] > 1e-9).nonzero().tolist()
    assert warped == [[1, 3], [1, 4], [2, 3], [2, 4]]  # around (1.8, 3.6), counted from 0
    assert reach["self-attention"].min() > 0
    most = reach["self-attention"].flatten().topk(20).indices
    brightness = photo.mean(0).flatten()
    assert brightness[most].max() < brightness.median()


def test_a_mouse_looks_at_a_place_and_a_click_chooses_it(page) -> None:
    here, told, spoken = parts(page, "one_row")
    here.get_by_label("3 × 3 convolution").check()
    choose(page, 3, 7)
    output = here.get_by_label("the output", exact=True)
    output.scroll_into_view_if_needed()
    box = output.bounding_box()

    def at(row, column):
        right, down = (column + 0.5) / WIDE, (row + 0.5) / HIGH
        return box["x"] + box["width"] * right, box["y"] + box["height"] * down

    before = spoken.text_content()
    page.page.mouse.move(*at(1, 12))
    assert told.text_content().startswith("Place (2, 13) is made of 9 places")
    assert spoken.text_content() == before  # it is only looked at
    page.page.mouse.move(5, 5)
    assert told.text_content().startswith("Place (4, 8)")
    page.page.mouse.click(*at(9, 0))
    page.page.mouse.move(5, 5)
    assert told.text_content().startswith("Place (10, 1) is made of 4 places")
    assert spoken.text_content() == told.text_content()

    # The ring is dragged, beyond the border as far as the border, and speaks when it is let go.
    ring = here.get_by_label("place of the output")
    held = ring.bounding_box()
    middle = held["x"] + held["width"] / 2, held["y"] + held["height"] / 2
    assert middle == pytest.approx(at(9, 0), abs=1)
    page.page.mouse.move(*middle)
    page.page.mouse.down()
    page.page.mouse.move(*at(5, 5), steps=4)
    assert told.text_content().startswith("Place (6, 6)")
    assert spoken.text_content().startswith("Place (10, 1)")
    page.page.mouse.up()
    assert spoken.text_content().startswith("Place (6, 6)")
    drag(page, ring, (box["width"], box["height"]))
    page.page.mouse.move(5, 5)
    assert told.text_content().startswith("Place (10, 15)")

    # A row of the matrix is the place of the output that it makes.
    sheet = here.get_by_label("the matrix")
    edges = sheet.bounding_box()
    y = round(edges["y"] + edges["height"] * (4 * WIDE + 2 + 0.5) / COUNT)
    row, column = divmod(int((y - edges["y"]) / edges["height"] * COUNT), WIDE)
    page.page.mouse.click(edges["x"] + 9, y)
    page.page.mouse.move(5, 5)
    assert spoken.text_content().startswith(f"Place ({row + 1}, {column + 1})")


def test_the_mechanisms_are_chosen_by_keys(page) -> None:
    here, told, spoken = parts(page, "one_row")
    here.get_by_label(KINDS[0]).check()
    here.get_by_label(KINDS[0]).focus()
    for kind in KINDS[1:]:
        page.page.keyboard.press("ArrowDown")
        assert here.locator("input:checked").evaluate("e => e.parentElement.innerText").strip() == (
            kind
        )
        assert spoken.text_content() == told.text_content()
    assert "itself and its neighbours" in told.text_content()


# --- What layers cost -----------------------------------------------------------------------------

START = {
    "C": 256, "side": 28, "batch": 1, "r": 16, "k": 5, "window": 7, "heads": 8,
    "bandwidth": 44.5, "peak": 55.9, "launch": 5, "bytes": 0,
}  # fmt: skip
NAMES = ["attention", "SE", "ECA", "CBAM", "warp"]
SETTINGS = [
    {},
    {"C": 32, "side": 7, "batch": 4, "r": 32, "k": 3, "window": 1, "heads": 32},
    {"C": 96, "side": 14, "batch": 2, "r": 8, "k": 3, "window": 3, "heads": 16},
    {"C": 512, "side": 4, "batch": 8, "r": 1, "k": 15, "window": 11, "heads": 1},
    {"C": 384, "side": 56, "batch": 1, "r": 4, "k": 9, "window": 5, "heads": 2},
    {"C": 2048, "side": 1, "batch": 64, "r": 2, "k": 11, "window": 7, "heads": 4},
]


def layers(s: dict[str, Any]) -> dict[str, tuple[torch.nn.Module, Tensor]]:
    """Return the package's layers and what they are called with, on no device."""
    image = torch.empty(s["batch"], s["C"], s["side"], s["side"], device="meta")
    tokens = rearrange(image, "b c h w -> b (h w) c")
    make: dict[str, Any] = {"device": "meta"}
    linear = torch.nn.Linear(16 * s["C"], 6, **make)
    look = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), linear)
    return {
        "attention": (ab.MultiHeadAttention(s["C"], s["heads"], **make), tokens),
        "SE": (ab.SqueezeExcitation(s["C"], s["r"], **make), image),
        "ECA": (ab.EfficientChannelAttention(kernel_size=s["k"], **make), image),
        "CBAM": (ab.CBAM(s["C"], s["r"], kernel_size=s["window"], **make).eval(), image),
        "warp": (ab.SpatialTransformer(look), image),
    }


def counted(page: Visit, settings: dict[str, Any]) -> dict[str, Any]:
    return figure(page, "cost_explorer", "(e, s) => e.count(s)", START | settings)


@pytest.mark.parametrize("settings", SETTINGS)
def test_parameters_and_multiply_adds_are_those_that_the_package_counts(page, settings) -> None:
    found = counted(page, settings)
    s = START | settings
    assert list(found) == NAMES
    for name, (layer, x) in layers(s).items():
        assert found[name]["parameters"] == costs.parameters(layer)
        assert found[name]["products"] == costs.multiply_adds(layer, x)
        size = x.numel()
        others = {"attention": 0, "SE": 2, "ECA": 2, "CBAM": 6, "warp": 5}[name] * size
        if name == "attention":  # the softmax, over the scores of all heads
            others = s["batch"] * s["heads"] * s["side"] ** 4
        assert found[name]["others"] == others
        moved = 4 * (2 * size + costs.parameters(layer))
        assert found[name]["bytes"] == moved
        work = costs.multiply_adds(layer, x) + others
        assert found[name]["intensity"] == pytest.approx(work / moved)


class Operators(TorchDispatchMode):
    """Counts the operators that write something, and the numbers that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        old = {x.untyped_storage().data_ptr() for x in read}
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        made = [x for x in made if x.untyped_storage().data_ptr() not in old]
        if read and made:  # no view, and no empty tensor
            self.count += 1
            self.numbers += sum(x.numel() for x in read + made)
        return result


def by_the_textbook(layer: ab.MultiHeadAttention, x: Tensor) -> Tensor:
    """One head of attention that is not fused, in as few operators as there can be."""
    q, k, v = (project(x) for project in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = torch.baddbmm(torch.zeros(1, 1, 1), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    return layer.out_proj(scores.softmax(-1) @ v)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [{}, {"C": 96, "side": 28, "batch": 2, "heads": 4}, {"C": 64, "side": 56, "batch": 4, "r": 8}],
)
def test_the_operators_and_what_they_move_are_those_of_the_modules(page, settings) -> None:
    s = START | settings
    found = counted(page, settings | {"bytes": 1})
    for name, (layer, x) in layers(s).items():
        real, values = layer.to_empty(device="cpu"), torch.zeros(x.shape)
        with Operators() as operators:
            real(values)
        assert found[name]["operators"] == operators.count
        assert found[name]["bytes"] == pytest.approx(4 * operators.numbers, rel=0.06)


@torch.no_grad()
def test_attention_that_is_not_fused_writes_its_scores_and_weights(page) -> None:
    settings = {"C": 64, "side": 28, "batch": 2, "bytes": 2}
    layer, x = ab.MultiHeadAttention(64, 1), torch.zeros(2, 28**2, 64)
    with Operators() as operators:
        output = by_the_textbook(layer, x)
    torch.testing.assert_close(output, layer(x))
    one, eight = (counted(page, settings | {"heads": heads})["attention"] for heads in (1, 8))
    assert one["operators"] == operators.count == 7
    assert one["bytes"] == pytest.approx(4 * operators.numbers, rel=1e-4)
    assert eight["bytes"] - one["bytes"] == 4 * 4 * 7 * 2 * 28**4


@pytest.mark.parametrize(
    ("machine", "times", "waits"),
    [
        ({}, 255, [1, 0, 0, 2, 2]),
        ({"bandwidth": 3350, "peak": 33500}, 0.714, [2, 2, 2, 2, 2]),
        ({"launch": 1}, 255, [1, 0, 0, 0, 0]),
        ({"batch": 32, "bandwidth": 3350, "peak": 33500}, 14.3, [1, 2, 2, 2, 2]),
        ({"launch": 20}, 67.1, [1, 2, 2, 2, 2]),
    ],
)
def test_the_time_is_the_longest_of_three(page, machine, times, waits) -> None:
    s = START | machine
    found = counted(page, machine)
    for layer in found.values():
        work = layer["products"] + layer["others"]
        three = (
            1e6 * layer["bytes"] / (s["bandwidth"] * 1e9),
            1e6 * work / (s["peak"] * 1e9),
            s["launch"] * layer["operators"],
        )
        assert layer["times"] == pytest.approx(three)
    assert [layer["waits"] for layer in found.values()] == waits
    longest = [max(found[name]["times"]) for name in ("attention", "SE")]
    assert longest[0] / longest[1] == pytest.approx(times, rel=4e-3)  # what the answer says


def rows(page: Visit) -> dict[str, list[str]]:
    """Return what the table says, by the heads of its rows."""
    here = page.page.locator("attn-live[name=cost_explorer]")
    texts = here.locator("table").evaluate(
        "e => [...e.rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return {head: cells for head, *cells in texts}


def test_the_figure_starts_where_the_chapter_counts(page) -> None:
    here, told, _ = parts(page, "cost_explorer")
    assert rows(page) == {
        "": NAMES,
        "parameters": ["263,168", "8,464", "5", "8,292", "24,582"],
        "multiply-adds": ["520 M", "8,192", "1,280", "93,216", "24,576"],
        "by element": ["4.92 M", "401,408", "401,408", "1.2 M", "1 M"],
        "bytes": ["2.66 MB", "1.64 MB", "1.61 MB", "1.64 MB", "1.7 MB"],
        "operations a byte": ["198", "0.25", "0.251", "0.792", "0.603"],
        "operators": ["5", "7", "6", "20", "21"],
        "time for memory": ["59.7 µs", "36.8 µs", "36.1 µs", "36.8 µs", "38.3 µs"],
        "time for arithmetic": ["9.39 ms", "7.33 µs", "7.2 µs", "23.2 µs", "18.4 µs"],
        "time for launches": ["25 µs", "35 µs", "30 µs", "100 µs", "105 µs"],
        "waits for": ["arithmetic", "memory", "memory", "launches", "launches"],
    }
    # It opens on the multiply-adds. The times have a key to their three bars, and a machine.
    key, machine = here.locator(".live-costs-key"), here.get_by_role("button", name="an H100")
    assert here.get_by_role("radio", name="multiply-adds").is_checked()
    assert not key.is_visible() and not machine.is_visible()
    assert told.text_content() == "Attention takes 520 M multiply-adds, 63,500 times those of SE."
    here.get_by_role("radio", name="time").check()
    assert key.is_visible() and machine.is_visible()
    assert told.text_content() == (
        "Attention takes 520 M multiply-adds, 63,500 times those of SE, and 255 times its time. "
        "Attention waits for arithmetic; SE and ECA wait for memory; "
        "CBAM and warp wait for launches."
    )


def test_attention_grows_as_the_answer_says(page) -> None:
    small, large = (counted(page, {"side": side}) for side in (28, 56))
    assert small["SE"]["products"] == large["SE"]["products"]
    before, after = small["attention"]["products"], large["attention"]["products"]
    assert after / before == pytest.approx(11.3, rel=4e-3)
    assert after == pytest.approx(5.86e9, rel=1e-3)


BARS = """e => [...e.querySelectorAll(".live-costs > div")].map(row => {
    const area = row.children[1].getBoundingClientRect();
    return [...row.children[1].children].map(bar => {
        const {left, right, width} = bar.getBoundingClientRect();
        const at = bar.textContent ? (left + right) / 2 - area.left : width;
        return [at / area.width, bar.textContent];
    });
})"""
# What is drawn, and the powers of ten that its axis goes from and to.
AXES = {
    "multiply-adds": ("products", 1, 14),
    "time": ("times", -1, 10),
}
TICKS = {"": 1, "M": 1e6, "G": 1e9, "T": 1e12, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
TICKS |= {"µs": 1, "ms": 1e3, "s": 1e6}


def test_what_stands_beside_a_bar_has_room(page) -> None:
    here, _, _ = parts(page, "cost_explorer")
    here.get_by_role("radio", name="time").check()
    for pixels in (360, 1440):
        with width(page, pixels):
            wide = here.locator(".live-costs > div > :is(:first-child, b)").evaluate_all(
                "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
            )
            assert wide == []
            beyond = "document.documentElement.scrollWidth - window.innerWidth"
            assert page.page.evaluate(beyond) <= 0  # the table of counts scrolls by itself
    here.get_by_role("radio", name="multiply-adds").check()


@pytest.mark.parametrize("drawn", AXES)
def test_the_bars_lie_on_a_logarithmic_axis(page, drawn) -> None:
    here, _, _ = parts(page, "cost_explorer")
    here.get_by_role("radio", name=drawn).check()
    key, low, high = AXES[drawn]
    *bars, ticks = figure(page, "cost_explorer", BARS)
    for layer, (name, found) in zip(bars, counted(page, {}).items(), strict=True):
        values = found[key] if key == "times" else [found[key]]
        shares = [(math.log10(value) - low) / (high - low) for value in values]
        assert [share for share, _ in layer] == pytest.approx(shares, abs=0.01), name
    assert len(ticks) >= 2
    for share, text in ticks:
        number, _, unit = text.replace(",", "").partition(" ")
        expected = (math.log10(float(number) * TICKS[unit]) - low) / (high - low)
        assert share == pytest.approx(expected, abs=0.01), text
    here.get_by_role("radio", name="multiply-adds").check()


TIMES = """e => [...e.querySelectorAll(".live-costs i")].map(bar => {
    const {content, fontSize, width} = getComputedStyle(bar, "::after");
    const {left, right} = bar.getBoundingClientRect();
    const room = bar.dataset.long === "true" ? right - left
        : bar.parentElement.getBoundingClientRect().right - right;
    return [content, parseFloat(fontSize), room - parseFloat(width)];
})"""


@pytest.mark.parametrize("pixels", [360, 1440])
def test_a_bar_says_how_many_times_those_of_se_it_is(page, pixels) -> None:
    here, _, _ = parts(page, "cost_explorer")
    here.get_by_role("radio", name="multiply-adds").check()
    side = here.get_by_role("slider", name="side of the map")
    with width(page, pixels):
        for at in range(8):
            side.fill(str(at))
            said = figure(page, "cost_explorer", TIMES)
            assert all(size >= 12 and room >= 8 for _, size, room in said)  # 8: its padding
        side.fill("5")
        texts = [text.strip('"') for text, _, _ in figure(page, "cost_explorer", TIMES)]
        assert texts == ["63,500 ×", "1 ×", "0.156 ×", "11.4 ×", "3 ×"]
        here.get_by_role("radio", name="time").check()  # where three bars have no one factor
        assert {text for text, _, _ in figure(page, "cost_explorer", TIMES)} == {"none"}
        here.get_by_role("radio", name="multiply-adds").check()


SLIDERS = {  # how it is called, and in what the table changes when it is moved
    "channels C": "parameters",
    "side of the map": "bytes",
    "batch": "multiply-adds",
    "reduction r": "parameters",
    "ECA's kernel k": "parameters",
    "CBAM's kernel": "parameters",
    "memory, GB/s": "time for memory",
    "arithmetic, G/s": "time for arithmetic",
    "launch, µs": "time for launches",
}


@pytest.mark.parametrize(("name", "row"), SLIDERS.items())
def test_each_slider_is_moved_by_keys_and_by_mouse(page, name, row) -> None:
    here, told, spoken = parts(page, "cost_explorer")
    slider = here.get_by_role("slider", name=name)
    start, before = slider.input_value(), rows(page)
    slider.focus()
    page.page.keyboard.press("ArrowLeft" if int(start) else "ArrowRight")
    moved = rows(page)
    assert moved[row] != before[row]
    assert spoken.text_content() == told.text_content()
    page.page.keyboard.press("ArrowRight" if int(start) else "ArrowLeft")
    assert rows(page) == before
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert slider.input_value() == slider.get_attribute("max")
    shown = slider.get_attribute("aria-valuetext")
    assert shown in slider.locator("xpath=..").text_content()
    assert rows(page)[row] not in (before[row], moved[row])
    slider.fill(start)
    assert rows(page) == before


def test_heads_move_nothing_while_attention_is_fused(page) -> None:
    here, told, spoken = parts(page, "cost_explorer")
    here.get_by_role("radio", name="time").check()
    heads = here.get_by_role("slider", name="heads")
    before = rows(page)
    heads.focus()
    page.page.keyboard.press("Home")
    one = rows(page)
    assert one["by element"][0] == "614,656"  # the softmax of one head
    assert one["by element"][1:] == before["by element"][1:]
    assert all(one[row] == before[row] for row in ("multiply-adds", "bytes", "operators"))
    here.get_by_label("by each operator").check()
    by_each = rows(page)
    assert by_each["bytes"] == ["10.7 MB", "2.44 MB", "2.41 MB", "6.46 MB", "2.51 MB"]
    page.page.keyboard.press("ArrowRight")  # the next radio
    unfused = rows(page)
    assert here.get_by_label("unfused").is_checked()
    assert unfused["bytes"][1:] == by_each["bytes"][1:]
    assert unfused["bytes"][0] == "20.5 MB" and unfused["operators"][0] == "7"
    heads.focus()
    page.page.keyboard.press("End")
    assert rows(page)["bytes"][0] == "325 MB"
    assert told.text_content().endswith("CBAM wait for memory; warp waits for launches.")
    assert spoken.text_content() == told.text_content()
    heads.fill("3")
    here.get_by_label("the least").check()
    assert rows(page) == before


def test_the_machine_is_changed_by_a_button(page) -> None:
    here, told, spoken = parts(page, "cost_explorer")
    here.get_by_role("radio", name="time").check()
    here.get_by_role("button", name="an H100").click()
    assert told.text_content().endswith("0.714 times its time. All five wait for launches.")
    assert spoken.text_content() == told.text_content()
    assert here.get_by_role("slider", name="memory").get_attribute("aria-valuetext") == "3,350"
    here.get_by_role("button", name="two cores").focus()
    page.page.keyboard.press("Enter")
    assert told.text_content().endswith(
        "SE and ECA wait for memory; CBAM and warp wait for launches."
    )


def test_a_slider_speaks_when_it_is_let_go(page) -> None:
    here, told, spoken = parts(page, "cost_explorer")
    side = here.get_by_role("slider", name="side of the map")
    side.scroll_into_view_if_needed()
    box = side.bounding_box()
    before = spoken.text_content()
    y = box["y"] + box["height"] / 2
    page.page.mouse.move(box["x"] + box["width"] * 5 / 7, y)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 4, y, steps=4)
    assert told.text_content() != before == spoken.text_content()
    page.page.mouse.up()
    assert spoken.text_content() == told.text_content() != before
    side.fill("5")


# --- Both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [360, 1440])
def test_lettering_can_be_read(page, pixels) -> None:
    with width(page, pixels):
        lettering = page.page.eval_on_selector_all(
            "attn-live :is(span, th, td, label, p)",
            "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))",
        )
        assert min(lettering) >= 12


@pytest.mark.parametrize("role", ["button", "radio", "slider"])
def test_what_has_the_focus_is_seen(page, role) -> None:
    parts(page, "cost_explorer")[0].get_by_role("radio", name="time").check()
    for one in page.page.locator("attn-live").get_by_role(role).all():
        one.focus()
        page.page.keyboard.press("Shift")  # as somebody who uses keys
        assert one.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        assert one.evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)") >= 3


def test_a_finger_taps_and_drags(context: BrowserContext, address: str) -> None:
    browser = context.browser
    assert browser is not None
    screen = browser.new_context(viewport={"width": 360, "height": 800}, has_touch=True)
    try:
        touched = screen.new_page()
        touched.goto(f"{address}{CHAPTER}.html")
        for name in ("one_row", "cost_explorer"):
            touched.locator(f"attn-live[name={name}]").scroll_into_view_if_needed()
            touched.wait_for_selector(f"attn-live[name={name}][data-ready]")
        here = touched.locator("attn-live[name=one_row]")
        told = here.locator(".live-told")
        here.get_by_label("spatial gate").tap()
        output = here.get_by_label("the output", exact=True)
        output.scroll_into_view_if_needed()
        box = output.bounding_box()
        assert box
        place = {"x": box["width"] * 2.5 / WIDE, "y": box["height"] * 8.5 / HIGH}
        output.tap(position=place)  # pyright: ignore[reportArgumentType]
        assert told.text_content().startswith("Place (9, 3) is made of 1 place, itself")
        assert here.locator("p[aria-live]").text_content() == told.text_content()

        costs_here = touched.locator("attn-live[name=cost_explorer]")
        costs_here.get_by_label("time").first.tap()
        costs_here.get_by_role("button", name="an H100").tap()
        costs_here.get_by_text("All five wait for launches.").first.wait_for()
        side = costs_here.get_by_role("slider", name="side of the map")
        side.tap(position={"x": 5, "y": 14})
        assert side.get_attribute("aria-valuetext") == "1"

        # The ring follows the finger, and the page does not scroll under it.
        output.scroll_into_view_if_needed()
        box = output.bounding_box()
        assert box
        wire = screen.new_cdp_session(touched)
        x, y = box["x"] + place["x"], box["y"] + place["y"]
        for kind, across in (("Start", 0), ("Move", 30), ("Move", 60), ("End", None)):
            points = [] if across is None else [{"x": x + across, "y": y - across}]
            wire.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
        cell = box["width"] / WIDE
        assert told.text_content().startswith(
            f"Place ({math.floor(9.5 - 60 / cell)}, {math.floor(3.5 + 60 / cell)})"
        )
        assert output.bounding_box()["y"] == box["y"]
    finally:
        screen.close()


def test_nothing_moves_by_itself(page) -> None:
    assert (
        page.page.evaluate(
            "document.getAnimations().filter(e => e.effect.target?.closest('attn-live')).length"
        )
        == 0
    )


def test_on_paper_the_stored_figures_stand_alone(page) -> None:
    page.page.emulate_media(media="print")
    assert not any(one.is_visible() for one in page.page.locator("attn-live").all())
    before = ":is(.cell_output:has(+ attn-live), .cell_output:has(+ * attn-live))"
    stored = page.page.locator(f"{before} img.only-light").all()
    assert len(stored) == 2 and all(one.is_visible() for one in stored)
    page.page.emulate_media(media="screen")


def test_the_page_is_light(page) -> None:
    names = {url.rpartition("/")[2] for url in page.requests if "/_static/live/" in url}
    names = {re.sub(r"\?.*", "", name) for name in names}
    assert {"one_row.js", "coffee.weights.js", "cost_explorer.js"} < names
    assert sum(len(gzip.compress((live.FOLDER / name).read_bytes())) for name in names) < 210_000
