"""The address stands in one place and is carried to all others, by a script that needs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import address
import nbformat
import pytest
import yaml
from address import Address, RefusedError, addressed, book_address, parse, write
from nbformat.v4 import new_code_cell, new_notebook
from notebooks import ROOT, SET_UP_CELL

pytestmark = pytest.mark.book

UNSET = Address("https://github.com/OWNER_NOT_SET/attnbook", "main")
NEW = Address("https://github.com/someone/lecture-python.myst", "release/2")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A small book whose files repeat the address in all the ways there are."""
    return make_book(tmp_path / "a book", UNSET)


def make_book(root: Path, where: Address) -> Path:
    (root / "book").mkdir(parents=True)
    (root / "tools").mkdir()
    shutil.copy(address.__file__, root / "tools")
    (root / "_config.yml").write_text(
        "launch_buttons:\n  colab_url: https://colab.research.google.com\n\n"
        f'repository:\n  # where it lives\n  url: {where.url}  # here\n  path_to_book: ""\n\n'
        f"  branch: {where.branch}\nhtml:\n  branch: leave me\n"
    )
    (root / "README.md").write_text(
        f"[a]({where.url}/issues), {where.url}. {where.url}.git {where.url}-fork {where.url}.dot\n"
        f"[b]({where.url}/blob/{where.branch}/book/b.md) [c]({where.url}/blob/v1/book/b.md)\n"
        f"[d](https://colab.research.google.com/github/{where.owner}/{where.name}"
        f"/blob/{where.branch}/book/a.ipynb) {where.site}book/b.html\n"
        "https://github.com/someone/else/blob/main/x.py\n"
    )
    (root / "CITATION.cff").write_text(f'repository-code: "{where.url}"\r\n', newline="")
    set_up = new_code_cell(SET_UP_CELL.format(**where._asdict()))
    nbformat.write(new_notebook(cells=[set_up]), root / "book" / "a.ipynb")
    (root / "book" / "b.md").write_text("no address")
    return root


