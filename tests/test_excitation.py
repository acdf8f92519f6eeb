"""What the studies of squeeze-and-excitation are made of."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from attnbook.datasets import cue_strip as cue_strip_data
from attnbook.studies import cue_strip, difference, excitation


def test_difference_is_the_paired_interval_of_scipy():
    runs, baseline = [0.91, 0.95, 0.90, 0.97], [0.90, 0.91, 0.92, 0.93]
    mean, half = difference(runs, baseline)
    interval = stats.ttest_rel(runs, baseline).confidence_interval(0.95)
    assert mean - half == pytest.approx(interval.low, abs=1e-6)
    assert mean + half == pytest.approx(interval.high, abs=1e-6)


@pytest.mark.parametrize("runs, baseline", [([0.5], [0.4]), ([0.5, 0.6], [0.4]), ([], [])])
def test_difference_needs_pairs(runs, baseline):
    message = f"runs has {len(runs)} numbers and baseline {len(baseline)}"
    with pytest.raises(ValueError, match=message):
        difference(runs, baseline)


@pytest.mark.parametrize("gate", ["none", "constant"])
def test_no_unit_sees_both_a_digit_and_the_cue(gate):
    images, _ = cue_strip_data(64, training=False)
    other_cue, other_digits = images.clone(), images.clone()
    other_cue[:, 2, :, 16:] *= -1
    other_digits[..., :8] = images[..., :8].roll(1, dims=0)
    layers = cue_strip.GatedNetwork(cue_strip.GATES[gate]).eval().layers
    seen = [
        (layers(images) != layers(changed)).any(0).any(0).any(0)
        for changed in (other_digits, other_cue)
    ]
    assert all(changes.any() for changes in seen)
    assert not (seen[0] & seen[1]).any()


def test_a_nearer_strip_is_seen_beside_the_digits():
    """The control of the control: with no columns between, some unit sees both."""
    images = cue_strip.nearer(cue_strip_data(64, training=False)[0], 0)
    other_cue, other_digits = images.clone(), images.clone()
    other_cue[:, 2, :, 8:] *= -1
    other_digits[..., :8] = images[..., :8].roll(1, dims=0)
    layers = cue_strip.GatedNetwork(cue_strip.GATES["none"], width=20).eval().layers
    seen = [
        (layers(images) != layers(changed)).any(0).any(0).any(0)
        for changed in (other_digits, other_cue)
    ]
    assert (seen[0] & seen[1]).any()


def test_the_rivals_are_what_their_names_say():
    x = torch.randn(3, 32, 4, 4)
    one, added = cue_strip.OneNumber(32)(x) / x, cue_strip.AddedContext(32)(x) - x
    assert_close(one, one[:, :1, :1, :1].expand_as(one), rtol=1e-3, atol=1e-3)
    assert_close(added, added[..., :1, :1].expand_as(added), rtol=1e-3, atol=1e-3)
    assert (added[:, 0] != added[:, 1]).all()
    assert cue_strip.NoSqueeze(32).gate(x).shape == x.shape
    assert isinstance(cue_strip.added_last(16), torch.nn.Identity)


def test_patches_of_all_parts_have_every_class_and_no_pixel_in_common():
    for part, count in excitation.PARTS.items():
        images, labels = excitation.patches(part)
        assert images.shape == (count, 1, 24, 24)
        assert labels.bincount().tolist() == [count // 12] * 12
    first = [excitation.squares(part)[0] for part in excitation.PARTS]
    assert sum(map(len, first)) == 100  # astronaut: 512 x 512 pixels
    assert len(torch.cat(first).flatten(1).unique(dim=0)) == 100


def test_partners_are_of_the_same_class_or_of_another():
    labels = torch.arange(24)[torch.randperm(24)] % 3
    same, other = excitation.partners(labels)
    assert (labels[same] == labels).all() and (labels[other] != labels).all()
    assert (same != torch.arange(24)).all() and same.unique().numel() == 24


def test_own_gates_put_back_change_nothing_and_ones_take_them_away():
    torch.manual_seed(0)
    model = excitation.ResidualNetwork(cue_strip.GATES["squeeze-and-excitation"]).eval()
    bare = excitation.ResidualNetwork(cue_strip.GATES["none"]).eval()
    state = model.state_dict()
    bare.load_state_dict({k: v for k, v in state.items() if ".fc1." not in k and ".fc2." not in k})
    images, labels = (part[:12] for part in excitation.patches("test"))
    labels = torch.arange(12) % 3
    chosen = excitation.replacements(model, images, images, labels)
    with torch.no_grad():
        own = excitation.logits_with_gates(model, images, chosen["its own"])
        assert_close(own, model(images))
        assert_close(excitation.logits_with_gates(model, images, chosen["ones"]), bare(images))
        assert_close(model(images), own)  # no hook is left behind
    for mean, number, mixed in zip(
        *(chosen[name] for name in ("mean of all images", "one number a layer", "means, shuffled")),
        strict=True,
    ):
        assert_close(number, mean.mean().expand_as(mean))
        assert_close(mixed.sort().values, mean.sort().values)


def test_by_class_of_constant_classes_and_of_no_classes():
    labels = torch.arange(12) % 3
    sd, share = excitation.by_class(torch.eye(3)[labels], labels)
    assert share == 1 and sd == pytest.approx(3**-0.5, abs=1e-4)
    assert excitation.by_class((torch.arange(12) // 3).float()[:, None], labels) == (0, 0)
