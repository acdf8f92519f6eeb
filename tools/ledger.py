"""Where each number of the prose comes from: propose it, confirm it, and hold the prose to it.

python tools/ledger.py propose eca    writes what it finds into book/ledger/eca.toml
python tools/ledger.py show eca       prints each number beside its source; `eca 30` draws 30
python tools/ledger.py check          compares all pages with their ledgers, as `make test` does

A ledger has an entry for each sentence with numbers, in the order of the page. The numbers stand
between « and », and below them, one a line, where each comes from; in a source, too, the number is
marked:

    [[sentence]]
    says = 'Of «797» images «95» % are right.'
    from = [
      'out: right: 95.1 % of «797»',
      'out: right: «95.1» % of 797',
    ]

A number agrees with its source if the source, rounded to the digits of the prose, gives it; a
percentage may come from a share. Sources are looked for in the same section (h2) or within four
cells. Elsewhere they are named: `out (Heading): ...` stands under that heading of the page, and
`out eca: ...` in another page.

    out: LINE        a line that a cell printed          code: LINE    a line of a code cell
    text: SENTENCE   an earlier sentence, formula or row, bound itself
    study NAME: PATH a stored result, such as `results.right.0`; the chapter names the study
    calc             {calc = 'a / b', a = 'out: ...', b = 'code: ...'}; also min, max, mean, sd,
                     half (half a 95 % interval), len, sqrt, log, log2, exp, round; lists too
    quoted: URL      what that paper or page says; the paragraph or its table links to it
    ref              an equation, a chapter or a version, which exists
    formula          a formula, which code and assertions test, and not this ledger

And what no cell shows, each with a reason after a colon where it needs one:

    counted          counts what the sentence names or what follows
    chosen           set by the text: an example, a shape, a rule of thumb
    drawn            read off the figure whose description this is
    known: REASON    follows from the mathematics or the format

A line may be given in part, as `out: bottleneck ... «95.4»`; `propose` then completes it.
A source that begins with `?` is proposed and not confirmed, and the check refuses it: read it, mend
it or remove the mark. What a new run of `propose` can find again stays confirmed.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import itertools
import json
import math
import operator
import random
import re
import statistics
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import nbformat
import yaml
from markdown_it.token import Token
from rules import MARKDOWN, ROOT, alt_text, texts

LEDGERS = ROOT / "book" / "ledger"
PAGES = ("index", "glossary")  # beside the chapters; the other pages are written by programs
WINDOW = 4

Source = str | dict[str, str]

# --- Numbers --------------------------------------------------------------------------------------

SMALL = [
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = {
    **{word: n for n, word in enumerate(SMALL, start=2)},
    **{word: 10 * n for n, word in enumerate(TENS, start=2)},
    **{"half": 0.5, "twice": 2, "dozen": 12, "hundred": 100, "thousand": 1e3, "million": 1e6},
}
_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
SCALES = {"%": 0.01, "per cent": 0.01, "thousand": 1e3, "k": 1e3, "million": 1e6, "M": 1e6}
SCALES |= {"billion": 1e9, "G": 1e9}
NUMBER = r"\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?|\d+(?:\.\d+)+|\d+|(?<!\d)\.\d+"
PIECE = re.compile(
    rf"(?P<code>`[^`]*`)|(?P<formula>\$\$.+?\$\$|\$[^$]+\$)"
    rf"|(?P<number>(?<![\w.])(?<![A-Za-z]-)[-−]?(?:{NUMBER})(?:e[+-]?\d+)?(?![\d]))"
    rf"|(?P<word>\b(?:{_WORD})(?:[ -](?:{_WORD}))*(?:fold|s)?\b)",
    re.DOTALL | re.IGNORECASE,
)
# A formula that only states a value is read as its number; any other formula is one piece.
VALUE = re.compile(
    rf"[-−+]?(?:{NUMBER})(?:\s*(?:\\%|\\pm|,|\\,|\\times|\\cdot|/)\s*[-−]?(?:{NUMBER}))*"
)
STATED = re.compile(rf"^\$(?:[^$\d]*(?:=|\\approx|\\le|\\ge|<|>)\s*)?\(?({VALUE.pattern})\)?\$$")
ROUGH = re.compile(r"\b(?:about|nearly|almost|some|around|roughly|over|than|least)\W*$", re.I)
OF_PRINTED = re.compile(rf"(?<![\w.])(?:{NUMBER})(?:e[+-]?\d+)?|(?<![A-Za-z\d])\d+(?=[A-Za-z])")


@dataclass(frozen=True)
class Mention:
    """A number, or a formula with numbers, in a sentence."""

    start: int
    end: int
    written: str
    formula: bool = False
    values: tuple[float, ...] = ()  # as written, and as a share or with its "million"
    unit: float = 0.0  # of the last digit that is meant
    negative: bool = False


def mentions(text: str) -> Iterator[Mention]:
    """Yield each number of a sentence, from left to right."""
    for piece in PIECE.finditer(text):
        if piece["code"] or (piece["formula"] and not re.search(r"\d", piece[0])):
            continue
        if piece["formula"] and (stated := STATED.match(piece[0])):
            for number in re.finditer(rf"[-−]?(?:{NUMBER})", stated[1]):
                start = piece.start() + stated.start(1) + number.start()
                yield _mention(text, start, start + len(number[0]))
        elif piece["formula"]:
            yield Mention(piece.start(), piece.end(), piece[0], formula=True)
        else:
            yield _mention(text, piece.start(), piece.end())


def _mention(text: str, start: int, end: int) -> Mention:
    written = text[start:end]
    digits = written.replace("{,}", "").replace(",", "").lstrip("-−").lower()
    value, unit = _of_word(digits) if digits[0].isalpha() else _of_digits(digits)
    if ROUGH.search(text[:start]) and value == int(value) and value >= 10:
        unit = 10.0 ** (len(str(int(value))) - len(str(int(value)).rstrip("0")))
    after = re.match(r"(?:\\?%|[\s-]*(?:per cent|[A-Za-z]+\b))?", text[end:])
    scale = SCALES.get(after[0].strip(" -\\") if after else "", 1.0)
    values = (value,) if scale == 1 else (value, value * scale)
    return Mention(start, end, written, values=values, unit=unit, negative=written[0] in "-−")


def _of_word(word: str) -> tuple[float, float]:
    parts = [WORDS[part] for part in re.findall(_WORD, word)]
    value = parts[0]
    for part in parts[1:]:
        value = value * part if part >= 100 else value + part
    return value, 1.0 if value >= 2 else 0.1


def _of_digits(digits: str) -> tuple[float, float]:
    if digits.count(".") > 1:  # a version or a section
        return float(digits.replace(".", "")), 1.0
    mantissa, _, exponent = digits.partition("e")
    return float(digits), 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def agrees(mention: Mention, value: float, *, signed: bool = False) -> bool:
    """Whether a value, rounded to the digits of the prose, is what the prose says."""
    if mention.negative and signed and value > 0:
        return False
    reach = 0.5 * mention.unit * (1 + 1e-6)
    first = mention.values[0]
    return any(abs(abs(value) - v) <= reach * (v / first if first else 1.0) for v in mention.values)


@dataclass(frozen=True)
class Printed:
    """A number in a line: its value, and where it stands."""

    start: int
    end: int
    value: float
    share: bool  # a percent sign follows


@cache
def printed(line: str) -> tuple[Printed, ...]:
    """Return the numbers of an output, a line of code or a sentence that serves as a source."""
    found = []
    for match in OF_PRINTED.finditer(line):
        text = match[0].replace("{,}", "").replace(",", "")
        value = float(text.replace(".", "") if text.count(".") > 1 else text)
        minus = match.start() > 0 and line[match.start() - 1] in "-−"
        minus = minus and (match.start() < 2 or not line[match.start() - 2].isalnum())
        scale = re.match(r" (million|billion)", line[match.end() :])
        value *= SCALES[scale[1]] if scale else 1
        share = bool(re.match(r"\s*\\?%", line[match.end() :]))
        found.append(Printed(match.start(), match.end(), -value if minus else value, share))
    for match in re.finditer(rf"\b(?:{_WORD})\b", line, re.IGNORECASE):
        found.append(Printed(match.start(), match.end(), WORDS[match[0].lower()], False))
    return tuple(sorted(found, key=lambda number: number.start))


# --- Pages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    cell: int
    section: str  # the h2 that it stands under
    text: str
    links: dict[str, str] = field(default_factory=dict)  # of its paragraph, and their words
    alt: bool = False
    context: str = ""  # what else a reader has in view: the head of the table, the sentence before

    @cached_property
    def mentions(self) -> list[Mention]:
        return list(mentions(self.text))

    @cached_property
    def marked(self) -> str:
        return "".join(self._parts("«", "»"))

    @cached_property
    def key(self) -> str:
        return masked(self.marked)

    def _parts(self, before: str, after: str) -> Iterator[str]:
        at = 0
        for mention in self.mentions:
            yield f"{self.text[at : mention.start]}{before}{mention.written}{after}"
            at = mention.end
        yield self.text[at:]


def masked(marked: str) -> str:
    """Return a sentence without its numbers."""
    return re.sub(r"«[^»]*»", "«»", marked)


def unmarked(marked: str) -> tuple[str, int]:
    """Return a source's line without its marks, and where the number starts."""
    start = marked.find("«")
    if start < 0 or marked.count("«") != 1 or marked.find("»") < start:
        raise ValueError("the number of the source is not marked with « and »")
    return marked.replace("«", "").replace("»", ""), start


