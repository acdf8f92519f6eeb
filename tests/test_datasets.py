from __future__ import annotations

import re

import pytest
import torch

from attnbook.datasets import Characters, cue_strip, date_pairs, digits, mnist, photograph


def test_digits_are_the_whole_set_on_a_scale_from_0_to_1():
    images, labels = digits()
    assert images.shape == (1797, 8, 8) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0, 0].mul(16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_photograph_is_color_first():
    picture = photograph("coffee")
    assert picture.shape == (3, 400, 600)
    assert picture.min() == 0 and picture.max() == 1
    assert picture[0].mean() > picture[2].mean()  # the saucer is red, and nothing is blue


def test_photograph_names_what_is_wrong():
    with pytest.raises(ValueError, match="no picture 'nothing'"):
        photograph("nothing")
    with pytest.raises(ValueError, match=r"'camera' has shape \(512, 512\)"):
        photograph("camera")


def test_date_pairs_are_different_dates_in_three_styles():
    pairs = date_pairs(2000, seed=3)
    assert len({pair.date for pair in pairs}) == 2000
    patterns = {
        "full": r"\d{4}年\d+月\d+日星期[一二三四五六日]",
        "long": r"\d{4}年\d+月\d+日",
        "short": r"\d{4}/\d+/\d+",
    }
    for pair in pairs:
        assert re.fullmatch(patterns[pair.style], pair.chinese)
        year, month, day = map(int, re.findall(r"\d+", pair.chinese))
        assert (year, month, day) == (pair.date.year, pair.date.month, pair.date.day)
        assert pair.english == f"{pair.date:%B} {pair.date.day}, {pair.date.year}"
    assert {pair.style for pair in pairs} == set(patterns)
    assert date_pairs(5, seed=3) == date_pairs(5, seed=3) != date_pairs(5, seed=4)


def test_too_many_dates():
    with pytest.raises(ValueError, match="40000 dates asked for, but there are only 36525"):
        date_pairs(40_000)


def test_characters_round_trip():
    texts = ["2026年11月22日", "short", ""]
    characters = Characters(texts)
    numbers = characters.encode(texts)
    assert numbers.shape == (3, 13) and len(characters) == 3 + len(set("".join(texts)))
    assert characters.decode(numbers) == texts
    assert characters.decode(numbers[:, 1:6]) == ["2026年", "short"[:5], ""]
    assert characters.encode([]).shape == (0,)


def test_unknown_character():
    with pytest.raises(ValueError, match=r"\['z'\] not among the 1 characters"):
        Characters(["a"]).encode(["az"])


def test_mnist_is_a_tenth_of_each_digit_on_a_scale_from_0_to_1():
    images, labels = mnist()
    assert images.shape == (5000, 28, 28) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert labels.bincount().tolist() == [500] * 10
    assert images[:, :2].mean() < 0.01 < images[:, 13:15].mean()  # ink in the middle, upright
    assert 0.12 < images.mean() < 0.14


def test_cue_strip_names_the_red_digit_or_the_green_one():
    images, labels = cue_strip(400, training=False, seed=3)
    assert images.shape == (400, 3, 8, 28) and labels.shape == (400,)
    pixels, classes = digits()
    cue = images[:, 2, :, 16:].mean((1, 2))
    assert ((cue.abs() - 1).abs() < 0.1).all() and 0.4 < (cue > 0).float().mean() < 0.6
    named = torch.where((cue > 0)[:, None, None], images[:, 0, :, :8], images[:, 1, :, :8])
    other = torch.where((cue > 0)[:, None, None], images[:, 1, :, :8], images[:, 0, :, :8])
    nearest = [
        classes[torch.cdist(x.flatten(1), pixels.flatten(1)).argmin(1)] for x in (named, other)
    ]
    assert torch.equal(nearest[0], labels) and (nearest[1] != labels).all()
    assert images[:, :, :, 8:16].abs().max() < 0.6 and images[:, :2, :, 16:].abs().max() < 0.6


def test_cue_strip_keeps_training_and_test_digits_apart():
    pixels = digits()[0].flatten(1)
    met = []
    for training in (True, False):
        images, _ = cue_strip(400, training=training)
        shown = torch.cat([images[:, 0, :, :8], images[:, 1, :, :8]]).flatten(1)
        met.append(set(torch.cdist(shown, pixels).argmin(1).tolist()))
    assert not met[0] & met[1]
    assert torch.equal(cue_strip(5, training=True)[0], cue_strip(5, training=True)[0])
    assert not torch.equal(cue_strip(5, training=True)[0], cue_strip(5, training=True, seed=1)[0])


def test_cue_strip_of_nothing():
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        cue_strip(0, training=True)


SETS = {
    "digits": digits,
    "mnist": mnist,
    "cue_strip": lambda: cue_strip(3, training=True),
    "photograph": lambda: (photograph(),),
    "characters": lambda: (Characters(["ab"]).encode(["a", "ab"]),),
}


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
@pytest.mark.no_cover
def test_data_are_the_same_whatever_the_default_device_is(make):
    expected = make()
    with torch.device("meta"):
        found = make()
    assert all(map(torch.equal, found, expected))


WRONG = {
    "count=2.0 has type float": lambda: cue_strip(2.0, training=True),
    "training=1 has type int": lambda: cue_strip(2, training=1),
    "seed=-1 must be at least 0": lambda: cue_strip(2, training=True, seed=-1),
    "no picture 'data_dir'": lambda: photograph("data_dir"),
    "no picture 'download_all'": lambda: photograph("download_all"),
    "no picture 'binary_blobs'": lambda: photograph("binary_blobs"),
    "'lbp_frontal_face_cascade_filename' has type str": lambda: photograph(
        "lbp_frontal_face_cascade_filename"
    ),
    "name=3 has type int": lambda: photograph(3),
    "count=-1 must be at least 0": lambda: date_pairs(-1),
    "count=1.5 has type float": lambda: date_pairs(1.5),
    "texts='abc' must be a list of strings": lambda: Characters("abc"),
    r"texts=\[1\] must be a list of strings": lambda: Characters(["a"]).encode([1]),
    "numbers has type list": lambda: Characters(["a"]).decode([[1, 2]]),
    "numbers has dtype torch.float32": lambda: Characters(["a"]).decode(torch.ones(1, 2)),
    "numbers has 1 axes, but needs 2": lambda: Characters(["a"]).decode(torch.tensor([1, 2])),
    "numbers run from 3 to 4, but must lie between 0 and 3": lambda: Characters(["a"]).decode(
        torch.tensor([[3, 4]])
    ),
}


@pytest.mark.parametrize("message, call", WRONG.items(), ids=WRONG)
def test_wrong_arguments_are_named(message, call):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
