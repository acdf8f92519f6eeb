"""Run the project on a simulated CUDA device: README.md beside this file says what that can show.

python tests/device                             all three of the following, and a summary
python tests/device proof [pytest's arguments]  that the simulation is right, on planted bugs
python tests/device tests [pytest's arguments]  every test with the fixture `device`
python tests/device chapters [attention ...]    run chapters on it and compare (nbval, strict)
python tests/device operators                   PyTorch's own 700 operators, against the CPU
python tests/device python [python's arguments] anything else: -m attnbook.studies.places --quick

--rounding ulp|tf32 before them: the last digits of another device's kernels; and TF32 too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
SHIM = HERE / "simdevice" / "shim.cpp"
WRITTEN_FOR = "2.13"


def compiler() -> str | None:
    """Return the first C++ compiler on the path."""
    return next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


def why_not() -> str | None:
    """Return in one sentence why there can be no simulated device here, or None if there can."""
    if platform.system() != "Linux":
        return f"it is written for Linux, and this is {platform.system()}."
    if compiler() is None:
        return "it needs a C++ compiler (g++ or clang++), and there is none on the path."
    return None


def torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")  # found and not imported: that takes seconds
    if spec is None or spec.origin is None:
        raise SystemExit("torch is not installed.")
    return Path(spec.origin).parent


def build(folder: Path) -> Path:
    """Compile the shim, which takes three seconds, and return its path."""
    torch, made = torch_folder(), folder / "shim.so"
    command = [compiler(), "-O0", "-shared", "-fPIC", "-std=c++20", SHIM, "-o", made]
    command += [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include"]
    command += [f"-L{torch}/lib", "-lc10", "-ltorch_cpu"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(
            f"{result.stderr}\nshim.cpp did not compile. It is written for PyTorch {WRITTEN_FOR}; "
            f"the one installed says: {(torch / 'version.py').read_text().splitlines()[-1]}"
        )
    return made


def environment(shim: Path, report: Path, rounding: str | None, seed: int) -> dict[str, str]:
    """Return the environment in which every Python has the device."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    chosen = {"SIMDEVICE_SHIM": str(shim), "SIMDEVICE_REPORT": str(report)}
    chosen |= {
        "PYTHONPATH": path,
        "SIMDEVICE_SEED": str(seed),
        "SIMDEVICE_ROUNDING": rounding or "",
    }
    return {**os.environ, "OMP_NUM_THREADS": "1", **chosen}


def commands(jobs: int) -> dict[str, list[str]]:
    """Return what can be run, as the start of a command line."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "-p", "simdevice.limits"]
    chapters = [
        sys.executable,
        str(TESTS.parent / "tools" / "notebooks.py"),
        "check",
        "--jobs",
        str(jobs),
    ]
    chapters += ["--longest", "600"]  # the simulation is no measure of speed
    return {
        "proof": [*pytest, str(HERE)],
        "tests": [*pytest, "--ignore", str(HERE), "--ignore", str(TESTS / "browser")],
        "chapters": chapters,
        "operators": [sys.executable, str(HERE / "operators.py")],
        "python": [sys.executable],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounding", choices=("ulp", "tf32"))
    parser.add_argument("--seed", type=int, default=0, help="other last digits")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("what", nargs="?", default="all", choices=("all", *commands(1)))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if reason := why_not():
        print(f"The simulated device is skipped: {reason}")
        return 0
    start, verdicts = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        report.touch()
        found = environment(build(Path(folder)), report, chosen.rounding, chosen.seed)
        see = "import torch, sys; sys.exit(torch.cuda.get_device_name() != 'Simulated GPU')"
        if subprocess.run([sys.executable, "-c", see], env=found, check=False).returncode:
            raise SystemExit("The simulated device was built, but torch does not see it.")
        names = ["proof", "tests", "chapters"] if chosen.what == "all" else [chosen.what]
        for name in names:
            command = commands(chosen.jobs)[name] + chosen.arguments
            if name == "tests" and not any(Path(x.split("::")[0]).exists() for x in command[4:]):
                command.append(str(TESTS))
            chapter = {"SIMDEVICE_CHAPTER": "1", "PYTEST_PLUGINS": "simdevice.cells"}
            given = found | (chapter if name == "chapters" else {})
            verdicts[name] = subprocess.run(command, env=given, check=False).returncode
        lines = [line.split("\t") for line in report.read_text().splitlines()]
    if "chapters" in verdicts:
        used = sorted({place for kind, place, _ in lines if kind == "used" and place in CHAPTERS})
        print(f"Chapters that computed on the device: {', '.join(used) or 'none'}")
    clocks = sorted({f"{text} in {place}" for kind, place, text in lines if kind == "clock"})
    print(
        *(f"A clock was read before the device had finished: {text}" for text in clocks), sep="\n"
    )
    for name, code in verdicts.items():
        print(f"{name}: {'passed' if code == 0 else f'FAILED ({code})'}")
    print(f"The simulated device: {time.monotonic() - start:.0f} s")
    return int(any(verdicts.values()))


CHAPTERS = {path.stem for path in (TESTS.parent / "book").glob("*.ipynb")}

if __name__ == "__main__":
    sys.exit(main())
