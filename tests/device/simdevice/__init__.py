"""A simulated CUDA device for a machine that has none; ../README.md says what it can show.

Once this is imported, `torch.cuda.is_available()` is True, and a tensor on "cuda" is a tensor on
the real `torch.device("cuda:0")` for autograd, the dispatcher and the reader. Its numbers lie on
the CPU and are computed there.

    shim.cpp     makes a CPU build of PyTorch believe in the device; compiled by ../__main__.py
    tensors.py   the tensors, and what becomes of an operator on them
    rules.py     what CUDA checks where tensors on two devices meet
    kernels.py   how an operator is computed: its random numbers, its rounding
    runtime.py   torch.cuda, and the clocks
    limits.py    for pytest: which tests run on the device, and which cannot
    kernel.py    for chapters: a study's quick version, and calls that cannot be simulated
    cells.py     for nbval: a cell that makes such a call is skipped
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path


def _load_shim() -> ctypes.CDLL:
    """Load the shim, and what it is linked against, before torch has asked for CUDA."""
    if "torch" in sys.modules:
        raise RuntimeError("simdevice has to be imported before torch, which asks for CUDA once")
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise ImportError("torch is not installed")
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(Path(torch.origin).parent / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(os.environ["SIMDEVICE_SHIM"])


_shim = _load_shim()

from . import runtime  # noqa: E402
from .state import state  # noqa: E402

# "own": the device draws other numbers than the CPU with the same seed, as CUDA does, and does not
# advance the CPU's generator. "cpu": it draws the CPU's, for comparisons.
state.random = os.environ.get("SIMDEVICE_RANDOM", "own")
# None: the CPU's numbers. "ulp": float32 sums, matrix products, transcendental functions ... come
# out up to 2 units in the last place off where they are not exact, as from another kernel; the same
# each time, but for operators that add in no fixed order. "tf32": besides, convolutions round their
# inputs to 10 bits, as cuDNN does by default on an A100 or L4 (a T4 has no TF32).
state.rounding = os.environ.get("SIMDEVICE_ROUNDING") or None
state.seed = int(os.environ.get("SIMDEVICE_SEED", "0"))  # another one, other last places

runtime.install(_shim)

if "SIMDEVICE_CHAPTER" in os.environ and "ipykernel_launcher" in sys.orig_argv:
    from . import kernel

    kernel.install()
