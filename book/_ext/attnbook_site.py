"""What the site needs beyond Jupyter Book: names for what is heard, docstrings as they read.

Docstrings of attnbook are plain text, meant for `help` too: formulas stand on lines of their own,
code in single backticks. Sphinx would read the bars of |q| and the stars of a * b as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from attnbook_languages import chinese
from sphinx.application import Sphinx

# Chinese characters, their punctuation and their full-width forms.
HAN = "[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"


def mend_body(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Make the page's HTML say what it is, for those who hear it.

    A fold under a cell is called by the words that are seen on it, and its "source" is code. The
    parameters of a long signature become <div>s, where Sphinx leaves a <dl> without a <dt>.
    In an English page Chinese becomes <span lang="zh-Hans">, except in formulas, known by their
    backslash.
    """
    body = re.sub(
        r'<dt class="sig .*?</dt>',
        lambda signature: re.sub(r"<(/?)d[ld]>", r"<\1div>", signature[0]),
        context.get("body", ""),
        flags=re.DOTALL,
    )
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    context["body"] = body = re.sub(r">(Show|Hide) source\b", r">\1 code", body)
    if chinese(app):
        return
    context["body"] = re.sub(
        rf">[^<\\]*{HAN}[^<\\]*(?=<)",
        lambda text: re.sub(rf"{HAN}+", r'<span lang="zh-Hans">\g<0></span>', text[0]),
        body,
    )


def keep_in_book(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Lead links to pages of the repository's book to the pages of this site.

    A notebook names other pages by their full address, which leads somewhere in Colab as well. A
    Chinese page may lead to one that is there in English alone.
    """
    options = app.config.html_theme_options
    book = f"{options['repository_url']}/blob/{options['repository_branch']}/book/"

    def within(link: re.Match[str]) -> str:
        target = f"book/{link[2]}"
        if chinese(app) and not link[1]:
            target = f"{context['pathto']('index', 1).removesuffix('index')}../{target}.html"
        else:
            target = context["pathto"](target)
        return f'class="reference internal" href="{target}'

    context["body"] = re.sub(
        rf'class="reference external" href="{re.escape(book)}(zh/)?([\w/]+)\.(?:md|ipynb)',
        within,
        context.get("body", ""),
    )


def plain_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn a plain-text docstring into reStructuredText that looks the same."""
    lines[:] = [
        line for paragraph in _paragraphs(lines) for line in (*_paragraph_as_rst(paragraph), "")
    ]


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []


def _paragraph_as_rst(paragraph: list[str]) -> list[str]:
    """Return an example as it is, a formula (it ends in no full stop) as a block, else prose."""
    if paragraph[0].lstrip().startswith(">>>"):
        return paragraph
    if not paragraph[0].endswith(":") and not paragraph[-1].endswith((".", ":")):
        return [".. code-block:: text", "", *("    " + line for line in paragraph)]
    return [_escape(line) for line in paragraph]


def _escape(text: str) -> str:
    """Write `code` as literals, and take from every other sign the meaning it has in markup."""
    parts = re.split(r"(`+[^`]+`+)", text)
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = ["``" + part.strip("`") + "``" for part in parts[1::2]]
    return "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
    app.connect("html-page-context", mend_body)
    app.connect("html-page-context", keep_in_book)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
