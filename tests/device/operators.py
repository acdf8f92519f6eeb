"""PyTorch's own operators on the simulated device, by `python tests/device operators`; in minutes.

Each operator of its database runs on its sample inputs, and values and gradients are compared with
the CPU's. Then it runs with one tensor left on the CPU: whether that raises is compared with
FakeTensorMode, PyTorch's own model of devices. What differs is printed, to be read: some operators
differ by nature (memory that nobody wrote, layouts that the simulation lacks).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from simdevice.state import state
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

SAMPLES = 4  # of each operator
PLACES = 3  # in which a tensor is left on the CPU


class Sample:
    """An operator and one of its sample inputs, to be run on any device."""

    def __init__(self, operator: Any, sample: Any) -> None:
        self.operator = operator
        self.leaves, self.spec = tree_flatten((sample.input, sample.args, sample.kwargs))
        self.tensors = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def run(self, device: str, move: Callable[[int, Tensor], Tensor]) -> list[Any]:
        """Return all results and the gradients of the inputs, as `move` has placed them."""
        made = [move(i, x) if i in self.tensors else x for i, x in enumerate(self.leaves)]
        made = [device if str(x) == "cpu" else x for x in made]  # that of a factory
        first, args, kwargs = tree_unflatten(made, self.spec)
        torch.manual_seed(0)
        results = tree_leaves(self.operator(first, *args, **kwargs))
        roots = [x.abs().sum() for x in results if isinstance(x, Tensor) and x.requires_grad]
        if roots and "svd" not in self.operator.name:  # its vectors' signs are free
            torch.autograd.backward(roots)
        return results + [x.grad for x in made if isinstance(x, Tensor)]

    def run_on(self, device: str) -> list[Any]:
        return self.run(device, lambda _, x: x.detach().to(device).requires_grad_(x.requires_grad))

    def compare(self) -> None:
        for a, b in zip(self.run_on("cpu"), self.run_on("cuda"), strict=True):
            if isinstance(a, Tensor) and not a._is_zerotensor():
                assert b.device.type == "cuda", "not on the device"
                assert_close(b.detach().cpu(), a.detach(), equal_nan=True)

    def run_mixed(self, odd: int) -> None:
        self.run("cuda", lambda i, x: x.detach().to("cpu" if i == odd else "cuda"))

    def run_fake(self, odd: int) -> None:
        def empty(i: int, x: Tensor) -> Tensor:
            device = "cpu" if i == odd else "cuda:0"
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)

        with FakeTensorMode():
            self.run("cuda:0", empty)


def raised(function: Callable[..., Any], *arguments: Any) -> str:
    """Return what a function raises, in a line, or nothing."""
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:90]}"
    return ""


def main() -> None:
    warnings.simplefilter("ignore")
    state.random = "cpu"
    equal = agreed = 0
    differences: dict[str, str] = {}
    for operator in op_db:
        if torch.float32 not in operator.dtypes:
            continue
        inputs = operator.sample_inputs(
            "cpu", torch.float32, requires_grad=operator.supports_autograd
        )
        for found in itertools.islice(inputs, SAMPLES):
            sample = Sample(operator, found)
            strided = all(sample.leaves[i].layout is torch.strided for i in sample.tensors)
            if not strided or raised(sample.run_on, "cpu"):
                continue
            problem = raised(sample.compare)
            equal += not problem
            if problem:
                differences.setdefault(operator.formatted_name, problem)
            for odd in sample.tensors[:PLACES] if len(sample.tensors) > 1 else ():
                ours, theirs = raised(sample.run_mixed, odd), raised(sample.run_fake, odd)
                agreed += bool(ours) == bool(theirs)
                if bool(ours) != bool(theirs):
                    name = f"{operator.formatted_name}, mixed"
                    differences.setdefault(name, f"{ours!r}, by FakeTensorMode {theirs!r}")
    print(*(f"{name}: {problem}" for name, problem in differences.items()), sep="\n")
    print(f"{equal} samples equal the CPU's; {agreed} mixed calls judged as by FakeTensorMode")


if __name__ == "__main__":
    main()
