"""Every checker accepts right answers, however they are written, and rejects typical wrong ones.

A chapter's answers stand in exercise_answers/<chapter>.py: RIGHT maps each checker to a list of
right answers, WRONG to a list of pairs, a wrong answer and words of what is said of it (a|b: one).
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from attnbook import exercises
from attnbook.exercises import same, wrong_shape

FOLDER = Path(__file__).parent / "exercise_answers"
ANSWERS = [
    importlib.import_module(f"exercise_answers.{path.stem}") for path in sorted(FOLDER.glob("*.py"))
]
RIGHT = {check: answers for module in ANSWERS for check, answers in module.RIGHT.items()}
WRONG = {check: answers for module in ANSWERS for check, answers in module.WRONG.items()}

every_checker = pytest.mark.parametrize("check", RIGHT, ids=lambda check: check.__name__)


def test_every_checker_has_answers():
    checkers = set()
    for path in Path(exercises.__file__).parent.glob("[a-z]*.py"):
        module = importlib.import_module(f"attnbook.exercises.{path.stem}")
        checkers |= {value for name, value in vars(module).items() if name.startswith("check_")}
    assert checkers == set(RIGHT) == set(WRONG)


@every_checker
def test_right_answers_are_accepted(check, capsys):
    assert len(RIGHT[check]) >= 3
    for answer in RIGHT[check]:
        assert check(answer) is True, capsys.readouterr().out
        assert capsys.readouterr().out == "Correct.\n"


@every_checker
def test_wrong_answers_are_told_what_is_wrong(check, capsys):
    assert len(WRONG[check]) >= 4
    for answer, complaint in WRONG[check]:
        assert check(answer) is False
        said = capsys.readouterr().out
        assert any(part in said for part in complaint.split("|")), complaint


@every_checker
def test_an_unattempted_exercise_is_no_error(check, capsys):
    def skeleton(*inputs):
        raise NotImplementedError

    assert check(skeleton) is None
    assert capsys.readouterr().out.startswith("Not attempted yet")


@every_checker
def test_what_the_answer_raises_is_shown(check, capsys):
    assert check(lambda: None) is False
    assert "It raised TypeError" in capsys.readouterr().out


def test_same_and_wrong_shape():
    expected = torch.tensor([1.0, 2.0])
    assert same(expected + 1e-7, expected)
    assert not same([1.0, 2.0], expected)
    assert wrong_shape(expected, expected) is None
