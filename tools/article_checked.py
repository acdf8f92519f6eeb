"""Draw the page of verdicts from tools/article.toml, each with a link to what shows it.

python tools/article_checked.py   writes book/article_checked.md
"""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from pathlib import Path

import yaml
from myst_parser.mdit_to_docutils.base import default_slugify
from rules import ROOT, Chapter

PAGE = ROOT / "book" / "article_checked.md"
DATA = ROOT / "tools" / "article.toml"
VERDICTS = ["holds", "holds with a correction", "does not hold"]
SECTIONS = {
    "Preface": "Preface",
    "1.1": "1.1 What attention is",
    "1.2.1": "1.2.1 Query, key and value",
    "1.2.2": "1.2.2 How attention is calculated",
    "2.1": "2.1 What self-attention is",
    "2.2": "2.2 How self-attention is used",
    "2.3": "2.3 What is wrong with self-attention",
    "3": "3 Why there are several heads",
    "3.1": "3.1 What several heads are",
    "3.2": "3.2 How several heads are used",
    "4.1": "4.1 What channel attention is",
    "4.2": "4.2 SENet",
    "4.3": "4.3 ECA and CBAM",
    "5.1": "5.1 What spatial attention is",
    "5.2": "5.2 The spatial transformer",
    "Summary": "Summary",
}
WHOSE = {
    "own": "",
    "common": "as in many Chinese notes",
    "cue": "the cue is that of [Dive into Deep Learning](https://zh.d2l.ai/)",
    "d2l": "from [Dive into Deep Learning](https://zh.d2l.ai/)",
    "survey": "from [a survey that it lists](https://zhuanlan.zhihu.com/p/379501097)",
    "illustrated": "from [The Illustrated Transformer]"
    "(https://jalammar.github.io/illustrated-transformer/)",
    "vaswani": "from [the Transformer's authors](https://arxiv.org/abs/1706.03762)",
    "vit": "after [the authors of ViT](https://arxiv.org/abs/2010.11929)",
    "priors": "the priors after [the authors of ViT](https://arxiv.org/abs/2010.11929)",
    "senet": "after [SENet's authors](https://arxiv.org/abs/1709.01507)",
    "eca_net": "after [ECA-Net's authors](https://arxiv.org/abs/1910.03151)",
    "cbam": "after [CBAM's authors](https://arxiv.org/abs/1807.06521)",
    "stn": "after [its authors](https://arxiv.org/abs/1506.02025)",
}
OPENING = """\
# The article, checked

The [article](https://blog.csdn.net/weixin_43334693/article/details/130189238) brings five \
mechanisms together in plain words, and most of what it says can be relied on. This page takes \
its statements one by one: the deciding words in Chinese, what they say in English, a verdict, \
and where it is shown. The verdicts are those of the [first page](index.md).

{counts}

Where the article translates somebody, that is said beside the English, and the verdict is then on \
its source. A hedge counts: "may" and "mostly" are part of a statement. What cannot be checked, \
such as a greeting or the advice to read on, has no row."""
HEAD = "| The article's words | In English | Verdict | Where it is shown |\n|---|---|---|---|"


def in_order() -> list[Path]:
    """Return the chapters as the table of contents has them."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [path for page in pages if (path := ROOT / f"{page}.ipynb").exists()]


def headings(chapter: Chapter) -> dict[str, str]:
    """Return each heading of a chapter as it reads, by its anchor."""
    found = {}
    for tokens in chapter.tokens.values():
        for opening, inline in itertools.pairwise(tokens):
            if opening.type == "heading_open":
                words = [t for t in inline.children or [] if t.type in ("text", "code_inline")]
                anchor = default_slugify("".join(t.content for t in words))
                found[anchor] = " ".join(inline.content.split())
    return found


def statements() -> list[dict[str, str]]:
    """Return what the data file holds.

    Raises:
        ValueError: a section, a verdict or an origin is unknown, or nothing shows a statement.
    """
    listed = tomllib.loads(DATA.read_text(encoding="utf-8"))["statement"]
    for each in listed:
        known = {"section": SECTIONS, "verdict": VERDICTS, "whose": WHOSE}
        for key, values in known.items():
            if each[key] not in values:
                raise ValueError(f"{each['words']}: {key} {each[key]!r} is not known")
        if "shown" not in each and "https://" not in each.get("why", ""):
            raise ValueError(f"{each['words']}: neither a section nor a source shows it")
        if each["verdict"] != "holds" and "why" not in each:
            raise ValueError(f"{each['words']}: it says not why")
    return listed


def row(each: dict[str, str], titles: dict[str, dict[str, str]]) -> str:
    """Return a statement as a row of the page.

    Raises:
        ValueError: the heading that shows it exists in no chapter.
    """
    says = f"{each['says']} ({WHOSE[each['whose']]})" if WHOSE[each["whose"]] else each["says"]
    where = [each["why"]] if "why" in each else []
    if "shown" in each:
        name, _, anchor = each["shown"].partition("#")
        if anchor not in titles.get(name, {}):
            raise ValueError(f"{each['words']}: no heading is {each['shown']}")
        where.append(f"[{titles[name][anchor]}]({name}.ipynb#{anchor})")
    return f"| {each['words']} | {says} | {each['verdict']} | {': '.join(where)} |"


def page(chapters: list[Chapter], listed: list[dict[str, str]]) -> str:
    """Return the page as Markdown: counts, what does not hold, then a table for each section."""
    titles = {chapter.name: headings(chapter) for chapter in chapters}
    verdicts = Counter(each["verdict"] for each in listed)
    counts = (
        f"Of {len(listed)} statements {verdicts['holds']} hold, "
        f"{verdicts['holds with a correction']} hold with a correction, "
        f"and {verdicts['does not hold']} do not hold."
    )
    wrong = [
        f"- {each['section']}: {each['says']}. {each['why']}."
        for each in listed
        if each["verdict"] == "does not hold"
    ]
    parts = [OPENING.format(counts=counts), "## What does not hold", "\n".join(wrong)]
    for section, title in SECTIONS.items():
        rows = [row(each, titles) for each in listed if each["section"] == section]
        parts += [f"## {title}", "\n".join([HEAD, *rows])]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    chapters = [Chapter.read(path) for path in in_order()]
    PAGE.write_text(page(chapters, statements()), encoding="utf-8")
