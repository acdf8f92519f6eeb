"""What a computation costs, by counting: parameters, multiply-adds, bytes."""

from __future__ import annotations

import copy
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """Return the number of learned numbers in the module, shared ones counted once.

    Raises:
        TypeError: module is no torch.nn.Module.

    >>> parameters(nn.Linear(3, 4))
    16
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module has type {type(module).__name__}, but must be a torch.nn.Module")
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(function: Callable[..., Any], *inputs: Any) -> int:
    """Return how many multiply-adds the matrix products and convolutions of function(*inputs) take.

    PyTorch's own counter, halved, because it counts a multiplication and an addition as two. It
    runs on the meta device, that is on shapes alone, wherever tensors and layers lie, and changes
    none of them. Additions, products by element, softmax and pooling are not counted.

    Args:
        function: a module, a method of one, or any function, compiled or partial too. Layers that
            it finds elsewhere than in its inputs may be any but recurrent ones.
        inputs: what it is called with.

    Raises:
        TypeError: function cannot be called.

    >>> multiply_adds(nn.Linear(3, 4), torch.empty(2, 3))
    24
    """
    _check_callable(function)
    owner = getattr(function, "__self__", None)
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function).to("meta")
    elif isinstance(function, types.MethodType) and isinstance(owner, nn.Module):
        function = types.MethodType(function.__func__, copy.deepcopy(owner).to("meta"))
    inputs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    # What a compiler made has no operations to be counted, and fused attention on a CPU none that
    # the counter knows.
    with (
        warnings.catch_warnings(),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
        _OnMeta(),
        FlopCounterMode(display=False) as counter,
        torch.device("meta"),
    ):
        # The counter's own hooks see a compiled module twice, its operations once.
        warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global")
        function(*inputs)
    return counter.get_total_flops() // 2


class _OnMeta(TorchDispatchMode):
    """Takes every tensor that an operation is given to the meta device, and leaves it there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda x: x.to("meta"), (args, kwargs or {}))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        return func(*args, **kwargs)


def peak_bytes(function: Callable[[], Any]) -> int:
    """Return the largest number of bytes that tensors made inside function() hold at one moment.

    A tensor counts from the operation that makes it until nothing refers to its memory any more;
    what autograd keeps for the backward pass is referred to. Work space inside a single operation,
    tensors made before the call, and sparse ones, are not counted.

    Args:
        function: called once, without arguments; a constructor too: peak_bytes(lambda: Layer(8)).

    Raises:
        TypeError: function cannot be called.

    >>> peak_bytes(lambda: torch.ones(1000) * 2)
    8000
    """
    _check_callable(function)
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
        if func is not torch.ops.aten.lift_fresh.default:  # given what torch.tensor has just made
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
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]


def _check_callable(function: Callable[..., Any]) -> None:
    if not callable(function):
        raise TypeError(
            f"function has type {type(function).__name__}, but must be callable: "
            "a module or a function"
        )
