"""The networks of `small_data` again, trained on images that are moved at random."""

from __future__ import annotations

from typing import Any

from attnbook.studies import main
from attnbook.studies.small_data import QUICK, curves


def run(*, seeds: int, plan: list[list[int]], rates: list[float], tuning: int) -> dict[str, Any]:
    """Train both networks on n images, moved anew in every batch by up to 3 pixels each way."""
    return curves(shift=True, seeds=seeds, plan=plan, rates=rates, tuning=tuning)


FULL = {
    "seeds": 5,
    "plan": [[200, 1000], [4000, 1000]],
    "rates": [0.003, 0.01, 0.03],
    "tuning": 400,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
