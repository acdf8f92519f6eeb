"""What stands behind `make`: pins, environments, stand-ins, and a sentence for what goes wrong."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import build_site
import environment
import nbformat
import notebooks
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebooks import BOOK, METADATA, ROOT

pytestmark = pytest.mark.book

# --- Pins -----------------------------------------------------------------------------------------


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def pins(lines: Iterator[str] | list[str]) -> dict[str, str]:
    """Return the version of each package of a requirements file, or of a group."""
    found = (re.match(r"([\w.-]+(?:\[\w+\])?)==([^\s;]+)", line) for line in lines)
    return {plain(match[1]): match[2] for match in found if match}


def written(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-site.txt"])
def test_pins_are_those_of_the_lock(name):
    """If not: `make requirements` writes them."""
    groups = GROUPS if name == "requirements.txt" else {"site": GROUPS["site"]}
    chosen = {k: v for group in groups.values() for k, v in pins(group).items()}
    assert len(chosen) == len({plain(p.split("==")[0]) for group in groups.values() for p in group})
    found = pins(written(name))
    assert found.items() >= chosen.items()
    locked = {package["name"]: package.get("version") for package in LOCK}
    assert found.items() <= locked.items()


def test_the_light_pins_have_the_hashes_of_the_lock_and_no_torch():
    hashes = re.findall(r"sha256:\w{64}", "\n".join(written("requirements-site.txt")))
    packages = pins(written("requirements-site.txt"))
    locked = {
        file["hash"]
        for package in LOCK
        if package["name"] in packages
        for file in [*package.get("wheels", []), package.get("sdist", {})]
        if file
    }
    assert set(hashes) <= locked and len(hashes) > len(packages) > 80
    assert packages.keys().isdisjoint({"torch", "numpy", "matplotlib"})


def test_the_full_pins_fit_a_torch_of_any_index():
    """Hashes would bind it to the one of PyPI, and its CUDA libraries are no concern of a CPU."""
    lines = written("requirements.txt")
    assert not any("--hash" in line for line in lines)
    assert not [line for line in lines if re.match(r"nvidia|cuda|triton", line)]
    assert "torch==2.13.0" in lines


def test_the_lock_names_no_index_but_pypi():
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r'(?:registry|url) = "(https?://[^/"]+)', text)) == {
        "https://pypi.org",
        "https://files.pythonhosted.org",
    }


# --- The Makefile and what it calls, when something is missing -----------------------------------

# A shell of these would hide that make 3.81, which macOS has, knows none of them.
NEWER = r"^\.SHELLFLAGS|^\.ONESHELL|^\S+ *!=|^define \S+ *[:?]?=|^undefine|^private|::=|\$\(file "


def test_makefile_asks_nothing_of_make_4_or_bash():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not re.findall(NEWER, text, re.MULTILINE)
    assert not re.findall(r"\[\[|<\(|pipefail|\btime \b", text)


@pytest.fixture
def fresh(tmp_path):
    """Return a fresh copy of what `make book` reads first, below a name with blanks and umlauts."""
    copy = tmp_path / "mein Büch mit Lücken"
    (copy / "tools").mkdir(parents=True)
    (copy / "attnbook").mkdir()
    for name in ("Makefile", "requirements-site.txt", "tools/environment.py"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def make(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run make as from a shell, and return its exit status and all that it said."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PIP_", "UV_"))}
    done = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=outside | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_no_python(fresh):
    status, said = make(fresh, "book", "PYTHON=")
    assert status == 2
    assert "attnbook needs Python 3.11, 3.12 or 3.13" in said and "PYTHON=/path/to/python" in said


def test_wrong_python(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1, "final", 0))
    monkeypatch.setattr(sys, "argv", ["environment.py", "folder", "requirements.txt"])
    with pytest.raises(SystemExit, match=r"needs Python 3\.11, 3\.12 or 3\.13, and this is"):
        environment.main()


def test_no_network(fresh):
    """pip is the one of this environment, and its index a port at which nobody listens."""
    python = fresh / ".venv-site" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    python.with_name("pip").touch()
    (fresh / "requirements-site.txt").write_text("attnbook-nowhere==1.0\n")
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    status, said = make(
        fresh,
        "book",
        f"PYTHON={sys.executable}",
        "UV=",
        **nobody,
        PIP_CONFIG_FILE=os.devnull,
        PIP_NO_CACHE_DIR="1",
    )
    assert status == 2
    assert "The package index could not be reached: the first run needs a network" in said
    assert "Traceback" not in said
    assert not (fresh / ".venv-site" / "packages.done").exists()


def test_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"file/venv cannot be written to \(Not a directory\)\."):
        environment.make(tmp_path / "file" / "venv", tmp_path / "none", uv="", full=False)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("error: Request failed\n  Caused by: dns error: failed to lookup", "could not be reached"),
        ("OSError: [Errno 28] No space left on device", "no space left on the disk"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "not the file that was pinned"),
        ("error: Hash mismatch for `einops==0.8.2`", "not the file that was pinned"),
        ("one\nERROR: No matching distribution found for x==1\n", "found for x==1"),
        ("killed", "The installation failed: killed"),
        ("", "no word why"),
    ],
)
def test_what_an_installer_said_is_told_in_a_sentence(said, meant):
    assert meant in environment.meaning(said) and "\n" not in environment.meaning(said)


def test_check_asks_for_a_chapter(fresh):
    """The environment is said to be there, so that nothing is set up."""
    arguments = ["-o", ".venv/packages.done", f"PYTHON={sys.executable}"]
    status, said = make(fresh, "check", *arguments)
    assert status == 2 and "say which: make check CHAPTER=eca" in said


# --- Chapters -------------------------------------------------------------------------------------


def test_unknown_chapter():
    with pytest.raises(SystemExit, match=r"no chapter ecca in book/; there are attention, .*eca"):
        notebooks.chapters(["attention", "ecca"])


@pytest.mark.parametrize(
    "text", ["", "{", '{"cells": [}', "[1]", '{"nbformat": 4, "nbformat_minor": 5}', "<<<<<<< HEAD"]
)
def test_broken_notebook(tmp_path, text):
    (tmp_path / "book").mkdir()
    path = tmp_path / "book" / "eca.ipynb"
    path.write_text(text)
    with pytest.raises(SystemExit, match=r"^book/eca\.ipynb is not a notebook .*git checkout book"):
        notebooks.chapters(["eca"], path.parent)


def test_reasons_are_picked_from_what_the_build_said():
    said = f"Traceback\n\x1b[91m{ROOT}/book/a.md:3: WARNING: no such page\x1b[0m\nRuntimeError: box"
    assert build_site.what_went_wrong(said).splitlines() == [
        "The site was not built.",
        "book/a.md:3: WARNING: no such page",
    ]
    assert build_site.what_went_wrong("Killed") == "The site was not built.\nKilled"


def test_another_environment_builds_all_pages(tmp_path):
    page, builder = tmp_path / "index.html", tmp_path / "built-with"
    page.touch()
    assert build_site.builds_all(page, builder)
    builder.write_text("/another/one")
    assert build_site.builds_all(page, builder)
    builder.write_text(sys.prefix)
    assert not build_site.builds_all(page, builder)
    os.utime(page, (0, 0))
    assert build_site.builds_all(page, builder)


def as_jupyter_writes(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Make of a chapter what JupyterLab hands over: another kernel's name, times, counts, trust."""
    notebook.metadata["kernelspec"] = {"display_name": "my env", "language": "python", "name": "my"}
    notebook.metadata["language_info"]["version"] = "3.12.1"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata["execution"] = {"iopub.status.busy": "now"}
            cell.metadata["trusted"] = True
            cell.execution_count = 41
    return notebook


