"""studies/warps.py: a transformer that does its work perfectly is measured as perfect."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attnbook import SpatialTransformer
from attnbook.studies import warps


class Undo(nn.Module):
    """A localisation network that knows the pose, and returns the map that undoes it."""

    def __init__(self, pose):
        super().__init__()
        inverse = torch.linalg.inv(pose[:, :, :2])
        self.theta = torch.cat([inverse, -inverse @ pose[:, :, 2:]], dim=-1)

    def forward(self, x):
        return self.theta.flatten(1)


@pytest.mark.parametrize("task", warps.TASKS.values(), ids=warps.TASKS)
def test_what_undoes_the_pose_is_measured_as_perfect(task):
    digits, labels = torch.rand(50, 14, 14), torch.arange(50) % 5
    pose = warps.poses(task, 50, torch.Generator().manual_seed(0))
    perfect = SpatialTransformer(Undo(pose), size=(14, 14))
    theta = perfect.theta(warps.draw(digits, pose, task.size))
    found = warps.habits(theta, pose, labels)
    area = torch.linalg.det(pose[:, :, :2])
    assert found["turned"] < 0.1 and found["off centre"] < 1e-3 and found["mirrored"] == 0
    assert found["zoom"] == pytest.approx((1 / area).sqrt().mean().item(), abs=1e-3)


def test_what_leaves_all_as_it_is_keeps_the_spread_of_the_angles():
    """Uniform to 45 degrees either way has a circular sd of 26.3 degrees, to 90 degrees 54.5."""
    for (name, task), spread in zip(
        warps.TASKS.items(), (26.3, 26.3, 54.5, 26.3, 26.3), strict=True
    ):
        angles = torch.linspace(-task.turn, task.turn, 2001).deg2rad()
        labels = torch.zeros(2001, dtype=torch.long)
        assert warps.angle_spread(angles, labels) == pytest.approx(spread, abs=0.06), name
        assert warps.untouched(task)["turned"] == pytest.approx(spread, abs=1.5), name


def test_a_digit_turned_clockwise_reads_downwards():
    """A bar to the right of the middle, turned clockwise by 90 degrees, lies below it."""
    bar = torch.zeros(1, 14, 14)
    bar[:, 6:8, 8:13] = 1
    pose = warps.poses(warps.TASKS["R"], 1, torch.Generator(), degrees=torch.tensor([90.0]))
    torch.testing.assert_close(warps.draw(bar, pose, 14)[0, 0], bar[0].rot90(-1), atol=1e-5, rtol=0)


def test_networks_take_as_many_multiply_adds():
    counts = [found["multiply-adds"] for found in warps.sizes().values()]
    assert all(0.99 * 60_000 < count < 1.01 * 60_000 for count in counts)


def test_scraps_darken_a_few_pixels_and_no_others():
    task = warps.TASKS["scraps"]
    digits = torch.ones(30, 14, 14)
    pose = warps.poses(task, 30, torch.Generator().manual_seed(0))
    bare = warps.draw(digits, pose, task.size)
    painted = warps.paint(digits, pose, task, torch.Generator().manual_seed(1))
    darker = (painted > bare).sum((1, 2, 3))
    assert (painted >= bare).all() and darker.max() <= task.scraps * warps.SCRAP**2
    assert (darker > 0).any()
    without = warps.paint(digits, pose, task._replace(scraps=0), torch.Generator())
    torch.testing.assert_close(without, bare)


def test_the_window_at_the_inks_middle_frames_a_blot():
    """A blot of 4 pixels a side, moved about, comes to lie in the middle of the window."""
    canvas = torch.zeros(1, 1, 21, 21)
    canvas[:, :, 12:16, 5:9] = 1
    window, _ = warps.centred(nn.Sequential())
    expected = torch.zeros(14, 14)
    expected[5:9, 5:9] = 1
    torch.testing.assert_close(window(canvas)[0, 0], expected, atol=1e-5, rtol=0)


def test_the_largest_piece_alone_is_framed():
    """Pixels that touch at a corner are one piece, those of two pictures never are."""
    canvases = torch.zeros(3, 1, 21, 21)
    canvases[1, :, 12:16, 5:9] = 0.2  # 16 pixels
    canvases[1, :, 16:18, 9] = 1  # two more, of which one touches a corner
    alone = canvases.clone()
    canvases[1, :, 2:6, 14:18] = 1  # 16 pixels, but darker
    canvases[1, :, 8] = 0.1  # paper
    canvases[::2, :, :15] = 1
    kept = warps.LargestPiece()(canvases)
    assert torch.equal(kept[1], alone[1]) and torch.equal(kept[::2], canvases[::2])
    pale = torch.full((2, 1, 5, 5), 0.1)
    assert torch.equal(warps.LargestPiece()(pale), pale)  # no ink: as it is
    (piece, _), (narrow, _) = (warps.centred_on_piece(n, nn.Sequential) for n in (14, 12))
    middle, _ = warps.centred(nn.Sequential())
    expected = middle.theta(alone)[1]
    torch.testing.assert_close(piece.theta(canvases)[1], expected)
    zoomed = expected.clone()
    zoomed[:, :2] *= 12 / 14
    torch.testing.assert_close(narrow.theta(canvases)[1], zoomed)


def test_digits_farther_from_the_middle_take_as_many_multiply_adds_for_each_arm():
    for task, arms in warps.INSTEAD[warps.FARTHER].items():
        fcn, st = (warps.work(arm(), warps.TASKS[task]) for arm in arms.values())
        assert fcn == pytest.approx(st, rel=0.02)


def test_a_mirrored_map_has_the_angle_of_what_it_mirrors():
    angles = torch.linspace(-1, 1, 9)
    turn = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], -1)
    turn = torch.cat([turn.unflatten(1, (2, 2)), torch.zeros(9, 2, 1)], -1)
    torch.testing.assert_close(warps.angle(turn), angles)
    torch.testing.assert_close(warps.angle(turn * torch.tensor([-1.0, 1, 1])), angles)


def test_only_what_reads_is_normalised():
    looks, reads = warps.NETWORKS["RTS"]["ST-CNN, batch norm"]()
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert sum(isinstance(layer, norms) for layer in reads) == 3
    assert not any(isinstance(layer, norms) for layer in looks.modules())


def test_before_the_training_no_frame_is_nearer_to_its_digit_than_the_middle(monkeypatch):
    monkeypatch.setattr(warps, "TESTING", 100)
    cell = {"task": "RTS", "arm": "ST-FCN", "lr": 0.01, "seed": 0}
    found = warps.nearer(**cell, steps=60, early=0)
    assert found["step 0"] == 0 < found["step 60"] < 1
    assert warps.nearer(**cell, steps=60, early=59)["step 59"] > 0
