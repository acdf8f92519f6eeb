"""The form of the second edition: two layers, minutes that are measured, and the field's words.

A chapter belongs to the second edition when it has the box "In short" at its top, and these rules
then apply to it beside those of rules.py; those on cells and words apply to an appendix, too. Its
first path goes from the top to the heading "Going further"; the rest is read in any order.

Words are counted in headings, paragraphs and lists, the box's among them; those in tables, code and
folded solutions are not. A formula in a sentence is a word. Minutes are words / 150 and lines of
code / 10, half a minute a figure and one a table, where folded code takes no time and the source of
the package that a cell shows does.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import nbformat
from ledger import mentions, split
from notebooks import FOLD, HIDE, ROOT
from rules import (
    IN_SHORT,
    LAST_SECTIONS,
    Block,
    Chapter,
    Rule,
    code_lines,
    figures,
    no_math,
    parse,
    rule,
    texts,
)

REMEMBER, FURTHER = "What to remember", "Going further"
BULLETS_OF_BOX = range(3, 6)
LONGEST_BULLET = 45
BULLETS_TO_REMEMBER = range(3, 8)
WORDS_OF_FIRST_PATH = range(1_200, 2_501)  # up to 1,800, sentences were packed, and read twice
# Looked up, not read through. At 7,400 stood all of 2 to 8, and what readers missed found no room.
MOST_WORDS = 7_600
WORDS_OF_SECTION = range(80, 601)
FIGURES = range(6, 17)
WORDS_FOR_A_NUMBER = 40
SHORT_SENTENCE = 8
SENTENCES_FOR_A_SHORT_ONE = 8


def form(function: Rule) -> Rule:
    """Make a rule of a function that is for chapters of the second edition alone."""

    @functools.wraps(function)
    def keeps(chapter: Chapter) -> Iterator[str]:
        if chapter.box:
            yield from function(chapter)

    return rule(keeps)


def style(function: Rule) -> Rule:
    """Make a rule of a function that is for chapters and appendices of the second edition."""

    @functools.wraps(function)
    def keeps(chapter: Chapter) -> Iterator[str]:
        if chapter.second:
            yield from function(chapter)

    return rule(keeps)


# --- The two layers -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """What a reader of some blocks and cells has before them."""

    words: int
    lines: int
    figures: int
    tables: int

    @property
    def minutes(self) -> int:
        return round(self.words / 150 + self.lines / 10 + self.figures / 2 + self.tables)

    def __str__(self) -> str:
        return (
            f"{self.minutes} minutes ({self.words} words, {self.lines} lines of code, "
            f"{self.figures} figures, {self.tables} tables)"
        )


def first_path(chapter: Chapter) -> list[Block]:
    """Return the blocks above "Going further"."""
    sections = [block.section for block in chapter.blocks]
    return chapter.blocks[: sections.index(FURTHER) if FURTHER in sections else None]


def layer(chapter: Chapter, blocks: list[Block]) -> Layer:
    """Return what a chapter holds where it has some blocks, the first of all."""
    following = chapter.blocks[len(blocks) :]
    end = following[0].cell if following else len(chapter.cells)
    cells = [cell for i, cell in chapter.own_code if i < end]
    lines = 0
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        lines += 0 if FOLD in tags else code_lines(cell)
        for output in [] if HIDE in tags else cell.outputs:
            shown = output.get("data", {}).get("text/markdown", "")
            for source in re.findall(r"(?s)```python\n(.*?)```", shown):
                lines += sum(bool(line.strip()) for line in source.split("\n"))
    heads = [block.kind == "th" and not block.folded for block in blocks]
    return Layer(
        words=words(blocks),
        lines=lines,
        figures=sum(figures(cell) for cell in cells),
        tables=sum(head and not before for before, head in pairwise([False, *heads])),
    )


def prose(blocks: list[Block]) -> list[Block]:
    return [
        block
        for block in blocks
        if not block.folded and block.kind not in ("td", "th") and block.section != "Sources"
    ]


def words(blocks: list[Block]) -> int:
    return sum(block.words for block in prose(blocks))


@form
def minutes_are_measured(chapter: Chapter) -> Iterator[str]:
    """The opening promises the minutes of each layer that are counted."""
    first, whole = layer(chapter, first_path(chapter)), layer(chapter, chapter.blocks)
    opening = " ".join(block.text for block in _opening(chapter))
    said = re.search(r"takes (\d+) minutes\b.*?\bwhole page (\d+) minutes", opening)
    if not said or [int(n) for n in said.groups()] != [first.minutes, whole.minutes]:
        yield (
            f"the first path takes {first}, everything {whole}; the opening has to say: "
            '"Reading as far as [What to remember](#what-to-remember) takes '
            f"{first.minutes} minutes, code and figures included, and the whole page "
            f'{whole.minutes} minutes"'
        )


@form
def layers_have_their_length(chapter: Chapter) -> Iterator[str]:
    """The first path is read at a sitting, and each section after it in some minutes."""
    first, whole = words(first_path(chapter)), words(chapter.blocks)
    if first not in WORDS_OF_FIRST_PATH:
        bounds = f"{WORDS_OF_FIRST_PATH[0]} to {WORDS_OF_FIRST_PATH[-1]}"
        longest = ", ".join(f"{title!r} {count}" for title, count in _longest(first_path(chapter)))
        yield f"the first path has {first} words, not {bounds}; its longest sections: {longest}"
    if whole > MOST_WORDS:
        yield f"the chapter has {whole} words without solutions, more than {MOST_WORDS}"
    for title, count in _sections(chapter.blocks, FURTHER):
        if count not in WORDS_OF_SECTION:
            bounds = f"{WORDS_OF_SECTION[0]} to {WORDS_OF_SECTION[-1]}"
            yield f"{title!r}, under {FURTHER!r}, has {count} words, not {bounds}"
    drawn = sum(figures(cell) for _, cell in chapter.code)
    if drawn not in FIGURES:
        yield f"{drawn} figures, not {FIGURES[0]} to {FIGURES[-1]}"


def _longest(blocks: list[Block]) -> list[tuple[str, int]]:
    titles = list(dict.fromkeys(block.section for block in blocks))
    counts = [(t or "the opening", words([b for b in blocks if b.section == t])) for t in titles]
    return sorted(counts, key=lambda section: -section[1])[:4]


def _sections(blocks: list[Block], section: str) -> Iterator[tuple[str, int]]:
    """Yield title and words of each h3 of a section."""
    inside = [block for block in blocks if block.section == section]
    starts = [n for n, block in enumerate(inside) if block.kind == "h3"]
    for start, end in pairwise([*starts, len(inside)]):
        yield inside[start].text.strip(), words(inside[start:end])


@form
def sections_are_in_order(chapter: Chapter) -> Iterator[str]:
    """The first path ends in what to remember; behind it come studies, exercises and sources."""
    titles = [block.text.strip() for block in chapter.headings if block.kind == "h2"]
    end = titles[-4:]
    wanted = [REMEMBER, FURTHER, *LAST_SECTIONS]
    if end != wanted:
        yield f"the last sections are {end}, not {wanted}"
    bullets, section = 0, ""
    for token, following in pairwise(t for tokens in chapter.tokens.values() for t in tokens):
        if token.type == "heading_open" and token.tag == "h2":
            section = following.content.strip()
        bullets += token.type == "list_item_open" and section == REMEMBER
    if bullets not in BULLETS_TO_REMEMBER:
        bounds = f"{BULLETS_TO_REMEMBER[0]} to {BULLETS_TO_REMEMBER[-1]}"
        yield f"{REMEMBER!r} has {bullets} bullets, not {bounds}"


@form
def box_is_short(chapter: Chapter) -> Iterator[str]:
    """Three to five findings at the top, a sentence each, each with a link to where it is shown."""
    cell, quote = chapter.box
    if cell not in {block.cell for block in _opening(chapter)}:
        yield f"the box stands in cell {cell}, and not above the set-up cell"
    lines = [token for token in quote if token.type == "inline"]
    if lines[0].content != IN_SHORT:
        yield f"the box begins with {lines[0].content!r}, and not with {IN_SHORT!r} alone"
    items = [n for n, token in enumerate(quote) if token.type == "list_item_open"]
    findings = [quote[n + 2] for n in items]
    if len(findings) not in BULLETS_OF_BOX:
        bounds = f"{BULLETS_OF_BOX[0]} to {BULLETS_OF_BOX[-1]}"
        yield f"the box has {len(findings)} bullets, not {bounds}"
    for finding in findings:
        says = no_math(finding.content)
        if len(split(says)) > 2 or len(says.split()) > LONGEST_BULLET:
            yield (
                f"a bullet of the box is longer than a sentence, or two short ones, "
                f"of {LONGEST_BULLET} words: {finding.content}"
            )
        targets = [str(t.attrs["href"]) for t in finding.children if t.type == "link_open"]
        if not any(target.startswith("#") for target in targets):
            yield f"a bullet of the box links to no section of the chapter: {finding.content}"


# --- Cells ----------------------------------------------------------------------------------------


@style
def cells_are_formatted(chapter: Chapter) -> Iterator[str]:
    """Code is as `ruff format` leaves it."""
    own = [nbformat.v4.new_code_cell(cell.source) for _, cell in chapter.own_code]
    ruff = [sys.executable, "-m", "ruff", "format", f"--config={ROOT / 'pyproject.toml'}"]
    formatted = subprocess.run(
        [*ruff, "--stdin-filename=chapter.ipynb", "-"],
        input=nbformat.writes(nbformat.v4.new_notebook(cells=own)),
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    if formatted.returncode:
        yield f"ruff cannot format the code: {formatted.stderr.strip()}"
        return
    cells = nbformat.reads(formatted.stdout, as_version=4).cells
    for (i, cell), after in zip(chapter.own_code, cells, strict=True):
        if cell.source != after.source:
            yield (
                f"cell {i} is not as ruff formats it "
                f"(`ruff format book/{chapter.name}.ipynb` does):\n{after.source}"
            )


@style
def plumbing_is_folded(chapter: Chapter) -> Iterator[str]:
    """Drawing is folded and ideas are not: what a reader is to call is seen."""
    seen = {
        node.id
        for _, cell in chapter.own_code
        if FOLD not in cell.metadata.get("tags", [])
        for node in ast.walk(parse(cell) or ast.Module([], []))
        if isinstance(node, ast.Name)
    }
    for i, cell in chapter.own_code:
        tags = cell.metadata.get("tags", [])
        defined = [
            node.name
            for node in ast.walk(parse(cell) or ast.Module([], []))
            if isinstance(node, ast.ClassDef)
            or (isinstance(node, ast.FunctionDef) and node.name in seen)
        ]
        if cell.source.rstrip().endswith("plt.show()") and FOLD not in tags:
            yield f"cell {i} draws: tag it {FOLD}, and compute what it draws in the cell before"
        if FOLD in tags and defined:
            yield (
                f"cell {i} is folded, but defines {', '.join(defined)}: a class, or what a cell "
                f"that is not folded calls"
            )
        if HIDE in tags and (not cell.outputs or figures(cell)):
            yield f"cell {i} is tagged {HIDE}, which is for a long table, and it prints none"


# --- Words and numbers ----------------------------------------------------------------------------

# What cannot be looked up, and the field's word for it.
PRIVATE = {
    r"thousand million": "billion",
    r"(?:drawn|chosen|fixed|picked) by lot|by lot": "at random",
    r"turned round": "reversed",
    r"(?:is|are|was|were|be|been) shut": "closed, or 0",
    r"(?:not|nothing is|no \w+ (?:is|was)|is|are) resolved": "(not) significant at this size",
    r"(?:Chinese|English) signs?": "characters",
    r"(?:old|earlier) keys": "the KV cache",
    r"has most say": "has the largest weight",
    r"sharpened \w+fold": "with scores multiplied by ...",
    r"just(?! (?:as|like|before|after|above|below|beyond)\b)": "nothing: leave it out",
}
PLUS_MINUS = r"(?:±|\+-|\\pm)\s*\d[\d.]*"
INTERVAL = r"95\s?\\?%[^.]{0,60}(?:interval|confidence)|(?:interval|confidence)[^.]{0,60}95\s?\\?%"
DEVIATION = (
    rf"(?:\bsd|standard deviations?)(?: of)? *{PLUS_MINUS}"
    rf"|{PLUS_MINUS}[,$% ]*\(?(?:sd\b|standard deviation)"
)


@style
def words_are_the_fields(chapter: Chapter) -> Iterator[str]:
    """A thing that has a public name is called by it, so that it can be looked up."""
    for block in prose(chapter.blocks):
        for private, public in PRIVATE.items():
            if found := re.search(rf"\b(?:{private})\b", block.said, re.IGNORECASE):
                where = block.said[max(0, found.start() - 30) : found.end() + 30].strip()
                yield f"cell {block.cell} says {found[0]!r}; say {public}: {where}"


@style
def plus_minus_has_one_meaning(chapter: Chapter) -> Iterator[str]:
    """Half of a 95 % confidence interval, which its section or the opening says."""
    said_for_all = re.search(INTERVAL, " ".join(block.text for block in _opening(chapter)))
    sections: list[tuple[str, list[tuple[int, str]]]] = [("the opening", [])]
    for i, cell in enumerate(chapter.cells):
        for block in chapter.blocks:
            if block.cell == i and block.kind in ("h2", "h3"):
                sections.append((block.text.strip(), []))
            elif block.cell == i:
                sections[-1][1].append((i, block.text))
        if cell.cell_type == "code":
            sections[-1][1].extend((i, text) for text in texts(cell))
    for title, said in sections:
        explained = said_for_all or re.search(INTERVAL, " ".join(text for _, text in said))
        for i, text in said:
            if found := re.search(DEVIATION, text):
                yield f"cell {i} gives a standard deviation as {found[0]!r}; write (sd 0.7)"
            elif not explained and (found := re.search(PLUS_MINUS, text)):
                yield (
                    f"cell {i} has {found[0]!r}, and {title!r} does not say that it is half "
                    f"of a 95 % interval"
                )


@form
def numbers_are_few(chapter: Chapter) -> Iterator[str]:
    """On the first path, one number of two digits or more for 40 words; a year is none."""
    blocks = prose(first_path(chapter))
    said = []
    for block in blocks:
        numbers = [mention.written for mention in mentions(block.said)]
        digits = [n for n in numbers if len(re.sub(r"\D", "", n).lstrip("0")) > 1]
        said.append([n for n in digits if not re.fullmatch(r"(?:1[89]|20)\d\d", n)])
    count, most = sum(map(len, said)), words(blocks) // WORDS_FOR_A_NUMBER
    if count > most:
        fullest = sorted(zip(blocks, said, strict=True), key=lambda pair: -len(pair[1]))[:3]
        where = "; ".join(f"cell {block.cell}: {', '.join(n)}" for block, n in fullest)
        yield f"{count} numbers on the first path, more than {most}; most of them in {where}"


@form
def sentences_vary(chapter: Chapter) -> Iterator[str]:
    """On the first path, one sentence in eight is short at most: thoughts are connected."""
    paragraphs = [block.said for block in prose(first_path(chapter)) if block.kind == "p"]
    sentences = [sentence for said in paragraphs for sentence in split(said.strip())]
    # What leads to a list or to a formula has no full stop.
    sentences = [s for s in sentences if re.search(r"[.?!][)\"”’ ]*$", s)]
    short = [sentence for sentence in sentences if len(sentence.split()) <= SHORT_SENTENCE]
    if len(short) * SENTENCES_FOR_A_SHORT_ONE > len(sentences):
        yield (
            f"{len(short)} of {len(sentences)} sentences have {SHORT_SENTENCE} words or fewer; "
            f"one in {SENTENCES_FOR_A_SHORT_ONE} may: " + " / ".join(short)
        )


def _opening(chapter: Chapter) -> list[Block]:
    first_code = chapter.code[0][0] if chapter.code else len(chapter.cells)
    return [block for block in chapter.blocks if block.cell < first_code]
