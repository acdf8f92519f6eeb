"""Every checker accepts right answers, however they are written, and rejects typical wrong ones.

A chapter's answers stand in exercise_answers/<chapter>.py: RIGHT maps each checker to a list of
right answers, WRONG to a list of pairs, a wrong answer and words of what is said of it (a|b: one).
The solutions that the chapters print count among the right ones.
"""

from __future__ import annotations

import ast
import contextlib
import fractions
import functools
import importlib
import itertools
import math
import re
from pathlib import Path

import einops
import nbformat
import numpy as np
import pytest
import torch
from notebooks import ROOT, appendices

import attnbook
from attnbook import exercises
from attnbook.exercises import Answer, Case, Checker, cbam, checker, comparison, same, wrong_shape
from attnbook.exercises import attention as lookup
from attnbook.exercises import spatial_transformer as warps
from attnbook.exercises.chinese import CHAPTERS, in_chinese

FOLDER = Path(__file__).parent / "exercise_answers"
ANSWERS = [
    importlib.import_module(f"exercise_answers.{path.stem}") for path in sorted(FOLDER.glob("*.py"))
]
RIGHT = {check: answers for module in ANSWERS for check, answers in module.RIGHT.items()}
WRONG = {check: answers for module in ANSWERS for check, answers in module.WRONG.items()}
SEEDS = 1000
CHINESE = sorted(path.stem for path in (ROOT / "book" / "zh").glob("*.ipynb"))

every_checker = pytest.mark.parametrize("check", RIGHT, ids=lambda check: check.__name__)


@functools.cache
def printed_solutions() -> dict[Checker, Answer]:
    """The solutions that the chapters print, by checker."""
    solutions = {}
    chapters = {path.stem for path in (ROOT / "book").glob("*.ipynb")} - appendices()
    for name in sorted(chapters):
        module = importlib.import_module(f"attnbook.exercises.{name}")
        path = ROOT / "book" / f"{name}.ipynb"
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells]
        for cell, below in itertools.pairwise(cells):
            if call := re.search(r"^exercises\.(check_\w+)\((\w+)\)$", cell, re.MULTILINE):
                source = re.search(r"<summary>Solution.*?```python\n(.*?)```", below, re.DOTALL)
                names = {"ab": attnbook, "math": math, "torch": torch, "F": torch.nn.functional}
                names |= vars(einops)
                exec(source[1], names)
                solutions[getattr(module, call[1])] = names[call[2]]
    return solutions


def printed(check: Checker, said: str) -> str:
    """What a checker prints to say this: its Chinese too, if its chapter has a Chinese edition."""
    module = next(module for module in ANSWERS if check in module.RIGHT)
    chinese = in_chinese(said, module.__name__.rpartition(".")[2])
    return f"{said}\n{chinese}\n" if chinese else f"{said}\n"


def test_every_checker_has_answers():
    checkers = set()
    for path in Path(exercises.__file__).parent.glob("[a-z]*.py"):
        module = importlib.import_module(f"attnbook.exercises.{path.stem}")
        checkers |= {value for name, value in vars(module).items() if name.startswith("check_")}
    assert checkers == set(RIGHT) == set(WRONG) == set(printed_solutions())


@every_checker
def test_right_answers_are_accepted(check, capsys):
    assert len(RIGHT[check]) >= 3
    for answer in [printed_solutions()[check], *RIGHT[check]]:
        assert check(answer) is None  # or a notebook would echo it
        assert capsys.readouterr().out == printed(check, "Correct.")


@every_checker
def test_wrong_answers_are_told_what_is_wrong(check, capsys):
    assert len(WRONG[check]) >= 4
    for answer, complaint in WRONG[check]:
        assert check(answer) is None
        said = capsys.readouterr().out
        assert said.startswith("Not yet. ")
        assert any(part in said for part in complaint.split("|")), complaint


# The default run draws a hundred times, `make test-all` the whole thousand.
@pytest.mark.parametrize("seeds", [100, pytest.param(SEEDS, marks=pytest.mark.slow)])
@every_checker
@pytest.mark.no_cover
def test_verdicts_hold_whatever_is_drawn(check, seeds, monkeypatch):
    before = None
    for seed in range(seeds):
        monkeypatch.setattr(exercises, "SEED", seed)
        cases = check.cases()
        drawn = [x.tolist() for case in cases for x in case.inputs if isinstance(x, torch.Tensor)]
        if drawn == before:
            break  # nothing is
        before = drawn
        for answer in [printed_solutions()[check], *RIGHT[check]]:
            verdict = check.judge(answer, cases)
            assert verdict.accepted, (seed, verdict)
        for answer, complaint in WRONG[check]:
            verdict = check.judge(answer, cases)
            assert verdict.accepted is False, (seed, complaint)
            assert any(part in verdict.text for part in complaint.split("|")), (seed, verdict)


