"""Run and compare the chapters: the commands behind `make` that need more than a line.

python tools/notebooks.py run [attention eca ...]     run chapters, store their outputs
python tools/notebooks.py check [attention eca ...]   run them again and compare (nbval, strict)
python tools/notebooks.py rules eca                   test a chapter against the rules, in seconds
python tools/notebooks.py normalise book/eca.ipynb     remove from files what is the machine's
python tools/notebooks.py edit [eca]                   open JupyterLab, on a chapter

A chapter runs as its reader runs it: from a folder that holds nothing else, against the package
that is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"

# The first code cell of every chapter. It touches neither torch nor numpy: the package asks for
# lower bounds only, and Colab has both. pip fails without stopping the cell and at length, so it is
# silenced, and what is missing then is said in one sentence in the place of a traceback. (Not as an
# ImportError, to which Colab adds advice of its own.)
SET_UP_CELL = """\
# In Colab and Kaggle this installs the book's package; where that is there already, nothing.
import importlib.util

if importlib.util.find_spec("attnbook") is None:
    %pip install -qqq "attnbook[book] @ git+{url}@{branch}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("attnbook") is None:
        stop = RuntimeError(
            "attnbook could not be installed from {url}: "
            "switch this machine's internet on and run the cell again; or upload the book's wheel "
            "and run %pip install attnbook-*.whl; or, if the book is yours, run make repository."
        )
        stop._render_traceback_ = lambda: [str(stop)]
        raise stop

import torch

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
print("device:", torch.cuda.get_device_name() if device.type == "cuda" else "CPU")"""

# The version of Python is left out, because it would change with whoever stored the outputs.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A chapter may have this besides: Colab then gives a GPU, out of what a reader may use in a day.
GPU = {"accelerator": "GPU"}
# Tags of cells whose code, and whose output, is folded.
FOLD, HIDE = "hide-input", "hide-output"

JUPYTERLAB = [
    f"--ServerApp.root_dir={ROOT}",
    "--ContentsManager.pre_save_hook=notebooks.normalise_on_save",
]

LONGEST_CHAPTER = 120  # seconds; the book promises 40 on two quiet cores


def chapters(names: Iterable[str] = (), book: Path = BOOK) -> list[Path]:
    """Return the chapters named, or all of them; the program stops where one cannot be read."""
    known = sorted(book.glob("*.ipynb"))
    paths = [book / f"{Path(name).stem}.ipynb" for name in names] or known
    missing = [path.stem for path in paths if path not in known]
    if missing or not paths:
        there = ", ".join(path.stem for path in known)
        raise SystemExit(
            f"There is no chapter {', '.join(missing) or 'at all'} in {book.name}/"
            + (f"; there are {there}." if there else ".")
        )
    for path in paths:
        read(path)
    return paths


def appendices() -> set[str]:
    """Return the names of the notebooks that are no chapters: no first path, no exercises."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    (part,) = [part for part in contents["parts"] if part["caption"] == "Appendix"]
    return {Path(page["file"]).name for page in part["chapters"]}


def read(path: Path) -> NotebookNode:
    """Return a notebook; the program stops with a sentence if the file holds none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        raise SystemExit(
            f"{path.parent.name}/{path.name} is not a notebook that can be read ({why}): undo what "
            f"was done to it, for example by git checkout {path.parent.name}/{path.name}."
        ) from error
    return notebook


def run(path: Path) -> float:
    """Run a chapter in an empty folder, store its outputs in it, and return the seconds it took.

    Nothing is written if a cell fails.
    """
    notebook = read(path)
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    start = time.perf_counter()

    def progress(cell: NotebookNode, cell_index: int, **_: object) -> None:
        if sys.stdout.isatty():
            done = sum(cell.cell_type == "code" for cell in notebook.cells[: cell_index + 1])
            print(f"\r{path.stem}: cell {done} of {total}", end="", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            on_cell_executed=progress,
        ).execute()
    normalise(notebook)
    nbformat.write(notebook, path)
    return time.perf_counter() - start


def run_all(paths: list[Path], threads: int) -> int:
    """Run chapters one after the other, up to the first in which a cell fails."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.pop("MPLBACKEND", None)
    for path in paths:
        try:
            print(f"\r{path.stem}: run in {run(path):.0f} s")
        except CellExecutionError as error:
            print(f"\r{path.stem}: a cell failed, and nothing was stored\n{error}")
            return 1
    return 0


