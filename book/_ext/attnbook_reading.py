"""What makes a page easier to read: verdicts link to their sections, buttons need no menu."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# The last columns of a table of verdicts, in both languages.
VERDICTS = [["Verdict", "Where it is shown"], ["结论", "在哪里可以看到"]]


def mark_verdicts(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Name the tables of verdicts, for their look on a phone, and link the sections they quote."""
    sections = {
        _plain(section.next_node(nodes.title)): section["ids"][0]
        for section in doctree.findall(nodes.section)
    }
    for table in doctree.findall(nodes.table):
        head = next(table.findall(nodes.thead), None)
        columns = [_plain(entry) for entry in head.findall(nodes.entry)] if head else []
        if columns[-2:] not in VERDICTS:
            continue
        table["classes"].append("verdicts")
        for row in next(table.findall(nodes.tbody)).findall(nodes.row):
            for paragraph in row[-1].findall(nodes.paragraph):
                _link_quotes(paragraph, sections)


def _plain(node: nodes.Node | None) -> str:
    return " ".join(node.astext().split()) if node is not None else ""


def _link_quotes(paragraph: nodes.paragraph, sections: dict[str, str]) -> None:
    """Turn each quoted title of a section of this page into a link to it."""
    pieces: list[nodes.Node] = []
    for child in list(paragraph.children):
        if isinstance(child, nodes.Text):
            pieces += [nodes.Text(part) for part in re.split('(["\u201c\u201d])', child) if part]
        else:
            pieces.append(child)
    linked: list[nodes.Node] = []
    quoted: list[nodes.Node] | None = None
    for piece in pieces:
        if not (isinstance(piece, nodes.Text) and piece in {'"', "\u201c", "\u201d"}):
            (linked if quoted is None else quoted).append(piece)
        elif quoted is None:
            quoted, opening = [], piece
        else:
            anchor = sections.get(" ".join("".join(part.astext() for part in quoted).split()))
            if anchor is None:
                linked += [opening, *quoted, piece]
            else:
                linked.append(nodes.reference("", "", *quoted, refid=anchor, internal=True))
            quoted = None
    paragraph[:] = linked + ([] if quoted is None else [opening, *quoted])


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
    app.connect("doctree-resolved", mark_verdicts)
    app.connect("html-page-context", empty_heads)
    app.connect("html-page-context", unfold_menus_of_one, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
