from __future__ import annotations

import time

import pytest

from attnbook.timing import paired_times, ratio


def test_every_function_is_timed_in_every_round():
    functions = {"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.006)}
    times = paired_times(functions, rounds=5, seconds=0.004)
    assert {name: len(readings) for name, readings in times.items()} == {"short": 5, "long": 5}
    assert all(reading >= 0.002 for reading in times["short"])
    lower, middle, upper = ratio(times, "long", to="short")
    assert 1 < lower <= middle <= upper


def test_ratio_is_taken_round_by_round():
    drifting = {"a": [1.0, 10.0, 100.0], "b": [2.0, 20.0, 200.0]}
    assert ratio(drifting, "a", to="b") == (0.5, 0.5, 0.5)


def test_one_round_has_no_spread():
    with pytest.raises(ValueError, match="rounds=1: at least 2"):
        paired_times({"nothing": lambda: None}, rounds=1)


WRONG = {
    "functions must be a dictionary": lambda: paired_times([len]),
    "functions must be a dictionary of": lambda: paired_times({"a": 3}),
    "rounds=2.5 has type float": lambda: paired_times({}, rounds=2.5),
    "seconds=0 must be above 0": lambda: paired_times({}, seconds=0),
    "there are no times of 'b', but of ": lambda: ratio({"a": [1.0, 2.0]}, "a", to="b"),
    "'a' has 2 readings and 'b' has 1": lambda: ratio({"a": [1.0, 2.0], "b": [1.0]}, "a", to="b"),
}


@pytest.mark.parametrize("message, call", WRONG.items(), ids=WRONG)
def test_wrong_arguments_are_named(message, call):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
