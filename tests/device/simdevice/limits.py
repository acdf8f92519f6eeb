"""For pytest: only tests on the device run, and those that it cannot run are named with a reason.

This list is the one place where a test is left out. A pattern is searched in the test's name.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

NOT_SIMULATED = {
    r"compile|one_graph|export|onnx": (
        "compilers and exporters trace below the simulation, and their failure spoils what follows"
    ),
    r"flex_attention": "flex_attention is made for the compiler, and traces its function first",
    r"causal_mask_is_pytorchs_lower_right": (
        "PyTorch's CausalBias cannot be used while operators are intercepted"
    ),
    r"calls_one_kernel": (
        "attention runs as PyTorch's formula, and not by one of CUDA's fused kernels"
    ),
}
PREFIX = "not simulated: "


def reason(item: pytest.Item) -> str | None:
    """Return why a test cannot run on the simulated device."""
    found = (why for pattern, why in NOT_SIMULATED.items() if re.search(pattern, item.name))
    return next(found, None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, deselected = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        on_device = "simulated" in item.keywords or parameters.get("device") == "cuda"
        (kept if on_device else deselected).append(item)
        if on_device and (why := reason(item)):
            item.add_marker(pytest.mark.skip(reason=PREFIX + why))
    config.hook.pytest_deselected(items=deselected)
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    for why, count in Counter(r.removeprefix("Skipped: ") for r in reasons).items():
        if why.startswith(PREFIX):
            terminalreporter.write_line(f"{count} tests {why}")
