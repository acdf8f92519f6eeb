"""Draw the logo: four queries looking among four keys, each square as large as its weight.

`python tools/logo.py` writes book/_static/logo.svg and book/_static/favicon.svg.
"""

from __future__ import annotations

import math
from pathlib import Path

SCORES = [[3.0, 0.6, 0.0, 0.2], [0.4, 0.2, 2.6, 0.9], [0.2, 2.8, 0.6, 0.4], [0.3, 0.0, 1.2, 3.0]]
TILE, PALE, BRIGHT = "#12395b", "#9fc6e6", "#f0a830"
STATIC = Path(__file__).parents[1] / "book" / "_static"


def softmax(row: list[float]) -> list[float]:
    """Return the weights of one row of scores."""
    powers = [math.exp(score) for score in row]
    return [power / sum(powers) for power in powers]


def draw(side: float, corner: float, margin: float) -> str:
    """Return the drawing as SVG: a tile of side 64 with 4 x 4 squares of area ~ weight."""
    pitch = (64 - 2 * margin) / 4
    shapes = [f'<rect width="64" height="64" rx="{corner:g}" fill="{TILE}"/>']
    for i, row in enumerate(SCORES):
        weights = softmax(row)
        for j, weight in enumerate(weights):
            size = max(side * math.sqrt(weight), 0.28 * side)
            x, y = (margin + pitch * (k + 0.5) - size / 2 for k in (j, i))
            fill = BRIGHT if weight == max(weights) else PALE
            shapes.append(
                f'<rect x="{x:.2f}" y="{y:.2f}" width="{size:.2f}" height="{size:.2f}" '
                f'rx="1.2" fill="{fill}"/>'
            )
    body = "\n  ".join(shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">\n  {body}\n</svg>\n'


if __name__ == "__main__":
    (STATIC / "logo.svg").write_text(draw(side=14, corner=9, margin=5), encoding="utf-8")
    (STATIC / "favicon.svg").write_text(draw(side=15.5, corner=7, margin=2), encoding="utf-8")
