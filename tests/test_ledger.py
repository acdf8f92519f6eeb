"""Each number of the prose is bound to where it comes from, and a change of either is noticed."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter

import ledger
import pytest
from ledger import Entry, Page, Sentence, complaints, page, pages, paired, read

pytestmark = pytest.mark.book

# Numbers as a reader finds them, without the help of tools/ledger.py. What stands in code, in the
# target of a link and in a name (ResNet-50, float32) is none.
UNREAD = re.compile(r"```.*?```|`[^`]*`|(?<=\])\([^)]*\)|<[^>]*>", re.DOTALL)
WORDS = [
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("twenty", "half", "twice"),
]
READ = re.compile(
    rf"(?<![A-Za-z\d])(?<![A-Za-z]-)\d+(?:[.,]\d+)*|\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE
)


def found(source: str) -> list[re.Match[str]]:
    return list(READ.finditer(UNREAD.sub(lambda match: "_" * len(match[0]), source)))


def altered(text: str, draw: random.Random) -> str:
    """Return the same with one digit changed, or the word of another number."""
    digits = list(re.finditer(r"\d", text))
    if digits:
        at = draw.choice(digits).start()
        return f"{text[:at]}{(int(text[at]) + draw.randint(1, 9)) % 10}{text[at + 1 :]}"
    worth = ledger.WORDS.get(text.lower())
    return draw.choice([word for word in WORDS if ledger.WORDS.get(word) != worth])


def bound(name: str) -> list[tuple[Sentence, Entry]]:
    """Return the sentences of a page that have numbers, with their entries."""
    return [
        (sentence, entry)
        for sentence, entry in paired(page(name).sentences, read(name))
        if sentence is not None and entry is not None
    ]


@pytest.mark.parametrize("name", pages())
def test_every_number_has_its_source(name):
    assert not list(complaints(page(name), read(name)))


@pytest.mark.parametrize("name", pages())
def test_an_altered_number_is_noticed(name):
    """All numbers of all Markdown cells in turn, each changed where it is typed."""
    here, entries, draw = page(name), bound(name), random.Random(name)
    missed, tried = [], 0
    for i, cell in enumerate(ledger.cells(name)):
        before = Counter(s.text for s in here.sentences if s.cell == i and not s.alt)
        for match in found(cell.source) if cell.cell_type == "markdown" else ():
            other = altered(match[0], draw)
            source = cell.source[: match.start()] + other + cell.source[match.end() :]
            after = here.sentences_of(i, source)
            gone = before - Counter(s.text for s in after)
            theirs = [entry for s, entry in entries if s.cell == i and s.text in gone]
            new = [s for s in after if s.text not in before]
            tried += 1
            if not any(complaints(here, theirs, new)):
                missed.append(
                    f"cell {i}: {other} for {match[0]}: {match.string[match.start() - 40 :][:80]}"
                )
    assert len(missed) <= 0.05 * tried, "\n".join([f"{len(missed)} of {tried}", *missed])


@pytest.mark.parametrize("name", pages())
def test_a_source_contradicts_an_altered_number(name):
    """The ledger's copy of the sentence aside: the source itself says something else."""
    draw, tried, noticed = random.Random(name), 0, 0
    for sentence, entry in bound(name):
        for mention, source in zip(sentence.mentions, entry.sources, strict=True):
            if isinstance(source, str) and not ledger.VALUED.match(source):
                continue
            other = altered(mention.written, draw)
            text = sentence.text[: mention.start] + other + sentence.text[mention.end :]
            changed = dataclasses.replace(sentence, text=text)
            tried += 1
            noticed += any(
                "its source gives" in said for said in complaints(page(name), [entry], [changed])
            )
    assert noticed >= 0.95 * tried, f"{noticed} of {tried}"


@pytest.mark.parametrize("name", pages())
def test_an_altered_output_is_noticed(name):
    draw, tried, noticed = random.Random(name), 0, 0
    here = page(name)
    for sentence, entry in bound(name):
        for source in entry.sources:
            if not isinstance(source, str) or not source.startswith("out: "):
                continue
            line, at = ledger.unmarked(source.removeprefix("out: "))
            end = source.removeprefix("out: ").find("»") - 1
            changed = line[:at] + altered(line[at:end], draw) + line[end:]
            lines = [
                dataclasses.replace(other, text=changed) if other.text == line else other
                for other in here.lines
            ]
            tried += 1
            noticed += any(complaints(dataclasses.replace(here, lines=lines), [entry], [sentence]))
    assert noticed >= 0.95 * tried, f"{noticed} of {tried}"


PROSE = """\
# A chapter

Of 797 images 95 % are right."""


def chapter(prose: str, printed: str) -> Page:
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output  # noqa: PLC0415

    output = new_output("stream", name="stdout", text=printed)
    return Page.of("eca", [new_markdown_cell(prose), new_code_cell("...", outputs=[output])])


def test_a_number_is_bound_to_a_line():
    sources = ["out: right: 95.1 % of «797»", "out: right: «95.1» % of 797"]
    entries = [Entry("Of «797» images «95» % are right.", sources)]
    assert not list(complaints(chapter(PROSE, "right: 95.1 % of 797"), entries))
    for prose, printed in (
        (PROSE.replace("95", "94"), "right: 95.1 % of 797"),
        (PROSE, "right: 94.1 % of 797"),
        (PROSE, "right: 95.1 % of 798"),
    ):
        assert list(complaints(chapter(prose, printed), entries))


def test_what_nobody_has_confirmed_is_refused():
    entries = [Entry("Of «797» images «95» % are right.", ["? chosen", "chosen"])]
    said = list(complaints(chapter(PROSE, "right"), entries))
    assert len(said) == 1
    assert "not confirmed" in said[0]
