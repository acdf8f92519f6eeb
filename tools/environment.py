"""Make a virtual environment that holds what a requirements file pins, with uv or with pip.

python tools/environment.py .venv requirements.txt [--uv /path/to/uv]

What uv or pip says goes to install.log in the environment; here stands how far it is, and in one
sentence what went wrong. Needs nothing but Python: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUPPORTED = (3, 11), (3, 13)

# On all processors, where pip takes one. A template that is no Python is no fault.
COMPILE = (
    "import compileall, sysconfig;"
    "compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"
)

# What uv and pip say of what goes wrong oftenest, and what it means.
TROUBLE = {
    r"NewConnectionError|Max retries|ConnectTimeout|Read timed out|Connection refused|dns error"
    r"|Name or service|getaddrinfo|client error \(Connect\)|from versions: none": "The package "
    "index could not be reached: the first run needs a network connection",
    r"No space left on device": "There is no space left on the disk",
    r"DO NOT MATCH THE HASHES|Hash mismatch": "A package is not the file that was pinned, since "
    "its hash differs; if your package index builds packages itself, name another one",
    r"Read-only file system|Permission denied": "A folder cannot be written to",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--uv", default="", help="where uv is; without it, pip installs")
    parser.add_argument("--full", action="store_true", help="for work: pip, and bytecode of all")
    arguments = parser.parse_args()
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        stop(f"attnbook needs Python 3.11, 3.12 or 3.13, and this is {sys.version.split()[0]}")
    make(**vars(arguments))


def make(folder: Path, requirements: Path, uv: str, full: bool) -> None:
    """Make the environment if it is not there, and install what is pinned.

    The site is built by one Python, tests and notebooks start hundreds: for these all modules are
    compiled beforehand. The notebooks' own %pip has to find a pip.
    """
    python = folder / "bin" / "python"
    try:
        folder.mkdir(exist_ok=True)
        (folder / "install.log").write_text("")
    except OSError as error:
        stop(f"{folder.absolute()} cannot be written to ({error.strerror})")
    start = time.monotonic()
    print(
        f"Installing {requirements} into {folder} with {'uv' if uv else 'pip'}, once: "
        f"{'some minutes' if full else 'half a minute'} or so",
        flush=True,
    )
    if uv:
        cache = [] if home_is_writable() else ["--no-cache"]
        environment = [uv, "venv", "--allow-existing", "--python", sys.executable, *cache]
        environment += ["--seed"] * full
        install = [uv, "pip", "install", "--python", python, *cache]
        install += ["--compile-bytecode"] * full
    else:
        environment = [sys.executable, "-m", "venv"]
        install = [python, "-m", "pip", "install", "--no-compile"]
    if not (python if uv else python.with_name("pip")).exists():
        logged([*environment, folder], folder)
    logged([*install, "-r", requirements], folder)
    if full and not uv:
        logged([python, "-c", COMPILE], folder)
    if full:  # pyright's own program comes from the npm registry, when it first runs
        logged([python, "-m", "pyright", "--version"], folder)
    print(f"Installed in {time.monotonic() - start:.0f} s.")


def home_is_writable() -> bool:
    """Whether uv can keep what it fetches, which it does below the home folder."""
    try:
        with tempfile.TemporaryFile(dir=Path.home()):
            return True
    except OSError:
        return False


def logged(command: list[str | Path], folder: Path) -> None:
    """Run a command, keep what it says, show its large downloads, and stop if it fails."""
    log = folder / "install.log"
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
        log.open("a", encoding="utf-8") as file,
    ):
        for line in process.stdout or ():
            file.write(line)
            if re.search(r"^\s*Downloading .*(\d{3}(\.\d+)? ?Mi?B|Gi?B)", line):
                print(f"  {line.strip()}", flush=True)
    if process.returncode:
        stop(f"{meaning(log.read_text(encoding='utf-8'))} (all that was said: {log})")


def meaning(said: str) -> str:
    """Return in one sentence what went wrong."""
    for pattern, sentence in TROUBLE.items():
        if re.search(pattern, said, re.IGNORECASE):
            return sentence
    errors = [line for line in said.splitlines() if re.match(r"\W*error", line, re.IGNORECASE)]
    return f"The installation failed: {(errors or said.splitlines() or ['no word why'])[-1]}"


def stop(sentence: str) -> None:
    sys.exit(f"{sentence}.")


if __name__ == "__main__":
    main()
