"""What a computation costs, by counting: parameters, multiply-adds, bytes."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """Return the number of learned numbers in the module, shared ones counted once.

    >>> parameters(nn.Linear(3, 4))
    16
    """
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(function: Callable[..., Any], *inputs: Any) -> int:
    """Return how many multiply-adds the matrix products and convolutions of function(*inputs) take.

    PyTorch's own counter, halved, because it counts a multiplication and an addition as two. It
    runs on the meta device, that is on shapes alone: on a CPU the counter takes fused attention
    for free. Additions, products by element, softmax and pooling are not counted.

    >>> multiply_adds(nn.Linear(3, 4), torch.empty(2, 3))
    24
    """
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function).to("meta")
    inputs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        function(*inputs)
    return counter.get_total_flops() // 2


def peak_bytes(function: Callable[[], Any]) -> int:
    """Return the largest number of bytes that tensors made inside function() hold at one moment.

    A tensor counts from the operation that makes it until nothing refers to its memory any more;
    what autograd keeps for the backward pass is referred to. Work space inside a single operation,
    and tensors made before the call, are not counted.

    >>> peak_bytes(lambda: torch.ones(1000) * 2)
    8000
    """
    with _LiveBytes() as live:
        result = function()
    del result
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage made while it is entered, until that storage is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._seen.update(_storages((args, kwargs)))  # an input that nobody saw made is older
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._seen:
                self._seen.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, count: int) -> None:
        self.now += count
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
