"""What search engines, other sites and lost readers are told: the address, descriptions, the map.

All of it follows from _config.yml. While no address is set, whatever needs one is left out, the
links to Colab and to the repository too. The menus of a page's header say what they do: edit,
report, cite, print.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from attnbook_languages import chinese, translated
from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
HOME = "book/index"
PICTURE = "share.png"
PICTURE_ALT = "The table of weights of the translator of dates, beside the title of the book"
SHORTEST, LONGEST = 60, 200  # characters of a description

# On the landing page: a link to Colab with the rest of its sentence, and the line of an address.
NEEDS_ADDRESS = r" ?\[[^\]]*\]\(COLAB_CHAPTER_1\)[^.。\n]*[.。]?|\n *url = \{BOOK_ADDRESS\}"

# What the theme's buttons say here, by the name that the theme gives them.
BUTTONS = {
    "source-edit-button": {"text": "Edit this page"},
    "source-issues-button": {"text": "Report a mistake", "icon": "fas fa-bug"},
    "download-pdf-button": {"text": "Print or save as PDF", "icon": "fas fa-print"},
    "source-buttons": {"tooltip": "Edit, report, cite"},
}


def site(app: Sphinx) -> str:
    """Return where GitHub Pages shows the book, "" while no address is set."""
    owner, name = app.config.html_theme_options["repository_url"].rstrip("/").split("/")[-2:]
    if owner == "OWNER_NOT_SET":
        return ""
    folder = "zh/" if chinese(app) else ""
    if name.lower() == f"{owner}.github.io".lower():
        return f"https://{name}/{folder}"
    return f"https://{owner}.github.io/{name}/{folder}"


def facts() -> dict[str, str]:
    """Return the numbers that the landing page names, counted."""
    notebooks = [
        json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "book").glob("*.ipynb")
    ]
    code = [
        "".join(cell["source"])
        for notebook in notebooks
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    checked = (ROOT / "book" / "article_checked.md").read_text(encoding="utf-8")
    counts = re.search(r"Of (\d+) statements (\d+) hold, (\d+) hold with .*?, and (\d+)", checked)
    if counts is None:
        raise ValueError("article_checked.md does not say how many statements hold")
    names = ("FACT_STATEMENTS", "FACT_HOLD", "FACT_CORRECTED", "FACT_WRONG")
    return {
        "FACT_CELLS": str(len(code)),
        "FACT_EXERCISES": str(sum("exercises.check_" in source for source in code)),
        **dict(zip(names, counts.groups(), strict=True)),
    }


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Write numbers and addresses into the landing page."""
    if docname != HOME:
        return
    for path in [*(ROOT / "book").glob("*.ipynb"), ROOT / "book" / "article_checked.md"]:
        app.env.note_dependency(str(path))
    options = app.config.html_theme_options
    repository = options["repository_url"].removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{repository}/blob/"
    folder = "book/zh" if chinese(app) and translated("book/attention") else "book"
    known = facts() | {
        "COLAB_CHAPTER_1": f"{colab}{options['repository_branch']}/{folder}/attention.ipynb",
        "BOOK_ADDRESS": site(app) or options["repository_url"],
    }
    if not site(app):
        source[0] = re.sub(NEEDS_ADDRESS, "", source[0])
    for name, text in known.items():
        source[0] = source[0].replace(name, text)


def set_base(app: Sphinx, config: Any) -> None:
    """Let Sphinx write canonical addresses, where there is one."""
    config.html_baseurl = site(app)


def describe(doctree: nodes.document | None) -> str:
    """Return the first sentences of a page, as its description."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else []:
        text = " ".join(paragraph.astext().split())
        if len(text) > SHORTEST and not isinstance(paragraph.parent, nodes.list_item):
            if len(text) <= LONGEST:
                return text
            ends = [end.end() for end in re.finditer(r"[.?](?= )", text) if end.end() <= LONGEST]
            if ends and ends[-1] > SHORTEST:
                return text[: ends[-1]]
            return text[: text.rfind(" ", 0, LONGEST)] + " ..."
    return ""


def add_tags(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Say in the page's head what it is about, and what stands beside a link to it."""
    title = re.sub(r"<[^>]+>", "", context.get("title", "")) or "attnbook"
    said = describe(doctree)
    tags = {"og:title": title, "og:site_name": "attnbook", "og:type": "article"}
    if said:
        tags |= {"description": said, "og:description": said}
    if base := site(app):
        tags |= {
            "og:url": f"{base}{pagename}.html",
            "og:image": f"{base}_static/{PICTURE}",
            "og:image:width": "1200",
            "og:image:height": "630",
            "og:image:alt": PICTURE_ALT,
        }
    tags["twitter:card"] = "summary_large_image"
    icon = context["pathto"]("_static/touch-icon.png", 1)
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {"property" if name.startswith("og:") else "name"}="{name}" '
        f'content="{escape(text)}" />'
        for name, text in tags.items()
    )
    context["metatags"] += f'\n<link rel="apple-touch-icon" href="{icon}" />'
    if pagename == HOME:
        app.add_css_file("landing.css")
        context["metatags"] += f'\n<script type="application/ld+json">{about(app, said)}</script>'


