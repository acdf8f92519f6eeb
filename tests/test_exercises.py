"""Every checker accepts right answers, however they are written, and rejects typical wrong ones.

A chapter's answers stand in exercise_answers/<chapter>.py: RIGHT maps each checker to a list of
right answers, WRONG to a list of pairs, a wrong answer and words of what is said of it (a|b: one).
The solutions that the chapters print count among the right ones.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import re
from pathlib import Path

import einops
import nbformat
import pytest
import torch
from notebooks import ROOT

import attnbook
from attnbook import exercises
from attnbook.exercises import Answer, Checker, same, wrong_shape

FOLDER = Path(__file__).parent / "exercise_answers"
ANSWERS = [
    importlib.import_module(f"exercise_answers.{path.stem}") for path in sorted(FOLDER.glob("*.py"))
]
RIGHT = {check: answers for module in ANSWERS for check, answers in module.RIGHT.items()}
WRONG = {check: answers for module in ANSWERS for check, answers in module.WRONG.items()}
SEEDS = 30

every_checker = pytest.mark.parametrize("check", RIGHT, ids=lambda check: check.__name__)


@functools.cache
def printed_solutions() -> dict[Checker, Answer]:
    """The solutions that the chapters print, by checker."""
    solutions = {}
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        module = importlib.import_module(f"attnbook.exercises.{path.stem}")
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells]
        for cell, below in itertools.pairwise(cells):
            if call := re.search(r"^exercises\.(check_\w+)\((\w+)\)$", cell, re.MULTILINE):
                source = re.search(r"<summary>Solution.*?```python\n(.*?)```", below, re.DOTALL)
                names = dict(ab=attnbook, math=math, torch=torch, F=torch.nn.functional)
                names |= vars(einops)
                exec(source[1], names)
                solutions[getattr(module, call[1])] = names[call[2]]
    return solutions


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
        assert capsys.readouterr().out == "Correct.\n"


@every_checker
def test_wrong_answers_are_told_what_is_wrong(check, capsys):
    assert len(WRONG[check]) >= 4
    for answer, complaint in WRONG[check]:
        assert check(answer) is None
        said = capsys.readouterr().out
        assert said.startswith("Not yet. ")
        assert any(part in said for part in complaint.split("|")), complaint


@every_checker
def test_verdicts_hold_for_any_numbers(check, monkeypatch):
    """The inputs always tell right from wrong, whatever numbers the checker draws."""
    seen = None
    for seed in range(SEEDS):
        monkeypatch.setattr(exercises, "SEED", seed)
        cases = check.cases()
        numbers = [x for case in cases for x in case.inputs]
        if seen is not None and all(
            torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
            for x, y in zip(numbers, seen, strict=True)
        ):
            break  # nothing is drawn
        seen = numbers
        for answer in [printed_solutions()[check], *RIGHT[check]]:
            verdict = check.judge(answer, cases)
            assert verdict.accepted, (seed, verdict)
        for answer, complaint in WRONG[check]:
            verdict = check.judge(answer, cases)
            assert verdict.accepted is False, (seed, complaint)
            assert any(part in verdict.text for part in complaint.split("|")), (seed, verdict)
