"""The book in two languages: what a page says of the other one, and what a Chinese page needs.

The Chinese site is a build of its own under /zh/, with the same names of pages. What the theme and
Jupyter Book say is Chinese there by their own tables, or by WORDS.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.transforms import Transform
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
ZH = ROOT / "book" / "zh"

# Written to the page for its scripts, which have the English as they write it.
WORDS = {
    "Pages of ": "下级页面：",
    "Close the menu": "关闭菜单",
    "Enlarged figure": "放大的图",
    "Enlarge": "放大",
    "Close": "关闭",
}
# What the theme says in English whatever the language is.
THEME = {
    "Color mode": "颜色模式",
    "System Settings": "跟随系统",
    "Contents": "目录",
    "On this page": "本页内容",
    "Main": "全书",
    "Page": "本页",
    "Link to this heading": "本节链接",
}
# What is folded under a cell, by the name that MyST-NB puts after 显示 and 隐藏.
FOLDED = {"source": "代码", "output": "输出"}
# Of the menus in a page's header, by the name that the theme gives them.
BUTTONS = {
    "launch-buttons": "运行本章",
    "source-buttons": "编辑、报告、引用",
    "source-repository-button": "代码仓库",
    "source-edit-button": "编辑本页",
    "source-issues-button": "报告错误",
    "cite-button": "引用本书",
    "download-buttons": "下载本页",
    "download-notebook-button": "下载笔记本",
    "download-source-button": "下载源文件",
    "download-pdf-button": "打印或存为 PDF",
}


def chinese(app: Sphinx) -> bool:
    """Whether this build is the Chinese one."""
    return str(app.config.language).startswith("zh")


def translated(pagename: str) -> bool:
    """Whether a page is there in both languages; the search is."""
    name = pagename.removeprefix("book/")
    return pagename == "search" or any((ZH / f"{name}{end}").is_file() for end in (".ipynb", ".md"))


def link_both(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Lead each page to the same one in the other language, and tell search engines of both."""
    top = context["pathto"]("index", 1).removesuffix("index").rstrip("#")
    if not translated("book/index"):
        return
    if chinese(app):
        context["language"] = "zh-Hans"
        words = json.dumps(WORDS, ensure_ascii=False)
        context["metatags"] = (
            context.get("metatags", "") + f"\n<script>window.attnbookWords = {words};</script>"
        )
        context["other_language"] = {"url": f"{top}../{pagename}.html", "lang": "en"}
    else:
        # The pages of the package are in English alone: one page says so for all.
        there = "book/api/index" if "/api/" in pagename else pagename
        context["other_language"] = {"url": f"{top}zh/{there}.html", "lang": "zh-Hans"}
    if not translated(pagename):
        return
    if base := str(app.config.html_baseurl).removesuffix("zh/"):
        for lang, folder in (("en", ""), ("zh-Hans", "zh/"), ("x-default", "")):
            context["metatags"] = context.get("metatags", "") + (
                f'\n<link rel="alternate" hreflang="{lang}" href="{base}{folder}{pagename}.html" />'
            )


def name_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Let the header of a Chinese page speak Chinese, and open what is Chinese."""
    name = pagename.removeprefix("book/")
    for group in context.get("header_buttons", []) if chinese(app) else ():
        for button in (group, *group.get("buttons", [])):
            opened = "在 Colab 中打开" if "colab" in button.get("url", "") else None
            said = BUTTONS.get(button.get("label", ""), opened)
            if said:
                button["tooltip"] = said
                if button.get("text"):
                    button["text"] = said
            if "url" in button:
                edited = rf"\1/translations/zh/{name}.md"
                url = re.sub(r"(/edit/.+)/book/[\w/]+\.\w+$", edited, button["url"])
                button["url"] = re.sub(r"(/blob/.+/book/)", r"\1zh/", url)


class NameHeadings(Transform):
    """Let a heading be found by the names that others have for it.

    That is the one that GitHub gives it, since docutils knows ASCII and no "_". A Chinese heading
    has first of all the name of its English counterpart, so that an address holds in both.
    """

    default_priority = 870  # before links to headings are resolved

    def apply(self, **kwargs: object) -> None:
        """Give the names to the sections, and to what resolves links."""
        env = self.document.settings.env
        english = env.config.attnbook_anchors.get(env.docname, {})
        for section in self.document.findall(nodes.section):
            slug, ids = section.get("slug"), section["ids"]
            if slug in english and english[slug] not in ids:
                ids.insert(0, english[slug])
                line, _, text = self.document.myst_slugs[slug]
                self.document.myst_slugs[slug] = line, english[slug], text
            if slug and slug not in ids:
                ids.append(slug)


def translate_theme(app: Sphinx, exception: Exception | None) -> None:
    """Let what nothing can set be Chinese: names in attributes, and what is said of folds."""
    if exception is not None or not chinese(app):
        return
    pattern = rf'((?:aria-label|title)=")({"|".join(THEME)})"'
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        said = re.sub(pattern, lambda match: f'{match[1]}{THEME[match[2]]}"', text)
        said = re.sub(
            rf">((?:显示|隐藏)(?:后文的)?)({'|'.join(FOLDED)})<",
            lambda match: f">{match[1]}{FOLDED[match[2]]}<",
            said,
        )
        path.write_text(said, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.add_config_value("attnbook_anchors", {}, "env")
    app.add_transform(NameHeadings)
    app.connect("html-page-context", link_both)
    app.connect("html-page-context", name_buttons, priority=960)
    app.connect("build-finished", translate_theme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
