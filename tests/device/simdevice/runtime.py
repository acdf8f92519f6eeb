"""torch.cuda as on a machine with one GPU, and clocks that notice work still pending."""

from __future__ import annotations

import ctypes
import functools
import re
import time
import timeit
import traceback
import types
from typing import Any

import torch

from .state import state
from .tensors import SimMode, SimTensor

NAME = "Simulated GPU"
SEED_OFFSET = 7919
# Where the reading of a clock is meant: a notebook's cells, the project's own files, PyTorch's and
# Python's timers (which wait for the device), and the proof. Elsewhere it is no measurement.
WATCHED = re.compile(
    r"ipykernel_\d|<ipython|/planted|/(attnbook|benchmarks)/(?!\.venv)|timeit|torch/utils/benchmark"
)


def install(shim: ctypes.CDLL) -> None:
    """Make the device visible to everything that asks torch for one; once a process."""
    shim.simdevice_register_guard()
    generator = torch.Generator(device="cuda")
    properties = types.SimpleNamespace(name=NAME, major=8, minor=0, total_memory=16 * 2**30)

    def manual_seed(seed: int) -> None:
        offset = SEED_OFFSET if state.random == "own" else 0
        ctypes.c_uint64.in_dll(shim, "simdevice_seed_offset").value = offset
        generator.manual_seed(seed)

    replacements = {
        # Is there a device, and which?
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: (8, 0),
        "get_device_properties": lambda *_: properties,
        "is_bf16_supported": lambda *_: True,
        # Waiting for it
        "synchronize": _synchronize,
        # Its memory
        "empty_cache": lambda: None,
        "memory_allocated": lambda *_: state.allocated,
        "memory_reserved": lambda *_: state.allocated,
        "max_memory_allocated": lambda *_: state.peak,
        "max_memory_reserved": lambda *_: state.peak,
        "reset_peak_memory_stats": lambda *_: setattr(state, "peak", state.allocated),
        "mem_get_info": lambda *_: (8 * 2**30, 16 * 2**30),
        # Its random numbers
        "default_generators": (generator,),
        "manual_seed": manual_seed,
        "manual_seed_all": manual_seed,
        "seed": generator.seed,
        "seed_all": generator.seed,
        "initial_seed": generator.initial_seed,
        "get_rng_state": lambda *_: generator.get_state(),
        "set_rng_state": lambda rng_state, *_: generator.set_state(rng_state),
        "get_rng_state_all": lambda: [generator.get_state()],
        "set_rng_state_all": lambda rng_states: generator.set_state(rng_states[0]),
    }
    for name, replacement in replacements.items():
        setattr(torch.cuda, name, replacement)
    torch.accelerator.synchronize = _synchronize
    manual_seed(torch.initial_seed())

    torch.backends.cudnn.is_acceptable = lambda tensor: False  # its kernels read device memory
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda"), in two steps
    torch.nn.Module._apply = _swapping(torch.nn.Module._apply)
    # The fast path of optimizers and of gradient clipping, which CUDA takes for plain tensors.
    from torch.optim import optimizer  # noqa: PLC0415 (not before torch knows its devices)
    from torch.utils import _foreach_utils  # noqa: PLC0415

    for module in (optimizer, _foreach_utils):
        module._foreach_supported_types.append(SimTensor)
    for clock in ("perf_counter", "perf_counter_ns", "time", "monotonic", "process_time"):
        _watch(time, clock)
    _watch(timeit, "default_timer")
    SimMode().__enter__()  # for good


def _swapping(apply: Any) -> Any:
    """Let Module.to swap tensors where it changes their class, and assign to `.data` elsewhere."""

    @functools.wraps(apply)
    def _apply(self: torch.nn.Module, fn: Any, recurse: bool = True) -> torch.nn.Module:
        for child in self.children() if recurse else ():
            child._apply(fn)
        here = *self.parameters(recurse=False), fn(torch.empty(0))
        ours = any(isinstance(x, SimTensor) for x in here)
        torch.__future__.set_swap_module_params_on_conversion(ours)
        return apply(self, fn, recurse=False)

    return _apply


def _synchronize(*_: Any, **__: Any) -> None:
    state.pending = 0


def _watch(module: types.ModuleType, name: str) -> None:
    """Note where a clock is read while the device has work: it shows the launch, not the work."""
    clock = getattr(module, name)

    @functools.wraps(clock)
    def read() -> float:
        if state.pending:
            caller = traceback.extract_stack(limit=2)[0]
            if WATCHED.search(caller.filename):
                where = f"{caller.filename}:{caller.lineno} {caller.line}"
                state.clock_read(f"{where} ({state.pending} operators pending)")
        return clock()

    setattr(module, name, read)
