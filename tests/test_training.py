from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnbook.training import fit


def squared_error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(model(x), y)


@pytest.fixture
def line(device) -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 3, device=device)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]], device=device) + 3


def test_fit_learns_a_line(line, device):
    model = nn.Linear(3, 1).to(device)
    losses = fit(model, squared_error, line, steps=300, batch_size=16, lr=0.1)
    assert len(losses) == 300 and losses[-1] < 1e-3 < losses[0]
    torch.testing.assert_close(model.weight.cpu(), torch.tensor([[1, -2, 0.5]]), atol=0.05, rtol=0)
    assert not model.training


def test_fit_repeats_itself(line, device):
    def run(seed: int) -> list[float]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1).to(device)
        return fit(model, squared_error, line, steps=6, batch_size=16, lr=0.1, seed=seed)

    assert run(0) == run(0) != run(1)


def test_every_row_is_drawn_once_an_epoch():
    seen = []

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        seen.append(x)
        return model(x).sum() * 0

    fit(nn.Linear(1, 1), loss, (torch.arange(12.0)[:, None],), steps=8, batch_size=3, lr=0.1)
    assert torch.cat(seen).flatten().sort().values.tolist() == sorted([*range(12)] * 2)


def test_a_long_gradient_is_shortened(line):
    def huge(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return 1e6 * squared_error(model, x, y)

    class Watch(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.weight.grad is not None:
                norms.append(self.weight.grad.norm().item())
            return super().forward(x)

    norms: list[float] = []
    data = tuple(tensor.cpu() for tensor in line)
    fit(Watch(3, 1), huge, data, steps=6, batch_size=16, lr=0.01, clip=0.5)
    assert norms and max(norms) < 0.5 + 1e-4


def test_weight_decay_and_progress(line, capfd):
    model = nn.Linear(3, 1)
    before = model.weight.norm().item()
    data = tuple(tensor.cpu() for tensor in line)

    def nothing(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return model(x).sum() * 0

    options = {"steps": 20, "batch_size": 8, "lr": 0.1}
    fit(model, nothing, data, weight_decay=0.5, progress=True, **options)
    assert model.weight.norm().item() < 0.9 * before
    assert "/20 [" in capfd.readouterr().err


def test_bad_input():
    model, rows = nn.Linear(1, 1), torch.zeros(4, 1)
    with pytest.raises(ValueError, match=r"rows: all need the same number"):
        fit(model, squared_error, (rows, rows[:2]), steps=9, batch_size=1, lr=0.1)
    with pytest.raises(ValueError, match="steps=5: the learning rate needs at least 6"):
        fit(model, squared_error, (rows, rows), steps=5, batch_size=1, lr=0.1)
    with pytest.raises(ValueError, match="batch_size=5 does not fit 4 rows"):
        fit(model, squared_error, (rows, rows), steps=9, batch_size=5, lr=0.1)


WRONG = {
    "data has type Tensor, but must be a tuple of tensors": {"data": torch.zeros(4, 1)},
    "data\\[0\\] has type list, but must be a torch.Tensor": {"data": ([1.0], [2.0])},
    "steps=9.0 has type float": {"steps": 9.0},
    "batch_size=2.0 has type float": {"batch_size": 2.0},
    "lr='fast' has type str": {"lr": "fast"},
    "seed=0.5 has type float": {"seed": 0.5},
    "data\\[1\\] has 0 axes": {"data": (torch.zeros(4, 1), torch.tensor(1.0))},
    "batch_size=0 does not fit 4 rows": {"batch_size": 0},
    "steps=0: the learning rate": {"steps": 0},
    "lr=0 must be above 0": {"lr": 0},
    "clip=0 must be above 0": {"clip": 0},
    "weight_decay=-1 must be at least 0": {"weight_decay": -1},
    "data has tensors of \\[\\] rows": {"data": ()},
}


@pytest.mark.parametrize("message, change", WRONG.items(), ids=WRONG)
def test_wrong_arguments_are_named(message, change):
    rows = torch.zeros(4, 1)
    given = {"data": (rows, rows), "steps": 9, "batch_size": 1, "lr": 0.1} | change
    with pytest.raises((TypeError, ValueError), match=message):
        fit(nn.Linear(1, 1), squared_error, **given)


def test_batches_are_drawn_on_the_cpu_whatever_the_default_device_is():
    def run() -> list[float]:
        torch.manual_seed(0)
        model, x = nn.Linear(1, 1, device="cpu"), torch.arange(8.0, device="cpu")[:, None]
        return fit(model, squared_error, (x, x), steps=6, batch_size=3, lr=0.1)

    expected = run()
    with torch.device("meta"):
        assert run() == expected
