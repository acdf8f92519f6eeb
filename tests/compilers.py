"""The compilers that tests of sequences meet."""

from __future__ import annotations

import pytest

# Compiling takes minutes, so it is marked slow.
inductor = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        # Importing it uses TorchScript, which warns that it is deprecated.
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        # Said of rotations, which then run in PyTorch's own kernel.
        pytest.mark.filterwarnings(
            "ignore:Torchinductor does not support code generation for comp"
        ),
    ],
)
