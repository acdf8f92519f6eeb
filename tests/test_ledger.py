"""Each number of the prose is bound to where it comes from, and a change of either is noticed."""

from __future__ import annotations

import dataclasses
import random
import re

import ledger
import pytest
from ledger import Entry, Page, Sentence, complaints, page, pages, paired, read

pytestmark = pytest.mark.book

OTHER = {"two": "three", "three": "four", "half": "twice", "twice": "half", "ten": "twelve"}


def bound(name: str) -> list[tuple[Sentence, Entry]]:
    """Return the sentences of a page that have numbers, with their entries."""
    return [
        (sentence, entry)
        for sentence, entry in paired(page(name).sentences, read(name))
        if sentence is not None and entry is not None
    ]


def altered(text: str, draw: random.Random) -> str:
    """Return the same with one digit, or one number word, changed."""
    digits = list(re.finditer(r"\d", text))
    if digits:
        at = draw.choice(digits).start()
        return f"{text[:at]}{(int(text[at]) + draw.randint(1, 9)) % 10}{text[at + 1 :]}"
    return OTHER.get(text.lower(), "nine" if text.lower() != "nine" else "eight")


@pytest.mark.parametrize("name", pages())
def test_every_number_has_its_source(name):
    assert not list(complaints(page(name), read(name)))


@pytest.mark.parametrize("name", pages())
def test_an_altered_number_is_noticed(name):
    """All numbers in turn, each changed by one digit: at least 95 in 100 are missed by nobody."""
    draw, tried, noticed = random.Random(name), 0, 0
    for sentence, entry in bound(name):
        for mention in sentence.mentions:
            other = altered(mention.written, draw)
            text = sentence.text[: mention.start] + other + sentence.text[mention.end :]
            changed = dataclasses.replace(sentence, text=text)
            tried += 1
            noticed += any(complaints(page(name), [entry], [changed]))
    assert tried
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
