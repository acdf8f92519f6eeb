"""Where half types are computed in float32, and autocast is told to leave that alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """Return x in float32 if it is in a half type, else as it is.

    >>> widened(torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which autocast does not turn float32 back into a half type.

    Autocast casts the inputs of every matrix product, those that were widened on purpose too.
    """
    # Meta tensors have no autocast. To ask which devices have one breaks the graph in torch 2.8.
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
