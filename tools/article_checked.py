"""Gather the verdicts of all chapters on one page, each with a link to what shows it.

python tools/article_checked.py   writes book/article_checked.md

A row of a chapter's table names the headings that show it between double quotes; on the page they
become links. A heading may stand in another chapter.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import yaml
from myst_parser.mdit_to_docutils.base import default_slugify
from rules import ROOT, Chapter, verdict_rows

PAGE = ROOT / "book" / "article_checked.md"
OPENING = """\
# The article, checked

Every statement of the [article](https://blog.csdn.net/weixin_43334693/article/details/130189238) \
that this book tests, in our words, with the number of the article's section, a verdict, and what \
shows it. The verdicts are those of the [first page](index.md): a statement holds, holds with a \
correction, or does not hold. This page is put together from the tables at the end of the \
chapters, and a test compares it with them."""


def in_order() -> list[Path]:
    """Return the chapters as the table of contents has them."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [path for page in pages if (path := ROOT / f"{page}.ipynb").exists()]


def headings(chapter: Chapter) -> dict[str, str]:
    """Return the anchor of each heading of a chapter, by the heading as it reads."""
    found = {}
    for tokens in chapter.tokens.values():
        for opening, inline in itertools.pairwise(tokens):
            if opening.type == "heading_open":
                words = [t for t in inline.children or [] if t.type in ("text", "code_inline")]
                found[spoken(inline.content)] = default_slugify("".join(t.content for t in words))
    return found


def spoken(text: str) -> str:
    """Return a heading without the signs that only mark a formula or code."""
    return " ".join(re.sub(r"[$`\\{}]", "", text).split())


def linked(shown: str, own: str, anchors: dict[str, dict[str, str]]) -> str:
    """Return where a statement is shown, with its quoted headings as links.

    Raises:
        ValueError: a quoted heading exists in no chapter.
    """

    def link(match: re.Match[str]) -> str:
        title = spoken(match[1])
        for name in (own, *anchors):
            if title in anchors[name]:
                return f"[{match[1]}]({name}.ipynb#{anchors[name][title]})"
        raise ValueError(f'{own} says that "{match[1]}" shows a statement; no heading reads so')

    found = re.sub(r'"([^"]+)"', link, shown)
    if found == shown:
        return f"{found}; [the table]({own}.ipynb#what-the-article-says)"
    return found


def page(chapters: list[Chapter]) -> str:
    """Return the page as Markdown: a count of the verdicts, then a table for each chapter."""
    anchors = {chapter.name: headings(chapter) for chapter in chapters}
    verdicts: Counter[str] = Counter()
    parts = []
    for chapter in chapters:
        if not verdict_rows(chapter):  # on a mechanism that the article does not name
            continue
        title = next(block.text.strip() for block in chapter.headings if block.kind == "h1")
        lines = [f"## [{title}]({chapter.name}.ipynb)", ""]
        lines += ["| Section | Statement | Verdict | Where it is shown |", "|---|---|---|---|"]
        for section, statement, verdict, shown in (
            row.values() for _, row in verdict_rows(chapter)
        ):
            verdicts[verdict] += 1
            where = linked(shown, chapter.name, anchors)
            lines.append(f"| {section} | {statement} | {verdict} | {where} |")
        parts.append("\n".join(lines))
    counts = (
        f"Of {verdicts.total()} statements {verdicts['holds']} hold, "
        f"{verdicts['holds with a correction']} hold with a correction, "
        f"and {verdicts['does not hold']} do not hold."
    )
    return "\n\n".join([OPENING, counts, *parts]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page([Chapter.read(path) for path in in_order()]), encoding="utf-8")
