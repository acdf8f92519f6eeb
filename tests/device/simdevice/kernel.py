"""What differs from a GPU in a chapter: studies in their quick version, calls that are refused."""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.util
import sys
from typing import Any

import torch

from .limits import CALLS, PREFIX

STUDIES = "attnbook.studies"


class NotSimulated(Exception):
    """What a cell asks for cannot run here; `cells` counts that cell as skipped."""


def again(name: str, device: Any) -> str:
    """Run the quick version of a study on the device, in the place of the whole one."""
    study = importlib.import_module(f"{STUDIES}.{name}")
    runner = importlib.import_module(f"{STUDIES}.runner")
    found = study.run(runner.Each(device=str(device)), **study.QUICK)
    return f"{name}: its quick version, {len(found['comparisons'])} differences"


class Finder(importlib.abc.MetaPathFinder):
    """Puts `again` above into the package's studies, when a kernel imports them."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Return the spec of the studies, with what happens after they are loaded."""
        if name != STUDIES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            module.again = again

        spec.loader.exec_module = exec_module
        return spec


def causal_lower_right(queries: int, keys: int) -> torch.Tensor:
    """Return as a plain mask what PyTorch has as a class of its own."""
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def install() -> None:
    """Prepare a kernel, before a chapter imports anything."""
    sys.meta_path.insert(0, Finder())
    for (place, name), why in CALLS.items():
        module = importlib.import_module(place)
        stands_in = globals().get(name, _refusing(getattr(module, name), PREFIX + why))
        setattr(module, name, stands_in)


def _refusing(function: Any, why: str) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # A library may decorate a function of its own; a chapter's code is __main__.
        if sys._getframe(1).f_globals.get("__name__") == "__main__":
            raise NotSimulated(why)
        return function(*args, **kwargs)

    return call
