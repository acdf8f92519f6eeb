"""How an operator of the device is computed: on the CPU, with other roundings if asked for."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from .rules import base_name, full_name
from .state import state

# --- Random numbers -------------------------------------------------------------------------------


@contextlib.contextmanager
def drawing(func: torch._ops.OpOverload, kwargs: dict[str, Any], to_device: bool) -> Iterator[None]:
    """Let an operator draw from the device's generator, and leave the CPU's as it is.

    With `state.random == "cpu"` only what names a generator draws from it.
    """
    generator = kwargs.get("generator")
    draws = to_device and torch.Tag.nondeterministic_seeded in func.tags
    if not draws or (generator is None and state.random == "cpu"):
        yield
        return
    source = generator or torch.cuda.default_generators[0]
    kwargs.pop("generator", None)
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(source.get_state())
    try:
        yield
    finally:
        source.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


# --- Other roundings ------------------------------------------------------------------------------

# Another device's kernels differ in the last places of these. Sums, products and roots of single
# numbers do not: IEEE 754 leaves no choice.
INEXACT = re.compile(
    r"mm|mv|dot|convolution|linear|sum|mean|softmax|norm|exp|log|tanh|sigmoid|sin|cos|tan|gelu|erf|"
    r"var|std|prod|grid_sampl|upsample|cdist|pow|rsqrt|linalg|index_add|scatter_add|backward|silu|"
    r"polar|gru_cell"
)
# These add in an order that changes from run to run.
ATOMIC = re.compile(
    r"index_add|scatter_add|embedding.*backward|grid_sampler.*backward|upsample.*backward|"
    r"max_pool.*backward|cumsum|bincount|convolution_backward"
)
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
BIAS = {"convolution": 2, "addmm": 0, "baddbmm": 0}  # the place of what is added, not multiplied


def compute(func: torch._ops.OpOverload, args: list, kwargs: dict, to_device: bool) -> Any:
    """Run an operator on CPU tensors, rounded as `state.rounding` says."""
    kernel = ONLY_CUDA.get(full_name(func), func)
    if not to_device or state.rounding is None:
        return kernel(*args, **kwargs)
    base = base_name(func)
    if state.rounding == "tf32" and _reads_tf32(base):
        args = [x if place == BIAS.get(base) else tf32(x) for place, x in enumerate(args)]
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    # What writes to its arguments cannot be given wider copies of them.
    in_place = base.endswith("_") or base == "native_batch_norm"
    if not INEXACT.search(base) or in_place or {
        x.dtype for x in tensors if x.is_floating_point()
    } != {torch.float32}:  # fmt: skip
        return kernel(*args, **kwargs)

    key = [state.seed, full_name(func), *(tuple(x.shape) for x in tensors)]
    if ATOMIC.search(base):
        key.append(sum(state.operators.values()))  # another one each time
    noise = torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))
    args, kwargs = tree_map(_widened, (args, kwargs))
    return tree_map(lambda x: _narrowed(x, noise), kernel(*args, **kwargs))


def _reads_tf32(base: str) -> bool:
    """By PyTorch's defaults convolutions do, on cards that have TF32, and matrix products not."""
    if base.startswith("convolution"):
        return torch.backends.cudnn.allow_tf32
    return base in PRODUCTS and torch.backends.cuda.matmul.allow_tf32


def tf32(x: Any) -> Any:
    """Round float32 to the 10 bits of mantissa that tensor cores read."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    bits = (x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF
    return bits.view(torch.float32).reshape(x.shape)


def _widened(x: Any) -> Any:
    if x is torch.float32:
        return torch.float64
    return x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def _narrowed(x: Any, noise: torch.Generator) -> Any:
    """Round float64 to float32, up to 2 units in the last place off where that is not exact."""
    if not isinstance(x, Tensor) or x.dtype != torch.float64:
        return x
    units = 3 * torch.rand(x.shape, generator=noise, dtype=torch.float64) - 1.5
    exact = (x.float().double() == x) | ~x.isfinite()
    return torch.where(exact, x, x + x * units * torch.finfo(torch.float32).eps).float()


# --- Kernels that CUDA has and the CPU has not ----------------------------------------------------


def _gru_cell(
    gates_x: Tensor,
    gates_h: Tensor,
    hidden: Tensor,
    bias_x: Tensor | None = None,
    bias_h: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    of_x, of_h = (
        (gates if bias is None else gates + bias).chunk(3, 1)
        for gates, bias in ((gates_x, bias_x), (gates_h, bias_h))
    )
    reset, update = (of_x[0] + of_h[0]).sigmoid(), (of_x[1] + of_h[1]).sigmoid()
    new = (of_x[2] + reset * of_h[2]).tanh()
    workspace = torch.cat([reset, update, new, hidden, of_h[2]], 1)
    return new + update * (hidden - new), workspace


def _gru_cell_backward(
    gradient: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor | None, ...]:
    reset, update, new, hidden, new_of_h = workspace.chunk(5, 1)
    of_update = gradient * (hidden - new) * (1 - update) * update
    of_new = gradient * (1 - update) * (1 - new * new)
    of_reset = of_new * new_of_h * (1 - reset) * reset
    of_x = torch.cat([of_reset, of_update, of_new], 1)
    of_h = torch.cat([of_reset, of_update, of_new * reset], 1)
    biases = (of_x.sum(0), of_h.sum(0)) if has_bias else (None, None)
    return of_x, of_h, gradient * update, *biases


def _softmax_of_half(func: Callable) -> Callable:
    """CUDA turns a half type into float32 in the same kernel."""

    def run(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
        return func(x.float() if half_to_float else x, dim, False)

    return run


def _softmax_of_half_backward(func: Callable) -> Callable:
    def run(gradient: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        return func(gradient, output, dim, output.dtype).to(dtype)

    return run


ONLY_CUDA: dict[str, Callable] = {
    "_thnn_fused_gru_cell": _gru_cell,
    "_thnn_fused_gru_cell_backward": _gru_cell_backward,
    "_softmax": _softmax_of_half(torch.ops.aten._softmax.default),
    "_log_softmax": _softmax_of_half(torch.ops.aten._log_softmax.default),
    "_softmax_backward_data": _softmax_of_half_backward(
        torch.ops.aten._softmax_backward_data.default
    ),
    "_log_softmax_backward_data": _softmax_of_half_backward(
        torch.ops.aten._log_softmax_backward_data.default
    ),
}
