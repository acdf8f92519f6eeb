"""What makes a page easier to read: verdicts fit a phone, buttons need no menu, folds say why."""

from __future__ import annotations

import re
from typing import Any

from attnbook_site import chinese
from docutils import nodes
from sphinx.application import Sphinx

# The last columns of a table of verdicts, in both languages.
VERDICTS = [["Verdict", "Where it is shown"], ["结论", "在哪里可以看到"]]


def mark_verdicts(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Name the tables of verdicts, for their look on a phone."""
    for table in doctree.findall(nodes.table):
        head = next(table.findall(nodes.thead), None)
        columns = [_plain(entry) for entry in head.findall(nodes.entry)] if head else []
        if columns[-2:] not in VERDICTS:
            continue
        table["classes"].append("verdicts")


def join_preparations(app: Sphinx, doctree: nodes.document) -> None:
    """Put the code of a folded cell that prints nothing before that of the next folded cell.

    One fold then holds all that a figure is drawn with, and no fold stands between two paragraphs
    with nothing to show. Before a cell whose code is open it stays: its code may use it.
    """
    earlier = None
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") != "cell_code":
            continue
        folded = cell.get("hide_mode") in ("input", "input+output")
        if earlier is not None and folded:
            ours, theirs = (next(c.findall(nodes.literal_block)) for c in (cell, earlier))
            code = f"{theirs.astext().rstrip()}\n\n\n{ours.astext()}"
            ours.replace_self(nodes.literal_block(code, code, **ours.attributes))
            earlier.parent.remove(earlier)
        earlier = cell if folded and _prepares(cell) else None


def name_preparations(app: Sphinx, doctree: nodes.document) -> None:
    """Let the fold of a cell that prints nothing say that later cells use it.

    A bare "Show code" between two paragraphs reads as if a figure had been lost.
    """
    prepares = "后文的{type}" if chinese(app) else "{type} for later cells"
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode") == "input" and _prepares(cell):
            for prompt in ("prompt_show", "prompt_hide"):
                cell[prompt] = cell[prompt].replace("{type}", prepares)


def _prepares(cell: nodes.container) -> bool:
    """Whether a cell shows nothing but its code."""
    return cell[-1].get("nb_element") == "cell_code_source"


def _plain(node: nodes.Node | None) -> str:
    return " ".join(node.astext().split()) if node is not None else ""


def unfold_menus_of_one(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Make a menu of one entry in the page's header a button that does what the entry does."""
    for place, button in enumerate(context.get("header_buttons", [])):
        if button["type"] == "group" and len(button["buttons"]) == 1:
            entry = button["buttons"][0]
            context["header_buttons"][place] = {
                **entry,
                "icon": button["icon"],
                "text": None,
                "tooltip": entry.get("tooltip") or button["tooltip"],
            }


def empty_heads(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Let the empty corner of a table be no heading, which would be read out as one."""
    context["body"] = re.sub(
        r"<th( [^>]*)?>(?:<p></p>)?</th>", r"<td\1></td>", context.get("body", "")
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.connect("doctree-read", join_preparations)
    app.connect("doctree-read", name_preparations)
    app.connect("doctree-resolved", mark_verdicts)
    app.connect("html-page-context", empty_heads)
    app.connect("html-page-context", unfold_menus_of_one, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
