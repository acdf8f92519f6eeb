"""What the studies of squeeze-and-excitation are made of."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from attnbook.datasets import cue_strip as cue_strip_data
from attnbook.studies import cue_strip, difference, excitation, textures


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


def test_variants_differ_from_the_published_form_in_what_they_say():
    x = torch.randn(3, 16, 4, 4)
    with torch.no_grad():
        gates = {name: variant(16).gate(x) for name, variant in excitation.VARIANTS.items()}
    assert_close(gates["softmax"].sum(1), torch.ones(3, 1, 1))
    assert_close(gates["softmax times C"].sum(1), torch.full((3, 1, 1), 16.0))
    assert gates["no squeeze"].shape == x.shape
    assert gates["ReLU"].min() >= 0 > gates["tanh"].min()


def test_patches_of_both_parts_have_every_class_and_no_common_noise():
    for training in (True, False):
        images, labels = textures.patches(24, training=training)
        assert images.shape == (24, 1, 24, 24)
        assert labels.bincount().tolist() == [2] * 12
    assert not torch.equal(images, textures.patches(24, training=True)[0])


def test_own_gates_put_back_change_nothing_and_ones_take_them_away():
    torch.manual_seed(0)
    model = textures.ResidualNetwork(cue_strip.GATES["squeeze-and-excitation"]).eval()
    bare = textures.ResidualNetwork(cue_strip.GATES["none"]).eval()
    state = model.state_dict()
    bare.load_state_dict({k: v for k, v in state.items() if ".fc1." not in k and ".fc2." not in k})
    images, _ = textures.patches(12, training=False)
    chosen = textures.replacements(model, images, images)
    with torch.no_grad():
        assert_close(textures.logits_with_gates(model, images, chosen["as it is"]), model(images))
        assert_close(textures.logits_with_gates(model, images, chosen["ones"]), bare(images))
        assert_close(model(images), model(images))  # no hook is left behind


def test_by_class_of_constant_classes_and_of_no_classes():
    labels = torch.arange(12) % 3
    sd, share = textures.by_class(torch.eye(3)[labels], labels)
    assert share == 1 and sd == pytest.approx(3**-0.5, abs=1e-4)
    assert textures.by_class((torch.arange(12) // 3).float()[:, None], labels) == (0, 0)
