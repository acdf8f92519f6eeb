"""For nbval: a cell that fails because it asks for what cannot run here is skipped, and named."""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

from .limits import CELLS, PREFIX

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
REFUSED = re.compile(rf"^NotSimulated: ({PREFIX}.*)$", re.MULTILINE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn such a failure into a skip."""
    report = yield
    if report.failed and call.excinfo is not None:
        failure = call.excinfo.value
        said = COLOURS.sub("", str(getattr(failure, "inner_traceback", "")))
        refused = REFUSED.search(said)
        why = refused and refused[1]
        for pattern, reason in CELLS.items():
            if re.search(pattern, getattr(failure, "source", "") + said):
                why = PREFIX + reason
        if why:
            report.outcome = "skipped"
            report.longrepr = (str(item.path), 0, f"Skipped: {item.path.stem}, {item.name}: {why}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every cell that was left out."""
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(report.longrepr[2].removeprefix("Skipped: "))
