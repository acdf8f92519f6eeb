"""For pytest: only tests on the device run, and what it cannot run is skipped with its reason.

These tables are the one place where anything is left out. A test or a cell is skipped when it calls
one of `CALLS`, whatever its name, so that a new one needs no entry; `NAMES` holds patterns of the
names of tests, `CELLS` patterns of cells that fail: in their code, or in what they say.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections import Counter
from typing import Any

import pytest

_COMPILERS = "compilers and exporters trace below the simulation"
CALLS = {
    ("torch", "compile"): _COMPILERS,
    ("torch.compiler", "reset"): _COMPILERS,
    ("torch.export", "export"): _COMPILERS,
    ("torch.onnx", "export"): _COMPILERS,
    ("torch.nn.attention.flex_attention", "flex_attention"): _COMPILERS,
    ("torch.nn.attention.bias", "causal_lower_right"): (
        "PyTorch's CausalBias cannot be used while operators are intercepted"
    ),
}
NAMES = {
    r"calls_one_kernel": (
        "attention runs as PyTorch's formula, and not by one of CUDA's fused kernels"
    ),
    r"no_storage_is_shared|saved_one_by_one|stands_in_two_places": (
        "its tensors have no storage that could be pointed at"
    ),
    r"tracers_without_values|under_every_tracer": (
        "FakeTensorMode and make_fx intercept operators themselves, as the simulation does"
    ),
}
CELLS = {
    r"torch\.export\.export|InferenceSession": _COMPILERS,  # what they use was not defined
    r"autocast[\s\S]*affine_grid": (
        "below the simulation, autocast does not reach the operators that others are made of"
    ),
    r"assert slower\[": "its times are none of a GPU",
    r"invalid python storage": "its tensors have no storage that could be pointed at",
}
PREFIX = "not simulated: "


def pytest_configure() -> None:
    """Replace the calls before a test module imports them."""
    for (place, name), why in CALLS.items():
        module = importlib.import_module(place)
        setattr(module, name, _skipping(getattr(module, name), PREFIX + why))


def _skipping(function: Any, why: str) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Outside a test, a library may decorate a function of its own.
        if "(call)" in os.environ.get("PYTEST_CURRENT_TEST", ""):
            pytest.skip(why)
        return function(*args, **kwargs)

    return call


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, deselected = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        on_device = "simulated" in item.keywords or parameters.get("device") == "cuda"
        (kept if on_device else deselected).append(item)
        for pattern, why in NAMES.items():
            if re.search(pattern, item.name):
                item.add_marker(pytest.mark.skip(reason=PREFIX + why))
    config.hook.pytest_deselected(items=deselected)
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    for why, count in Counter(reason.removeprefix("Skipped: ") for reason in reasons).items():
        if why.startswith(PREFIX):
            terminalreporter.write_line(f"{count} tests {why}")
