"""Checkers of the exercises, one module a chapter: each says what is wrong in terms of the idea.

A checker is a generator of cases. Each case holds the inputs of one call, what the answer should
return, and what typical mistakes return instead; the rest is the same for all and stands here.
"""

from __future__ import annotations

import contextlib
import dis
import linecache
import math
import numbers
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from attnbook.exercises.chinese import in_chinese
from attnbook.precision import no_autocast

Answer = Callable[..., Any]

# The inputs are the same in every call: what a learner prints on the way can be compared.
SEED = 0


@dataclass(frozen=True)
class Case:
    """One call of an answer, and what to say of what it returns.

    The expected value is a tensor, a float, an int where a count is asked for, or a tuple of these.
    `mistakes` pairs what typical mistakes return with words on them; `signs` pairs tests of an
    answer that has the right shape with such words; `otherwise` is said where none of them fits.
    In all words {call} stands for the call itself. `of` takes the answer to what is compared,
    where different answers are equally right.
    """

    inputs: tuple[Any, ...]
    expected: Any
    mistakes: Sequence[tuple[Any, str]] = ()
    signs: Sequence[tuple[Callable[..., Any], str]] = ()
    otherwise: str = ""
    of: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Verdict:
    """What a checker finds: True, False, or None where nothing was attempted; and its words."""

    accepted: bool | None
    text: str


class Checker:
    """A checker of one exercise: called with the learner's function, it prints what it finds.

    It returns nothing, or a notebook would show a bare True or False below the words; whoever
    needs the verdict as a value asks `verdict` for it.
    """

    def __init__(self, cases: Callable[[], Iterator[Case]]) -> None:
        """Make a checker out of a generator of cases.

        Args:
            cases: yields the cases in the order in which they are tried; the checker bears its
                name and its docstring.
        """
        self.__name__, self.__doc__ = cases.__name__, cases.__doc__
        self._chapter = cases.__module__.rpartition(".")[2]
        self._cases = cases

    def __call__(self, answer: Answer) -> None:
        """Print whether the answer is right, and if it is not, which idea is missing."""
        said = self.verdict(answer).text
        print(said)
        if chinese := in_chinese(said, self._chapter):
            print(chinese)

    def verdict(self, answer: Answer) -> Verdict:
        """Return what is to be said of the answer, and whether it is right."""
        return self.judge(answer, self.cases())

    def cases(self) -> list[Case]:
        """Return the calls that an answer has to stand, with the same numbers each time."""
        with _undisturbed(SEED):
            return list(self._cases())

    def judge(self, answer: Answer, cases: Sequence[Case]) -> Verdict:
        """Return what is to be said of the answer in these cases: of the first that it fails."""
        if not callable(answer):
            said = f"Not yet. This is {_kind(answer)}: give the checker your function."
            return Verdict(False, said)
        for before, case in enumerate(cases):
            call = f"{self.__name__.removeprefix('check_')}({', '.join(map(_shown, case.inputs))})"
            with _undisturbed(SEED + 1):  # or what an answer draws would be what its inputs are
                try:
                    returned = answer(*map(_copied, case.inputs))
                except Exception as error:  # whatever the learner's code raises is theirs to see
                    if before == 0 and _is_skeleton(error):
                        return Verdict(None, _UNATTEMPTED)
                    complaint = _raised(error)
                else:
                    complaint = _complaint(returned, case)
            if complaint and before and any(isinstance(x, Tensor) for x in case.inputs):
                complaint += " (So it is in {call}; with other inputs it went well.)"
            if complaint:
                return Verdict(False, "Not yet. " + complaint.replace("{call}", call))
        return Verdict(True, "Correct.")


checker = Checker
_UNATTEMPTED = "Not attempted yet: put your code in place of `raise NotImplementedError`."


def same(answer: object, expected: Tensor | float, *, equal_nan: bool = False) -> bool:
    """Return whether the answer is the expected tensor or number, up to rounding; NaN never is."""
    if not isinstance(expected, Tensor):
        rounding = 0 if isinstance(expected, int) else 1e-6 + 1e-4 * abs(expected)
        return isinstance(answer, int | float) and abs(answer - expected) <= rounding
    if not isinstance(answer, Tensor) or wrong_shape(answer, expected):
        return False
    if not expected.is_floating_point():
        return torch.equal(answer, expected)
    answer, expected = answer.detach().double(), expected.detach().double()
    largest = expected.nan_to_num().abs().max().item()
    return torch.allclose(answer, expected, rtol=1e-4, atol=1e-5 * largest, equal_nan=equal_nan)


def wrong_shape(answer: object, expected: Tensor) -> str | None:
    """Return a complaint if the answer is no tensor, or one of another device, shape or dtype."""
    if not isinstance(answer, Tensor):
        return f"It returns {_kind(answer)}, not a tensor."
    if answer.device != expected.device:
        return f"The result lies on {answer.device}, the inputs on {expected.device}."
    if answer.shape != expected.shape:
        return f"The shape is {tuple(answer.shape)}, but should be {tuple(expected.shape)}."
    if answer.dtype != expected.dtype:
        return f"The dtype is {answer.dtype}, but should be {expected.dtype}."
    return None


