"""The Chinese pages are what their translations make, and say what the English ones say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import address
import pytest
import translation
from notebooks import ROOT

pytestmark = pytest.mark.book

BOOK = "https://github.com/OWNER_NOT_SET/attnbook/blob/main/book/"
CELLS = {
    "a1": f"""\
# One score

Of 1,000 keys $k_j$ one has 67 % of the weight, [see below](#the-rest) and `softmax`.

- [its chapter]({BOOK}other.ipynb#one-head), February 14
- [a page in English]({BOOK}english.md)

| Key | Weight |
|---|---|
| 1 | 0.67 |
""",
    "a2": "<details><summary>The rest</summary>\n\n## The rest\n\nNothing is left.\n\n</details>",
}
CHINESE = {
    "a1": f"""\
# 一个得分

在 1000 个键 $k_j$ 中，有一个得到 67 % 的权重，[见下文](#the-rest)和 `softmax`。

- [它的一章]({BOOK}other.ipynb#one-head)，2 月 14 日
- [一页英文]({BOOK}english.md)

| 键 | 权重 |
|---|---|
| 1 | 0.67 |
""",
    "a2": "<details><summary>其余</summary>\n\n## 其余的\n\n什么也不剩。\n\n</details>",
    "a3 alt": "两条线，第一条在 0.67 处相交。",
    "a3 title": "移动 1 个键",
}
ALT, TITLE = "Two lines that cross at 0.67, the first of them.", "Move 1 key"
PAGE = """\
# The first

Three words here, FACT_CELLS cells.

:::{note}
## No heading
:::

```python
# no heading
```

## The second

More [words](small.ipynb#the-rest).
"""


def notebook(cells: dict[str, str]) -> dict:
    figure = {"mystnb": {"image": {"alt": ALT}}, "attnbook": {"live": "x", "title": TITLE}}
    code = {"cell_type": "code", "id": "a3", "metadata": figure, "source": ["1"], "outputs": []}
    texts = [
        {"cell_type": "markdown", "id": name, "metadata": {}, "source": text.splitlines(True)}
        for name, text in cells.items()
    ]
    return {"cells": [*texts, code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write_blocks(root: Path, page: str, texts: dict[str, str]) -> None:
    english = translation.originals(translation.source(page, root))
    blocks = [
        f"<!-- {name} {translation.digest(english[name], root)} -->\n{text}\n"
        for name, text in texts.items()
    ]
    (root / "translations" / "zh" / f"{page}.md").write_text("\n".join(blocks), encoding="utf-8")


def put(root: Path, cells: dict[str, str]) -> None:
    text = json.dumps(notebook(cells), ensure_ascii=False)
    (root / "book" / "small.ipynb").write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a book of two pages that are translated, and one that is not."""
    (tmp_path / "book" / "zh").mkdir(parents=True)
    (tmp_path / "translations" / "zh").mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "book" / "english.md").write_text("# In English\n", encoding="utf-8")
    put(tmp_path, CELLS)
    (tmp_path / "book" / "other.ipynb").write_text(
        json.dumps(notebook({"b1": "# One head"})), encoding="utf-8"
    )
    write_blocks(tmp_path, "small", CHINESE)
    write_blocks(
        tmp_path,
        "other",
        {"b1": "# 一个头", "a3 alt": CHINESE["a3 alt"], "a3 title": CHINESE["a3 title"]},
    )
    for page in ("small", "other"):
        target = translation.target(page, tmp_path)
        target.write_text(translation.made(page, tmp_path)[0], encoding="utf-8")
    return tmp_path


def said(root: Path) -> str:
    return "\n".join(translation.check(translation.pages(root), root))


def test_the_chinese_edition_agrees():
    assert translation.check(translation.pages()) == []


def test_a_whole_translation_has_no_fault(root):
    assert said(root) == ""
    assert translation.todo("small", root) == ""


def test_links_lead_to_chinese_pages_and_headings(root):
    text = translation.target("small", root).read_text(encoding="utf-8")
    assert "[见下文](#其余的)" in text
    assert f"]({BOOK}zh/other.ipynb#一个头)" in text
    assert f"]({BOOK}english.md)" in text


def test_code_is_the_same_and_words_are_not(root):
    made = json.loads(translation.target("small", root).read_text(encoding="utf-8"))
    code = made["cells"][-1]
    assert code["source"] == ["1"]
    assert code["metadata"]["mystnb"]["image"]["alt"] == CHINESE["a3 alt"]
    assert code["metadata"]["attnbook"] == {"live": "x", "title": CHINESE["a3 title"]}
    assert "edit translations/zh/small.md" in "".join(made["cells"][0]["source"])


@pytest.mark.parametrize(
    ("block", "before", "after", "complaint"),
    [
        ("a1", "67 %", "76 %", "number lost: 67"),
        ("a1", "67 %", "67 % 到 76 %", "number added: 76"),
        ("a1", "2 月", "3 月", "number added: 3"),
        ("a1", "14 日", "15 日", "number lost: 14"),
        ("a1", "$k_j$", "", "formula lost: $k_j$"),
        ("a1", "$k_j$", "$k_i$", "formula added: $k_i$"),
        ("a1", "`softmax`", "softmax", "code lost: `softmax`"),
        ("a1", "(#the-rest)", "(#that)", "address lost: ](#the-rest)"),
        ("a1", "\n- [一页英文]", "[一页英文]", "list item lost: -"),
        ("a1", "| 1 | 0.67 |", "0.67 | 1", "table row lost: |"),
        ("a1", "# 一个", "一个", "heading lost: #"),
        ("a1", "# 一个", "## 一个", "heading added: ##"),
        ("a2", "</details>", "", "tag lost: </details>"),
        ("a2", "什么也不剩。", "```python\nx\n```", "code block added"),
        ("a3 alt", "0.67", "0.76", "number added: 0.76"),
        ("a3 alt", CHINESE["a3 alt"], ALT, "there is no Chinese in it"),
        ("a3 title", "移动", "FACT_ONE 移动", "placeholder added: FACT_ONE"),
        ("a3 title", CHINESE["a3 title"], "", "not translated"),
    ],
)
def test_what_is_lost_or_added_is_named(root, block, before, after, complaint):
    assert before in CHINESE[block]
    write_blocks(root, "small", {**CHINESE, block: CHINESE[block].replace(before, after)})
    assert f"small {block}: {complaint}" in said(root)


def test_english_that_changed_since_is_named(root):
    put(root, {**CELLS, "a2": CELLS["a2"].replace("Nothing is", "Little is")})
    assert "small a2: the English has changed since" in said(root)
    assert "Little is left" in translation.todo("small", root)
    assert "One score" not in translation.todo("small", root)


def test_a_block_without_english_is_named(root):
    put(root, {"a1": CELLS["a1"]})
    assert "small a2: nothing in English has this name" in said(root)


def test_a_page_that_was_edited_by_hand_is_named(root):
    page = translation.target("small", root)
    page.write_text(page.read_text(encoding="utf-8").replace("剩", "余"), encoding="utf-8")
    assert "book/zh/small.ipynb is not what its translation makes" in said(root)
    page.unlink()
    assert "book/zh/small.ipynb is not what its translation makes" in said(root)
    page.with_name("stray.md").write_text("# 走失\n", encoding="utf-8")
    assert "book/zh/stray.md has no translation" in said(root)


def test_a_table_of_verdicts_keeps_its_head():
    english = "| Section | Verdict | Where it is shown |\n"
    assert translation.faults(english, "| 节 | 结论 | 在哪里可以看到 |\n") == []
    assert translation.faults(english, "| 节 | 判断 | 出处 |\n") == [
        "the head of the table has to end in | 结论 | 在哪里可以看到 |"
    ]


def test_a_page_is_split_before_headings_alone(root):
    assert [part.splitlines()[0] for part in translation.sections(PAGE)] == [
        "# The first",
        "## The second",
    ]
    (root / "book" / "page.md").write_text(PAGE, encoding="utf-8")
    chinese = [part.replace("words", "词") for part in translation.sections(PAGE)]
    write_blocks(root, "page", {f"section-{i}": part for i, part in enumerate(chinese)})
    text, faults = translation.made("page", root)
    assert faults == []
    assert text.startswith(
        "<!-- Made by tools/translation.py: edit translations/zh/page.md -->\n\n#"
    )
    assert "[词](small.ipynb#其余的)" in text


def test_a_book_that_moves_is_not_translated_again(root):
    new = address.parse("https://github.com/someone/attention", "trunk")
    address.write(new, root)
    assert "someone/attention/blob/trunk/book/zh/other.ipynb" in (
        translation.target("small", root).read_text(encoding="utf-8")
    )
    assert said(root) == ""
