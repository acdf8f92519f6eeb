"""What CUDA's wrappers and kernels check, and say, where tensors on two devices meet.

The rules are PyTorch's own: native_functions.yaml, which comes with it, says of each operator
whether its generated CUDA wrapper compares the devices of all arguments, or leaves that to the
kernel (`device_check: NoCheck`; mostly a TensorIterator, which takes one zero-dimensional CPU
tensor), and whether there is a kernel for CUDA at all. The few kernels with rules of their own
stand below by name.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

# Devices may differ: what is copied, and what only lends its shape.
ANY_DEVICE = {
    "copy_", "_to_copy", "_foreach_copy_", "_foreach_copy", "fill_.Tensor", "slice_scatter",
    "select_scatter", "diagonal_scatter", "as_strided_scatter", "is_same_size", "expand_as",
    "view_as", "reshape_as",
}  # fmt: skip
# Indices may lie on the CPU: the kernel fetches them.
INDEXED = {"index.Tensor", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index.Tensor",
           "_unsafe_index_put"}  # fmt: skip
# More than one zero-dimensional CPU tensor is taken.
TAKE_SCALARS = {"where.self", "addcmul", "addcdiv", "addcmul_", "addcdiv_", "lerp.Tensor"}
# On CUDA there are none of integers.
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "addbmm", "mv", "addmv", "dot",
            "vdot", "convolution", "linear", "matmul", "_cdist_forward"}  # fmt: skip


class Rule(NamedTuple):
    """What native_functions.yaml says of an operator."""

    kernel_checks: bool
    on_cuda: bool


@functools.cache
def rules() -> dict[str, Rule]:
    """Read native_functions.yaml: a rule for each operator, by its name with overload."""
    spec = importlib.util.find_spec("torchgen")
    assert spec and spec.origin
    path = Path(spec.origin).parent / "packaged/ATen/native/native_functions.yaml"
    entries = re.split(r"^- func: ", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    blocks = {entry.split("(", 1)[0]: entry for entry in entries}

    def backends(block: str) -> set[str] | None:
        delegate = re.search(r"^  structured_delegate: (\S+)", block, flags=re.M)
        if delegate:
            return backends(blocks[delegate[1]])
        found = re.search(r"^  dispatch:.*\n((?:    .*\n)+)", block, flags=re.M)
        if not found:
            return None  # made of other operators
        keys = re.findall(r"^    ([\w, ]+):", found[1], flags=re.M)
        return {key.strip() for line in keys for key in line.split(",")}

    def on_cuda(block: str) -> bool:
        have = backends(block)
        if have is None or "CPU" not in have:
            return True
        return any(key == "CUDA" or key.startswith("Composite") for key in have)

    return {
        name: Rule("device_check: NoCheck" in block, on_cuda(block))
        for name, block in blocks.items()
    }


def full_name(func: torch._ops.OpOverload) -> str:
    """Return an operator's name as native_functions.yaml writes it: "add.Tensor"."""
    overload = func._schema.overload_name
    return f"{base_name(func)}.{overload}" if overload else base_name(func)


def base_name(func: torch._ops.OpOverload) -> str:
    return func._schema.name.removeprefix("aten::")


def check(func: torch._ops.OpOverload, tensors: list[Tensor], args: tuple) -> None:
    """Raise what CUDA raises, for an operator that has at least one tensor on the device."""
    name, base = full_name(func), base_name(func)
    rule = rules().get(name) or rules().get(base) or Rule(False, True)
    if func.namespace == "aten" and not rule.on_cuda:
        raise NotImplementedError(
            f"Could not run 'aten::{name}' with arguments from the 'CUDA' backend."
        )
    if base in PRODUCTS and not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        kind = str(tensors[0].dtype).removeprefix("torch.").capitalize()
        raise NotImplementedError(f'"{base}_cuda" not implemented for {kind!r}')
    if name in INDEXED:
        _check_indices(name, *args[:3])
    elif name not in ANY_DEVICE:
        _check_devices(func, rule, tensors, args)


def _check_indices(name: str, x: Tensor, indices: list, values: Tensor | None = None) -> None:
    for index in indices:
        if isinstance(index, Tensor) and index.device not in (x.device, torch.device("cpu")):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor "
                f"({x.device})"
            )
    if values is not None and values.device != x.device and values.dim() > 0:
        raise two_devices(name)


def _check_devices(
    func: torch._ops.OpOverload, rule: Rule, tensors: list[Tensor], args: tuple
) -> None:
    elsewhere = [x for x in tensors if x.device.type != "cuda"]
    if not elsewhere:
        return
    name, base = full_name(func), base_name(func)
    if base.startswith("masked_fill") and args[1].device != args[0].device:
        raise RuntimeError(
            f"expected self and mask to be on the same device, but got mask on {args[1].device} "
            f"and self on {args[0].device}"
        )
    written = func._schema.arguments[0].alias_info is not None and args[0] is elsewhere[0]
    scalars = all(x.dim() == 0 and x.device.type == "cpu" for x in elsewhere)
    few = len(elsewhere) == 1 or name in TAKE_SCALARS
    if written or not (rule.kernel_checks and scalars and few):
        raise two_devices(name, elsewhere[0].device.type)


def check_generator(generator: torch.Generator, to_device: bool) -> None:
    """Raise unless the random numbers come from the device that they are drawn for."""
    if (generator.device.type == "cuda") != to_device:
        wanted, got = ("cuda", "cpu") if to_device else ("cpu", "cuda")
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{got}'")


def two_devices(name: str, other: str = "cpu") -> RuntimeError:
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 "
        f"and {other}! (when checking arguments in method wrapper_CUDA_{name})"
    )