def normalise(notebook: NotebookNode) -> None:
    """Remove what differs from one writer's machine to the next; fold what the site folds."""
    gpu = {key: value for key, value in GPU.items() if notebook.metadata.get(key) == value}
    notebook.metadata = nbformat.from_dict({**gpu, **METADATA})
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        for key in ("execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
        for key, value in folding(cell.metadata.get("tags", [])).items():
            cell.metadata.pop(key, None)
            if value is not None:
                cell.metadata[key] = nbformat.from_dict(value)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def folding(tags: list[str]) -> dict[str, Any]:
    """Return what folds a cell in Colab and in JupyterLab as its tags do on the site."""
    hidden = {"source_hidden": FOLD in tags, "outputs_hidden": HIDE in tags}
    return {
        "cellView": "form" if FOLD in tags else None,
        "collapsed": True if HIDE in tags else None,
        "jupyter": {key: True for key, value in hidden.items() if value} or None,
    }


def check(paths: list[Path], jobs: int, threads: int, longest: int = LONGEST_CHAPTER) -> int:
    """Run chapters again, compare every output with the stored one, and print the seconds taken.

    No cell and no chapter may take longer than `longest` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for path in paths:
            alone = Path(folder, path.stem)
            alone.mkdir()
            copies.append(shutil.copy(path, alone))
        # As nbval does not compare PNG, it shall not compare SVG: the last digits of where a line
        # goes are not the same on every machine. That a figure was drawn is compared.
        figures = Path(folder, "figures.cfg")
        figures.write_text("[figures]\nregex: (?s)<\\?xml.*</svg>\nreplace: a figure\n")
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        command += ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={longest}"]
        command += [f"--nbval-sanitize-with={figures}"]
        command += ["-n", str(jobs), "--dist", "loadscope"]  # a chapter stays in one process
        command += [f"--junitxml={report}", *copies]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        # The kernel's own backend puts figures into the notebook.
        for name in ("MPLBACKEND", "PYTEST_ADDOPTS"):
            environment.pop(name, None)
        failed = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        seconds, cells = Counter[str](), Counter[str]()
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("classname", "").split(".")[0]
            seconds[name] += float(case.get("time", 0))
            cells[name] += 1
    for path in paths:
        print(f"{path.stem}: {cells[path.stem]} cells, {seconds[path.stem]:.0f} s")
        if seconds[path.stem] > longest:
            print(f"{path.stem} takes longer than {longest} s.")
            failed = failed or 1
    return failed


def normalise_files(paths: list[Path]) -> int:
    """Normalise notebooks where they lie; return 1 if that changed one, as a hook of git wants."""
    changed = []
    for path in paths:
        notebook = read(path)
        normalise(notebook)
        text = nbformat.writes(notebook) + "\n"
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            changed.append(path)
            print(f"{path.name}: normalised")
    return int(bool(changed))


def normalise_on_save(model: dict[str, Any], **_: object) -> None:
    """Normalise what JupyterLab is about to write."""
    if model["type"] == "notebook":
        model["content"] = nbformat.from_dict(model["content"])
        normalise(model["content"])


def rules(paths: list[Path]) -> int:
    """Test chapters against the rules, in one process and without running them."""
    chosen = " or ".join(f"[{path.stem}- or [{path.stem}]" for path in paths)
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["--tb=short", "tests/test_book.py", "-k", chosen]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "check", "rules"):
        command = commands.add_parser(name)
        command.add_argument("chapters", nargs="*")
    for name in ("run", "check"):
        command = commands.choices[name]
        # One thread each: the same sums in the same order, however many cores there are.
        command.add_argument("--threads", type=int, default=1)
    commands.choices["check"].add_argument("--jobs", type=int, default=2)
    commands.choices["check"].add_argument("--longest", type=int, default=LONGEST_CHAPTER)
    commands.add_parser("normalise").add_argument("files", nargs="+", type=Path)
    commands.add_parser("edit").add_argument("chapter", nargs="?")
    arguments = parser.parse_args()
    if arguments.command == "check":
        return check(
            chapters(arguments.chapters), arguments.jobs, arguments.threads, arguments.longest
        )
    if arguments.command == "normalise":
        return normalise_files(arguments.files)
    if arguments.command == "edit":
        from jupyterlab.labapp import LabApp  # noqa: PLC0415 (nothing else needs it)

        opened = chapters([arguments.chapter])[0] if arguments.chapter else BOOK
        os.environ.pop("MPLBACKEND", None)
        LabApp.launch_instance([str(opened), *JUPYTERLAB])
        return 0
    if arguments.command == "rules":
        return rules(chapters(arguments.chapters))
    return run_all(chapters(arguments.chapters), arguments.threads)


if __name__ == "__main__":
    sys.exit(main())
