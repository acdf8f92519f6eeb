"""Checkers for the exercises of the chapter "Spatial transformer, a warp instead of a mask"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook.exercises import Answer, checker, same, wrong_shape
from attnbook.spatial_transformer import affine_grid


@checker
def check_sampling_grid(sampling_grid: Answer) -> Iterator[str]:
    """Check sampling_grid(theta, height, width): where each pixel of the output is read."""
    theta, height, width = torch.randn(2, 3), 3, 5
    expected = affine_grid(theta, height, width)
    answer = sampling_grid(theta.clone(), height, width)
    if isinstance(answer, Tensor) and answer.shape == (width, height, 2):
        yield "The rows of the grid are the rows of the output: (height, width, 2)."
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer.flip(-1), expected):
        yield "Each position is (y, x). It should be x first, then y."
    if same(answer, F.affine_grid(theta[None], [1, 1, height, width], align_corners=True)[0]):
        yield "-1 and 1 are the centres of the outermost pixels in yours; they should be the edges."
    if same(answer, affine_grid(theta[:, [1, 0, 2]], height, width)):
        yield "The first column of theta belongs to x, the second to y."
    if same(answer + theta[:, 2], expected):
        yield "The third column of theta, the shift, is left out."
    if not same(answer, expected):
        yield "The positions are not theta (x, y, 1), with x and y the centres of the pixels."


@checker
def check_read_at(read_at: Answer) -> Iterator[str]:
    """Check read_at(image, x, y): a bilinear sample at one position, zeros outside."""
    image = torch.rand(3, 4) + 0.5
    for x, y in ((0.3, -0.4), (-0.6, 0.2), (0.95, 0.1), (-0.2, -1.1), (1.5, 0.0)):
        readings = _readings(image, x, y)
        answer = read_at(image.clone(), x, y)
        answer = torch.as_tensor(answer, dtype=image.dtype)
        yield from filter(None, [wrong_shape(answer, readings["right"])])
        if same(answer, readings["right"]):
            continue
        call = f"read_at(image, {x}, {y})"
        if same(answer, readings["swapped"]):
            yield f"{call} takes x for the row. It is the place along the width."
        if same(answer, readings["centres"]):
            yield f"{call}: -1 and 1 are the image's edges, not the centres of its last pixels."
        if same(answer, readings["nearest"]):
            yield f"{call} is the value of the nearest pixel. Weigh the four around the position."
        if same(answer, readings["border"]):
            yield f"{call} repeats the last pixel beyond the edge. There should be zeros."
        yield f"{call} is {answer.item():.4f}, but should be {readings['right'].item():.4f}."


def _readings(image: Tensor, x: float, y: float) -> dict[str, Tensor]:
    """What the image is at a position, read rightly and in four ways that are wrong."""

    def read(x: float, y: float, **how: Any) -> Tensor:
        how = {"align_corners": False} | how
        return F.grid_sample(image[None, None], torch.tensor([[[[x, y]]]]), **how)[0, 0, 0, 0]

    return {
        "right": read(x, y),
        "swapped": read(y, x),
        "centres": read(x, y, align_corners=True),
        "nearest": read(x, y, mode="nearest"),
        "border": read(x, y, padding_mode="border"),
    }


@checker
def check_crop(crop: Answer) -> Iterator[str]:
    """Check crop(left, top, right, bottom, height, width): the theta that reads a box."""
    left, top, right, bottom, height, width = 10, 4, 30, 20, 32, 80
    x, y = (left + right) / width - 1, (top + bottom) / height - 1
    across, down = (right - left) / width, (bottom - top) / height
    expected = torch.tensor([[across, 0.0, x], [0.0, down, y]])
    answer = crop(left, top, right, bottom, height, width)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, torch.tensor([[1 / across, 0.0, -x / across], [0.0, 1 / down, -y / down]])):
        yield "This theta maps source to target. Reading a small box takes numbers below 1."
    if same(answer, expected[[1, 0]][:, [1, 0, 2]]):
        yield "The first row of theta makes x, the second y; yours are exchanged."
    if not same(answer, expected):
        if same(answer[:, 2], expected[:, 2]):
            yield "The box is read at the right place, but not at the right size."
        if same(answer[:, :2], expected[:, :2]):
            yield "The size is right, but the shift is not the middle of the box, from -1 to 1."
        yield f"theta should be {expected.tolist()}, and is {answer.tolist()}."


@checker
def check_combine(combine: Answer) -> Iterator[str]:
    """Check combine(first, second): the one map that warps as `first` and then `second` do."""
    first, second = torch.randn(2, 2, 3)
    expected = _combined(first, second)
    answer = combine(first.clone(), second.clone())
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, _combined(second, first)):
        yield (
            "That is the other order. The output of the second warp is read where its theta says "
            "in the output of the first, and that where the first theta says: first @ second."
        )
    if same(answer, first + second):
        yield "The maps are applied one after the other; that is a product, not a sum."
    if not same(answer, expected):
        if same(answer[:, :2], expected[:, :2]):
            yield "The left 2 x 2 is right, the shift not: the first map also acts on the second's."
        yield "Warping by the result is not the same as warping by first and then by second."


def _combined(first: Tensor, second: Tensor) -> Tensor:
    return first @ torch.cat([second, torch.tensor([[0.0, 0.0, 1.0]])])