@dataclass(frozen=True)
class Line:
    """A line that can be the source of a number."""

    kind: str  # out, code, text
    cell: int
    text: str
    context: str = ""


@dataclass
class Page:
    """What the prose says, and what stands around it."""

    name: str
    sentences: list[Sentence]
    lines: list[Line]
    sections: list[str]  # the h2 of each cell
    headings: dict[str, set[int]]  # by heading of any level: the cells under it
    opening: list[dict[int, str]]  # the headings that are open before each cell, by level
    tags: set[str]  # numbers of equations
    studies: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, cells: list[Any]) -> Page:
        page = cls(name, [], [], [], defaultdict(set), [], set())
        open_headings: dict[int, str] = {}
        for i, cell in enumerate(cells):
            page.opening.append(dict(open_headings))
            if cell.cell_type == "markdown":
                page._prose(i, cell.source, open_headings)
            else:
                page._code(i, cell, open_headings.get(2, ""))
            for heading in open_headings.values():
                page.headings[heading].add(i)
            page.sections.append(open_headings.get(2, ""))
        code = "\n".join(line.text for line in page.lines if line.kind == "code")
        for path in (ROOT / "attnbook" / "studies").glob("*.json"):
            if re.search(rf"\b{path.stem}\b", code):
                page.studies[path.stem] = path.read_text(encoding="utf-8")
        return page

    def sentences_of(self, cell: int, source: str) -> list[Sentence]:
        """Return what a Markdown cell would say if it were another one."""
        other = dataclasses.replace(self, sentences=[], lines=[], headings=defaultdict(set))
        other._prose(cell, source, dict(self.opening[cell]))
        return other.sentences

    def _prose(self, cell: int, source: str, open_headings: dict[int, str]) -> None:
        before = ""
        for passage in passages(MARKDOWN.parse(source)):
            if passage.level:
                for level in [level for level in open_headings if level >= passage.level]:
                    del open_headings[level]
                heading = open_headings[passage.level] = spoken(passage.text)
                self.headings[heading].add(cell)
            self.tags.update(re.findall(r"\\tag\{(\w+)\}", passage.text))
            for text in [passage.text] if passage.head else split(passage.text):
                section = open_headings.get(2, "")
                context = f"{passage.head} {before}"
                self.sentences.append(Sentence(cell, section, text, passage.links, context=context))
                self.lines.append(Line("text", cell, text, passage.head))
                before = text
            self.lines += [Line("code", cell, line.strip()) for line in passage.code]

    def _code(self, cell: int, code: Any, section: str) -> None:
        lines = [line.strip() for line in code.source.split("\n") if line.strip()]
        self.lines += [Line("code", cell, line) for line in lines]
        for text in texts(code):
            head = ""
            for line in text.split("\n"):
                if line.strip():
                    self.lines.append(Line("out", cell, line.strip(), head))
                    head = head or line
        self.sentences += [
            Sentence(cell, section, text, alt=True, context=lines[-2] if lines[1:] else "")
            for text in split(alt_text(code))
        ]

    def cells_near(self, sentence: Sentence) -> set[int]:
        near = range(sentence.cell - WINDOW, sentence.cell + WINDOW + 1)
        same = [i for i, section in enumerate(self.sections) if section == sentence.section]
        named = (
            self.headings.get(spoken(h), set()) for h in re.findall('"([^"]+)"', sentence.text)
        )
        return {*near, *same, *itertools.chain.from_iterable(named)}


