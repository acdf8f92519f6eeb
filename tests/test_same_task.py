"""The study of all mechanisms on one task: its arms differ in one thing, and none sees a test."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from attnbook.studies import same_task
from attnbook.studies.same_task import (
    ARMS,
    AS_NOTHING,
    BOTH_GATES,
    MASK_WEIGHT,
    MEAN,
    MECHANISMS,
    NOTHING,
    SELF,
    WARP,
    WIDER,
    ZOOM,
)
from attnbook.training import fit

SETTINGS = {**same_task.QUICK, "attack_seeds": 1, "other_seeds": 2, "rates": [0.01, 0.1]}


class Recorder:
    """Stands for the runner: keeps the jobs, and says that the least rate is the best."""

    def __init__(self):
        self.jobs = {}

    def __call__(self, work, jobs, what):
        self.jobs.setdefault(what, []).extend(jobs)
        return [{"right": 1 - abs(job["lr"] - 0.032), "curve": [1.0]} for job in jobs]


@pytest.fixture(scope="module")
def planned():
    recorder = Recorder()
    found = same_task.run(recorder, **SETTINGS)
    return recorder.jobs, found


def seeded(arm, **how):
    torch.manual_seed(0)
    return same_task.network(arm, **how)


@pytest.mark.parametrize("size", [14, 28])
@pytest.mark.parametrize("arm", [*ARMS, ZOOM])
def test_every_network_maps_images_to_logits(arm, size):
    images = torch.randn(2, 1, size, size)
    assert same_task.network(arm, size=size)(images).shape == (2, 10)


def test_arms_differ_in_the_mechanism_alone():
    usual = seeded(NOTHING).state_dict()
    for arm in ARMS:
        state = seeded(arm).state_dict()
        if arm == WIDER:
            assert state.keys() == usual.keys()
        else:
            assert all(torch.equal(state[name], value) for name, value in usual.items()), arm
            added = state.keys() - usual.keys()
            assert all("attention" in name or name.startswith("front") for name in added)
            assert bool(added) is (arm != NOTHING)


def test_a_mechanism_that_starts_as_nothing_changes_nothing_at_first():
    images = torch.rand(3, 1, 14, 14)
    without = seeded(NOTHING)(images)
    for arm in (*MECHANISMS, WARP):
        start = "" if arm == WARP else AS_NOTHING
        torch.testing.assert_close(seeded(arm, start=start)(images), without)
        if arm != WARP:
            assert (seeded(arm)(images) - without).abs().max() > 1e-3, arm


def test_masks_start_half_open_or_as_pytorchs_layers():
    x = torch.randn(2, 16, 7, 7)
    usual, other = (
        seeded(BOTH_GATES, start=start).first.attention.spatial for start in ("", MASK_WEIGHT)
    )
    assert (usual.gate(x) == 0.5).all() and (other.gate(x) != 0.5).any()
    assert torch.equal(usual.conv.conv.weight, other.conv.conv.weight)


def test_the_wider_network_has_as_many_weights_as_the_largest_mechanism():
    counts = {arm: same_task.cost(arm)[0] for arm in ARMS}
    largest = max(counts[arm] for arm in (*MECHANISMS, WARP))
    assert counts[WIDER] == pytest.approx(largest, rel=0.01)
    assert counts[NOTHING] == min(counts.values())


def test_multiply_adds_of_a_layer_that_can_be_counted_by_hand():
    without = same_task.cost(NOTHING)[1]
    assert same_task.cost(MEAN)[1] - without == 16**2 + 32**2
    places, channels = (49, 16), (16, 32)
    assert same_task.cost(SELF)[1] - without == sum(
        4 * n * c**2 + 2 * n**2 * c for n, c in zip(places, channels, strict=True)
    )
    localisation = 10**2 * 8 * 25 + 3**2 * 16 * 8 * 9 + 144 * 24 + 24 * 6
    assert same_task.cost(WARP)[1] - without == localisation + 8 * 14**2


def test_the_added_mean_is_the_same_at_all_places():
    torch.manual_seed(0)
    layer, x = same_task.AddedMean(4), torch.randn(2, 4, 3, 5)
    added = rearrange(layer(x) - x, "b c h w -> b c (h w)")
    torch.testing.assert_close(added, added[..., :1].expand(-1, -1, 15))
    torch.testing.assert_close(added[..., 0], layer.linear(x.mean((2, 3))))


def test_places_read_from_all_places_in_any_order():
    torch.manual_seed(0)
    layer, x = same_task.SelfAttentionOverPlaces(8), torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(layer(x.flip(2)), layer(x).flip(2))
    changed = x.clone()
    changed[:, :, 2, 4] += 1
    assert ((layer(changed) - layer(x)).abs().amax(1) > 1e-4).all()


def test_parts_share_no_digit():
    parts = [images for images, _ in same_task.digits(28).values()]
    assert [len(part) for part in parts] == [3000, 1000, 1000]
    together = torch.cat(parts).flatten(1)
    assert len(together.unique(dim=0)) == len(together)
    small, large = (same_task.digits(size)["test"][0] for size in (14, 28))
    torch.testing.assert_close(small[:, 3, 5], large[:, 6:8, 10:12].mean((1, 2)))


def test_all_arms_see_the_same_pictures_of_training_digits(monkeypatch):
    drawn, draw = [], same_task.draw

    def recorded(images, pose, size):
        drawn.append((images, draw(images, pose, size)))
        return drawn[-1][1]

    monkeypatch.setattr(same_task, "draw", recorded)
    for arm, optimizer in ((NOTHING, "AdamW"), (WARP, "AdamW"), (BOTH_GATES, "SGD")):
        same_task.train(arm, seed=3, steps=6, lr=0.01, optimizer=optimizer)
    first, *others = (drawn[n : n + 6] for n in range(0, 18, 6))
    for other in others:
        assert all(torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    pool = {tuple(image.flatten().tolist()) for image in same_task.digits(14)["training"][0]}
    assert all(tuple(image.flatten().tolist()) in pool for batch, _ in first for image in batch)


def test_sgd_takes_the_rows_and_rates_of_the_books_loop():
    """On a line the slope is known: the weight falls by the sum of what momentum carries."""
    seen = {}
    for step in (same_task.descend, fit):
        model, rows = nn.Linear(1, 1, bias=False), []

        def loss(model, x, rows=rows):
            rows.append(x.flatten().tolist())
            return 0.5 * model.weight.sum() + 0 * model(x).sum()

        nn.init.zeros_(model.weight)
        losses = step(
            model, loss, (torch.arange(8.0)[:, None],), steps=7, batch_size=4, lr=0.1, seed=1
        )
        seen[step] = rows
        assert len(losses) == 7 and not model.training
        if step is same_task.descend:
            weight = model.weight.item()
    assert seen[same_task.descend] == seen[fit]
    weights, rate = nn.Parameter(torch.zeros(1)), []
    plain = torch.optim.SGD([weights], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        plain, 0.1, total_steps=7, pct_start=0.2, cycle_momentum=False
    )
    for _ in range(7):
        rate.append(plain.param_groups[0]["lr"])
        plain.step()
        schedule.step()
    speed, moved = 0.0, 0.0
    for lr in rate:
        speed = 0.9 * speed + 0.5
        moved -= lr * speed
    assert weight == pytest.approx(moved, rel=1e-5)


def test_the_share_is_that_of_the_digits_named():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return F.one_hot(torch.full((len(x),), 3), 10).float()

    labels = same_task.digits(14)["validation"][1][:300]
    share = same_task.right(Three(), 14, "validation", 300)
    assert share == pytest.approx((labels == 3).float().mean().item(), abs=1e-4)


def test_rates_are_chosen_on_held_back_digits_with_seeds_of_their_own(planned):
    jobs, found = planned
    assert {job["measured_on"] for job in jobs["tuning"]} == {"validation"}
    assert min(job["seed"] for job in jobs["tuning"]) >= 1000
    assert not any(
        "measured_on" in job for what, of in jobs.items() if "attack" in what for job in of
    )
    assert {job["seed"] for job in jobs["results"]} == {0, 1}
    assert {job["lr"] for job in jobs["results"]} == set(found["chosen"].values())


def test_an_attack_changes_one_thing(planned):
    jobs, found = planned
    usual = {job["arm"]: {**job, "seed": None} for job in jobs["results"]}
    usual[ZOOM] = {**usual[NOTHING], "arm": ZOOM}
    changed = {}
    for attack in found["attacks"]:
        what = f"attack: {attack['tried']}"
        assert {job["arm"] for job in jobs[what]} == set(attack["came"])
        changed[attack["tried"]] = {
            name
            for job in jobs[what]
            for name, value in job.items()
            if value != usual[job["arm"]].get(name) and name != "seed"
        }
    assert list(changed.values()) == [
        set(), {"steps"}, set(), {"start"}, {"start"}, {"lr"}, {"lr"}, {"size"},
        {"optimizer", "lr"}, {"steps"}, {"steps"},
    ]  # fmt: skip
    for attack in found["attacks"][-2:]:
        assert set(attack["came"]) == {*ARMS, ZOOM}
        assert {len(shares) for shares in attack["came"].values()} == {len(found["seeds"])}
        assert len(attack["comparisons"]) == 15
    anew = found["attacks"][-1]
    tuned = {job["arm"] for job in jobs["tuning"] if job["steps"] == SETTINGS["longer"]}
    assert tuned == {*ARMS, ZOOM}
    for job in jobs[f"attack: {anew['tried']}"]:
        scores = anew["tuning"][job["arm"]]
        assert scores[f"{job['lr']:g}"] == max(scores.values())


def test_each_arm_is_compared_with_nothing_and_with_its_rival():
    shares = {arm: [0.5 + n / 100, 0.6 + n / 50] for n, arm in enumerate(ARMS)}
    found = same_task.compared(shares)
    assert len(found) == 13
    assert {name for name in found if name.endswith("- nothing")} == {
        f"{arm} - nothing" for arm in ARMS[1:]
    }
    assert found["CBAM - added mean"]["mean"] == pytest.approx(4.5, abs=1e-3)
    assert all(one["p_holm"] >= one["p"] for one in found.values())


def test_every_start_is_said(planned):
    _, found = planned
    assert set(found["starts"]) == set(found["results"]) == set(ARMS)
    assert 0.1 <= found["guess"] < 0.15