def _complaint(returned: object, case: Case) -> str | None:
    """What is wrong with what an answer returned; None if nothing is."""
    try:
        value = _read(returned, case.expected)
    except _UnreadableError as error:
        return str(error)
    misfit = _misfit(value, case.expected)
    if case.of and not misfit:
        value = case.of(value)
    if _agrees(value, case.expected):
        return None
    for mistake, words in case.mistakes:
        if _agrees(value, mistake, equal_nan=True):
            return words
    if misfit:
        return misfit
    for sign, words in case.signs:
        if sign(*value) if isinstance(value, tuple) else sign(value):
            return words
    return case.otherwise or f"{{call}} is {_shown(value)}, but should be {_shown(case.expected)}."


class _UnreadableError(Exception):
    """What was returned is not what is compared here; the message is for the learner."""


def _read(returned: Any, expected: Any) -> Any:
    """What was returned, in the form of what is expected: float64 is fine, as is any number."""
    if returned is None:
        raise _UnreadableError("It returns None: is the `return` missing?")
    if isinstance(expected, tuple):
        several = isinstance(returned, tuple | list) or (
            isinstance(returned, Tensor) and returned.ndim > 0
        )
        if not several or len(returned) != len(expected):
            raise _UnreadableError(f"It returns {_kind(returned)}. Return {len(expected)} results.")
        return tuple(map(_read, returned, expected))
    if isinstance(returned, Tensor) and returned.device.type != "cpu":
        raise _UnreadableError(f"The result lies on {returned.device}, the inputs on cpu.")
    if isinstance(expected, Tensor):
        if not isinstance(returned, Tensor):
            return returned
        more_exact = (returned.dtype, expected.dtype) == (torch.float64, torch.float32)
        return returned.detach().to_dense().to(torch.float32 if more_exact else returned.dtype)
    if hasattr(returned, "item"):  # a tensor, or a number or an array of NumPy's
        if math.prod(returned.shape) != 1:
            raise _UnreadableError(f"The shape is {tuple(returned.shape)}, but should be ().")
        returned = returned.item()
    if not isinstance(returned, numbers.Real):
        raise _UnreadableError(f"It returns {_kind(returned)}, not a number.")
    if not isinstance(expected, int):
        try:
            return float(returned)
        except OverflowError:  # whole numbers have no end
            return math.inf
    if not isinstance(returned, numbers.Integral):
        raise _UnreadableError(f"{{call}} is {returned}, not a whole number: it should be an int.")
    return int(returned)


def _misfit(value: Any, expected: Any) -> str | None:
    """A complaint if a value cannot be right, whatever the exercise."""
    if isinstance(expected, tuple):
        return next(filter(None, map(_misfit, value, expected)), None)
    if not isinstance(expected, Tensor):
        return None
    if complaint := wrong_shape(value, expected):
        return complaint
    return "There is NaN in the result." if value.isnan().any() else None


def _agrees(value: Any, expected: Any, *, equal_nan: bool = False) -> bool:
    if isinstance(expected, tuple):
        pairs = zip(value, expected, strict=True)
        return all(same(x, y, equal_nan=equal_nan) for x, y in pairs)
    return same(value, expected, equal_nan=equal_nan)


def _is_skeleton(error: Exception) -> bool:
    """Whether the answer still is the skeleton: the learner's own function raises, by a `raise`.

    PyTorch raises NotImplementedError too, in the learner's line, where an operator lacks a dtype.
    """
    *_, last = _tracebacks(error)
    operation = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]]
    skeleton = isinstance(error, NotImplementedError) and operation == "RAISE_VARARGS"
    return skeleton and _learners(error)[:1] == [last]


def _raised(error: Exception) -> str:
    """What was raised, and in which line of the learner's."""
    what = f"raised {type(error).__name__}" + (f": {error}" if str(error) else ".")
    own = _learners(error)
    if not own:
        return f"It {what}"
    frame, line = own[-1].tb_frame, own[-1].tb_lineno
    where = f"Your line {line}" + (f" in {frame.f_code.co_name}" if len(own) > 1 else "")
    text = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    return f'{where}, "{text}", {what}' if text else f"{where} {what}"


def _learners(error: Exception) -> list[TracebackType]:
    """The places that an error passed in code that is not of a library, the innermost last."""

    def of_library(path: Path) -> bool:
        folders = {"site-packages", "dist-packages"} & {*path.parts}
        return bool(folders) or any(path.is_relative_to(library) for library in _LIBRARIES)

    return [tb for tb in _tracebacks(error) if not of_library(Path(tb.tb_frame.f_code.co_filename))]


_LIBRARIES = (Path(__file__).parents[1], sysconfig.get_path("stdlib"))


def _tracebacks(error: Exception) -> Iterator[TracebackType]:
    tb = error.__traceback__
    while tb is not None:
        yield tb
        tb = tb.tb_next


@contextlib.contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """A context with a generator of its own, in which no setting of the notebook has an effect."""
    dtype = torch.get_default_dtype()
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]), cpu, no_autocast(cpu):
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _copied(value: Any) -> Any:
    """An input that an answer may change in place."""
    if isinstance(value, Tensor):
        return value.clone()
    return list(value) if isinstance(value, list) else value


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _shown(value: Any) -> str:
    """An input as a learner would write it, a tensor by its shape."""
    if isinstance(value, Tensor):
        return f"<{' x '.join(map(str, value.shape))}>"
    return getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else str(value))