def about(app: Sphinx, description: str) -> str:
    """Return what the book is, in the words of schema.org."""
    book = {
        "@context": "https://schema.org",
        "@type": ["Book", "LearningResource"],
        "name": app.config.html_title,
        "headline": "用 PyTorch 学注意力机制"
        if chinese(app)
        else "Attention in PyTorch, a book that runs",
        "description": description,
        "inLanguage": "zh-Hans" if chinese(app) else app.config.language,
        "isAccessibleForFree": True,
        "license": "https://creativecommons.org/licenses/by/4.0/",
        "author": {"@type": "Organization", "name": app.config.author},
    }
    if base := site(app):
        book |= {"url": f"{base}{HOME}.html", "image": f"{base}_static/{PICTURE}"}
    return json.dumps(book).replace("<", "\\u003c")


def name_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Let the header's buttons say what they are for, and add one to cite the book."""
    buttons = context.setdefault("header_buttons", [])
    cite = {
        "type": "link",
        "url": context["pathto"](HOME).rstrip("#") + "#cite",
        "text": "Cite this book",
        "tooltip": "Cite this book",
        "icon": "fas fa-quote-left",
        "label": "cite-button",
    }
    if not site(app):
        buttons[:] = [b for b in buttons if b["label"] not in ("launch-buttons", "source-buttons")]
        buttons.append(cite | {"text": ""})  # a button that stands alone is an icon
    for group in buttons:
        for button in (group, *group.get("buttons", [])):
            said = BUTTONS.get(button.get("label", ""), {})
            button.update(said, tooltip=said.get("text") or said.get("tooltip", button["tooltip"]))
        if group.get("label") == "source-buttons":
            group["buttons"].append(cite)


DOOR = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{description}">
{head}
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 15vh auto; max-width: 32rem; }}
body {{ padding: 0 1rem; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #14171b; color: #d9dee4; }}
  a {{ color: #8cc4f0; }}
}}
</style>
</head>
<body>
<h1>{heading}</h1>
<p>{text}</p>
<p><a href="{link}">{label}</a></p>
</body>
</html>
"""


def write_doors(app: Sphinx, exception: Exception | None) -> None:
    """Write what stands outside of the book: its root, the page for lost readers, the map."""
    if exception is not None or app.builder.format != "html":
        return
    out, base = Path(app.outdir), site(app)
    write_map(app, base)
    if chinese(app):  # the root and the page for lost readers are those of the English site
        return
    title = "attnbook: attention in PyTorch, a book that runs"
    text = (
        "Eight attention mechanisms, taken apart by hand, rebuilt in a few lines of PyTorch and "
        "einops, and put to tests."
    )
    canonical = f'<link rel="canonical" href="{base}{HOME}.html">\n' if base else ""
    door = {"title": title, "description": text, "text": text, "label": "Open the book"}
    (out / "index.html").write_text(
        DOOR.format(
            **door,
            heading="attnbook",
            link=f"{HOME}.html",
            head=f'{canonical}<meta http-equiv="refresh" content="0; url={HOME}.html">',
        ),
        encoding="utf-8",
    )
    lost = "There is no such page in this book. It may have moved: the contents list every page."
    door |= {"title": "Not found, attnbook", "description": lost, "text": lost}
    (out / "404.html").write_text(
        DOOR.format(
            **door,
            heading="Not found",
            link=f"{base}{HOME}.html" if base else f"/{HOME}.html",
            head='<meta name="robots" content="noindex">',
        ),
        encoding="utf-8",
    )
    robots = "User-agent: *\nAllow: /\n"
    if base:
        robots += f"Sitemap: {base}sitemap.xml\n"
        if translated(HOME):
            robots += f"Sitemap: {base}zh/sitemap.xml\n"
    (out / "robots.txt").write_text(robots, encoding="utf-8")


def write_map(app: Sphinx, base: str) -> None:
    """Write the list of pages, where there is an address; of the Chinese, those translated."""
    names = [n for n in sorted(app.env.found_docs) if not chinese(app) or translated(n)]
    if base:
        pages = "".join(f"<url><loc>{base}{name}.html</loc></url>\n" for name in names)
        Path(app.outdir, "sitemap.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{pages}</urlset>\n',
            encoding="utf-8",
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.connect("config-inited", set_base)
    app.connect("source-read", fill_in)
    app.connect("html-page-context", add_tags)
    app.connect("html-page-context", name_buttons, priority=940)
    app.connect("build-finished", write_doors, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