def test_what_jupyterlab_saves_is_the_chapter_as_it_was(tmp_path):
    manager = importlib.import_module("jupyter_server.services.contents.largefilemanager")
    (hook,) = (argument for argument in notebooks.JUPYTERLAB if "hook" in argument)
    contents = manager.AsyncLargeFileManager(
        root_dir=str(tmp_path), pre_save_hook=hook.partition("=")[2]
    )
    stored = (BOOK / "eca.ipynb").read_bytes()
    notebook = as_jupyter_writes(nbformat.reads(stored.decode(), as_version=4))
    content = json.loads(nbformat.writes(notebook))
    model = {"type": "notebook", "format": "json", "content": content}
    asyncio.run(contents.save(model, "eca.ipynb"))
    assert (tmp_path / "eca.ipynb").read_bytes() == stored


@pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
def test_notebooks_lie_as_they_are_normalised(path, tmp_path):
    copy = shutil.copy(path, tmp_path)
    assert notebooks.normalise_files([Path(copy)]) == 0


def test_files_are_normalised_once(tmp_path, capsys):
    path = tmp_path / "eca.ipynb"
    stored = (BOOK / "eca.ipynb").read_bytes()
    nbformat.write(as_jupyter_writes(nbformat.reads(stored.decode(), as_version=4)), path)
    path.write_text(path.read_text().replace('"trusted": true', '"tags": []'))
    assert notebooks.normalise_files([path]) == 1
    assert nbformat.read(path, as_version=4).metadata == METADATA | {"accelerator": "GPU"}
    assert notebooks.normalise_files([path]) == 0
    assert capsys.readouterr().out == "eca.ipynb: normalised\n"


