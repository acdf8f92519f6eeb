"""One training loop for every experiment of the book, short enough to be read first."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attnbook.checks import check_number, check_size, check_tensor


def fit(
    model: nn.Module,
    loss: Callable[..., Tensor],
    data: tuple[Tensor, ...],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train the model in place and return the loss of every step.

    Each step draws `batch_size` rows of `data` (the same rows of each tensor), asks for
    loss(model, *rows), and takes one AdamW step. The learning rate rises to `lr` during the first
    fifth of the steps and then falls to nothing (one cycle); gradients longer than `clip` are
    shortened to it. Rows are drawn on the CPU with `seed`, an epoch without repetition at a time,
    so that a run sees the same batches on every device.

    Args:
        model: what is trained; it comes back in eval mode.
        loss: called with the model and the rows drawn from each tensor; returns a scalar.
        data: tensors with as many rows each, all on the model's device.
        steps: how many batches are drawn, at least 6.
        batch_size: how many rows a batch has.
        lr: the highest learning rate.
        weight_decay: that of AdamW.
        clip: the longest gradient.
        seed: draws the batches.
        progress: shows a bar while it runs.

    Raises:
        TypeError: `data` is no tuple or list of tensors, a size is no whole number, or a rate is no
            number.
        ValueError: `data` is empty or its tensors differ in length, a batch is larger than the data
            or below 1, there are fewer than 6 steps, or a rate is out of range.
    """
    if not isinstance(data, (tuple, list)):
        raise TypeError(
            f"data has type {type(data).__name__}, but must be a tuple of tensors: (x,) for one"
        )
    for number, tensor in enumerate(data):
        check_tensor(f"data[{number}]", tensor)
        if tensor.ndim == 0:
            raise ValueError(f"data[{number}] has 0 axes, but needs at least 1: (rows, ...)")
    check_size("steps", steps, least=-math.inf)
    check_size("batch_size", batch_size, least=-math.inf)
    check_number("lr", lr, above=0)
    check_number("weight_decay", weight_decay, least=0)
    check_number("clip", clip, above=0)
    check_size("seed", seed, least=-math.inf)
    lengths = {len(tensor) for tensor in data}
    if len(lengths) != 1:
        raise ValueError(f"data has tensors of {sorted(lengths)} rows: all need the same number")
    length = lengths.pop()
    if not 1 <= batch_size <= length:
        raise ValueError(f"batch_size={batch_size} does not fit {length} rows of data")
    if steps < 6:
        raise ValueError(f"steps={steps}: the learning rate needs at least 6 to rise and to fall")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    device = data[0].device
    order = torch.empty(0, dtype=torch.long, device="cpu")
    losses = []
    model.train()
    for _ in tqdm(range(steps), disable=not progress, leave=False):
        if len(order) < batch_size:
            order = torch.randperm(length, generator=generator, device="cpu")
        rows, order = order[:batch_size].to(device), order[batch_size:]
        value = loss(model, *(tensor[rows] for tensor in data))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        losses.append(value.detach())
    model.eval()
    return torch.stack(losses).tolist()
