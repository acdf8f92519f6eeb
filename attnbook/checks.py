"""The checks that all mechanisms share: what is refused, and in which words.

Each says the argument's name, what it is and what it should be: "k has 3 features, but the layer
expects 4". A wrong type is a TypeError, a wrong number a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_size(name: str, size: int, *, least: int | float = 1) -> None:
    """Raise TypeError unless `size` is a whole number, ValueError unless it is `least` or more.

    >>> check_size("kernel_size", 3.0)
    Traceback (most recent call last):
    TypeError: kernel_size=3.0 has type float, but must be a whole number (int)
    """
    # Sizes of a graph in the making come first: __index__ would pin them to the number at hand.
    if not isinstance(size, (int, torch.SymInt)) and not hasattr(size, "__index__"):
        raise TypeError(
            f"{name}={size!r} has type {type(size).__name__}, but must be a whole number (int)"
        )
    if isinstance(size, bool):
        raise TypeError(f"{name}={size} has type bool, but must be a whole number (int)")
    if size < least:
        raise ValueError(f"{name}={size} must be at least {least}")


def check_number(
    name: str,
    number: int | float,
    *,
    above: int | float = -math.inf,
    least: int | float = -math.inf,
    most: int | float = math.inf,
    why: str = "",
) -> None:
    """Raise TypeError unless `number` is one, ValueError unless it lies where it should; NaN never.

    `why` ends the sentence: a reason for the bound.

    >>> check_number("base", 0.0, above=0, why="its powers are the wavelengths")
    Traceback (most recent call last):
    ValueError: base=0.0 must be above 0: its powers are the wavelengths
    """
    if isinstance(number, bool) or not hasattr(type(number), "__float__"):
        raise TypeError(f"{name}={number!r} has type {type(number).__name__}, but must be a number")
    reason = f": {why}" if why else ""
    if above > -math.inf and not number > above:
        raise ValueError(f"{name}={number} must be above {above:g}{reason}")
    if not least <= number <= most:
        bounds = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise ValueError(f"{name}={number} must be {bounds}{reason}")


def check_flag(name: str, flag: bool) -> None:
    """Raise TypeError unless `flag` is True or False.

    >>> check_flag("is_causal", "yes")
    Traceback (most recent call last):
    TypeError: is_causal='yes' has type str, but must be True or False
    """
    if not isinstance(flag, bool):
        shown = "" if isinstance(flag, Tensor) else f"={flag!r}"
        raise TypeError(f"{name}{shown} has type {type(flag).__name__}, but must be True or False")


def check_tensor(name: str, x: Tensor) -> None:
    """Raise TypeError unless `x` is a tensor.

    >>> check_tensor("lengths", [3, 5])
    Traceback (most recent call last):
    TypeError: lengths has type list, but must be a torch.Tensor: torch.as_tensor(lengths) makes one
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} has type {type(x).__name__}, but must be a torch.Tensor: "
            f"torch.as_tensor({name}) makes one"
        )


def check_floating(name: str, x: Tensor) -> None:
    """Raise TypeError unless `x` is a tensor of floating-point numbers.

    >>> check_floating("theta", torch.tensor([1, 0]))
    Traceback (most recent call last):
    TypeError: theta has dtype torch.int64, but a floating-point type is needed: theta.float()
    """
    check_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(
            f"{name} has dtype {x.dtype}, but a floating-point type is needed: {name}.float()"
        )


def check_whole(name: str, x: Tensor) -> None:
    """Raise TypeError unless `x` is a tensor of whole numbers.

    >>> check_whole("lengths", torch.tensor([3.0]))
    Traceback (most recent call last):
    TypeError: lengths has dtype torch.float32, not an integer type
    """
    check_tensor(name, x)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {x.dtype}, not an integer type")


def check_between(name: str, x: Tensor, least: int, most: int, *, most_is: str) -> None:
    """Raise ValueError if a number in `x` lies outside `least` to `most`, where x can be read.

    It is read on a CPU only: a GPU would have to be waited for. Under vmap, a compiler and other
    tracers it has no values.

    >>> check_between("lengths", torch.tensor([-1, 2]), 0, 3, most_is="keys")
    Traceback (most recent call last):
    ValueError: lengths run from -1 to 2, but must lie between 0 and keys=3
    """
    if x.device.type != "cpu" or x.numel() == 0 or torch.compiler.is_compiling():
        return
    try:
        smallest, largest = (int(end) for end in x.aminmax())
        outside = smallest < least or largest > most
    except RuntimeError:  # so say vmap, FakeTensorMode and make_fx that there are no values
        return
    if outside:
        raise ValueError(
            f"{name} run from {smallest} to {largest}, "
            f"but must lie between {least} and {most_is}={most}"
        )