def cells(name: str) -> list[Any]:
    """Return the cells of a chapter; another page is one cell, without its directives."""
    notebook = ROOT / "book" / f"{name}.ipynb"
    if notebook.exists():
        return nbformat.read(notebook, as_version=4).cells
    path = notebook.with_suffix(".md")
    if not path.exists():
        raise SystemExit(f"there is no page {name!r}; there are {', '.join(pages())}")
    text = re.sub(r"(?m)^:(?::+|[\w-]+:).*\n", "\n", path.read_text(encoding="utf-8"))
    return [nbformat.v4.new_markdown_cell(text)]


@cache
def page(name: str) -> Page:
    """Return a page as it is stored; it is read once."""
    return Page.of(name, cells(name))


def pages() -> list[str]:
    """Return the pages that have a ledger: the chapters in their order, then the others."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [Path(c["file"]).name for part in contents["parts"] for c in part["chapters"]]
    return [f for f in files if (ROOT / "book" / f"{f}.ipynb").exists()] + list(PAGES)


@dataclass
class Passage:
    text: str
    level: int = 0  # of a heading
    links: dict[str, str] = field(default_factory=dict)
    head: str = ""  # of the table
    code: list[str] = field(default_factory=list)


def passages(tokens: list[Token]) -> Iterator[Passage]:
    """Yield each paragraph, heading, displayed formula and row of a table; code apart."""
    links: dict[str, str] = {}
    head, row, level, in_table = "", [], 0, False
    for n, token in enumerate(tokens):
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "table_open":
            end = next(k for k in range(n, len(tokens)) if tokens[k].type == "table_close")
            in_table, head, links = True, "", links | _links(tokens[n:end])
        elif token.type == "table_close":
            in_table, head = False, ""
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            yield Passage(" | ".join(row), links=links, head=head or "table")
            head = head or " | ".join(row)
        elif token.type in ("math_block", "math_block_label"):
            # A formula belongs to the paragraph that leads to it.
            yield Passage(" ".join(f"$${token.content.strip()}$$".split()), links=links)
        elif token.type == "fence":
            yield Passage("", code=[x for x in token.content.split("\n") if x.strip()])
        elif token.type == "html_block" and (
            summary := re.search("<summary>(.*)</", token.content)
        ):
            yield Passage(summary[1])
        elif token.type == "inline":
            text = " ".join("".join(_typed(child) for child in token.children or []).split())
            if in_table:
                row.append(text)
            else:
                links = _links([token])
                yield Passage(text, level, links)
                level = 0


def _links(tokens: Iterable[Token]) -> dict[str, str]:
    found: dict[str, str] = {}
    for inline in tokens:
        link = None
        for token in inline.children or []:
            if token.type == "link_open":
                link = str(token.attrs["href"])
                found.setdefault(link, "")
            elif token.type == "link_close":
                link = None
            elif link:
                found[link] += _typed(token)
    return found


def _typed(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return " "
    if token.type in ("math_inline", "math_inline_double"):
        return f"${token.content}$"
    if token.type == "code_inline":
        return f"`{token.content}`"
    return token.content if token.type == "text" else ""


def split(text: str) -> list[str]:
    """Split a paragraph into its sentences."""
    if not text:
        return []
    parts = re.split(r"(?<=[a-z\d)»”\"$%`*][.?!;])\s+(?=[A-Z(*$`“\"])", text)
    return [part.strip() for part in parts if part.strip()]


def spoken(heading: str) -> str:
    """Return a heading without the signs that only mark a formula or code."""
    return " ".join(re.sub(r"[$`\\{}]", "", heading).split())


# --- The ledger -----------------------------------------------------------------------------------


@dataclass
class Entry:
    says: str
    sources: list[Source]


def read(name: str) -> list[Entry]:
    path = LEDGERS / f"{name}.toml"
    if not path.exists():
        return []
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SystemExit(f"{path.relative_to(ROOT)} is not TOML: {error}") from None
    return [Entry(e.get("says", ""), e.get("from", [])) for e in stored.get("sentence", [])]


def write(name: str, entries: list[Entry]) -> None:
    lines = [f"# Where the numbers of book/{name} come from; tools/ledger.py says how to read it."]
    for entry in entries:
        lines += ["", "[[sentence]]", f"says = {_quoted(entry.says)}", "from = ["]
        lines += [f"  {_toml(source)}," for source in entry.sources]
        lines.append("]")
    LEDGERS.mkdir(exist_ok=True)
    (LEDGERS / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(source: Source) -> str:
    if isinstance(source, str):
        return _quoted(source)
    return "{ " + ", ".join(f"{k} = {_quoted(v)}" for k, v in source.items()) + " }"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if "'" in text else f"'{text}'"


def paired(
    sentences: list[Sentence], entries: list[Entry]
) -> Iterator[tuple[Sentence | None, Entry | None]]:
    """Yield each sentence that has numbers with its entry, and the entries that are left over."""
    known = defaultdict(list)
    for entry in entries:
        known[masked(entry.says)].append(entry)
    for sentence in sentences:
        if sentence.mentions:
            same = known.get(sentence.key)
            yield sentence, same.pop(0) if same else None
    yield from ((None, entry) for same in known.values() for entry in same)


# --- The check ------------------------------------------------------------------------------------

SOURCE = re.compile(
    r"(?P<kind>out|code|text)(?: (?P<page>\w+))?(?: \((?P<heading>.+?)\))?: (?P<line>.+)", re.DOTALL
)
REASONED = re.compile(r"(?:counted|chosen|drawn|known)(?:: .+)?")


class Broken(Exception):
    """A source that does not exist, or does not say so."""


def complaints(
    page: Page, entries: list[Entry], sentences: list[Sentence] | None = None
) -> Iterator[str]:
    """Say of each number of a page that its ledger does not support why not, and what to do."""
    propose = f"python tools/ledger.py propose {page.name}"
    for sentence, entry in paired(page.sentences if sentences is None else sentences, entries):
        if sentence is None:
            yield f"the ledger has a sentence that the page has not: {entry.says} ({propose})"
            continue
        where = f"cell {sentence.cell}: {sentence.marked}"
        if entry is None:
            yield f"{where}: no source is known; {propose}, and confirm it"
            continue
        contradicted = False
        for mention, source in itertools.zip_longest(sentence.mentions, entry.sources):
            if mention is None or source is None:
                yield f"{where}: {len(entry.sources)} sources for {len(sentence.mentions)} numbers"
                break
            try:
                verify(page, sentence, mention, source)
            except Broken as problem:
                contradicted = True
                yield f"{where}: {mention.written}: {problem}"
        if not contradicted and entry.says != sentence.marked:
            yield f"{where}: the ledger has {entry.says}; {propose}"


def verify(page: Page, sentence: Sentence, mention: Mention, source: Source) -> None:
    """Hold one number to its source.

    Raises:
        Broken: the source is not confirmed, does not exist, or says something else.
    """
    text = source if isinstance(source, str) else source.get("calc", "")
    if text.startswith("?"):
        raise Broken(f"not confirmed: {text}")
    if isinstance(source, str) and not VALUED.match(source):
        _verify_class(page, sentence, mention, source)
        return
    value, share = evaluate(page, sentence, source)
    if not (agrees(mention, value, signed=True) or (share and agrees(mention, value / 100))):
        raise Broken(f"its source gives {value:.6g}: {source}; mend one of the two")


VALUED = re.compile(r"(?:out|code|text|study)\b")


def _verify_class(page: Page, sentence: Sentence, mention: Mention, source: str) -> None:
    kind, _, rest = source.partition(": ")
    if kind == "quoted":
        if rest not in sentence.links:
            raise Broken(f"its paragraph has no link to {rest}")
    elif kind == "ref":
        if not refers(page, sentence, mention):
            raise Broken("what it refers to does not exist")
    elif kind == "formula":
        if not mention.formula:
            raise Broken("it is a number, not a formula; name its source")
    elif kind == "drawn" and not sentence.alt:
        raise Broken("only the description of a figure may say what is drawn")
    elif not REASONED.fullmatch(source) or source == "known":
        raise Broken(f"{source!r} is no source; tools/ledger.py lists them")


def refers(page: Page, sentence: Sentence, mention: Mention) -> bool:
    """Whether the equation, chapter or version that a number names exists."""
    before = sentence.text[: mention.start].lower()
    words = re.findall(r"equations?|eqs?\.|chapters?|python|pytorch|torch|python-", before)
    if not words:
        return False
    if words[-1].startswith("eq"):
        return mention.written in page.tags
    if words[-1].startswith("ch"):
        return mention.values[0] in range(1, len(pages()) - len(PAGES) + 1)
    pins = "".join((ROOT / f).read_text("utf-8") for f in ("pyproject.toml", "requirements.txt"))
    return bool(re.search(rf"(?<![\d.]){re.escape(mention.written)}(?!\d)", pins))


def evaluate(page: Page, sentence: Sentence, source: Source) -> tuple[float, bool]:
    """Return the value of a source, and whether it is a percentage."""
    if isinstance(source, str):
        value = _value(page, sentence, source)
        if isinstance(value, Printed):
            return value.value, value.share
    else:
        known = {
            name: v.value if isinstance(v := _value(page, sentence, text), Printed) else v
            for name, text in source.items()
            if name != "calc"
        }
        value = calculate(source.get("calc", ""), known)
    if not isinstance(value, int | float):
        raise Broken(f"its source is not a number: {source}")
    return value, False


def _value(page: Page, sentence: Sentence, source: str) -> Any:
    if source.startswith("study "):
        return _stored(page, source)
    match = SOURCE.fullmatch(source)
    if not match:
        raise Broken(f"{source!r} is no source; tools/ledger.py lists them")
    try:
        line, start = unmarked(match["line"])
    except ValueError as problem:
        raise Broken(f"{problem}: {source}") from None
    if not any(text == line for _, text in _in_place(page, sentence, match)):
        raise Broken(f"the line of its source is gone or too far away: {source}")
    number = next((p for p in printed(line) if p.start <= start < p.end), None)
    if number is None:
        raise Broken(f"no number is marked in {source}")
    return number


def _in_place(here: Page, sentence: Sentence, match: re.Match[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines, and their cells, among which a source has to stand."""
    kind, name, heading = match["kind"], match["page"], match["heading"]
    if name and name not in (*pages(), "article_checked", "benchmarks"):
        raise Broken(f"there is no page {name!r}")
    there = page(name) if name else here
    if heading and heading not in there.headings:
        raise Broken(f"the page has no heading {heading!r}")
    if heading:
        allowed = there.headings[heading]
    else:
        allowed = set(range(len(there.sections))) if name else here.cells_near(sentence)
    for line in there.lines:
        # No two sentences vouch for each other: what is said stands on what was said before.
        before = (
            name or kind != "text" or (line.cell <= sentence.cell and line.text != sentence.text)
        )
        if line.kind == kind and line.cell in allowed and before:
            yield line.cell, line.text


