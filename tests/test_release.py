"""What a release is made of: one version, a wheel that says what it holds, workflows that run."""

from __future__ import annotations

import email
import http.server
import os
import re
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import hatchling.build
import pytest
import yaml
from address import book_address
from notebooks import ROOT

import attnbook

pytestmark = pytest.mark.book

WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
SECTIONS = re.findall(
    r"(?m)^## (\d+\.\d+\.\d+), (\d{4}-\d\d-\d\d)",
    (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
)


def steps(workflow: str) -> list[dict[str, object]]:
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job.get("steps", [])]


def script(workflow: str, piece: str) -> str:
    """Return the commands of the step in which a piece of text stands."""
    (found,) = [run for step in steps(workflow) if piece in (run := str(step.get("run", "")))]
    return found


def bash(commands: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", commands],  # as GitHub does
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- The version and the wheel --------------------------------------------------------------------


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.partition(".dev")[0].split(".")]


def test_the_changelog_the_citation_and_the_package_agree():
    version, date = SECTIONS[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], str(citation["date-released"])) == (version, date)
    assert sorted(SECTIONS, key=lambda section: numbers(section[0]), reverse=True) == SECTIONS
    # Between releases the package bears the next version, as one that is not finished.
    if ".dev" in attnbook.__version__:
        assert numbers(attnbook.__version__) > numbers(version)
    else:
        assert attnbook.__version__ == version


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return zipfile.ZipFile(folder / hatchling.build.build_wheel(str(folder)))


def test_the_wheel_says_what_it_is(wheel):
    source = (ROOT / "attnbook" / "__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'(?m)^__version__ = "(.*)"', source)
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = email.message_from_string(wheel.read(name).decode())
    assert [metadata["Version"]] == version
    urls = dict(text.split(", ") for text in metadata.get_all("Project-URL") or [])
    here = book_address()
    assert urls["Repository"] == here.url
    assert urls["Documentation"] == here.site
    assert all(url.startswith((here.url, here.site)) for url in urls.values())


def test_the_wheel_is_under_the_licences_of_what_it_holds(wheel):
    names = wheel.namelist()
    (metadata,) = [name for name in names if name.endswith("/METADATA")]
    folder = metadata.removesuffix("METADATA") + "licenses/"
    said = email.message_from_string(wheel.read(metadata).decode())["License-Expression"]
    assert set(said.split(" AND ")) == {"MIT", "OFL-1.1"}
    assert b"MIT License" in wheel.read(folder + "LICENSE")
    assert b"SIL OPEN FONT LICENSE" in wheel.read(folder + "attnbook/fonts/OFL.txt")
    # What is neither code nor data nor that font would be under another licence.
    kinds = {Path(name).suffix for name in names if name.startswith("attnbook/")}
    assert kinds == {".py", ".json", ".otf", ".txt", ".md", ".typed"}
    other = [n for n in names if n.startswith("attnbook/") and n.endswith((".otf", ".txt", ".md"))]
    assert all(name.startswith("attnbook/fonts/") for name in other)


# --- The workflows --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_calls_what_is_there(name):
    commands = "\n".join(str(step.get("run", "")) for step in steps(name))
    rules = re.findall(r"(?m)^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    for line in re.findall(r"(?m)^\s*make ([a-z][a-z -]*)", commands):
        assert set(line.split()) <= set(rules)
    for path in re.findall(r"\b(?:tools|tests)/\w+\.py", commands):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", ["pages", "release", "links"])
def test_what_is_published_has_an_address(name):
    """Before anything is built: `test_address.py` shows that this command stops."""
    commands = [str(step.get("run", "")) for step in steps(name)]
    checked = commands.index("python3 tools/address.py --check")
    assert not any(commands[:checked])


def test_a_release_says_what_the_changelog_says(tmp_path):
    def notes(version: str) -> str:
        (tmp_path / "CHANGELOG.md").write_text(
            "# Changes\n\n## 0.2.0, a\n\nnew\n\n## 0.1.01, b\n\nodd\n\n## 0.1.0, c\n\nold\n"
        )
        done = bash(script("release", "CHANGELOG.md"), tmp_path, VERSION=version)
        said = (tmp_path / "notes.md").read_text()
        assert bool(done.returncode) == (not said) == bool(done.stdout)
        return said

    assert notes("0.2.0") == "## 0.2.0, a\n\nnew\n\n"
    assert notes("0.1.0") == "## 0.1.0, c\n\nold\n"
    assert notes("0.1") == notes("9.9.9") == ""


# --- The weekly look at the links -----------------------------------------------------------------

PAGE = """\
# Links

[there]({site}/there.html), [a part of it]({site}/there.html#part), [gone]({site}/gone.html),
[no such part]({site}/there.html#nothing), and [ignored](https://doi.org/10.1000/182)
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_check_of_links_names_those_that_lead_nowhere(tmp_path):
    """The workflow's command, with this book's settings, on a page that links to this machine."""
    book, site = tmp_path / "book", tmp_path / "site"
    book.mkdir()
    site.mkdir()
    (site / "there.html").write_text('<h1 id="part">Here</h1>')
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"][
        "config"
    ]
    settings = {key: value for key, value in settings.items() if key.startswith("linkcheck_")}
    (book / "_config.yml").write_text(
        yaml.safe_dump({"title": "t", "sphinx": {"config": settings}})
    )
    (book / "_toc.yml").write_text("format: jb-book\nroot: links\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        (book / "links.md").write_text(PAGE.format(site=address))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = bash(script("links", "linkcheck"), book, PATH=path)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode != 0
    broken = re.findall(r"broken link: (\S+)", done.stdout + done.stderr)
    assert sorted(broken) == [f"{address}/gone.html", f"{address}/there.html#nothing"]
