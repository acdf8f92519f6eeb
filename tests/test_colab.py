"""A chapter opened in Colab: a machine that has everything but the book's package.

The chapter's first cell is run as it stands. Git is told that the repository's address means a
local one, so what is installed is this working tree, and pip is told to ask no package index:
whatever the package needs has to be there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from notebooks import ROOT, address

pytestmark = [pytest.mark.slow, pytest.mark.book]

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


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_where_only_the_package_is_missing(path, python, repository, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address(),
        "PIP_NO_INDEX": "1",
        # hatchling, which builds the package, would be fetched into an environment of its own.
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    environment.pop("MPLBACKEND", None)

    def run(*arguments: str) -> str:
        command = [str(python), *arguments]
        done = subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    found = "import importlib.util; print(importlib.util.find_spec('attnbook'))"
    assert run("-c", found).strip() == "None"
    before = run("-c", VERSIONS)
    run("-c", RUN, str(path))
    assert run("-c", VERSIONS) == before
    assert str(python.parent.parent) in run("-c", "import attnbook; print(attnbook.__file__)")
    assert not list(empty.iterdir())
    (site,) = python.parent.parent.glob("lib/python3.*/site-packages")
    assert [path.name.partition("-")[0] for path in site.glob("*.dist-info")] == ["attnbook"]
