"""The page of verdicts is what its data file says, and each of its links leads to a heading."""

from __future__ import annotations

import re

import article_checked
import pytest
from article_checked import VERDICTS
from rules import ROOT, Chapter

pytestmark = pytest.mark.book


@pytest.fixture(scope="module")
def chapters() -> list[Chapter]:
    return [Chapter.read(path) for path in article_checked.in_order()]


def test_every_chapter_is_in_the_table_of_contents(chapters):
    names = {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    assert {chapter.name for chapter in chapters} == names


def test_page_is_up_to_date(chapters):
    page = article_checked.PAGE.read_text(encoding="utf-8")
    made = article_checked.page(chapters, article_checked.statements())
    assert page == made, "run python tools/article_checked.py"


def test_every_statement_is_listed_and_leads_somewhere():
    page = article_checked.PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| (?!The art)", line)]
    listed = article_checked.statements()
    assert [row[0] for row in rows] == [f"| {each['words']}" for each in listed]
    assert [len(row) for row in rows] == [4] * len(listed)
    assert all(row[2] in VERDICTS and "](" in row[3] for row in rows)
    counts = [sum(row[2] == verdict for row in rows) for verdict in VERDICTS]
    assert [int(n) for n in re.findall(r"\d+", page.split("\n\n")[2])] == [len(rows), *counts]


def test_no_words_are_quoted_twice():
    words = [each["words"] for each in article_checked.statements()]
    assert len(set(words)) == len(words)
    assert all(re.search(r"[一-鿿]|h=8", quoted) for quoted in words)


def test_a_heading_that_no_chapter_has(chapters):
    titles = {"eca": {"found": "Found"}}
    each = {"words": "x", "says": "X", "whose": "own", "verdict": "holds", "shown": "eca#found"}
    assert article_checked.row(each, titles) == "| x | X | holds | [Found](eca.ipynb#found) |"
    with pytest.raises(ValueError, match="no heading is eca#lost"):
        article_checked.row({**each, "shown": "eca#lost"}, titles)


@pytest.mark.parametrize(
    ("altered", "complaint"),
    [
        ("section = '9'", "section '9' is not known"),
        ("verdict = 'wrong'", "verdict 'wrong' is not known"),
        ("whose = 'mine'", "whose 'mine' is not known"),
        ("shown = ''", None),
        ("", "neither a section nor a source"),
        ("verdict = 'does not hold'\nshown = ''", "it says not why"),
    ],
)
def test_an_entry_that_cannot_be_drawn(altered, complaint, tmp_path, monkeypatch):
    entry = {"section": "1.1", "words": "x", "says": "X", "whose": "own", "verdict": "holds"}
    lines = [f"{k} = '{v}'" for k, v in entry.items() if not re.search(rf"^{k} =", altered, re.M)]
    data = tmp_path / "article.toml"
    data.write_text("\n".join(["[[statement]]", *lines, altered]), encoding="utf-8")
    monkeypatch.setattr(article_checked, "DATA", data)
    if complaint is None:
        assert article_checked.statements()
        return
    with pytest.raises(ValueError, match=complaint):
        article_checked.statements()
