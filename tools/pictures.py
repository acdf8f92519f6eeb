"""Draw what the landing page and the web show of the book: a card a chapter, and one large picture.

python tools/pictures.py     writes book/_static/cards/*.svg, share.png and touch-icon.png

A card shows who is weighed by whom, in the manner of the logo: a square a weight. The large picture
is the table of weights of the translator of dates, computed by the network that the page runs.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import live
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from attnbook import datasets, plotting
from attnbook.studies import influence

STATIC = Path(__file__).parents[1] / "book" / "_static"
BLUE, AMBER = "#2f7ab8", "#e0952b"
SIDE = 96  # of a card, in units of its own


def square(x: float, y: float, side: float, colour: str = BLUE, share: float = 1.0) -> str:
    """Return a square around (x, y)."""
    half = side / 2
    return (
        f'<rect x="{x - half:.1f}" y="{y - half:.1f}" width="{side:.1f}" height="{side:.1f}" '
        f'rx="1.5" fill="{colour}" opacity="{share:.2f}"/>'
    )


def matrix(weights: list[list[float]], *, left: float = 8, top: float = 8, size: float = 80) -> str:
    """Return squares as large as their weights, the largest of each row in another colour."""
    step = size / max(len(weights), len(weights[0]))
    drawn = []
    for i, row in enumerate(weights):
        for j, weight in enumerate(row):
            colour = AMBER if weight == max(row) else BLUE
            side = step * (0.15 + 0.75 * math.sqrt(weight))
            drawn.append(square(left + step * (j + 0.5), top + step * (i + 0.5), side, colour))
    return "".join(drawn)


def cards() -> dict[str, str]:
    """Return the drawing of each chapter."""
    far = [[math.exp(-1.1 * abs(j - (4 - i))) for j in range(5)] for i in range(5)]
    causal = [[1 / (1 + abs(i - j - i % 2)) if j <= i else 0.0 for j in range(6)] for i in range(6)]
    hands = "".join(
        f'<circle cx="{20 + 28 * n}" cy="48" r="13" fill="none" stroke="{BLUE}" stroke-width="2"/>'
        f'<line x1="{20 + 28 * n}" y1="48" x2="{20 + 28 * n + 13 * math.sin(angle):.1f}" '
        f'y2="{48 - 13 * math.cos(angle):.1f}" stroke="{AMBER}" stroke-width="3"/>'
        for n, angle in enumerate((2.4, 0.8, 0.2))
    )
    heads = "".join(
        matrix(
            [[math.exp(-abs(j - i - shift)) for j in range(4)] for i in range(4)],
            left=8 + 42 * (n % 2),
            top=8 + 42 * (n // 2),
            size=38,
        )
        for n, shift in enumerate((0, -1, 1, -2))
    )
    gates = "".join(
        square(16 + 16 * n, 48, 14, AMBER if gate > 0.8 else BLUE, 0.15 + 0.85 * gate)
        + f'<rect x="{9 + 16 * n}" y="{88 - 22 * gate:.1f}" width="14" height="{22 * gate:.1f}" '
        f'fill="{BLUE}"/>'
        for n, gate in enumerate((0.3, 0.95, 0.5, 0.1, 0.9))
    )
    band = [[1.0 if i == j else 0.5 * (abs(i - j) == 1) for j in range(6)] for i in range(6)]
    mask = [[math.exp(-((i - 2) ** 2 + (j - 3.5) ** 2) / 2.5) for j in range(6)] for i in range(6)]
    places = "".join(
        square(
            15 + 13.2 * j, 15 + 13.2 * i, 11, AMBER if share > 0.6 else BLUE, 0.12 + 0.88 * share
        )
        for i, row in enumerate(mask)
        for j, share in enumerate(row)
    )
    grid = "".join(square(15 + 13.2 * j, 15 + 13.2 * i, 3) for i in range(6) for j in range(6))
    frame = (
        '<g transform="rotate(24 48 48)"><rect x="24" y="24" width="48" height="48" fill="none" '
    )
    frame += f'stroke="{AMBER}" stroke-width="3"/></g>'
    bars = "".join(
        f'<rect x="8" y="{12 + 15 * n}" width="{length}" height="10" rx="1.5" '
        f'fill="{AMBER if n == 1 else BLUE}"/>'
        for n, length in enumerate((34, 80, 52, 22, 61))
    )
    return {
        "attention": matrix(far),
        "self_attention": matrix(causal),
        "positional_encoding": hands,
        "multi_head_attention": heads,
        "squeeze_excitation": gates,
        "eca": matrix(band),
        "cbam": places,
        "spatial_transformer": grid + frame,
        "comparison": bars,
    }


def share() -> None:
    """Draw the picture that stands beside a link to the book: 1200 x 630 pixels."""
    state, extra = live.read("translator")
    characters = [datasets.Characters(["".join(extra[side])]) for side in ("source", "target")]
    translator = influence.Translator(*characters)
    translator.load_state_dict(state)
    chinese = extra["example"]
    source = characters[0].encode(["0" * (extra["length"] - 2), chinese])[1:]
    written = translator.translate(source, extra["steps"])
    english = characters[1].decode(written)[0]
    with torch.no_grad():
        _, weights = translator.attend(source, written[:, :-1])
    plotting.style()
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#0f2e4a", layout="none")
    figure.text(0.05, 0.74, "Attention in PyTorch", color="white", size=36, weight="bold")
    figure.text(0.05, 0.62, "a book that runs", color="#9fc6e6", size=28)
    lines = "Eight mechanisms, by hand, in einops,\nand tested on real data."
    figure.text(0.05, 0.32, lines, color="white", size=20, linespacing=1.5)
    figure.text(0.05, 0.12, "attnbook", color="#f0a830", size=24, weight="bold")
    ax = figure.add_axes((0.6, 0.08, 0.36, 0.82), facecolor="none")
    matrix = weights[0, : len(english), 1 : len(chinese) + 1]
    ax.imshow(matrix, cmap="viridis", aspect="auto")
    ax.set_xticks(range(len(chinese)), [*chinese], color="white", size=16)
    ax.set_yticks(range(len(english)), [*english.replace(" ", "␣")], color="white", size=13)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    figure.savefig(STATIC / "share.png", metadata={"Software": None}, facecolor="#0f2e4a")


def touch_icon() -> None:
    """Draw the logo as an icon of 180 x 180 pixels."""
    logo = (STATIC / "logo.svg").read_text(encoding="utf-8")
    figure = plt.figure(figsize=(1.8, 1.8), dpi=100, layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    box = [float(x) for x in re.findall(r'viewBox="([^"]+)"', logo)[0].split()]
    ax.set(xlim=(box[0], box[0] + box[2]), ylim=(box[1] + box[3], box[1]))
    ax.axis("off")
    for tag in re.findall(r"<rect[^>]*>", logo):
        at = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        x, y = float(at.get("x", 0)), float(at.get("y", 0))
        size = float(at["width"]), float(at["height"])
        ax.add_patch(Rectangle((x, y), *size, color=at.get("fill", "#12395b"), lw=0))
    figure.savefig(STATIC / "touch-icon.png", metadata={"Software": None})


def main() -> None:
    folder = STATIC / "cards"
    folder.mkdir(exist_ok=True)
    for name, drawing in cards().items():
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">{drawing}</svg>\n'
        )
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    share()
    touch_icon()


if __name__ == "__main__":
    main()