def contents(root: Path) -> dict[str, bytes]:
    paths = [
        path for path in sorted(root.rglob("*")) if path.is_file() and ".git" not in path.parts
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as make does, without anything that is installed here."""
    command = [sys.executable, "-I", "-S", str(root / "tools" / "address.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


# --- This repository ------------------------------------------------------------------------------


def test_the_address_is_the_one_of_the_configuration():
    repository = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    assert book_address() == (repository["url"], repository["branch"])


def named(text: str) -> Iterator[tuple[str, str]]:
    """Yield each address of this book in a text, as owner/name and branch, where one is said."""
    page = r"github(?:\.com)?/([\w.-]+/[\w.-]+)/(?:blob|tree|edit)/([\w./-]+?)/(book/[\w./-]+)"
    for repository, branch, path in re.findall(page, text):
        if (ROOT / path).is_file():  # others' books have pages, too
            yield repository, branch
    yield from re.findall(r"git\+https://github\.com/([\w.-]+/[\w.-]+)@([\w./-]+)", text)
    keys = r'(?:repository-code:|Repository =) "https://github\.com/([\w.-]+/[\w.-]+)"()'
    yield from re.findall(keys, text)


def test_there_is_one_address():
    here = book_address()
    expected = {(f"{here.owner}/{here.name}", branch) for branch in (here.branch, "")}
    found = {path: set(named(path.read_text(encoding="utf-8"))) for path in addressed()}
    assert sum(map(len, found.values())) >= 9 + 2  # set-up cells, and those of the project
    for path, names in found.items():
        assert names <= expected, f"{path.name} says {names - expected}: run make repository"


def test_what_names_the_book_is_readdressed(tmp_path):
    """After `make repository` no file says where the book was, links to the site included."""
    for path in addressed():
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    before = book_address()
    changed = {path.name for path in write(NEW, tmp_path)}
    assert {"_config.yml", "CITATION.cff", "pyproject.toml", "attention.ipynb"} <= changed
    assert book_address(tmp_path) == NEW
    for path in addressed(tmp_path):
        text = path.read_text(encoding="utf-8")
        assert not re.search(rf"github(\.com)?/{before.owner}/{before.name}\b", text), path.name
        assert f"//{before.owner}.github.io/" not in text, path.name
        if path.suffix == ".ipynb":
            nbformat.validate(nbformat.read(path, as_version=4))
    write(before, tmp_path)
    assert contents(tmp_path) == {str(p.relative_to(ROOT)): p.read_bytes() for p in addressed()}


# --- Carrying it ----------------------------------------------------------------------------------


def test_every_file_is_rewritten_and_nothing_else_in_it(book, tmp_path):
    changed = write(NEW, book)
    assert [p.name for p in changed] == ["_config.yml", "CITATION.cff", "README.md", "a.ipynb"]
    expected = make_book(tmp_path / "expected", NEW)
    # What only begins like the address, another branch of it, and another's address stay.
    readme = (expected / "README.md").read_text()
    for ending in ("-fork", ".dot"):
        readme = readme.replace(f"{NEW.url}{ending}", f"{UNSET.url}{ending}")
    (expected / "README.md").write_text(readme)
    ids = {nbformat.read(r / "book" / "a.ipynb", 4).cells[0].id for r in (book, expected)}
    found, wanted = (
        {name: re.sub("|".join(ids).encode(), b"id", text) for name, text in contents(r).items()}
        for r in (book, expected)
    )
    assert found == wanted
    assert write(NEW, book) == []


@pytest.mark.parametrize("key", ["url", "branch"])
def test_a_configuration_edited_by_hand_leads(book, key):
    old, new = getattr(UNSET, key), getattr(NEW, key)
    config = book / "_config.yml"
    config.write_text(config.read_text().replace(f"{key}: {old}", f"{key}: {new}"))
    write(book_address(book), book)
    cell = nbformat.read(book / "book" / "a.ipynb", as_version=4).cells[0]
    assert cell.source == SET_UP_CELL.format(**UNSET._replace(**{key: new})._asdict())
    assert f"{old}/issues" not in (book / "README.md").read_text()


def test_the_command_needs_nothing_and_takes_what_git_says(book):
    assert run(book, "--check").returncode == 1
    git(book, "init", "-q")
    git(book, "remote", "add", "origin", "git@github.com:someone/attnbook.git")
    done = run(book)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        "The book lives at https://github.com/someone/attnbook, branch main."
    )
    assert run(book, "--check").returncode == 0
    assert run(book, NEW.url, "--branch", NEW.branch).returncode == 0
    assert book_address(book) == NEW


def test_the_first_time_the_branch_is_the_one_that_git_was_given(book):
    git(book, "init", "-q")
    git(book, "remote", "add", "origin", "git@github.com:someone/attnbook.git")
    git(book, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    for branch in ("trunk", "edition-2"):
        assert run(book).returncode == 0
        assert book_address(book) == ("https://github.com/someone/attnbook", branch)
        config = book / "_config.yml"
        config.write_text(config.read_text().replace("trunk", "edition-2"))


def test_what_goes_wrong_is_one_sentence(book):
    before = contents(book)
    git(book.parent, "init", "-q")  # the address of a repository around this one is not this one's
    git(book.parent, "remote", "add", "origin", "https://github.com/some/dotfiles")
    said = [run(book)]
    git(book, "init", "-q")
    said += [run(book), run(book, "--check"), run(book, "https://github.com/-bad-/b")]
    git(book, "remote", "add", "origin", "https://user:secret@gitlab.com/a/b")
    said.append(run(book))
    (book / "_config.yml").rename(book / "elsewhere.yml")
    said.append(run(book))
    (book / "elsewhere.yml").rename(book / "_config.yml")
    for done, piece in zip(
        said,
        [
            "no remote",
            "no remote",
            "does not say yet",
            "'-bad-'",
            "not on github.com",
            "No such file",
        ],
        strict=True,
    ):
        assert (done.returncode, done.stdout) == (1, "")
        assert piece in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert "secret" not in done.stderr
    assert contents(book) == before


def test_on_github_the_address_is_committed_once(book, tmp_path):
    """The commands of the workflow, in a copy of what somebody has pushed to GitHub."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "address.yml").read_text())
    (commands,) = [step["run"] for step in workflow["jobs"]["write"]["steps"] if "run" in step]
    hub, copy = tmp_path / "hub.git", tmp_path / "copy"
    subprocess.run(["git", "init", "-q", "--bare", str(hub)], check=True)
    git(book, "init", "-q", "-b", "main")
    git(book, "add", ".")
    git(book, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "first")
    git(book, "push", "-q", str(hub), "main")

    def act(url: str, by_hand: str = "false") -> list[str]:
        """Return what the branch on GitHub says after the workflow has run."""
        subprocess.run(["git", "clone", "-q", "-b", "main", str(hub), str(copy)], check=True)
        environment = {**os.environ, "URL": url, "BRANCH": "main", "BY_HAND": by_hand}
        command = ["bash", "-eo", "pipefail", "-c", commands]
        subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
        shutil.rmtree(copy)
        log = ["git", "-C", str(hub), "log", "--format=%s", "main"]
        return subprocess.run(log, check=True, capture_output=True, text=True).stdout.splitlines()

    mine, fork = "https://github.com/someone/attnbook", "https://github.com/other/fork"
    once = [f"The book lives at {mine}", "first"]
    assert act(mine) == once
    assert act(mine) == act(mine, "true") == once
    assert act(fork) == once  # a fork keeps the address, or it would come back with every request
    assert act(fork, "true") == [f"The book lives at {fork}", *once]


def test_a_site_of_an_owner_stands_at_the_root():
    assert Address("https://github.com/Someone/someone.github.io", "main").site == (
        "https://someone.github.io/"
    )
    assert NEW.site == "https://someone.github.io/lecture-python.myst/"


# --- What is an address ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "https://github.com/some-one/a.b_c-d",
        "https://github.com/some-one/a.b_c-d.git",
        "https://github.com/some-one/a.b_c-d/",
        "https://github.com/some-one/a.b_c-d.git/",
        " http://www.github.com/some-one/a.b_c-d\n",
        "www.github.com/some-one/a.b_c-d",
        "github.com/some-one/a.b_c-d",
        "GitHub.com/some-one/a.b_c-d",
        "git@github.com:some-one/a.b_c-d.git",
        "github.com:some-one/a.b_c-d.git",
        "ssh://git@github.com/some-one/a.b_c-d.git",
        "ssh://git@github.com:22/some-one/a.b_c-d.git",
        "ssh://git@ssh.github.com:443/some-one/a.b_c-d.git",
        "git://github.com/some-one/a.b_c-d.git",
        "https://x-access-token:secret@github.com/some-one/a.b_c-d",
    ],
)
def test_git_and_people_write_an_address_in_many_ways(written):
    assert parse(written) == ("https://github.com/some-one/a.b_c-d", "main")


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "is not like"),
        ("attnbook", "is not like"),
        ("a/b", "is not like"),
        ("/srv/git/attnbook.git", "is not like"),
        ("file:///srv/git/attnbook.git", "is not like"),
        ("https://gitlab.com/a/b", "not on github.com"),
        ("https://github.com.evil.org/a/b", "not on github.com"),
        ("https://gist.github.com/a/b", "not on github.com"),
        ("https://github.com/a", "lacks the owner or the repository"),
        ("https://github.com//b", "lacks the owner or the repository"),
        ("https://github.com/a/.git", "lacks the owner or the repository"),
        ("https://github.com/a/b/tree/main", "goes on after"),
        ("https://github.com/OWNER_NOT_SET/attnbook", "only holds the owner's place"),
        ("https://github.com/a_b/c", "no owner's name"),
        ("https://github.com/a.b/c", "no owner's name"),
        ("https://github.com/-a/c", "no owner's name"),
        ("https://github.com/a-/c", "no owner's name"),
        ("https://github.com/a--b/c", "no owner's name"),
        ("https://github.com/ä/c", "no owner's name"),
        (f"https://github.com/{'a' * 40}/c", "has 40 characters"),
        (f"https://github.com/a/{'c' * 101}", "has 101 characters"),
        ("https://github.com/a/..", "no repository's name"),
        ("https://github.com/a/b.wiki", "no repository's name"),
        ("https://github.com/a/b?tab=readme", "no repository's name"),
        ('https://github.com/a/b"c', "no repository's name"),
        ("https://github.com/a/b c", "is not like"),
    ],
)
def test_what_github_would_refuse_is_refused_with_the_reason(written, why):
    with pytest.raises(RefusedError) as refused:
        parse(written)
    assert why in str(refused.value)


def test_the_longest_names_are_taken():
    assert parse(f"https://github.com/{'a' * 39}/{'b' * 100}").name == "b" * 100


@pytest.mark.parametrize("branch", ["", "a b", "-x", "a..b", 'a"b', "a/", "/a", "a.lock"])
def test_a_branch_must_fit_into_a_link(branch):
    with pytest.raises(RefusedError, match="no name of a branch"):
        parse("https://github.com/a/b", branch)
