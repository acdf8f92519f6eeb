from __future__ import annotations

import pytest
import torch

from attnbook.studies import clutter


@pytest.fixture(scope="module")
def data():
    return clutter.cluttered(12, part="test", seed=0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return clutter.network(clutter.CHANNEL_FIRST).eval()


def test_pictures_hold_the_digit_and_pieces(data):
    pictures, labels, alone = data
    assert pictures.shape == alone.shape == (12, 1, 28, 28) and labels.shape == (12,)
    assert (pictures >= alone).all() and (pictures > alone).flatten(1).any(1).all()
    again, other = (clutter.cluttered(12, part="test", seed=seed) for seed in (0, 1))
    assert torch.equal(again[0], pictures) and not torch.equal(other[0], pictures)


def test_parts_share_no_digit():
    images, _ = clutter.small_digits()
    assert len(images) == max(end for _, end in clutter.PARTS.values())
    parts = []
    for part in clutter.PARTS:
        _, _, alone = clutter.cluttered(99, part=part, seed=0)
        parts.append({tuple(digit[digit > 0].tolist()) for digit in alone})
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_a_piece_is_laid_where_it_is_said_and_where_it_is_brighter():
    canvas = torch.zeros(2, 4, 4)
    canvas[0, 1, 2] = 0.9
    clutter.paste(canvas, torch.full((2, 2, 2), 0.5), torch.tensor([[1, 0], [2, 0]]))
    assert canvas[0, 1:3, 2:4].flatten().tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])
    assert canvas[1, :2, :2].min() == 0.5 and canvas[1].sum() == 2


def test_area_under_curve_counts_pairs():
    high, low = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0, 3.0])
    assert clutter.area_under_curve(high, low) == pytest.approx((1 + 1.5) / 6)
    assert clutter.area_under_curve(torch.ones(3), torch.ones(2)) == 0.5


def test_scores_of_maps_that_know_everything_and_nothing(data):
    pictures, _, alone = data
    ink = (alone > clutter.INK).float()
    flat = torch.ones(1, 1, 7, 7)
    found = clutter.scored([ink, 1 - ink, flat], pictures, alone)
    assert found["digit or piece"] == [1, 0, 0.5]
    right, _, everywhere = found["largest at the digit"]
    near = clutter.near_digit(alone).float().mean().item()
    assert right == 1 and everywhere == pytest.approx(near, abs=1e-4)


def test_the_best_map_by_place_beats_half_and_sees_no_picture(data):
    pictures, _, alone = data
    (score,) = clutter.scored([clutter.best_by_place(6)], pictures, alone)["digit or piece"]
    assert clutter.best_by_place(6).shape == (1, 1, 28, 28) and 0.5 < score < 1


def test_one_seed_gives_the_same_convolutions_in_every_arm():
    states, shared = [], ("stem", "branches", "logits")
    for shortcuts in (False, True):
        for arm in clutter.GATES:
            torch.manual_seed(0)
            state = clutter.network(arm, shortcuts=shortcuts).state_dict()
            states.append({n: v for n, v in state.items() if n.startswith(shared)})
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())


def test_a_shortcut_is_added_before_the_relu_and_the_gate_can_stand_behind_it(data):
    for behind_relu in (False, True):
        model = clutter.network("no gate", shortcuts=True, behind_relu=behind_relu).eval()
        for branch in model.branches:
            torch.nn.init.zeros_(branch[0].weight)  # what is left is the shortcut
        last, given = model.blocks(data[0])
        assert all((one == 0).all() for one in given)
        assert last.abs().sum() > 0 and bool((last >= 0).all()) is not behind_relu


def test_the_digit_is_read_from_each_channels_maximum_or_from_its_mean(data):
    for mean_head, how in ((False, "amax"), (True, "mean")):
        model = clutter.network("no gate", mean_head=mean_head).eval()
        pooled = getattr(model.blocks(data[0])[0], how)((2, 3))
        torch.testing.assert_close(model(data[0]), model.logits(pooled))


def test_masks_start_half_open_and_are_replaced_for_one_measurement_only(data, model):
    pictures, labels, _ = data
    assert all((mask == 0.5).all() for mask, *_ in clutter.masks(model, pictures))
    shifted = clutter.network(clutter.CHANNEL_FIRST, weight=1.0).eval()
    assert any((mask != 0.5).any() for mask, *_ in clutter.masks(shifted, pictures))
    logits, seen = model(pictures), []
    usual = [torch.full((1, 1, 14, 14), 0.2), torch.full((1, 1, 7, 7), 0.3)]
    clutter.accuracy_with(
        lambda mask, average: seen.append((mask.shape, average.mean().item())) or 0 * mask,
        usual, model, pictures, labels,
    )  # fmt: skip
    assert seen == [((12, 1, 14, 14), pytest.approx(0.2)), ((12, 1, 7, 7), pytest.approx(0.3))]
    assert torch.equal(model(pictures), logits)


def test_what_stands_in_for_a_mask():
    average, flat, other = clutter.REPLACED.values()
    mask, usual = torch.arange(8.0).view(2, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert torch.equal(average(mask, usual), torch.ones(2, 1, 2, 2))
    assert torch.equal(flat(mask, usual).flatten(), torch.tensor([1.5, 5.5]))
    assert torch.equal(other(mask, usual), mask[[1, 0]])


def test_gates_that_do_not_look_halve_the_map_at_the_start():
    x = torch.randn(2, 3, 7, 7)
    fixed = clutter.FixedMask()
    assert torch.equal(clutter.Half()(x), x / 2)
    torch.testing.assert_close(fixed(x), x / 2)
    with torch.no_grad():
        fixed.logits[..., :2, :2] = 100.0  # a corner of the wider map, one place of the smaller
    ratio = fixed(x) / x
    assert (ratio[:, :, 0, 0] > 0.99).all() and torch.allclose(
        ratio.sum((2, 3)), torch.tensor(25.0)
    )


def test_another_start_or_one_halved_map_changes_that_and_nothing_else():
    def made(**options):
        torch.manual_seed(0)
        return clutter.network("no gate", **options).eval()

    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        usual, half = made()(x), made(readout=0.5)(x)
        halved = made(second="half")
        torch.testing.assert_close(half, usual / 2)
        torch.testing.assert_close(halved.blocks(x)[0], made().blocks(x)[0] / 2)