def check_inputs(**inputs: Tensor) -> None:
    """Raise TypeError unless all are of one floating dtype, ValueError unless their axes fit."""
    first = next(iter(inputs))
    for name, x in inputs.items():
        check_floating(name, x)
        if x.dtype != inputs[first].dtype:
            raise TypeError(f"{name} has dtype {x.dtype} but {first} has {inputs[first].dtype}")
        if x.ndim < 2:
            raise ValueError(f"{name} has {x.ndim} axes, but needs at least 2: (rows, features)")
    batches = {name: tuple(x.shape[:-2]) for name, x in inputs.items()}
    try:
        torch.broadcast_shapes(*batches.values())
    except RuntimeError as error:
        raise ValueError(f"the batch axes do not broadcast to each other: {batches}") from error


def check_features(name: str, x: Tensor, features: int) -> None:
    """Raise ValueError unless the last axis of `x` is as long as its projection expects."""
    if x.shape[-1] != features:
        raise ValueError(
            f"{name} has {x.shape[-1]} features, but the layer expects {features} "
            f"(the last axis of {tuple(x.shape)})"
        )


def check_mask(mask: Tensor, shape: Sequence[int]) -> None:
    """Raise TypeError unless the mask is boolean, ValueError unless it broadcasts to `shape`."""
    check_tensor("mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(
            f"mask has dtype {mask.dtype}, not torch.bool (True: may attend); "
            "terms to be added to the scores are called bias"
        )
    _check_broadcast("mask", mask, shape)


def check_bias(bias: Tensor, shape: Sequence[int]) -> None:
    """Raise TypeError unless the bias is floating, ValueError unless it broadcasts to `shape`."""
    check_tensor("bias", bias)
    if not bias.is_floating_point():
        raise TypeError(
            f"bias has dtype {bias.dtype}, but is added to the scores; "
            "what forbids or permits is called mask"
        )
    _check_broadcast("bias", bias, shape)


def check_scores(scores: Tensor, shape: Sequence[int]) -> None:
    """Raise TypeError unless the scores are floating, ValueError unless they have the shape."""
    check_floating("the result of score", scores)
    if tuple(scores.shape) != tuple(shape):
        raise ValueError(
            f"score returned {tuple(scores.shape)}, but needs one number for each query and key: "
            f"(..., queries, keys), here {tuple(shape)}"
        )


def _check_broadcast(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tensor.ndim > len(shape) or not fits(tensor.shape, shape):
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} does not broadcast "
            f"to the scores' shape {tuple(shape)}, (..., queries, keys)"
            + ("; for padding: (batch, 1, keys)" if name == "mask" else "")
        )


def fits(sizes: Sequence[int], full: Sequence[int]) -> bool:
    """Return whether each size, counted from the last axis, is that of `full` or 1.

    >>> fits((3, 1), (2, 3, 4)), fits((2, 3), (2, 3, 4))
    (True, False)
    """
    return all(
        size == whole or size == 1  # noqa: PLR1714 (torch.compile misreads `in` on dynamic sizes)
        # Without strict=False, which the compiler of torch 2.8 takes for strict=True.
        for size, whole in zip(sizes[::-1], full[::-1])  # noqa: B905
    )


def check_image(x: Tensor, channels: int | None = None) -> None:
    """Raise TypeError unless x is floating-point, ValueError unless it is (b, c, h, w), not empty.

    The batch alone may be empty. With `channels`, c must equal it.
    """
    check_floating("x", x)
    if x.ndim != 4:
        raise ValueError(f"x has {x.ndim} axes, but needs 4: (batch, channels, height, width)")
    if 0 in x.shape[1:]:
        raise ValueError(f"x of shape {tuple(x.shape)} has an empty side: there is nothing to pool")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"x has {x.shape[1]} channels, but the layer expects {channels}")


def centred_padding(kernel_size: int) -> int:
    """Return how many zeros each side needs for a window centred on its place: (k - 1) / 2.

    Raises:
        TypeError: kernel_size is no whole number.
        ValueError: kernel_size is even or below 1.

    >>> centred_padding(7)
    3
    """
    check_size("kernel_size", kernel_size, least=-math.inf)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size} must be odd and at least 1, to be centred")
    return kernel_size // 2
