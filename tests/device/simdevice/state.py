"""What the parts of the simulation share: its settings, and what it has counted."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class State:
    """Settings (as in `simdevice.install`) and counts of one process."""

    random: str = "own"
    rounding: str | None = None
    seed: int = 0
    operators: Counter[str] = field(default_factory=Counter)  # what ran on the device
    pending: int = 0  # operators launched since the host last waited for the device
    clock_reads: list[str] = field(default_factory=list)  # where a clock was read meanwhile
    allocated: int = 0  # bytes
    peak: int = 0

    def ran(self, name: str) -> None:
        if not self.operators:
            report("used", name)
        self.operators[name] += 1

    def clock_read(self, place: str) -> None:
        report("clock", place)
        self.clock_reads.append(place)


def report(kind: str, text: str) -> None:
    """Tell the process that started all others; kernels end by a signal, so at once."""
    if path := os.environ.get("SIMDEVICE_REPORT"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{kind}\t{Path.cwd().name}\t{text}\n")


state = State()
