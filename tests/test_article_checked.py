"""The page of verdicts is what the chapters say, and each of its links leads to a heading."""

from __future__ import annotations

import re

import article_checked
import pytest
from rules import ROOT, Chapter, verdict_rows

pytestmark = pytest.mark.book


@pytest.fixture(scope="module")
def chapters() -> list[Chapter]:
    return [Chapter.read(path) for path in article_checked.in_order()]


def test_every_chapter_is_in_the_table_of_contents(chapters):
    names = {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    assert {chapter.name for chapter in chapters} == names


def test_page_is_up_to_date(chapters):
    page = article_checked.PAGE.read_text(encoding="utf-8")
    assert page == article_checked.page(chapters), "run python tools/article_checked.py"


def test_every_verdict_is_listed_and_leads_to_a_heading(chapters):
    page = article_checked.PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| (?!Section )", line)]
    stated = [row for chapter in chapters for _, row in verdict_rows(chapter)]
    assert [row[:3] for row in rows] == [
        [f"| {row['Section']}", row["Statement"], row["Verdict"]] for row in stated
    ]
    anchors = {chapter.name: article_checked.headings(chapter).values() for chapter in chapters}
    for row in rows:
        links = re.findall(r"\]\((\w+)\.ipynb#([^)]*)\)", row[3])
        assert links, f"{row} leads nowhere"
        for name, anchor in links:
            assert anchor in anchors[name], f"{name} has no heading {anchor}"


def test_a_heading_that_no_chapter_has():
    anchors = {"a": {"Found": "found"}, "b": {"Elsewhere": "elsewhere"}}
    assert article_checked.linked('see "Elsewhere"', "a", anchors) == (
        "see [Elsewhere](b.ipynb#elsewhere)"
    )
    with pytest.raises(ValueError, match='a says that "Lost" shows a statement'):
        article_checked.linked('see "Lost"', "a", anchors)


def test_a_statement_shown_by_a_source_alone_leads_to_the_table():
    assert article_checked.linked("[a paper](https://arxiv.org)", "a", {"a": {}}) == (
        "[a paper](https://arxiv.org); [the table](a.ipynb#what-the-article-says)"
    )
