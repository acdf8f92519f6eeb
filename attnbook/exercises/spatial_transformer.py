"""Checkers for the exercises of the chapter "Spatial transformer, a warp instead of a mask"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook.exercises import Case, checker, same
from attnbook.spatial_transformer import affine_grid


@checker
def check_sampling_grid() -> Iterator[Case]:
    """Check sampling_grid(theta, height, width): where each pixel of the output is read."""
    for height, width in ((3, 5), (4, 2)):
        theta = torch.randn(2, 3)
        expected = affine_grid(theta, height, width)
        yield Case(
            (theta, height, width),
            expected,
            mistakes=[
                (
                    expected.transpose(0, 1),
                    "The rows of the grid are the rows of the output: (height, width, 2).",
                ),
                (expected.flip(-1), "Each position is (y, x). It should be x first, then y."),
                (
                    F.affine_grid(theta[None], [1, 1, height, width], align_corners=True)[0],
                    "-1 and 1 are the centres of the outermost pixels in yours; they should be the "
                    "edges.",
                ),
                (
                    affine_grid(theta[:, [1, 0, 2]], height, width),
                    "The first column of theta belongs to x, the second to y.",
                ),
                (
                    expected - theta[:, 2],
                    "The third column of theta, the shift, is left out.",
                ),
            ],
            otherwise="The positions are not theta (x, y, 1), with x and y the centres of the "
            "pixels.",
        )


@checker
def check_read_at() -> Iterator[Case]:
    """Check read_at(image, x, y): a bilinear sample at one position, zeros outside."""
    positions = ((0.3, -0.4), (-0.6, 0.2), (0.95, 0.1), (-0.2, -1.1), (1.5, 0.0))
    for height, width in ((3, 4), (5, 2)):
        image = torch.rand(height, width) + 0.5
        for x, y in positions:

            def read(x: float, y: float, image: Tensor = image, **how: Any) -> float:
                grid, how = torch.tensor([[[[x, y]]]]), {"align_corners": False} | how
                return F.grid_sample(image[None, None], grid, **how).item()

            yield Case(
                (image, x, y),
                read(x, y),
                mistakes=[
                    (
                        read(x, y, padding_mode="border"),
                        "{call} repeats the last pixel beyond the edge. There should be zeros.",
                    ),
                    (read(y, x), "{call} takes x for the row. It is the place along the width."),
                    (
                        read(x, y, align_corners=True),
                        "{call}: -1 and 1 are the image's edges, not the centres of its last "
                        "pixels.",
                    ),
                    (
                        read(x, y, mode="nearest"),
                        "{call} is the value of the nearest pixel. Weigh the four around the "
                        "position.",
                    ),
                ],
            )


@checker
def check_crop() -> Iterator[Case]:
    """Check crop(left, top, right, bottom, height, width): the theta that reads a box."""
    for box in ((10, 4, 30, 20, 32, 80), (3, 1, 12, 7, 40, 16)):
        left, top, right, bottom, height, width = box
        x, y = (left + right) / width - 1, (top + bottom) / height - 1
        across, down = (right - left) / width, (bottom - top) / height
        expected = torch.tensor([[across, 0.0, x], [0.0, down, y]])
        yield Case(
            box,
            expected,
            mistakes=[
                (
                    torch.tensor([[1 / across, 0.0, -x / across], [0.0, 1 / down, -y / down]]),
                    "This theta maps source to target. Reading a small box takes numbers below 1.",
                ),
                (
                    expected[[1, 0]][:, [1, 0, 2]],
                    "The first row of theta makes x, the second y; yours are exchanged.",
                ),
            ],
            signs=[
                (
                    lambda theta, expected=expected: same(theta[:, 2], expected[:, 2]),
                    "The box is read at the right place, but not at the right size.",
                ),
                (
                    lambda theta, expected=expected: same(theta[:, :2], expected[:, :2]),
                    "The size is right, but the shift is not the middle of the box, from -1 to 1.",
                ),
            ],
            otherwise=f"For {{call}}, theta should be {expected.tolist()}.",
        )


@checker
def check_combine() -> Iterator[Case]:
    """Check combine(first, second): the one map that warps as `first` and then `second` do."""
    for _ in range(2):
        first, second = torch.randn(2, 2, 3)
        expected = _combined(first, second)
        yield Case(
            (first, second),
            expected,
            mistakes=[
                (
                    _combined(second, first),
                    "That is the other order. The output of the second warp is read where its "
                    "theta says in the output of the first, and that where the first theta says: "
                    "first @ second.",
                ),
                (
                    first + second,
                    "The maps are applied one after the other; that is a product, not a sum.",
                ),
            ],
            signs=[
                (
                    lambda theta, expected=expected: same(theta[:, :2], expected[:, :2]),
                    "The left 2 x 2 is right, the shift not: the first map also acts on the "
                    "second's.",
                )
            ],
            otherwise="Warping by the result is not the same as warping by first and then by "
            "second.",
        )


def _combined(first: Tensor, second: Tensor) -> Tensor:
    return first @ torch.cat([second, torch.tensor([[0.0, 0.0, 1.0]])])
