"""Draws the pages without torch: stand-ins for what the package imports and they do not need.

The pages show stored outputs, and of the package its docstrings and signatures. So any name asked
of a stand-in is a class of that name, which can be a base class, an annotation or a decorator. What
is installed is used: in the full environment nothing is stood in for.
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

# What modules of attnbook import when they are imported. What an extension of the site imports has
# to be real: it belongs in the group `site` of pyproject.toml.
STOOD_IN = {"PIL", "cycler", "matplotlib", "numpy", "scipy", "torch", "tqdm"}
# Installed with Jupyter, but of no use without the package named.
NEEDS = {"matplotlib_inline": "matplotlib"}
# Modules, and not classes, though they are asked for as attributes of the one above them.
MODULES = {"torch.fx", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils"}
# Functions, and not classes: they are called with what they decorate.
DECORATORS = {"torch.fx.wrap"}


class StandInClass:
    """What a stand-in has in place of every class and function."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, decorated: object) -> object:
        return decorated


class StandIn(ModuleType):
    """A module with every name."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if f"{self.__name__}.{name}" in MODULES:
            return importlib.import_module(f"{self.__name__}.{name}")
        if f"{self.__name__}.{name}" in DECORATORS:
            return lambda decorated: decorated
        made = type(name, (StandInClass,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class Finder(MetaPathFinder, Loader):
    """Finds a stand-in for any module of some packages."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        stands_in = name.partition(".")[0] in self.packages
        return ModuleSpec(name, self, is_package=True) if stands_in else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def install(packages: set[str]) -> None:
    """Put stand-ins in place of these packages."""
    sys.meta_path.insert(0, Finder(packages))


def read(module: str, packages: set[str]) -> None:
    """Import a module of attnbook among stand-ins.

    Raises:
        ExtensionError: it cannot be read so; the message says why and what to do.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ExtensionError(
            f"{module} imports {error.name}, which is not installed here: name it in STOOD_IN in "
            "book/_ext/standins.py, or in the group `site` of pyproject.toml"
        ) from error
    except Exception as error:
        raise ExtensionError(
            f"{module} cannot be read without {', '.join(sorted(packages))}, for which it finds "
            f"stand-ins ({error}): what it computes when it is imported belongs in a function"
        ) from error


def leave_out_inherited(
    app: Sphinx, what: str, name: str, obj: type, options: object, *signature: str | None
) -> tuple[str | None, ...]:
    """Show no arguments of a constructor that is torch's: a stand-in does not know them."""
    inherited = what == "class" and not obj.__init__.__module__.startswith("attnbook")
    return (None, None) if inherited else signature


def setup(app: Sphinx) -> dict[str, bool]:
    """Put stand-ins in place of what is missing, and read with them what the pages show."""
    if find_spec("attnbook") is None:
        sys.path.insert(0, str(app.srcdir))
    missing = {name for name in STOOD_IN if find_spec(name) is None}
    missing |= {name for name, needed in NEEDS.items() if needed in missing}
    if missing:
        install(missing)
        for page in sorted(Path(app.srcdir, "book", "api").glob("*.md")):
            for module in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8")):
                read(module, missing)
    app.connect("autodoc-process-signature", leave_out_inherited)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
