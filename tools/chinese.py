"""What the Chinese site is built from: its pages, its contents, its settings.

The pages have the names of the English ones, so that /zh/book/eca.html is what /book/eca.html is in
English. A page that is not translated yet is short: it says so, and leads to the English one.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import translation
import yaml
from address import book_address
from notebooks import ROOT

CAPTIONS = {
    "I. Attention": "一、注意力",
    "II. Self-attention": "二、自注意力",
    "III. Multi-head attention": "三、多头注意力",
    "IV. Channel attention": "四、通道注意力",
    "V. Spatial attention": "五、空间注意力",
    "Summary": "总结",
    "Results": "结果",
    "Appendix": "附录",
    "Reference": "参考",
}
STUB = """\
# {title}（英文）

这一页还没有翻译成中文。[请阅读英文版]({url})。
"""


def contents() -> dict[str, Any]:
    """Return the contents of the Chinese site: those of the English one, without the package's."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc["parts"]:
        part["caption"] = CAPTIONS[part["caption"]]
        part["chapters"] = [{"file": chapter["file"]} for chapter in part["chapters"]]
    return toc


def settings() -> dict[str, Any]:
    """Return the settings of the Chinese site: those of the English one, in Chinese."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["logo"] = str(ROOT / config["logo"])
    config["author"] = "attnbook 的作者"
    config["html"]["favicon"] = str(ROOT / config["html"]["favicon"])
    config["html"]["extra_footer"] = "文字和图：CC BY 4.0。代码：MIT。"
    sphinx = config["sphinx"]
    paths = sphinx["local_extensions"]
    sphinx["local_extensions"] = {name: str(ROOT / path) for name, path in paths.items()}
    own = sphinx["config"]
    for name in ("templates_path", "html_static_path"):
        own[name] = [str(ROOT / path) for path in own[name]]
    own["language"] = "zh_CN"
    own["html_theme_options"] |= {"toc_title": "本页内容", "search_bar_text": "搜索本书"}
    own |= {
        "nb_code_prompt_show": "显示{type}",
        "nb_code_prompt_hide": "隐藏{type}",
        "attnbook_anchors": {f"book/{page}": english_anchors(page) for page in translation.pages()},
    }
    return config


def english_anchors(page: str) -> dict[str, str]:
    """Return the English name of each Chinese heading of a page."""
    return {chinese: english for english, chinese in translation.anchors(page).items()}


def title(page: str) -> str:
    """Return the title of an English page."""
    first = next(iter(translation.originals(translation.source(page)).values()))
    found = re.search(r"^# (.+)", first, re.MULTILINE)
    return found[1] if found else page


def sources(folder: Path) -> Path:
    """Write what the Chinese site is built from into a folder; what has not changed stays old."""
    book, keep = folder / "book", {"_static"}
    book.mkdir(parents=True, exist_ok=True)
    toc, here = contents(), book_address()
    write(folder / "_toc.yml", yaml.safe_dump(toc, allow_unicode=True))
    write(folder / "_config.yml", yaml.safe_dump(settings(), allow_unicode=True))
    # What pages name by its path; all the rest of _static is shared by the settings.
    shutil.copytree(
        ROOT / "book" / "_static" / "cards", book / "_static" / "cards", dirs_exist_ok=True
    )
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    for name in (toc["root"], *files):
        page = name.removeprefix("book/")
        made = translation.target(page)
        if made.is_file():
            target, text = book / made.name, made.read_text(encoding="utf-8")
        else:
            english = translation.source(page)
            url = f"{here.url}/blob/{here.branch}/{english.relative_to(ROOT).as_posix()}"
            target = book / f"{page}.md"
            text = STUB.format(title=title(page), url=url)
        target.parent.mkdir(exist_ok=True)
        write(target, text)
        keep.add(target.relative_to(book).as_posix())
    for path in book.rglob("*"):
        name = path.relative_to(book).as_posix()
        if path.is_file() and name not in keep and not name.startswith("_static/"):
            path.unlink()  # a page that has been translated since
    return folder


def write(path: Path, text: str) -> None:
    """Write a file unless it says so already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