@every_checker
@pytest.mark.no_cover
def test_verdicts_and_the_notebooks_own_seed_leave_each_other_alone(check):
    wrong = WRONG[check][-1][0]
    for seed in range(20):
        torch.manual_seed(seed)
        assert check.verdict(printed_solutions()[check]).accepted
        assert check.verdict(wrong).accepted is False
        assert torch.equal(torch.rand(3), torch.rand(3, generator=seeded(seed)))


@pytest.mark.no_cover
def test_no_seed_of_the_notebook_matters():
    check = cbam.check_channel_gates
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        assert check.verdict(printed_solutions()[check]).accepted


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def setting(change, value, before):
    change(value)
    try:
        yield
    finally:
        change(before)


STATES = {
    "float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "a device of another kind": lambda: setting(torch.set_default_device, "meta", None),
    "a device for a while": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("state", STATES)
@every_checker
@pytest.mark.no_cover
def test_verdicts_do_not_depend_on_settings(check, state):
    with STATES[state]():
        settings = torch.get_default_dtype(), torch.get_default_device()
        for answer in [printed_solutions()[check], *RIGHT[check]]:
            verdict = check.verdict(answer)
            assert verdict.accepted, verdict
        for answer, complaint in WRONG[check]:
            verdict = check.verdict(answer)
            assert verdict.accepted is False
            assert any(part in verdict.text for part in complaint.split("|")), verdict
        assert settings == (torch.get_default_dtype(), torch.get_default_device())


def changed(answer: Answer, change: Answer) -> Answer:
    """An answer whose result, or each of whose results, is changed."""

    def other(*inputs):
        result = answer(*inputs)
        several = isinstance(result, tuple | list)
        return type(result)(map(change, result)) if several else change(result)

    return other


def of_tensor(change: Answer) -> Answer:
    return lambda x: change(x) if isinstance(x, torch.Tensor) else x


def spoiling(answer: Answer) -> Answer:
    """An answer that overwrites its inputs when it has used them."""

    def other(*inputs):
        result = answer(*inputs)
        result = result.clone() if isinstance(result, torch.Tensor) else result
        for x in inputs:
            if isinstance(x, torch.Tensor):
                x.zero_()
            elif isinstance(x, list):
                x.clear()
        return result

    return other


class Called:
    """An object that can be called as a function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *inputs):
        return self.function(*inputs)


VARIANTS = {
    "overwrites its inputs": spoiling,
    "with gradients": lambda answer: changed(
        answer,
        of_tensor(lambda x: x.clone().requires_grad_() if x.is_floating_point() else x),
    ),
    "not contiguous": lambda answer: changed(
        answer, of_tensor(lambda x: torch.stack([x, x], dim=-1)[..., 0])
    ),
    "in float64": lambda answer: changed(
        answer, of_tensor(lambda x: x.double() if x.is_floating_point() else x)
    ),
    "as numbers of NumPy": lambda answer: changed(
        answer, lambda x: np.asarray(x)[()] if isinstance(x, int | float) else x
    ),
    "as tensors": lambda answer: changed(answer, torch.as_tensor),
    "as tensors of one": lambda answer: changed(
        answer, lambda x: torch.as_tensor(x)[None] if torch.as_tensor(x).ndim == 0 else x
    ),
    "without tensors of one": lambda answer: changed(
        answer, of_tensor(lambda x: x.item() if x.ndim == 0 else x)
    ),
    "a list": lambda answer: (
        lambda *inputs: list(x) if isinstance(x := answer(*inputs), tuple) else x
    ),
    "partial": functools.partial,
    "object": Called,
    "without gradients": torch.no_grad(),
}


@pytest.mark.parametrize("variant", VARIANTS)
@every_checker
@pytest.mark.no_cover
def test_right_answers_are_accepted_in_other_forms(check, variant):
    for answer in [printed_solutions()[check], *RIGHT[check]]:
        verdict = check.verdict(VARIANTS[variant](answer))
        assert verdict.accepted, verdict


SPOILT = {
    "nan": (
        lambda x: x * math.nan if not isinstance(x, torch.Tensor) or x.is_floating_point() else x
    ),
    "one nan": of_tensor(lambda x: x.where(torch.arange(x.numel()).view_as(x) > 0, math.nan)),
    "inf": lambda x: x + math.inf,
    "half": of_tensor(lambda x: x.half()),
    "text": str,
    "complex": lambda x: x + 0j,
}


@pytest.mark.parametrize("change", SPOILT)
@every_checker
def test_spoilt_results_are_never_accepted(check, change):
    def is_fit(x):
        return not isinstance(x, torch.Tensor) or x.is_floating_point()

    def wrong(x):
        return SPOILT[change](x) if is_fit(x) else x.float() * math.nan

    answer = printed_solutions()[check]
    scalar = isinstance(check.cases()[0].expected, int | float)
    if scalar and change in ("one nan", "half"):
        answer, change = changed(answer, lambda x: torch.as_tensor(float(x))), "nan"
    verdict = check.verdict(changed(answer, wrong))
    assert verdict.accepted is False
    assert verdict.text.startswith("Not yet. ")
    assert "raised" not in verdict.text, verdict


@every_checker
def test_a_forgotten_return_is_named(check):
    assert "is the `return` missing?" in check.verdict(lambda *inputs: None).text


@every_checker
def test_a_result_on_another_device_is_named(check):
    def elsewhere(x):
        return torch.as_tensor(x).to("meta")

    verdict = check.verdict(changed(printed_solutions()[check], elsewhere))
    assert verdict.text == "Not yet. The result lies on meta, the inputs on cpu."


# --- What is said in Chinese ----------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHINESE)
def test_the_messages_of_a_translated_chapter_have_chinese(chapter):
    """Where one has none, its checker speaks English alone, and nothing else shows it."""
    module = importlib.import_module(f"exercise_answers.{chapter}")
    said = {
        words
        for check in module.RIGHT
        for case in check.cases()
        for words in (case.otherwise, *(words for _, words in (*case.mistakes, *case.signs)))
        if words
    }
    assert {words for words in said if not in_chinese(words, chapter)} == set()
    for english in CHAPTERS[chapter]:
        start, end = english.partition("{")[0], english.rpartition("}")[2]
        assert any(words.startswith(start) and words.endswith(end) for words in said), english


def test_a_chapter_in_english_alone_has_messages_in_english_alone():
    assert sorted(CHAPTERS) == CHINESE
    assert in_chinese("Correct.", "no chapter") is None


def test_the_messages_of_all_checkers_have_chinese():
    tree = ast.parse(Path(exercises.__file__).read_text(encoding="utf-8"))
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    }
    parts = {p for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for p in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = "".join(p.value if isinstance(p, ast.Constant) else "a b" for p in node.values)
        elif isinstance(node, ast.Constant) and node not in docstrings | parts:
            said = str(node.value)
        else:
            continue
        if re.fullmatch(r"[A-Z{].* .*[.?]", said):
            assert in_chinese(said, "attention"), said


@pytest.mark.parametrize("chapter", CHINESE)
def test_a_fault_is_told_in_both_languages(chapter, capsys):
    module = importlib.import_module(f"exercise_answers.{chapter}")
    extreme = [lambda *x: None, lambda *x: 1 / 0, lambda *x: "text", lambda *x: torch.ones(99)]
    for check, wrong in module.WRONG.items():
        for answer in [*extreme, 3, *(answer for answer, _ in wrong)]:
            check(answer)
            *english, chinese = capsys.readouterr().out.splitlines()
            assert english[0].startswith("Not yet. ")
            assert chinese.startswith("还不对。"), english
            assert not re.search("[{}]", chinese)
            assert not re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", chinese)


def test_chinese_says_the_shapes_and_the_numbers(capsys):
    check = lookup.check_masked_weights
    check(lambda scores, mask: scores.sum(-1))
    assert capsys.readouterr().out.splitlines()[1] == "还不对。形状是 (4,)，应为 (4, 5)。"


# --- What is said of answers that raise -----------------------------------------------------------


def unfinished(*inputs):
    raise NotImplementedError


def unfinished_with_words(*inputs):
    with torch.no_grad():
        raise NotImplementedError("still to come")


def helped(*inputs):
    return unfinished(*inputs)


def of_integers(*inputs):
    return torch.ones(2, dtype=torch.long).softmax(-1)


@every_checker
@pytest.mark.parametrize(
    "skeleton",
    [
        unfinished,
        unfinished_with_words,
        functools.partial(unfinished),
        torch.no_grad()(unfinished),
        Called(unfinished).function,
        type("Skeleton", (torch.nn.Module,), {"forward": unfinished})(),
    ],
)
def test_an_unattempted_exercise_is_no_error(check, skeleton, capsys):
    assert check(skeleton) is None
    assert capsys.readouterr().out == printed(
        check, "Not attempted yet: put your code in place of `raise NotImplementedError`."
    )
    assert check.verdict(skeleton).accepted is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            of_integers,
            '"return torch.ones(2, dtype=torch.long).softmax(-1)", raised NotImplemented',
        ),
        (helped, 'in unfinished, "raise NotImplementedError", raised NotImplementedError.'),
        (torch.nn.Module(), "It raised NotImplementedError: Module [Module] is missing"),
        (lambda: None, "It raised TypeError: "),
        (len, "It raised TypeError: len() takes exactly one argument (3 given)"),
        (lambda x, w1, w2: w1 @ x.sum(0), ", raised RuntimeError: "),
        (lambda x, w1, w2: einops.rearrange(x, "b c -> c b"), ", raised EinopsError: "),
        (3, "This is an int: give the checker your function."),
        (None, "This is a NoneType: give the checker your function."),
    ],
)
def test_what_the_answer_raises_is_shown_with_its_line(answer, words):
    verdict = cbam.check_channel_gates.verdict(answer)
    assert verdict.accepted is False
    assert words in verdict.text
    if "Your line" in verdict.text:
        assert f"Your line {answer.__code__.co_firstlineno + (answer is of_integers)}" in (
            verdict.text if answer is not helped else f"Your line {answer.__code__.co_firstlineno}"
        )


def test_the_line_of_a_cell_is_shown_as_far_as_it_is_known():
    names = {"torch": torch}
    exec(compile("def gates(x, w1, w2):\n\n    return x @ w1", "cell", "exec"), names)
    said = cbam.check_channel_gates.verdict(names["gates"]).text
    assert said.startswith("Not yet. Your line 3 raised RuntimeError: ")


def test_what_is_finished_in_part_is_no_skeleton():
    def gates(x, w1, w2):
        if len(x) == 1:
            raise NotImplementedError
        return RIGHT[cbam.check_channel_gates][0](x, w1, w2)

    said = cbam.check_channel_gates.verdict(gates).text
    assert '"raise NotImplementedError", raised NotImplementedError.' in said
    call = "channel_gates(<1 x 4 x 7 x 3>, <6 x 4>, <4 x 6>)"
    assert said.endswith(f"(So it is in {call}; with other inputs it went well.)")


def test_other_forms_of_numbers():
    pair, share = comparison.check_paired, cbam.check_exceeds
    assert share.verdict(lambda h, k: fractions.Fraction(RIGHT[share][0](h, k))).accepted
    assert not share.verdict(lambda h, k: str(RIGHT[share][0](h, k))).accepted
    assert not share.verdict(lambda h, k: h).accepted
    assert not pair.verdict(lambda a, b: (a, b)).accepted
    assert not pair.verdict(lambda a, b: ((a - b).mean(),)).accepted
    assert warps.check_read_at.verdict(lambda *inputs: 10**400).accepted is False
    assert (
        "count(64, 16, 7) is 1048577, but should be 612."
        in cbam.check_count.verdict(lambda *n: 2**20 + 1).text
    )


def test_same_and_wrong_shape():
    expected = torch.tensor([1.0, 2.0])
    assert same(expected + 1e-7, expected)
    assert not same(expected + 1e-2, expected)
    assert not same([1.0, 2.0], expected)
    assert not same(expected, expected * math.nan)
    assert not same(expected * math.nan, expected * math.nan)
    assert not same(math.nan, math.nan)
    assert not same(math.nan, 1.0)
    assert not same(3.0000001, 3)
    assert wrong_shape(expected, expected) is None


def test_a_fault_of_a_checker_is_not_the_learners():
    @checker
    def check_nothing():
        yield Case((1.0,), torch.ones(1), signs=[(lambda x: 1 / 0, "")])

    with pytest.raises(ZeroDivisionError):
        check_nothing.verdict(lambda x: torch.zeros(1))
