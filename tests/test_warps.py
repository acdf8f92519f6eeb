"""studies/warps.py: a transformer that does its work perfectly is measured as perfect."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attnbook import SpatialTransformer
from attnbook.studies import rotations, warps


class Undo(nn.Module):
    """A localisation network that knows the pose, and returns the map that undoes it."""

    def __init__(self, pose):
        super().__init__()
        inverse = torch.linalg.inv(pose[:, :, :2])
        self.theta = torch.cat([inverse, -inverse @ pose[:, :, 2:]], dim=-1)

    def forward(self, x):
        return self.theta.flatten(1)


@pytest.mark.parametrize("task", [warps.RTS, warps.R], ids=["RTS", "R"])
def test_what_undoes_the_pose_is_measured_as_perfect(task):
    digits, labels = torch.rand(50, 28, 28), torch.arange(50) % 5
    pose = warps.poses(task, 50, torch.Generator().manual_seed(0))
    perfect = SpatialTransformer(Undo(pose), size=(28, 28))
    found = warps.habits(perfect, task, digits, labels, pose)
    area = torch.linalg.det(pose[:, :, :2])
    assert found["turned"] < 0.1 and found["off centre"] < 1e-3 and found["mirrored"] == 0
    assert found["zoom"] == pytest.approx((1 / area).sqrt().mean().item(), abs=1e-3)


def test_a_digit_turned_clockwise_reads_downwards():
    """A bar to the right of the middle, turned clockwise by 90 degrees, lies below it."""
    bar = torch.zeros(1, 28, 28)
    bar[:, 13:15, 16:26] = 1
    pose = warps.poses(warps.R, 1, torch.Generator(), degrees=torch.tensor([90.0]))
    torch.testing.assert_close(warps.draw(bar, pose, 28)[0, 0], bar[0].rot90(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("study", [warps, rotations], ids=["warps", "rotations"])
def test_networks_are_equally_large(study):
    counts = [warps.parameters(network()) for network in study.NETWORKS.values()]
    assert max(counts) < 1.01 * min(counts)