def test_spelling_is_looked_at_in_notebooks_but_not_in_their_figures(tmp_path):
    wrong = "rec" + "ieves"
    picture = {"image/png": f"{wrong}+/" * 20}
    cells = [
        new_markdown_cell(f"A query\n{wrong} a score."),
        new_code_cell("print('\\nd')", outputs=[new_output("display_data", data=picture)]),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "codespell_lib", "a.ipynb"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.stdout.count("==>") == 1 and f"{wrong} ==> receives" in found.stdout


# --- Pages without torch --------------------------------------------------------------------------

SHOWN = sorted(
    name
    for page in (BOOK / "api").glob("*.md")
    for name in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))
)


def signatures() -> dict[str, str]:
    """Return how each function, class and method that the pages show is called, as they show it."""
    found = {}
    for name in SHOWN:
        for attribute, thing in vars(importlib.import_module(name)).items():
            if getattr(thing, "__module__", None) != name or attribute.startswith("_"):
                continue
            own = vars(thing).items() if inspect.isclass(thing) else ()
            methods = {k: v for k, v in own if inspect.isfunction(v)}
            for key, function in {"": thing, **methods}.items():
                if inspect.isfunction(function):
                    shown = f"{inspect.signature(function)} {inspect.getdoc(function)}"
                    found[f"{name}.{attribute}.{key}"] = re.sub(r" at 0x\w+", "", shown)
    return found


def test_stand_ins_leave_signatures_and_docstrings_as_they_are():
    folders = [str(ROOT / name) for name in ("", "tests", "tools", "book/_ext")]
    program = (
        f"import json, sys\nsys.path[:0] = {folders}\n"
        "import standins\n"
        "standins.install(standins.STOOD_IN | set(standins.NEEDS))\n"
        f"for name in {SHOWN}: standins.read(name, standins.STOOD_IN)\n"
        "from test_make import signatures\n"
        "assert not hasattr(sys.modules['torch'], '__file__')\n"
        "print(json.dumps(signatures()))"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == signatures()
    assert len(json.loads(shown)) > 100


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import nowhere_to_be_found", "imports nowhere_to_be_found, which is not installed here"),
        ("half = 1 / stands_in.pi", "what it computes when it is imported belongs in a function"),
    ],
)
def test_a_module_that_stand_ins_cannot_carry_is_named(tmp_path, monkeypatch, line, said):
    monkeypatch.syspath_prepend(BOOK / "_ext")
    monkeypatch.syspath_prepend(tmp_path)
    standins = importlib.import_module("standins")
    (tmp_path / "carried.py").write_text(f"import stands_in\n{line}\n")
    monkeypatch.delitem(sys.modules, "carried", raising=False)
    monkeypatch.setattr(sys, "meta_path", [standins.Finder({"stands_in"}), *sys.meta_path])
    with pytest.raises(standins.ExtensionError, match=said) as error:
        standins.read("carried", {"stands_in"})
    assert "carried" in str(error.value) and "\n" not in str(error.value)
