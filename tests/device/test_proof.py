"""The simulation itself: planted bugs raise on it, and right code gives the CPU's numbers.

These run on the simulated device alone, by `python tests/device proof`; conftest.py sees to that.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.benchmark import Timer

from simdevice.state import state  # isort: skip (a folder of its own on the path)

pytestmark = pytest.mark.simulated
DEVICE = torch.device("cuda")
TWO_DEVICES = "Expected all tensors to be on the same device"
NO_NUMPY = "can't convert cuda:0 device type tensor to numpy"
WRONG_GENERATOR = "Expected a 'cuda' device type for generator but found 'cpu'"
WRONG_INDEX = "indices should be either on cpu or on the same device"


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Let the device draw the CPU's numbers and round as it does, unless a test says otherwise."""
    before = state.random, state.rounding, state.seed
    state.random, state.rounding, state.seed = "cpu", None, 0
    torch.manual_seed(0)
    yield
    state.random, state.rounding, state.seed = before
    plt.close("all")


# --- Bugs -----------------------------------------------------------------------------------------


class Forgetful(nn.Module):
    """A plain attribute is no buffer, and does not move."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def values_set(x: Tensor) -> None:
    x[torch.tensor([0, 1])] = torch.ones(2, 4)


def added_to(y: Tensor, x: Tensor) -> None:
    y += x


def square() -> Tensor:
    return torch.randn(4, 4)


def row() -> Tensor:
    return torch.zeros(1, 4, dtype=torch.long)


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def images(x: Tensor) -> Tensor:
    return image().to(x.device)


def heads(x: Tensor) -> Tensor:
    return torch.randn(2, 2, 5, 8).to(x.device)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Each is right while x lies on the CPU, and wrong on the device: what was left behind is named by
# the call that makes it, without a device. Beside it, what CUDA says.
BUGS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    # Arithmetic
    "add": (lambda x: x + torch.ones(4), TWO_DEVICES),
    "multiply in place": (lambda x: x.mul_(square()), TWO_DEVICES),
    "add in place to what was left": (lambda x: added_to(square(), x), TWO_DEVICES),
    "times a number of the device": (lambda x: square() * x.sum(), TWO_DEVICES),
    "arange added": (lambda x: x + torch.arange(4), TWO_DEVICES),
    "arange compared": (
        lambda x: torch.arange(4) <= torch.arange(4, device=x.device)[:, None],
        TWO_DEVICES,
    ),
    "logical and": (lambda x: (x > 0) & torch.ones(4, 4, dtype=torch.bool), TWO_DEVICES),
    "polar": (lambda x: torch.polar(torch.ones(4, 4), x), TWO_DEVICES),
    "eye subtracted": (lambda x: torch.diag_embed(x) - torch.eye(4), TWO_DEVICES),
    "padded": (lambda x: F.pad(x, (1, 1)) + F.pad(square(), (1, 1)), TWO_DEVICES),
    "from numpy": (lambda x: x - torch.from_numpy(np.ones(4, dtype=np.float32)), TWO_DEVICES),
    "cat": (lambda x: torch.cat([x, square()]), TWO_DEVICES),
    "stack": (lambda x: torch.stack([x, square()]), TWO_DEVICES),
    "where, condition": (lambda x: torch.where(square() > 0, x, x), TWO_DEVICES),
    "masked_fill": (lambda x: x.masked_fill(square() > 0, 0.0), "expected self and mask to be on"),
    # Products
    "matrix times matrix": (lambda x: x @ square(), TWO_DEVICES),
    "matrix times vector": (lambda x: x @ torch.ones(4), TWO_DEVICES),
    "einsum": (lambda x: torch.einsum("ij,jk->ik", x, square()), TWO_DEVICES),
    "bias of a product": (lambda x: F.linear(x, x, torch.zeros(4)), TWO_DEVICES),
    "solve": (lambda x: torch.linalg.solve(x, square()), TWO_DEVICES),
    "cdist": (lambda x: torch.cdist(x, square()), TWO_DEVICES),
    "of integers": (lambda x: x.long() @ x.long(), "\"mm_cuda\" not implemented for 'Int64'"),
    # Indices
    "index of the device": (lambda x: square()[(x[0] > 9).long()], WRONG_INDEX),
    "mask of the device": (lambda x: square()[x > 0], WRONG_INDEX),
    "values set": (values_set, TWO_DEVICES),
    "gather": (lambda x: x.gather(0, row()), TWO_DEVICES),
    "scatter": (lambda x: x.scatter(0, row(), 1.0), TWO_DEVICES),
    "index_select": (lambda x: x.index_select(0, torch.tensor([0])), TWO_DEVICES),
    "index_add": (lambda x: x.index_add_(0, torch.tensor([0]), x[:1].clone()), TWO_DEVICES),
    "take_along_dim": (lambda x: x.take_along_dim(row(), 0), "Expected tensor to have cuda:0"),
    "embedding": (lambda x: F.embedding(torch.tensor([0]), x), TWO_DEVICES),
    "quantile": (lambda x: x.quantile(torch.tensor([0.5])), "must be on the same device"),
    "searchsorted": (lambda x: torch.searchsorted(x, square()), TWO_DEVICES),
    # Layers and losses
    "layer": (nn.Linear(4, 4), TWO_DEVICES),
    "input of a layer": (lambda x: nn.Linear(4, 4, device=x.device)(square()), TWO_DEVICES),
    "module that forgets": (lambda x: Forgetful().to(x.device)(x), TWO_DEVICES),
    "convolution": (lambda x: F.conv2d(images(x), torch.randn(5, 3, 3, 3)), TWO_DEVICES),
    "layer_norm": (lambda x: F.layer_norm(x, (4,), torch.ones(4)), TWO_DEVICES),
    "batch_norm": (
        lambda x: F.batch_norm(images(x), torch.zeros(3), torch.ones(3)),
        TWO_DEVICES,
    ),
    "attention, mask": (
        lambda x: F.scaled_dot_product_attention(
            heads(x), heads(x), heads(x), torch.ones(5, 5, dtype=torch.bool)
        ),
        TWO_DEVICES,
    ),
    "grid_sample, grid": (
        lambda x: F.grid_sample(images(x), torch.zeros(2, 4, 4, 2), align_corners=False),
        TWO_DEVICES,
    ),
    "labels": (lambda x: F.cross_entropy(x, torch.zeros(4).long()), TWO_DEVICES),
    "targets": (lambda x: F.mse_loss(x, square()), TWO_DEVICES),
    "probabilities": (
        lambda x: F.binary_cross_entropy(x.sigmoid(), square().sigmoid()),
        TWO_DEVICES,
    ),
    # Comparisons
    "equal": (lambda x: torch.equal(x, square()), TWO_DEVICES),
    "allclose": (lambda x: torch.allclose(x, square()), TWO_DEVICES),
    "assert_close": (lambda x: assert_close(x, x.cpu()), "attribute 'device' do not match"),
    # Random numbers
    "randn": (lambda x: torch.randn(3, generator=seeded(), device=x.device), WRONG_GENERATOR),
    "randperm": (lambda x: torch.randperm(3, generator=seeded(), device=x.device), WRONG_GENERATOR),
    "randint": (
        lambda x: torch.randint(3, (3,), generator=seeded(), device=x.device),
        WRONG_GENERATOR,
    ),
    "uniform_": (lambda x: x.uniform_(generator=seeded()), WRONG_GENERATOR),
    "for the CPU": (
        lambda x: torch.randn(3, generator=torch.Generator(x.device)),
        "Expected a 'cpu' device type for generator but found 'cuda'",
    ),
    # NumPy and Matplotlib
    "numpy": (lambda x: x.numpy(), NO_NUMPY),
    "asarray": (np.asarray, NO_NUMPY),
    "array of elements": (lambda x: np.array([x[0, 0], x[0, 1]]), NO_NUMPY),
    "array as operand": (lambda x: x + np.ones(4), NO_NUMPY),
    "plot": (lambda x: plt.plot(x[0]), NO_NUMPY),
    "plot of elements": (lambda x: plt.plot([x[0, 0], x[0, 1]]), NO_NUMPY),
    "imshow": (plt.imshow, NO_NUMPY),
    "bar": (lambda x: plt.bar(range(4), x[0]), NO_NUMPY),
    "fill_between": (lambda x: plt.fill_between(range(4), x[0], x[1]), NO_NUMPY),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what NumPy says of such operands
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_seen_on_the_device_and_not_on_the_cpu(name):
    bug, message = BUGS[name]
    bug(square())
    with pytest.raises((RuntimeError, TypeError, AssertionError), match=re.escape(message)):
        bug(square().to(DEVICE))


# --- Right code -----------------------------------------------------------------------------------


def set_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[0], y[torch.tensor([1])], y[torch.tensor([True, False, False, False])] = 1, 2, 3
    y[torch.tensor([3])] = torch.tensor(5.0)
    return y


def gru(x: Tensor) -> Tensor:
    torch.manual_seed(1)
    layer = nn.GRU(4, 3, batch_first=True, bidirectional=True).to(x.device)
    return layer(x[None])[0]


def complex_numbers(x: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.reshape(4, 2, 2))
    return torch.view_as_real(torch.polar(torch.ones_like(x), x) * pairs[:, :1])


# The first of these look wrong, and are allowed on CUDA.
RIGHT: dict[str, Callable[[Tensor], Tensor]] = {
    "CPU index": lambda x: x[torch.tensor([0, 2])],
    "CPU mask": lambda x: x[torch.eye(4, dtype=torch.bool)],
    "lists": lambda x: x[[0, 2], [1, 3]],
    "times a CPU number": lambda x: x * torch.tensor(2.0),
    "CPU number minus": lambda x: torch.tensor(2.0) - x,
    "where with a CPU number": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "masked_fill with a CPU number": lambda x: x.masked_fill(x > 0, torch.tensor(0.0)),
    "copy_ from the CPU": lambda x: torch.empty_like(x).copy_(torch.ones(4, 4)),
    "fill_ with a CPU number": lambda x: torch.empty_like(x).fill_(torch.tensor(1.0)),
    "NumPy's numbers": lambda x: x * np.float64(2) + np.float32(1) * x,
    "set in place": set_in_place,
    "softmax": lambda x: x.softmax(-1).log(),
    "half softmax": lambda x: F.softmax(x.half(), -1, dtype=torch.float32),
    "sort": lambda x: x.sort(-1).values.cumsum(0),
    "topk": lambda x: x.topk(2).values,
    "complex": complex_numbers,
    "conjugate": lambda x: torch.view_as_complex(x.reshape(4, 2, 2)).conj().abs(),
    "inverse": lambda x: torch.linalg.inv(x) @ x,
    "determinant": torch.linalg.det,
    "variance": lambda x: x.std(-1) + x.var(0),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "views": lambda x: x.T.reshape(2, 8)[:, ::2].unflatten(1, (2, 2)).permute(2, 0, 1),
    "unfold": lambda x: F.pad(x, (1, 1)).unfold(-1, 3, 1).sum(-1),
    "roll and flip": lambda x: x.roll(1, 0).flip(1),
    "nonzero": lambda x: (x > 0).nonzero(),
    "unique": lambda x: (x > 0).long().unique(return_counts=True)[1],
    "one_hot": lambda x: F.one_hot(x.argmax(-1), 4),
    "convolution": lambda x: F.conv2d(x[None, None], x[None, None, :3, :3], padding=1),
    "pooling": lambda x: F.max_pool2d(x[None], 2) + F.avg_pool2d(x[None], 2),
    "grid_sample": lambda x: F.grid_sample(
        x[None, None],
        x[None, :, :2, None].expand(1, 4, 2, 2).contiguous(),
        align_corners=False,
    ),
    "interpolate": lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
    "norms": lambda x: F.layer_norm(x, (4,)) + F.batch_norm(x, None, None, training=True),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "causal attention": lambda x: F.scaled_dot_product_attention(
        x[None], x[None], x[None], is_causal=True
    ),
    "grouped queries": lambda x: F.scaled_dot_product_attention(
        x.expand(1, 4, 4, 4), x.expand(1, 2, 4, 4), x.expand(1, 2, 4, 4), enable_gqa=True
    ),
    "GRU": gru,
    "vmap": torch.vmap(lambda row: row @ row),
    "jacrev": torch.func.jacrev(lambda y: (y**3).sum(0)),
    "hessian": lambda x: torch.autograd.functional.hessian(lambda y: (y**4).sum(), x),
    "checkpoint": lambda x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_code_gives_the_cpus_values_and_gradients(name):
    held = square()
    on_cpu, on_device = held.clone().requires_grad_(), held.to(DEVICE).requires_grad_()
    expected, found = RIGHT[name](on_cpu), RIGHT[name](on_device)
    assert found.device.type == "cuda"
    assert_close(found.cpu(), expected)
    if expected.requires_grad:
        expected.square().abs().sum().backward()
        found.square().abs().sum().backward()
        assert_close(on_device.grad.cpu(), on_cpu.grad, rtol=1e-4, atol=1e-5)


def training(device: str) -> tuple[list[float], nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, 32),
        nn.LayerNorm(32),
        nn.GELU(),
        nn.Linear(32, 3),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=30)
    pictures, labels = torch.randn(64, 1, 8, 8).to(device), torch.randint(3, (64,)).to(device)
    losses = []
    for step in range(30):
        rows = torch.arange(8) + 8 * (step % 8)
        loss = F.cross_entropy(model(pictures[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses, model


def test_training_gives_the_cpus_losses_by_the_fast_optimizer():
    state.operators.clear()
    assert_close(training("cuda")[0], training("cpu")[0], atol=1e-4, rtol=0)
    assert any(name.startswith("_foreach") for name in state.operators)


def test_a_model_goes_to_the_cpu_and_to_meta_and_back():
    model = training("cuda")[1].eval()
    home = copy.deepcopy(model).cpu()
    assert {p.device.type for p in home.parameters()} == {"cpu"}
    again = copy.deepcopy(home).to(DEVICE)
    again.load_state_dict(home.state_dict())
    pictures = torch.randn(2, 1, 8, 8, device=DEVICE)
    assert torch.equal(again(pictures), model(pictures))
    assert {p.device.type for p in again.parameters()} == {"cuda"}
    assert next(copy.deepcopy(model).to("meta").parameters()).is_meta


# --- Numbers, memory, time ------------------------------------------------------------------------


def test_the_device_draws_numbers_of_its_own():
    state.random = "own"
    torch.manual_seed(1)
    own, cpu = torch.randn(5, device=DEVICE).cpu(), torch.randn(5)
    torch.manual_seed(1)
    assert torch.equal(torch.randn(5), cpu)  # not advanced by the device
    assert torch.equal(torch.randn(5, device=DEVICE).cpu(), own)
    assert not torch.equal(own, cpu)


def convolved(device: torch.device | str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, kernel = torch.randn(1, 1, 9, 9).to(device), torch.randn(1, 1, 3, 3).to(device)
    return F.conv2d(x, kernel).cpu(), (x[0, 0] @ x[0, 0]).cpu()


@pytest.mark.parametrize(("rounding", "bounds"), [("ulp", (1e-9, 1e-5)), ("tf32", (1e-5, 1e-2))])
def test_other_roundings_are_as_far_off_as_they_say(rounding, bounds, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    convolution, product = convolved("cpu")
    state.rounding = rounding
    found, found_product = convolved(DEVICE)
    assert bounds[0] < (found - convolution).abs().max() < bounds[1]
    assert 0 < (found_product - product).abs().max() < 1e-5  # no TF32 unless asked for
    assert torch.equal(convolved(DEVICE)[0], found)
    state.seed = 1
    assert not torch.equal(convolved(DEVICE)[0], found)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert (convolved(DEVICE)[0] - convolution).abs().max() < 1e-5


def test_memory_is_counted_and_freed():
    before = torch.cuda.memory_allocated()
    held = torch.empty(1000, 1000, device=DEVICE)
    assert torch.cuda.memory_allocated() - before == 4_000_256  # in blocks of 512 bytes
    rows = held[:10]
    assert torch.cuda.memory_allocated() - before == 4_000_256
    del held, rows
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize(
    ("lines", "reads"),
    [
        ("torch.cuda.synchronize(); x @ x; time.perf_counter()", 1),
        ("x @ x; torch.cuda.synchronize(); time.perf_counter()", 0),
        ("(x @ x).sum().item(); time.perf_counter()", 0),
        ("(x @ x).cpu(); time.perf_counter()", 0),
        ("Timer('x @ x', globals={'x': x}).timeit(3)", 0),
    ],
)
def test_a_clock_read_before_the_device_has_finished_is_seen(lines, reads, monkeypatch):
    monkeypatch.setattr(state, "clock_reads", [])
    monkeypatch.delenv("SIMDEVICE_REPORT")
    x = square().to(DEVICE)
    exec(
        compile(f"import time\n{lines}", "/planted", "exec"),
        {"x": x, "torch": torch, "Timer": Timer},
    )
    assert len(state.clock_reads) == reads


def test_on_the_cpu_a_layer_is_moved_within_its_own_graph():
    layer = nn.Sequential(nn.Linear(2, 2))
    held = layer(torch.ones(1, 2))
    assert layer.half()[0].weight.dtype == torch.float16 and held.grad_fn is not None
    del held
    assert layer.to(DEVICE)[0].weight.device.type == "cuda"


CELLS = [
    "import torch\nfrom torch.nn.attention.bias import causal_lower_right",
    "torch.compile(torch.relu)(torch.ones(1))",
    "causal_lower_right(1, 2).tolist()",
    "1 / 0",
]


def test_a_cell_is_skipped_only_for_what_cannot_run_here(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, CELLS)])
    nbformat.write(notebook, tmp_path / "planted.ipynb")
    chapter = {"SIMDEVICE_CHAPTER": "1", "PYTEST_PLUGINS": "simdevice.cells", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax"]
    found = subprocess.run(
        [*command, "--nbval-current-env", "planted.ipynb"],
        cwd=tmp_path,
        env={**os.environ, **chapter},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "1 failed, 2 passed, 1 skipped" in found
    assert "planted, Cell 1: not simulated: compilers" in found and "ZeroDivisionError" in found
