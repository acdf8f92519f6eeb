"""Right and typical wrong answers to the exercises of the chapter on the spatial transformer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook import affine_grid, bilinear_sample
from attnbook.exercises import Checker, spatial_transformer

Answer = Callable[..., object]


def centres(size: int) -> Tensor:
    return torch.linspace(1 / size - 1, 1 - 1 / size, size)


def grid_by_loop(theta: Tensor, height: int, width: int) -> Tensor:
    grid = torch.zeros(height, width, 2)
    for i, y in enumerate(centres(height).tolist()):
        for j, x in enumerate(centres(width).tolist()):
            grid[i, j] = theta @ torch.tensor([x, y, 1.0])
    return grid


def grid_by_matrix(theta: Tensor, height: int, width: int, last: float = 1.0) -> Tensor:
    y, x = torch.meshgrid(centres(height), centres(width), indexing="ij")
    return torch.stack([x, y, torch.full_like(x, last)], -1) @ theta.T


def corners(theta: Tensor, height: int, width: int) -> Tensor:
    return F.affine_grid(theta[None], [1, 1, height, width], align_corners=True)[0]


def read_by_loop(image: Tensor, x: float, y: float) -> float:
    height, width = image.shape
    x, y, value = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2, 0.0
    for h in range(height):
        for w in range(width):
            value += image[h, w].item() * max(0, 1 - abs(x - w)) * max(0, 1 - abs(y - h))
    return value


def read_four(image: Tensor, x: float, y: float) -> Tensor:
    height, width = image.shape
    x, y, value = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2, torch.tensor(0.0)
    for h in (math.floor(y), math.floor(y) + 1):
        for w in (math.floor(x), math.floor(x) + 1):
            if 0 <= h < height and 0 <= w < width:
                value = value + image[h, w] * (1 - abs(x - w)) * (1 - abs(y - h))
    return value


def torchs(image: Tensor, x: float, y: float, **how: Any) -> Tensor:
    how = {"align_corners": False} | how
    return F.grid_sample(image[None, None], torch.tensor([[[[x, y]]]]), **how)[0, 0, 0, 0]


def box(le: int, to: int, ri: int, bo: int, height: int, width: int) -> Tensor:
    x, y = (le + ri) / width - 1, (to + bo) / height - 1
    return torch.tensor([[(ri - le) / width, 0.0, x], [0.0, (bo - to) / height, y]])


def box_by_edges(le: int, to: int, ri: int, bo: int, height: int, width: int) -> Tensor:
    x0, x1, y0, y1 = (
        2 * le / width - 1,
        2 * ri / width - 1,
        2 * to / height - 1,
        2 * bo / height - 1,
    )
    return torch.tensor([[(x1 - x0) / 2, 0, (x0 + x1) / 2], [0, (y1 - y0) / 2, (y0 + y1) / 2]])


def box_by_fit(le: int, to: int, ri: int, bo: int, height: int, width: int) -> Tensor:
    here = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])
    there = torch.tensor([[le, to], [ri, to], [le, bo]]) * 2 / torch.tensor([width, height]) - 1
    return torch.linalg.solve(here, there).T


def inverse(theta: Tensor) -> Tensor:
    matrix = torch.linalg.inv(theta[:, :2])
    return torch.cat([matrix, -matrix @ theta[:, 2:]], dim=1)


def square(theta: Tensor) -> Tensor:
    return torch.cat([theta, torch.tensor([[0.0, 0.0, 1.0]])])


def by_parts(first: Tensor, second: Tensor) -> Tensor:
    shift = first[:, :2] @ second[:, 2] + first[:, 2]
    return torch.cat([first[:, :2] @ second[:, :2], shift[:, None]], dim=1)


RIGHT: dict[Checker, list[Answer]] = {
    spatial_transformer.check_sampling_grid: [grid_by_loop, grid_by_matrix, affine_grid],
    spatial_transformer.check_read_at: [
        read_by_loop,
        read_four,
        lambda image, x, y: bilinear_sample(image[None], torch.tensor([[[x, y]]]))[0, 0, 0],
    ],
    spatial_transformer.check_crop: [box, box_by_edges, box_by_fit],
    spatial_transformer.check_combine: [
        by_parts,
        lambda a, b: (square(a) @ square(b))[:2],
        lambda a, b: a @ square(b),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    spatial_transformer.check_sampling_grid: [
        (lambda t, h, w: affine_grid(t, h, w).flip(-1), "(y, x)"),
        (corners, "should be the edges"),
        (lambda t, h, w: grid_by_matrix(t, h, w, last=0.0), "left out"),
        (lambda t, h, w: affine_grid(t[:, [1, 0, 2]], h, w), "first column"),
        (lambda t, h, w: affine_grid(t, h, w).transpose(0, 1), "rows of the grid"),
        (lambda t, h, w: affine_grid(t, h, w).movedim(-1, 0), "shape"),
        (lambda t, h, w: affine_grid(2 * t, h, w), "theta"),
        (lambda t, h, w: affine_grid(t, 3, 5), "shape"),
        (lambda t, h, w: affine_grid(t, h, h), "shape"),
    ],
    spatial_transformer.check_read_at: [
        (lambda image, x, y: torchs(image, y, x), "takes x for the row"),
        (lambda image, x, y: torchs(image, x, y, align_corners=True), "not the centres"),
        (lambda image, x, y: torchs(image, x, y, mode="nearest"), "nearest pixel"),
        (lambda image, x, y: torchs(image, x, y, padding_mode="border"), "zeros"),
        (lambda image, x, y: torchs(image, x, y) / 2, "but should be"),
        (lambda image, x, y: image, "shape"),
        (lambda image, x, y: torchs(image.reshape(3, 4), x, y), "raised RuntimeError"),
        (lambda image, x, y: torchs(image, 0.3, -0.4), "read_at(<3 x 4>, -0.6, 0.2)"),
    ],
    spatial_transformer.check_crop: [
        (lambda *edges: inverse(box(*edges)), "source to target"),
        (lambda *edges: box(*edges)[[1, 0]][:, [1, 0, 2]], "exchanged"),
        (lambda *edges: box(*edges) * torch.tensor([2.0, 2.0, 1.0]), "right size"),
        (lambda *edges: box(*edges) * torch.tensor([1.0, 1.0, 0.0]), "middle of the box"),
        (lambda *edges: 2 * box(*edges), "theta should be"),
        (lambda *edges: box(*edges).flatten(), "shape"),
        (lambda *edges: box(*edges[:4], 32, 80), "theta should be"),
    ],
    spatial_transformer.check_combine: [
        (lambda a, b: by_parts(b, a), "other order"),
        (lambda a, b: torch.cat([a[:, :2] @ b[:, :2], a[:, 2:] + b[:, 2:]], 1), "the shift not"),
        (lambda a, b: a + b, "not a sum"),
        (lambda a, b: inverse(by_parts(a, b)), "not the same as warping"),
        (lambda a, b: square(a) @ square(b), "shape"),
    ],
}
