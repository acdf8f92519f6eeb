"""The glossary: each term once, with all its columns, and a link to where it is taught."""

from __future__ import annotations

import re
from functools import cache

import pytest
from notebooks import BOOK
from rules import MARKDOWN, Chapter

pytestmark = pytest.mark.book


def rows() -> list[dict[str, str]]:
    """Return the rows of the tables of terms, as they are typed, by column."""
    found, columns, cells = [], [], []
    for token in MARKDOWN.parse((BOOK / "glossary.md").read_text(encoding="utf-8")):
        if token.type == "inline":
            cells.append(token.content.strip())
        elif token.type == "tr_open":
            cells = []
        elif token.type == "thead_close":
            columns = cells
        elif token.type == "tr_close" and "term" in columns:
            found.append(dict(zip(columns, cells, strict=True)))
        elif token.type == "table_close":
            columns = []
    return found


@cache
def anchors(chapter: str) -> set[str]:
    return Chapter.read(BOOK / chapter).anchors


def test_each_term_has_its_columns_and_leads_to_a_section():
    faults = []
    for row in rows():
        link = re.fullmatch(r"\[[^]]+\]\((\w+\.ipynb)#([\w-]+)\)", row["term"])
        if not link or link[2] not in anchors(link[1]):
            faults.append(f"{row['term']} leads to no heading of a chapter")
        if not row["meaning"] or not row["Chinese"]:
            faults.append(f"{row['term']} has an empty column")
    assert not faults, "\n".join(faults)


def test_no_term_stands_twice():
    terms = [re.sub(r"\[([^]]+)\].*", r"\1", row["term"]).lower() for row in rows()]
    assert len(terms) > 100
    assert not [term for term in terms if terms.count(term) > 1]
