"""Where the simulated device cannot be: said in a sentence, or loudly, and never passed over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_compiler_it_is_skipped_in_a_sentence(tmp_path):
    found = python(HERE, PATH=str(tmp_path))
    assert found.returncode == 0 and not found.stderr
    assert found.stdout.startswith("The simulated device is skipped: it needs a C++ compiler")
    assert found.stdout.count("\n") == 1


def test_what_does_not_compile_is_an_error(tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n")
    broken.chmod(0o755)
    found = python(HERE, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert found.returncode == 1
    assert "no such header" in found.stderr and "written for PyTorch 2." in found.stderr


def test_no_python_goes_on_without_the_device_it_was_promised(tmp_path):
    missing = str(tmp_path / "shim.so")
    found = python("-c", "print('went on')", PYTHONPATH=str(HERE), SIMDEVICE_SHIM=missing)
    assert found.returncode == 1 and "went on" not in found.stdout
    assert missing in found.stderr
