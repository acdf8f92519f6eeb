"""Whoever knows a mechanism's name knows where everything about it is: each thing is there."""

from __future__ import annotations

import re
import tomllib

import pytest
from notebooks import ROOT, appendices

import attnbook

pytestmark = pytest.mark.book

# A module whose names are imported from the top is a mechanism's; conversions serve several.
MECHANISMS = sorted(
    {getattr(attnbook, name).__module__.partition(".")[2] for name in attnbook.__all__}
    - {"convert"}
)
CHAPTERS = sorted({path.stem for path in (ROOT / "book").glob("*.ipynb")} - appendices())
CONTRACT = re.compile(r"class \w+\(.*\b\w+Contract\b")


def read(path: str) -> str:
    file = ROOT / path
    assert file.is_file(), f"{path} is missing"
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MECHANISMS)
class TestMechanism:
    def test_has_a_chapter(self, name):
        assert name in CHAPTERS

    def test_has_a_page_of_the_package(self, name):
        assert f"automodule:: attnbook.{name}" in read(f"book/api/{name}.md")
        assert f"file: book/api/{name}\n" in read("_toc.yml")

    def test_keeps_a_contract(self, name):
        assert CONTRACT.search(read(f"tests/test_{name}.py")), "of vision or of sequences"

    def test_is_among_those_that_mutants_are_made_of(self, name):
        settings = tomllib.loads(read("pyproject.toml"))["tool"]["mutmut"]
        assert f"attnbook/{name}.py" in settings["only_mutate"]
        assert f"tests/test_{name}.py" in settings["pytest_add_cli_args_test_selection"]


# (That a chapter stands in the table of contents, test_article_checked.py sees to.)
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_exercises_with_answers(name):
    assert "@checker" in read(f"attnbook/exercises/{name}.py")
    assert "WRONG" in read(f"tests/exercise_answers/{name}.py")


def test_the_mechanisms_are_those_of_the_package():
    assert {"attention", "eca", "spatial_transformer"} <= set(MECHANISMS)


@pytest.mark.parametrize("sheet", sorted((ROOT / "book" / "_static").rglob("*.css")), ids=str)
def test_no_rule_of_a_style_sheet_is_left_open(sheet):
    """A brace that is missing puts all later rules inside of one, where they do nothing."""
    text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)
    inside: list[str] = []
    for selector, brace in re.findall(r"([^{};]*)([{}])", text):
        if brace == "}":
            inside.pop()
            continue
        assert not inside or inside[-1].startswith("@"), f"{selector.strip()} in {inside[-1]}"
        inside.append(selector.strip())
    assert inside == []
