"""The study of ECA's neighbours: its gates are those that the chapter speaks of."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from attnbook import EfficientChannelAttention, SqueezeExcitation
from attnbook.datasets import cue_strip
from attnbook.studies import neighbours
from attnbook.studies.neighbours import ECA, Gate, Pattern, band, scores


@pytest.fixture
def x():
    return torch.randn(3, 12, 4, 5)


def gate(arm):
    return Gate(scores(arm, 12), 12)


def test_patterns_are_the_matrices_of_the_chapter():
    found = {arm: scores(arm, 12).places for arm in (*neighbours.SWEEP, "full", "groups of 4")}
    found |= {arm: scores(arm, 12).places for arm in ("diagonal", "band, not shared")}
    counts = {arm: (int((p >= 0).sum()), len(p[p >= 0].unique())) for arm, p in found.items()}
    assert counts == {
        "ECA, k = 1": (12, 1), ECA: (34, 3), "ECA, k = 5": (54, 5), "ECA, k = 9": (88, 9),
        "full": (144, 144), "groups of 4": (48, 48),
        "diagonal": (12, 12), "band, not shared": (34, 34),
    }  # fmt: skip
    for arm, places in found.items():
        numbers = places[places >= 0]
        assert Counter(numbers.tolist()).keys() == set(range(int(numbers.max()) + 1)) or arm == (
            "band, not shared"  # two of its weights would stand beyond the ends
        )


def test_gates_are_those_of_the_package(x):
    ours, theirs = gate(ECA), EfficientChannelAttention(kernel_size=3)
    theirs.load_state_dict({"conv.weight": ours.scores.weight.view(1, 1, 3)})
    assert_close(ours(x), theirs(x))
    ours, theirs = gate("bottleneck, r = 4"), SqueezeExcitation(12, 4, bias=False)
    theirs.load_state_dict(
        {
            "fc1.weight": ours.scores[0].weight[..., None, None],
            "fc2.weight": ours.scores[2].weight[..., None, None],
        }
    )
    assert_close(ours(x), theirs(x))


def test_a_ring_joins_the_ends():
    places = band(6, 3, shared=True, ring=True)
    assert places[0].tolist() == [1, 2, -1, -1, -1, 0]
    assert places[5].tolist() == [2, -1, -1, -1, 0, 1]


def test_another_order_is_the_same_gate_of_reordered_channels(x):
    order = torch.randperm(12)
    ours = gate(ECA)
    ordered = ours(x[:, order])
    ours.scores.places = neighbours.reordered(ours.scores.places, order)
    assert_close(ours(x)[:, order], ordered)


def test_arms_of_a_seed_start_with_the_same_convolutions():
    arms = [neighbours.network(arm, "mixed", seed=3) for arm in neighbours.ARMS["mixed"]]
    first = {n: p for n, p in arms[0].state_dict().items() if ".scores." not in n}
    for model in arms:
        state = model.state_dict()
        assert all(torch.equal(state[name], kept) for name, kept in first.items())
    orders = [neighbours.network(neighbours.SHUFFLED, "mixed", seed=3) for _ in range(2)]
    one, two = ([m.places for m in model.modules() if isinstance(m, Pattern)] for model in orders)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], band(12, 3, shared=True))


@pytest.mark.parametrize(("colours", "arm"), [("mixed", "none"), ("apart", "diagonal")])
def test_nothing_sees_both_a_digit_and_the_cue(colours, arm):
    """Not without a gate, and not with a diagonal one where the filters keep colours apart."""
    images, _ = cue_strip(64, training=False)
    other_cue, other_digits = images.clone(), images.clone()
    other_cue[:, 2, :, 16:] *= -1
    other_digits[:, :2, :, :8] = images[:, :2, :, :8].roll(1, dims=0)
    layers = neighbours.network(arm, colours, seed=0).eval().layers
    digits, cue = ((layers(images) != layers(x)).any(0) for x in (other_digits, other_cue))
    assert digits.any() and cue.any() and not (digits & cue).any()


def test_shuffling_a_trained_network_leaves_it_as_it_was():
    model = neighbours.network(ECA, "mixed", seed=0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = cue_strip(40, training=False)
    found = neighbours.shuffled(model, [0, 1], data, orders=2, seed=0)
    assert len(found) == 2 and all(0 <= share <= 1 for share in found)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_attacks_turn_one_knob():
    cells = {
        f"{colours}: {arm}": {"arm": arm, "colours": colours, "steps": 7, "lr": 0.03, "orders": 5}
        for colours, arms in neighbours.ARMS.items()
        for arm in (*arms, neighbours.SHUFFLED)
    }
    jobs = []

    def each(work, given, what):
        jobs.extend(given)
        return [{"right": 0.5} for _ in given]

    found = neighbours.attacks(each, cells, seeds=2, many=3, longer=70)
    assert {len(runs) for attack in found[6:] for runs in attack["came"].values()} == {3}
    assert len(found) == 10 and all(attack["came"] for attack in found)
    for job in jobs:
        cell = cells.get(f"{job['colours']}: {job['arm']}")
        changed = {name for name in job if cell and job[name] != cell.get(name)} - {"orders"}
        assert not job["orders"] and (cell is None or len(changed - {"seed"}) <= 1)
