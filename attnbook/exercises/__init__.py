"""Checkers of the exercises, one module a chapter: each says what is wrong in terms of the idea."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Answer = Callable[..., Any]


def checker(complaints: Callable[[Answer], Iterator[str]]) -> Callable[[Answer], bool | None]:
    """Turn a generator of complaints about an answer into a checker.

    The checker prints the first complaint and returns False, or prints that all is well and
    returns True. While the skeleton still raises NotImplementedError it says so and returns None.
    """

    @functools.wraps(complaints)
    def check(function: Answer) -> bool | None:
        try:
            complaint = next(complaints(function), None)
        except NotImplementedError:
            print("Not attempted yet: put your code in place of `raise NotImplementedError`.")
            return None
        except Exception as error:  # whatever the reader's code raises is the reader's to see
            complaint = f"It raised {type(error).__name__}: {error}"
        print("Correct." if complaint is None else f"Not yet. {complaint}")
        return complaint is None

    return check


def same(answer: object, expected: Tensor) -> bool:
    """Return whether the answer is the expected tensor, up to rounding."""
    return (
        isinstance(answer, Tensor)
        and answer.shape == expected.shape
        and answer.dtype == expected.dtype
        and torch.allclose(answer, expected, rtol=1e-4, atol=1e-6, equal_nan=True)
    )


def wrong_shape(answer: object, expected: Tensor) -> str | None:
    """Return a complaint if the answer is no tensor, or one of another shape or dtype."""
    if not isinstance(answer, Tensor):
        return f"It returns {type(answer).__name__}, not a tensor."
    if answer.shape != expected.shape:
        return f"The shape is {tuple(answer.shape)}, but should be {tuple(expected.shape)}."
    if answer.dtype != expected.dtype:
        return f"The dtype is {answer.dtype}, but should be {expected.dtype}."
    return None
