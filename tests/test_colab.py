"""A chapter opened in Colab: a machine that has everything but the book's package.

The chapter's first cell is run as it stands. Git is told that the repository's address means a
local one, so what is installed is this working tree, and pip is told to ask no package index:
whatever the package needs has to be there. Where git is told of a place that holds nothing, the
installation fails as it does without a network, or where nobody has set the address.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from address import book_address
from notebooks import ROOT

pytestmark = pytest.mark.book

CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
VERSIONS = "import numpy, torch; print(torch.__version__, torch.__file__, numpy.__file__)"
# Runs every cell, in the empty folder in which this starts; a cell that fails ends it.
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
finally:
    print(*(output.get("text") for cell in notebook.cells for output in cell.get("outputs", [])))
"""
# Runs the cells up to the set-up cell, and prints what it shows: of an error what stands for it on
# the page.
SET_UP = """
import json, sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
notebook.cells = notebook.cells[: first + 1]
NotebookClient(notebook, kernel_name="python3", timeout=100, allow_errors=True).execute()
print(json.dumps(notebook.cells[first].outputs))
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of a new environment with all that is installed here, except attnbook."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("attnbook", "__pycache__")):
            (packages / path.name).symlink_to(path)
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    (site,) = environment.glob("lib/python3.*/site-packages")
    (site / "everything_else.pth").write_text(f"{packages}\n")
    return environment / "bin" / "python"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The working tree as the branch main of a repository."""
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copytree(
        ROOT / "attnbook", repository / "attnbook", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, repository)
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    return repository


@pytest.fixture
def run(python: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs that Python in an empty folder; git finds the book at `repository`, and pip no index."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments: str, repository: Path = tmp_path / "nothing") -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": book_address().url,
            "PIP_NO_INDEX": "1",
            # hatchling, which builds the package, would be fetched into an environment of its own.
            "PIP_NO_BUILD_ISOLATION": "0",
        }
        environment.pop("MPLBACKEND", None)
        command = [str(python), *arguments]
        done = subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_an_installation_that_fails_is_one_sentence(run):
    note, error = json.loads(run("-c", SET_UP, str(CHAPTERS[0])))
    assert "restart the kernel" in note["text"]  # %pip's own, wherever it is run; Colab has another
    assert error["output_type"] == "error"
    (sentence,) = error["traceback"]
    assert sentence.startswith(f"attnbook could not be installed from {book_address().url}: ")
    assert sentence.count(". ") == 0 and "\n" not in sentence
    assert all(way in sentence for way in ("internet", "wheel", "make repository"))


@pytest.mark.slow
def test_an_uploaded_wheel_is_enough(run, repository, tmp_path):
    """What the sentence above advises."""
    run("-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "empty"), str(repository))
    install = "from IPython.core.interactiveshell import InteractiveShell\n"
    install += "InteractiveShell.instance().run_line_magic('pip', 'install -q attnbook-*.whl')"
    run("-c", install)
    (output,) = json.loads(run("-c", SET_UP, str(CHAPTERS[0])))
    assert output["text"].startswith("device: ")


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_where_only_the_package_is_missing(path, run, python, repository, tmp_path):
    found = "import importlib.util; print(importlib.util.find_spec('attnbook'))"
    assert run("-c", found).strip() == "None"
    before = run("-c", VERSIONS)
    run("-c", RUN, str(path), repository=repository)
    assert run("-c", VERSIONS) == before
    assert str(python.parent.parent) in run("-c", "import attnbook; print(attnbook.__file__)")
    assert not list((tmp_path / "empty").iterdir())
    (site,) = python.parent.parent.glob("lib/python3.*/site-packages")
    assert [path.name.partition("-")[0] for path in site.glob("*.dist-info")] == ["attnbook"]
