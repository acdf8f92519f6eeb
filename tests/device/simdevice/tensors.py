"""Tensors on cuda:0 whose numbers lie on the CPU, and what becomes of an operator on them."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import rules
from .kernels import compute, drawing
from .state import state

DEVICE = torch.device("cuda", 0)
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero"}  # the host needs the answer


class SimTensor(Tensor):
    """A tensor on cuda:0 for autograd, the dispatcher and the reader; `held` is on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> SimTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    # What a CUDA tensor refuses, and what it fetches from the device.

    def numpy(self, *, force: bool = False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    def tolist(self):
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __format__(self, spec: str) -> str:
        if self.dim() == 0 and not is_parameter(self):
            return self.detach().item().__format__(spec)
        return object.__format__(self, spec)

    def __repr__(self, *, tensor_contents=None) -> str:
        text = repr(self.held.detach())
        end = text.rindex(", dtype=") if ", dtype=" in text else len(text) - 1
        text = f"{text[:end]}, device='{DEVICE}'{text[end:]}"
        if self.grad_fn is not None:
            text = f"{text[:-1]}, grad_fn=<{type(self.grad_fn).__name__}>)"
        elif self.requires_grad:
            text = f"{text[:-1]}, requires_grad=True)"
        return f"Parameter containing:\n{text}" if is_parameter(self) else text

    # Copies: of the numbers too.

    def __reduce_ex__(self, protocol):
        return rebuild, (self.held, self.requires_grad, is_parameter(self))

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = rebuild(self.held.clone(), self.requires_grad, is_parameter(self))
            copied.grad = None if self.grad is None else self.grad.clone()
            memo[id(self)] = copied
        return memo[id(self)]

    @property
    def data(self):  # the same memory, but writing to it is not counted as a change of self
        return torch._C.TensorBase.data.__get__(self)  # pyright: ignore

    @data.setter
    def data(self, value) -> None:
        other = value.detach().requires_grad_(self.requires_grad)
        other.grad = self.grad
        torch.utils.swap_tensors(self, other)


def is_parameter(x: Tensor) -> bool:
    return getattr(x, "_is_param", False)


def rebuild(held: Tensor, requires_grad: bool, parameter: bool) -> Tensor:
    tensor = SimTensor(held)
    if parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


class SimMode(TorchDispatchMode):
    """Sends to the device what names it: factories, `.to`, and every operator on its tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        places = kwargs.get("device"), getattr(kwargs.get("generator"), "device", None)
        if SimTensor in types or any(
            x is not None and torch.device(x).type == "cuda" for x in places
        ):
            return run(func, args, kwargs)
        return func(*args, **kwargs)


def run(func: torch._ops.OpOverload, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Check an operator as CUDA does, compute it on the CPU, and put the result on its device."""
    leaves, spec = tree_flatten((list(args), kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    ours = any(isinstance(x, SimTensor) for x in tensors)
    target = kwargs.get("device")
    to_device = ours if target is None else torch.device(target).type == "cuda"
    if ours:
        rules.check(func, tensors, args)
    if kwargs.get("generator") is not None:
        rules.check_generator(kwargs["generator"], to_device)

    inner_args, inner_kwargs = tree_unflatten([_lowered(leaf) for leaf in leaves], spec)
    if target is not None and to_device:
        inner_kwargs["device"] = torch.device("cpu")  # it may have been a string or a number
    name = rules.full_name(func)
    state.ran(name)
    with drawing(func, inner_kwargs, to_device):
        out = compute(func, inner_args, inner_kwargs, to_device)

    fetched = name == "copy_" and not isinstance(args[0], SimTensor)
    if fetched or not to_device or name in WAITS:
        state.pending = 0
    elif not func.is_view:
        state.pending += 1
    if func._schema.is_mutable:
        return _written(func, args, kwargs, out)
    if not to_device:
        return out
    out = _wrapped(out)
    if func.is_view and ours:
        return return_and_correct_aliasing(func, args, kwargs, out)
    return out


def _lowered(leaf: Any) -> Any:
    if isinstance(leaf, SimTensor):
        return leaf.held
    if isinstance(leaf, torch.device) and leaf.type == "cuda":
        return torch.device("cpu")
    return leaf


def _wrapped(out: Any) -> Any:
    if isinstance(out, (tuple, list)):
        return type(out)(map(_wrapped, out))
    if not isinstance(out, Tensor):
        return out
    if out.layout is not torch.strided:
        raise NotImplementedError(f"the simulated device has no {out.layout} tensors")
    if out.is_conj() or out.is_neg():
        out = out.resolve_conj().resolve_neg()
    if out._is_zerotensor():  # a zero without memory, from some backward passes
        out = torch.zeros(out.shape, dtype=out.dtype)
    _count_memory(out)
    return SimTensor(out)


def _written(func: torch._ops.OpOverload, args: tuple, kwargs: dict[str, Any], out: Any) -> Any:
    """Return the caller's own tensors that were written to, as the operator itself would."""
    if torch.Tag.inplace_view in func.tags:
        return return_and_correct_aliasing(func, args, kwargs, SimTensor(args[0].held))
    arguments, found = func._schema.arguments, []
    for result in func._schema.returns:
        for place, argument in enumerate(arguments):
            if _same_memory(result, argument):
                found.append(args[place] if place < len(args) else kwargs[argument.name])
                break
        else:  # returned beside what is written to, as by native_batch_norm
            found.append(_wrapped(out[len(found)] if isinstance(out, (tuple, list)) else out))
    if not found:
        return None
    return found[0] if len(found) == 1 else tuple(found)


def _same_memory(result: Any, argument: Any) -> bool:
    if result.alias_info is None or argument.alias_info is None:
        return False
    return bool(result.alias_info.before_set & argument.alias_info.before_set)


_storages: weakref.WeakSet = weakref.WeakSet()


def _count_memory(held: Tensor) -> None:
    """Count each storage once, in the blocks of 512 bytes that CUDA's allocator gives."""
    storage = held.untyped_storage()
    if storage in _storages:
        return
    _storages.add(storage)
    size = -(-storage.nbytes() // 512) * 512
    state.allocated += size
    state.peak = max(state.peak, state.allocated)
    weakref.finalize(storage, _free, size)


def _free(size: int) -> None:
    state.allocated -= size