@cache
def _json(text: str) -> Any:
    return json.loads(text)


def _stored(page: Page, source: str) -> Any:
    name, _, path = source.removeprefix("study ").partition(": ")
    if name not in page.studies:
        raise Broken(f"the code of the page names no stored study {name!r}")
    value = _json(page.studies[name])
    for part in re.split(r"(?<! \d)\.|\.(?!\d)", path):  # "momentum 0.9" is one part
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Broken(f"the study has no {part!r}: {source}") from None
    return value


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul},
    **{ast.Div: operator.truediv, ast.Pow: operator.pow, ast.FloorDiv: operator.floordiv},
    **{ast.USub: operator.neg, ast.UAdd: operator.pos},
}


def _half(values: list[float]) -> float:
    """Half of a 95 % confidence interval of the mean, by Student's t."""
    from scipy.stats import t  # noqa: PLC0415

    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{"min": min, "max": max, "mean": statistics.fmean, "sd": statistics.stdev, "half": _half},
    **{
        "median": statistics.median,
        "len": len,
        "sqrt": math.sqrt,
        "log": math.log,
        "exp": math.exp,
    },
    **{"log2": math.log2, "round": round, "sum": sum},
}


def calculate(text: str, known: dict[str, Any]) -> Any:
    """Return what an expression over bound numbers gives."""

    def of(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return of(body)
            case ast.Constant(value=int() | float()):
                return node.value
            case ast.Name(id=name) if name in known:
                return known[name]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](of(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return _each(OPERATORS[type(op)], of(left), of(right))
            case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
                return FUNCTIONS[name](*(of(a) for a in args))
        raise Broken(f"cannot be calculated: {text}")

    try:
        return of(ast.parse(text, mode="eval"))
    except (SyntaxError, ArithmeticError, TypeError, ValueError) as error:
        raise Broken(f"cannot be calculated: {text}: {error}") from None


def _each(operation: Callable[..., Any], left: Any, right: Any) -> Any:
    """Lists of a study are subtracted pair by pair."""
    if isinstance(left, list) and isinstance(right, list):
        return [operation(a, b) for a, b in zip(left, right, strict=True)]
    return operation(left, right)


# --- Proposals ------------------------------------------------------------------------------------


def content(text: str) -> set[str]:
    """Return the beginnings of the words that say what a line is about."""
    words = re.findall(r"[A-Za-zα-ωΑ-Ω]{3,}", text.replace("_", " ").lower())
    return {word[:5] for word in words} - {"the", "and", "with", "for", "print", "that", "from"}


# What only steers the drawing, the formatting or the chance of a cell.
STEERING = re.compile(
    r"\{[^{}]*?(:[^{}]*)\}|\b(?:seed|manual_seed|ms|lw|s|fontsize|figsize|[xy]lim|width_ratios|alpha|pad"
    r"|height_ratios|atol|rtol|dpi|zorder|round|rounds|randn?|hspace|wspace|subplots)[=(]\(?([^)=]*)"
)


@dataclass(frozen=True)
class Candidate:
    line: Line
    number: Printed
    near: bool
    run: int  # how many numbers of the sentence stand in the line in the same order
    same: int  # how many stand in it at all

    def source(self, page: Page) -> str:
        at = self.number
        text = self.line.text
        marked = f"{text[: at.start]}«{text[at.start : at.end]}»{text[at.end :]}"
        if self.near:
            return f"{self.line.kind}: {marked}"
        inside = [h for h, cells in page.headings.items() if self.line.cell in cells]
        heading = min(inside, key=lambda h: len(page.headings[h]), default="")
        return f"{self.line.kind} ({heading}): {marked}"


def proposals(page: Page, sentence: Sentence) -> list[Source]:
    """Propose a source for each number of a sentence, by what stands near and says the same."""
    words = content(sentence.text)
    around = content(sentence.context) - words
    found = _candidates(page, sentence)
    used: dict[Line, int] = {}
    proposed: list[Source] = []
    for mention in sentence.mentions:

        def score(c: Candidate, mention: Mention = mention) -> float:
            about = content(f"{c.line.text} {c.line.context}")
            points = 2.5 * min(c.run - 1, 4) + 1.0 * min(c.same - 1, 3)
            points += 1.5 * min(len(words & about), 4) + 0.4 * min(len(around & about), 4)
            points += {"out": 2, "code": 1, "text": 0}[c.line.kind]
            exact = c.line.text[c.number.start : c.number.end] == mention.written.lstrip("-−")
            points += 2.0 * exact - 0.3 * min(abs(c.line.cell - sentence.cell), 20)
            points -= 8.0 * (not c.near) + 3.0 * (c.number.start <= used.get(c.line, -1))
            return points + 2.0 * (c.line in used)

        best = max(found[mention], key=score, default=None)
        if best is None or score(best) < _needed(mention, sentence, best):
            proposed.append(f"? {_classed(page, sentence, mention)}")
            continue
        used[best.line] = best.number.start
        proposed.append(f"? {best.source(page)}")
    return proposed


def _candidates(page: Page, sentence: Sentence) -> dict[Mention, list[Candidate]]:
    """Return, of each number of a sentence, where on the page the same number stands."""
    near = page.cells_near(sentence)
    sought = [m for m in sentence.mentions if not m.formula and not _referring(sentence, m)]
    found: dict[Mention, list[Candidate]] = {mention: [] for mention in sentence.mentions}
    for line in page.lines:
        if line.kind == "text" and (line.cell >= sentence.cell or sentence.alt):
            continue
        if line.cell not in near and line.kind == "text":
            continue
        numbers = _telling(line)
        same = {
            (m, n)
            for m, mention in enumerate(sought)
            for n, number in enumerate(numbers)
            if _same(mention, number)
        }
        for m, n in same:
            if line.cell in near or _size(sought[m]) >= 3:
                before = next(k for k in itertools.count(1) if (m - k, n - k) not in same)
                after = next(k for k in itertools.count(1) if (m + k, n + k) not in same)
                candidate = Candidate(
                    line,
                    numbers[n],
                    line.cell in near,
                    before + after - 1,
                    len({m for m, _ in same}),
                )
                found[sought[m]].append(candidate)
    return found


@cache
def _telling(line: Line) -> list[Printed]:
    steering = [m.span() for m in STEERING.finditer(line.text)] if line.kind == "code" else []
    return [
        number
        for number in printed(line.text)
        if not any(start <= number.start < end for start, end in steering)
    ]


def _same(mention: Mention, number: Printed) -> bool:
    if _size(mention) == 1 and mention.unit == 1 and mention.values[0] < 20:
        return abs(number.value) == mention.values[0]
    return agrees(mention, number.value) or (number.share and agrees(mention, number.value / 100))


def _size(mention: Mention) -> int:
    """How many digits a number shows that are not by chance."""
    if mention.written[0].isalpha():
        return 1
    digits = re.sub(r"\D", "", mention.written.lstrip("0.,-−"))
    return max(len(digits) if "." in mention.written else len(digits.rstrip("0")), 1)


def _needed(mention: Mention, sentence: Sentence, best: Candidate) -> float:
    """How much must speak for a source: the less, the rarer the number."""
    quoted = 1.5 if sentence.links and best.run < 2 else 0.0
    shared = len(content(sentence.text) & content(best.line.text))
    if _size(mention) == 1 and shared < (1 if best.run > 2 else 2):
        return math.inf
    return {1: 8.0, 2: 4.0, 3: -1.0}.get(_size(mention), -8.0) + quoted


REFERRING = re.compile(
    r"(?:\b(?:equations?|eqs?\.|chapters?|python|pytorch|torch|sections?|articles?|tables?|figures?"
    r"|figs?\.|appendix|version|part)[\s~]*\(?|\b(?:equations?|eqs?\.|chapters?|tables?|figures?"
    r"|sections?)[\s~]*[\d.]+(?:(?:,| and| or| to)[\s~]*[\d.]+)*(?:,| and| or| to)[\s~]*)$",
    re.IGNORECASE,
)


def _referring(sentence: Sentence, mention: Mention) -> bool:
    return bool(REFERRING.search(sentence.text[: mention.start])) or mention.written.count(".") > 1


def _classed(page: Page, sentence: Sentence, mention: Mention) -> str:
    """What a number is that no cell shows."""
    referring = _referring(sentence, mention)
    after = sentence.text[mention.end :]
    if mention.formula:
        return "formula"
    if referring and refers(page, sentence, mention):
        return "ref"
    word = mention.written[0].isalpha()
    if sentence.text == f"{mention.written}." or (word and not sentence.alt):
        return "counted"
    if (referring or len(re.sub(r"\D", "", mention.written)) > 1) and sentence.links:
        return f"quoted: {min(sentence.links, key=lambda link: _away(sentence, mention, link))}"
    if sentence.alt:
        return "drawn"
    return "known: a name" if re.match(r"( × \d)? convolution", after) else "chosen"


def _away(sentence: Sentence, mention: Mention, link: str) -> tuple[float, str]:
    """How far from a number a link stands, in characters."""
    at = sentence.text.find(sentence.links[link])
    return (abs(at - mention.start) if at >= 0 else math.inf, link)


def propose(name: str) -> tuple[int, int]:
    """Write the ledger of a page anew; what can still be verified stays confirmed.

    Returns:
        How many numbers there are, and how many wait to be confirmed.
    """
    here = page(name)
    entries = []
    for sentence, entry in paired(here.sentences, read(name)):
        if sentence is None:
            continue
        new = proposals(here, sentence)
        old = entry.sources if entry else []
        if len(old) == len(new):
            said = re.findall("«([^»]*)»", entry.says) if entry else []
            new = [
                _kept(here, sentence, mention, kept, proposed, said[i])
                for i, (mention, kept, proposed) in enumerate(
                    zip(sentence.mentions, old, new, strict=True)
                )
            ]
        entries.append(Entry(sentence.marked, new))
    write(name, entries)
    every = [source for entry in entries for source in entry.sources]
    return len(every), sum(_open(source) for source in every)


def _kept(
    page: Page, sentence: Sentence, mention: Mention, old: Source, new: Source, said: str
) -> Source:
    """Keep what was confirmed, if its source still says so; else propose."""
    if isinstance(old, dict):
        old = {k: completed(page, sentence, v) for k, v in old.items()}
    else:
        old = completed(page, sentence, old)
    if isinstance(old, str) and not VALUED.match(old) and said != mention.written:
        return new
    try:
        verify(page, sentence, mention, old)
    except Broken:
        pass
    else:
        return old
    # The line has changed elsewhere, and the number has stayed.
    return str(new).removeprefix("? ") if digitless(str(new)) == digitless(f"? {old}") else new


def completed(page: Page, sentence: Sentence, source: str) -> str:
    """Return a source whose line is given in part, with ... for the rest, in full."""
    match = SOURCE.fullmatch(source)
    if not match or "..." not in source:
        return source
    parts = [re.escape(part.strip()) for part in re.split(r"\.\.\.|([«»])", match["line"]) if part]
    pattern = ".*?".join(parts).replace("«.*?", "(?P<mark>").replace(".*?»", ")")
    near = sorted(_in_place(page, sentence, match), key=lambda at: abs(at[0] - sentence.cell))
    for _, text in near:
        if found := re.search(pattern, text):
            at, end = found.span("mark")
            head = source[: match.start("line")]
            return f"{head}{text[:at]}«{text[at:end]}»{text[end:]}"
    return source


def digitless(line: str) -> str:
    return re.sub(r"\d+", "0", line)


def _open(source: Source) -> bool:
    return (source if isinstance(source, str) else source.get("calc", "")).startswith("?")


def show(name: str, draw: int | None = None) -> Iterator[str]:
    """Yield each number with its source, in a line to be read."""
    lines = []
    for sentence, entry in paired(page(name).sentences, read(name)):
        if sentence is None or entry is None:
            continue
        block = [f"[{sentence.cell}] {sentence.marked}"]
        for mention, source in zip(sentence.mentions, entry.sources, strict=False):
            block.append(f"    {mention.written:>8} <- {source}")
        lines.append("\n".join(block))
    yield from random.sample(lines, min(draw, len(lines))) if draw else lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("propose").add_argument("pages", nargs="*")
    commands.add_parser("check").add_argument("pages", nargs="*")
    shown = commands.add_parser("show")
    shown.add_argument("page")
    shown.add_argument("draw", nargs="?", type=int)
    arguments = parser.parse_args()
    if arguments.command == "show":
        print(*show(arguments.page, arguments.draw), sep="\n")
    elif arguments.command == "propose":
        for name in arguments.pages or pages():
            every, waiting = propose(name)
            print(f"book/ledger/{name}.toml: {every} numbers, {waiting} wait to be confirmed")
    else:
        names = arguments.pages or pages()
        found = [f"{name}: {said}" for name in names for said in complaints(page(name), read(name))]
        print(*found, f"{len(found)} complaints", sep="\n")
        sys.exit(bool(found))


if __name__ == "__main__":
    main()
