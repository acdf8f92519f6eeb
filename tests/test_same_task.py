"""The study of all mechanisms on one task: who is compared with whom, and on which digits."""

from __future__ import annotations

import pytest
import torch

from attnbook.studies import same_task


def test_learning_rates_are_chosen_without_the_test_digits(monkeypatch):
    seen = {"learned": [], "held back": []}

    def train(network, data, *, seed, steps, lr):
        seen["learned"].append(data[0])
        return lr

    def right(model, data):
        seen["held back"].append(data[0])
        return model

    monkeypatch.setattr(same_task, "train", train)
    monkeypatch.setattr(same_task, "right", right)
    found = same_task.by_rate(same_task.Network, [0.25, 0.5], seeds=2, steps=6)
    assert found == {"0.25": 0.25, "0.5": 0.5}
    (pool, _), (test, _) = same_task.split()
    for learned, held_back in zip(seen["learned"], seen["held back"], strict=True):
        assert torch.equal(torch.cat([held_back, learned]), pool)
        together = torch.cat([learned, held_back, test])
        assert len(together.flatten(1).unique(dim=0)) == len(together)


@pytest.mark.parametrize("name", same_task.NETWORKS)
def test_every_network_maps_images_to_logits(name):
    assert same_task.NETWORKS[name]()(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_a_seed_draws_the_same_network_digits_and_poses():
    learned, _ = same_task.split()
    first, second, other = (
        same_task.train(same_task.Network, learned, seed=seed, steps=6) for seed in (0, 0, 1)
    )
    weights = [model.logits.weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_digit_has_one_pose_in_every_test():
    learned, test = same_task.split()
    model = same_task.train(same_task.Network, learned, seed=0, steps=6)
    assert same_task.right(model, test) == same_task.right(model, test)
