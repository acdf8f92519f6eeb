"""The book's address: read from _config.yml, checked, and carried to wherever else it stands.

python3 tools/address.py                  take git's remote "origin", or else what _config.yml says
python3 tools/address.py URL [--branch B] write this address
python3 tools/address.py --check          stop with one sentence while no address is set

_config.yml is the one place in which the address and the branch are written by hand. The notebooks
have to repeat both, because Colab opens a notebook alone: the set-up cell says what to install, and
links to other pages are whole addresses. This runs before anything is installed, on any Python 3.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
UNSET = "OWNER_NOT_SET"

# All the ways in which git and people write github.com/owner/name; a user or token before @ is not
# part of the address.
WRITTEN = re.compile(
    r"(?:(?:https?|ssh|git|git\+https|git\+ssh)://)?(?:[^@/\s]+@)?"
    r"(?P<host>[\w.-]+\.[a-z]+)(?P<port>:\d+(?=/))?[/:](?P<path>\S*)",
    re.IGNORECASE,
)
HOSTS = ("github.com", "www.github.com", "ssh.github.com")
OWNER = re.compile(r"[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")
NAME = re.compile(r"[a-zA-Z0-9._-]+")
BRANCH = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.+-]*(?:/[a-zA-Z0-9_][a-zA-Z0-9_.+-]*)*")
LONGEST_OWNER, LONGEST_NAME = 39, 100

# What a set-up cell installs: the address and the branch that stood there before.
SET_UP = re.compile(r"attnbook\[book\] @ git\+(https://github\.com/[\w.-]+/[\w.-]+?)@([^\s\"'\\]+)")


class Address(NamedTuple):
    """A repository on GitHub and the branch that readers are sent to."""

    url: str  # https://github.com/owner/name
    branch: str

    @property
    def owner(self) -> str:
        return self.url.split("/")[3]

    @property
    def name(self) -> str:
        return self.url.split("/")[4]

    @property
    def site(self) -> str:
        """Where GitHub Pages shows the book."""
        if self.name.lower() == f"{self.owner}.github.io".lower():
            return f"https://{self.name}/"
        return f"https://{self.owner}.github.io/{self.name}/"

    @property
    def is_set(self) -> bool:
        return self.owner != UNSET


class RefusedError(ValueError):
    """An address that GitHub, or Colab, could not open; its text is the sentence that says why."""


def parse(written: str, branch: str = "main") -> Address:
    """Return the address that is meant by any of git's ways to write it.

    Raises:
        RefusedError: it is not one of GitHub's, or GitHub allows no such name.
    """
    # A token that somebody keeps in git's configuration is shown to nobody.
    shown = re.sub(r"[^@/\s]+@", "", written.strip())
    match = WRITTEN.fullmatch(written.strip())
    if not match:
        raise RefusedError(f"{shown!r} is not like https://github.com/someone/attnbook.")
    if match["host"].lower() not in HOSTS:
        raise RefusedError(f"{shown} is not on github.com, from where Colab opens notebooks.")
    owner, _, name = re.sub(r"(?:\.git)?/*$", "", match["path"].lstrip("/")).partition("/")
    if not owner or not name:
        raise RefusedError(f"{shown} lacks the owner or the repository: github.com/OWNER/NAME.")
    if "/" in name:
        raise RefusedError(f"{shown} goes on after the repository's name: stop there.")
    _check_owner(owner)
    if len(name) > LONGEST_NAME:
        raise RefusedError(
            f"The repository's name has {len(name)} characters, and GitHub allows {LONGEST_NAME}."
        )
    if not NAME.fullmatch(name) or name in (".", "..") or name.lower().endswith(".wiki"):
        raise RefusedError(
            f"{name!r} is no repository's name on GitHub, which allows letters, digits, '.', '-' "
            "and '_', and no '.wiki' at the end."
        )
    if not BRANCH.fullmatch(branch) or ".." in branch or branch.endswith((".", ".lock")):
        raise RefusedError(f"{branch!r} is no name of a branch that a link can hold.")
    return Address(f"https://github.com/{owner}/{name}", branch)


def _check_owner(owner: str) -> None:
    if owner == UNSET:
        raise RefusedError(f"{UNSET} only holds the owner's place: put your name on GitHub there.")
    if len(owner) > LONGEST_OWNER:
        raise RefusedError(
            f"The owner's name has {len(owner)} characters, and GitHub allows {LONGEST_OWNER}."
        )
    if not OWNER.fullmatch(owner):
        raise RefusedError(
            f"{owner!r} is no owner's name on GitHub, which allows letters, digits and single "
            "hyphens between them."
        )


def book_address(root: Path = ROOT) -> Address:
    """Return the address as _config.yml says it, set or not."""
    config = (root / "_config.yml").read_text(encoding="utf-8")
    return Address(_value(config, "url")[0], _value(config, "branch")[0])


def _value(config: str, key: str) -> tuple[str, slice]:
    """Return a value of the block `repository:` and where it stands."""
    block = re.search(r"(?m)^repository:[^\n]*\n(?:(?:[ \t]+[^\n]*|[ \t]*#[^\n]*|)\n)*", config)
    found = block and re.search(rf"""(?m)^[ \t]+{key}:[ \t]*(["']?)([^\s"'#]+)\1""", block[0])
    if not block or not found:
        raise RefusedError(f"_config.yml has no line '{key}: ...' under 'repository:'.")
    start = block.start() + found.start(2)
    return found[2], slice(start, start + len(found[2]))


def write(new: Address, root: Path = ROOT) -> list[Path]:
    """Write `new` into _config.yml and wherever an earlier address stands.

    Earlier is what _config.yml says, and what the set-up cells say: whoever edits _config.yml by
    hand finds the notebooks brought into step. Returns the files that were changed.
    """
    texts = {path: path.read_bytes().decode() for path in addressed(root)}
    earlier = {book_address(root)}
    for path, text in texts.items():
        if path.suffix == ".ipynb":
            earlier |= {Address(*found) for found in SET_UP.findall(text)}
    changed = []
    for path, text in texts.items():
        after = _replaced(text, earlier, new)
        if path.name == "_config.yml":
            where = _value(after, "branch")[1]
            after = after[: where.start] + new.branch + after[where.stop :]
        if after != text:
            path.write_bytes(after.encode())
            changed.append(path)
    return changed


def _replaced(text: str, earlier: set[Address], new: Address) -> str:
    """Return a text with the branch after an earlier address, then the address itself, replaced."""
    # A name may go on with a dot and letters, but a full stop, and git's own ending, come after it.
    end = r"(?![\w-]|\.(?!git\b)\w)"
    for old in earlier:
        # On GitHub itself, and in the addresses that open a notebook of GitHub's in Colab.
        here = rf"(github\.com/|\.google\.com/github/){old.owner}/{re.escape(old.name)}{end}"
        branch = rf"(\.git)?(/(?:blob|tree|raw|edit)/|@){re.escape(old.branch)}(?![\w.+-])"
        text = re.sub(here + branch, rf"\1{old.owner}/{old.name}\2\3{new.branch}", text)
        text = re.sub(here, rf"\1{new.owner}/{new.name}", text)
        text = re.sub(re.escape(old.site.rstrip("/")) + end, new.site.rstrip("/"), text)
    return text


def addressed(root: Path = ROOT) -> list[Path]:
    """Return the files in which the repository's address may stand."""
    names = ("_config.yml", "CITATION.cff", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    kept = [root / name for name in (*names, "pyproject.toml")]
    book = [*sorted((root / "book").rglob("*.ipynb")), *sorted((root / "book").rglob("*.md"))]
    book += sorted((root / "translations").rglob("*.md"))
    return [path for path in (*kept, *book) if path.is_file() and ".ipynb" not in path.parent.name]


def origin(root: Path = ROOT) -> tuple[str, str]:
    """Return where git says that this copy comes from, and its branch there; '' where it cannot."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
            )
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    top = git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():  # a repository around this one, or none
        return "", ""
    head = git("symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    return git("remote", "get-url", "origin"), head.partition("/")[2]


def _wanted(url: str, branch: str, now: Address) -> Address:
    """Return the address that was asked for, or that git knows, or that _config.yml has."""
    if url:
        return parse(url, branch or now.branch)
    url, head = origin()
    if not url and not now.is_set:
        raise RefusedError(
            'git knows no remote "origin" here; say where the book lives: '
            "make repository URL=https://github.com/someone/attnbook"
        )
    # Once an address is set, its branch may have been chosen by hand.
    branch = branch or (not now.is_set and head) or now.branch
    try:
        return parse(url or now.url, branch)
    except RefusedError as error:
        raise RefusedError(f"git's origin will not do (URL=... names another): {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", nargs="?", default="", help="https://github.com/someone/attnbook")
    parser.add_argument("--branch", default="", help="the branch that readers are sent to")
    parser.add_argument("--check", action="store_true", help="say whether an address is set")
    arguments = parser.parse_args()
    try:
        now = book_address()
        if arguments.check:
            if not now.is_set:
                raise RefusedError(
                    "_config.yml does not say yet where the book lives, and nobody could open it "
                    "in Colab: run make repository URL=https://github.com/someone/attnbook, and "
                    "commit what that changes."
                )
            parse(now.url, now.branch)
            return 0
        new = _wanted(arguments.url, arguments.branch, now)
        changed = write(new)
    except OSError as error:
        print(f"{error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except RefusedError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"The book lives at {new.url}, branch {new.branch}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
