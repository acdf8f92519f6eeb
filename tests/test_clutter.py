from __future__ import annotations

import pytest
import torch

from attnbook.studies import clutter


@pytest.fixture(scope="module")
def data():
    return clutter.cluttered(12, training=False, seed=0)


def test_pictures_hold_the_digit_and_pieces(data):
    pictures, labels, alone = data
    assert pictures.shape == alone.shape == (12, 1, 28, 28) and labels.shape == (12,)
    assert (pictures >= alone).all() and (pictures > alone).flatten(1).any(1).all()
    again, other = (clutter.cluttered(12, training=False, seed=seed) for seed in (0, 1))
    assert torch.equal(again[0], pictures) and not torch.equal(other[0], pictures)
    assert not torch.equal(clutter.cluttered(12, training=True, seed=0)[0], pictures)


def test_a_piece_is_laid_where_it_is_said_and_where_it_is_brighter():
    canvas = torch.zeros(2, 4, 4)
    canvas[0, 1, 2] = 0.9
    clutter.paste(canvas, torch.full((2, 2, 2), 0.5), torch.tensor([[1, 0], [2, 0]]))
    assert canvas[0, 1:3, 2:4].flatten().tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])
    assert canvas[1, :2, :2].min() == 0.5 and canvas[1].sum() == 2


def test_area_under_curve():
    high, low = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0, 3.0])
    assert clutter.area_under_curve(high, low) == pytest.approx((1 + 1.5) / 6)
    assert clutter.area_under_curve(torch.ones(3), torch.ones(2)) == 0.5


def test_placement_of_maps_that_know_everything_and_nothing(data):
    pictures, _, alone = data
    names = {"digit or piece", "digit or other pixel", "largest at the digit"}
    ink = (alone > clutter.INK).float()
    assert clutter.placement(ink, pictures, alone) == dict.fromkeys(names, 1)
    against = clutter.placement(1 - ink, pictures, alone)
    assert against["digit or piece"] == against["digit or other pixel"] == 0
    constant = clutter.placement(torch.ones(12, 1, 7, 7), pictures, alone)
    near = clutter.near_digit(alone).float().mean().item()
    assert constant["digit or piece"] == constant["digit or other pixel"] == 0.5
    assert constant["largest at the digit"] == pytest.approx(near, abs=1e-4)


def test_one_seed_gives_the_same_convolutions_with_every_gate():
    states = []
    for gate in clutter.GATES.values():
        torch.manual_seed(0)
        model = clutter.ClutterNetwork(gate)
        states.append({k: v for k, v in model.state_dict().items() if not k.startswith("gates")})
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())


def test_masks_start_half_open_and_are_replaced_for_one_measurement_only(data):
    torch.manual_seed(0)
    model = clutter.ClutterNetwork(clutter.GATES["channel, then spatial"]).eval()
    assert all((mask == 0.5).all() for mask, _ in clutter.masks(model, data[0]))
    logits = model(data[0])
    seen = []
    clutter.accuracy_with(lambda mask: seen.append(mask.shape) or 0 * mask, model, data)
    assert seen == [(12, 1, 14, 14), (12, 1, 14, 14), (12, 1, 7, 7)]
    assert torch.equal(model(data[0]), logits)
    flat, other = clutter.REPLACED.values()
    mask = torch.arange(8.0).view(2, 1, 2, 2)
    assert torch.equal(flat(mask).flatten(), torch.tensor([1.5, 5.5]))
    assert torch.equal(other(mask), mask[[1, 0]])
