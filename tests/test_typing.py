"""What an editor knows of the package: a user's script, read by pyright."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import attnbook
from attnbook.module import Module

SCRIPT = """\
import torch
from torch import Tensor, nn
from attnbook import CBAM, CrossAttention, FloaterEncoding, MultiHeadAttention, SpatialTransformer
from attnbook import init_identity, padding_mask

layer = MultiHeadAttention(8, num_heads=2)
x = torch.randn(3, 5, 8)
mask = padding_mask(torch.tensor([5, 4, 2]), keys=5)
y: Tensor = layer(x, mask=mask)
context, weights = layer.attend(x, is_causal=True)
p_q, p_k, p_v = FloaterEncoding(dim=8)(5)
y = CrossAttention(8, head_dim=4)(x, x + p_q, mask)
image: Tensor = CBAM(channels=16)(torch.randn(2, 16, 7, 7))
localisation = nn.Sequential(nn.Flatten(), init_identity(nn.Linear(64, 6)))
y = SpatialTransformer(localisation, size=(4, 4))(torch.randn(2, 1, 8, 8))
"""

MISTAKES = {
    "layer(x, mask=mask)": ("layer(x, maks=mask)", 'No parameter named "maks"'),
    "CBAM(channels=16)": (
        'CBAM(channels="16")',
        'cannot be assigned to parameter "channels" of type "int"',
    ),
    "p_q, p_k, p_v =": ("p_q, p_k =", "Tuple size mismatch"),
}


def complaints(folder: Path, script: str) -> list[tuple[int, str]]:
    """Return the line and the words of each of pyright's errors."""
    if shutil.which("pyright") is None:
        pytest.skip("pyright is not installed")
    package = Path(attnbook.__file__).parent.parent
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(package)]}))
    (folder / "script.py").write_text(script)
    told = subprocess.run(
        ["pyright", "--outputjson", "--pythonpath", sys.executable, "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(told.stdout)["generalDiagnostics"]
    return [
        (error["range"]["start"]["line"], error["message"])
        for error in found
        if error["severity"] == "error"
    ]


def test_three_mistakes_in_a_users_script_are_found_and_nothing_else(tmp_path):
    exec(SCRIPT, {})  # it runs
    assert complaints(tmp_path, SCRIPT) == []
    script, expected = SCRIPT, {}
    for right, (wrong, words) in MISTAKES.items():
        expected[SCRIPT[: SCRIPT.index(right)].count("\n")] = words
        script = script.replace(right, wrong)
    found = dict(complaints(tmp_path, script))
    assert found.keys() == expected.keys()
    for line, words in expected.items():
        assert words in found[line]


def modules() -> dict[str, type[nn.Module]]:
    public = {name: getattr(attnbook, name) for name in attnbook.__all__}
    return {
        name: thing
        for name, thing in public.items()
        if inspect.isclass(thing) and issubclass(thing, nn.Module)
    }


def test_every_module_has_typed_calls(tmp_path):
    script = ["from attnbook import *", "from typing import Any", "def use("]
    script += [f"    m{number}: {name}," for number, name in enumerate(modules())]
    script += ["    x: Any) -> None:"]
    first = len(script)
    script += [f"    m{number}(x, maks=x)" for number in range(len(modules()))]
    lines = {line for line, words in complaints(tmp_path, "\n".join(script)) if "maks" in words}
    assert lines == set(range(first, first + len(modules())))


@pytest.mark.parametrize("module", modules().values(), ids=modules())
def test_a_constructor_says_what_each_of_its_arguments_is(module):
    """An editor shows the docstring of __init__: without one, that of nn.Module."""
    assert issubclass(module, Module)
    (owner,) = [kind for kind in module.__mro__ if "__init__" in vars(kind)][:1]
    said = inspect.getdoc(owner.__init__)
    assert said, f"{module.__name__}.__init__ has no docstring"
    for name in list(inspect.signature(module).parameters):
        assert f"{name}:" in said, f"{module.__name__}: {name}"
