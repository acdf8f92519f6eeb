r"""The contract of a chapter, as rules that a program can check.

A rule takes a `Chapter` and yields a sentence for each place that breaks it. `test_book.py` applies
every rule to every chapter, and shows of every rule a notebook that it rejects.

Exercises. In the section "Exercises" a code cell holds the skeleton: it defines a function that
raises NotImplementedError, and ends in a line that hands it to the chapter's checker,
`exercises.check_NAME(function)`. The Markdown below it, before the next code cell, holds the folded
solution:

    <details>
    <summary>Solution</summary>

    ```python
    def function(...): ...
    ```

    </details>

The one fenced block of the solution defines the same function. It is run after the chapter's
imports and the skeleton without its last line, and its function must satisfy the same checker.

Numbers. Each is bound to where it comes from in book/ledger/; tools/ledger.py says how.

Figures. A cell that draws one ends in `plt.show()`, asserts what the figure's title claims, and has
its alt text in its metadata: {"mystnb": {"image": {"alt": "Heat map, ..."}}}. On the site a figure
is as wide as its smallest lettering needs to be readable, and scrolls where the screen is narrower.

Editions. A chapter with the box "In short" is of the second edition: tools/form.py has more rules
for it. Its box links to sections of the chapter, which is the only link that is no whole address.
An appendix is of the second edition too, and has neither box nor first path nor exercises.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from address import Address, book_address
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from notebooks import FOLD, GPU, HIDE, METADATA, ROOT, SET_UP_CELL, appendices, folding

sys.path.append(str(ROOT / "book" / "_ext"))
from figures import narrowest

IN_SHORT = "**In short**"
LAST_SECTIONS = ["Exercises", "Sources"]
IGNORED = "nbval-ignore-output"
TAGS = {IGNORED, FOLD, HIDE}
SET_UP_TAGS = [IGNORED, FOLD, "remove-output"]  # whose device it was, no page has to say
WORDS = range(1_800, 4_001)
WORDS_OF_APPENDIX = range(1_000, 1_801)
FIGURES = range(5, 17)
EXERCISES = range(3, 6)
MOST_CODE_LINES = 300
LONGEST_CODE_CELL = 20
LONGEST_SHOWN_CELL = 12
LONGEST_OUTPUT = 40
LONGEST_HIDDEN_OUTPUT = 80
WIDEST_OUTPUT = 100
SHORTEST_ALT = 30
WIDEST_FIGURE = 540  # pixels: on a phone, half a screen is scrolled to

MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_labels=True)


@dataclass(frozen=True)
class Block:
    """A paragraph, heading, formula or cell of a table, and where it stands."""

    cell: int
    kind: str  # "p", "h1" ... "h6", "math", "td", "th", "li" is a "p"
    text: str  # without code, formulas between their $ as LaTeX
    said: str  # with an x for each formula and each piece of code: what is counted as words
    linked: bool  # it, or the table that it belongs to, has a link
    folded: bool  # inside <details>
    section: str  # text of the last h2

    @property
    def words(self) -> int:
        return len(re.findall(r"\S*\w\S*", self.said))


class Chapter:
    """A notebook and what its rules need to know beside it."""

    def __init__(
        self,
        name: str,
        notebook: NotebookNode,
        *,
        address: Address,
        exercises: object,
        appendix: bool = False,
    ) -> None:
        self.name = name
        self.cells = notebook.cells
        self.notebook = notebook
        self.address = address
        self.appendix = appendix
        self._exercises = exercises

    @classmethod
    def read(cls, path: Path) -> Chapter:
        return cls(
            path.stem,
            nbformat.read(path, as_version=4),
            address=book_address(),
            exercises=None,
            appendix=path.stem in appendices(),
        )

    @property
    def exercises(self) -> Any:
        return self._exercises or importlib.import_module(f"attnbook.exercises.{self.name}")

    @cached_property
    def code(self) -> list[tuple[int, NotebookNode]]:
        return [(i, cell) for i, cell in enumerate(self.cells) if cell.cell_type == "code"]

    @cached_property
    def markdown(self) -> list[tuple[int, NotebookNode]]:
        return [(i, cell) for i, cell in enumerate(self.cells) if cell.cell_type == "markdown"]

    @cached_property
    def own_code(self) -> list[tuple[int, NotebookNode]]:
        """The code cells after the set-up cell."""
        return self.code[1:]

    @cached_property
    def tokens(self) -> dict[int, list[Token]]:
        return {i: MARKDOWN.parse(cell.source) for i, cell in self.markdown}

    @cached_property
    def blocks(self) -> list[Block]:
        return list(_blocks(self))

    @cached_property
    def headings(self) -> list[Block]:
        return [block for block in self.blocks if re.fullmatch("h[1-6]", block.kind)]

    @cached_property
    def anchors(self) -> set[str]:
        """What `[text](#...)` may name: headings of which GitHub and Sphinx make the same name."""
        titles = [block.text.strip() for block in self.headings]
        plain = [title for title in titles if re.fullmatch(r"[\w ,.:;?!'’()-]+", title, re.ASCII)]
        return {anchor(title) for title in plain if titles.count(title) == 1}

    @cached_property
    def box(self) -> tuple[int, list[Token]] | None:
        """The cell and the tokens of the block quote "In short", which the second edition has."""
        for i, tokens in self.tokens.items():
            quote: list[Token] = []
            for token in tokens:
                if quote or token.type == "blockquote_open":
                    quote.append(token)
                if token.type == "blockquote_close":
                    if any(t.content.startswith(IN_SHORT) for t in quote[:3]):
                        return i, quote
                    quote = []
        return None

    @property
    def second(self) -> bool:
        """Whether the rules of the second edition on cells, words and numbers are its rules."""
        return bool(self.box) or self.appendix

    @cached_property
    def section_of(self) -> list[str]:
        """The h2 that each cell stands under (a Markdown cell: the last in it)."""
        sections, section = [], ""
        for i, _ in enumerate(self.cells):
            for block in self.headings:
                if block.cell == i and block.kind == "h2":
                    section = block.text.strip()
            sections.append(section)
        return sections


Rule = Callable[[Chapter], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


# --- The notebook as a file ---------------------------------------------------------------------


@rule
def metadata_are_the_same(chapter: Chapter) -> Iterator[str]:
    """The kernel is python3, and nothing of the writer's machine is stored."""
    if chapter.notebook.metadata not in (METADATA, {**METADATA, **GPU}):
        yield f"the notebook's metadata are not {METADATA} (`make notebooks` writes them)"
    if (chapter.notebook.nbformat, chapter.notebook.nbformat_minor) < (4, 5):
        yield "the notebook's format is older than 4.5, so its cells have no lasting ids"
    for i, cell in chapter.code:
        if "execution" in cell.metadata:
            yield f"cell {i} stores when it was run (`make notebooks` removes that)"
        wanted = folding(cell.metadata.get("tags", []))
        if any(cell.metadata.get(key) != value for key, value in wanted.items()):
            yield f"cell {i} is folded on the site or in Colab alone (`make notebooks` sees to it)"


@rule
def a_gpu_is_used(chapter: Chapter) -> Iterator[str]:
    """A chapter that has Colab give it a GPU computes on it."""
    names = {node.id for _, node in _nodes(chapter) if isinstance(node, ast.Name)}
    if "accelerator" in chapter.notebook.metadata and "device" not in names:
        yield "the notebook's metadata ask for a GPU, but no cell uses `device`"


@rule
def set_up_cell_is_the_same(chapter: Chapter) -> Iterator[str]:
    """The first code cell is the one of all chapters, with the address of _config.yml."""
    if not chapter.code:
        yield "there is no code cell"
        return
    i, cell = chapter.code[0]
    if cell.source != SET_UP_CELL.format(**chapter.address._asdict()):
        yield (
            f"cell {i} is not the set-up cell of tools/notebooks.py with {chapter.address.url} "
            f"and the branch {chapter.address.branch} (`make repository` carries them there)"
        )
    if cell.metadata.get("tags") != SET_UP_TAGS:
        yield f"cell {i}, the set-up cell, is tagged {cell.metadata.get('tags')}, not {SET_UP_TAGS}"


@rule
def code_is_plain_python(chapter: Chapter) -> Iterator[str]:
    """Only the set-up cell has magics, and every cell parses."""
    for i, cell in chapter.own_code:
        source = cell.source.rstrip("\n") + "\n"
        if TransformerManager().transform_cell(source) != source or "get_ipython" in source:
            yield f"cell {i} uses a magic or a shell command: {_first_line(cell)}"
            continue
        try:
            ast.parse(source)
        except SyntaxError as error:
            yield f"cell {i} is not Python: {error}"


@rule
def tags_are_known(chapter: Chapter) -> Iterator[str]:
    """No cell is left out of the comparison with its stored output in another way."""
    set_up = next((i for i, _ in chapter.code), None)
    for i, cell in enumerate(chapter.cells):
        unknown = sorted(set(cell.metadata.get("tags", [])) - TAGS)
        if unknown and i != set_up:
            yield f"cell {i} has tags {unknown}; known are {sorted(TAGS)}"
        if cell.cell_type == "code" and re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source):
            yield f"cell {i} steers nbval by a comment; use the tag {IGNORED}"


# --- What the cells printed -----------------------------------------------------------------------


@rule
def counts_run_in_order(chapter: Chapter) -> Iterator[str]:
    """Execution counts are 1 to n: the notebook was run whole, from its top."""
    counts = [cell.execution_count for _, cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(counts)}"
    for i, cell in chapter.code:
        if not cell.source.strip():
            yield f"cell {i} is empty"


@rule
def outputs_are_stored(chapter: Chapter) -> Iterator[str]:
    """A cell that prints or draws has its output."""
    for i, cell in chapter.code:
        last = cell.source.rstrip().split("\n")[-1]
        if not cell.outputs and last.startswith(("print(", "plt.show()")):
            yield f"cell {i} has lost its output: make notebooks CHAPTERS={chapter.name} stores it"


@rule
def nothing_went_wrong(chapter: Chapter) -> Iterator[str]:
    """No warning and no error is stored."""
    for i, cell in chapter.code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {i} stores an error: {output.ename}: {output.evalue}"
            if output.get("name") == "stderr":
                yield f"cell {i} wrote to stderr: {output.text.strip()[:80]}"


@rule
def outputs_are_short(chapter: Chapter) -> Iterator[str]:
    """No cell prints more than a screen, or two where the output is folded."""
    for i, cell in chapter.code:
        lines = sum(len(text.rstrip("\n").split("\n")) for text in texts(cell))
        hidden = HIDE in cell.metadata.get("tags", [])
        most = LONGEST_HIDDEN_OUTPUT if hidden else LONGEST_OUTPUT
        if lines > most:
            yield f"cell {i} prints {lines} lines; at most {most} are read"


@rule
def outputs_are_narrow(chapter: Chapter) -> Iterator[str]:
    """No printed line is wider than the page."""
    for i, cell in chapter.code:
        printed = [output.text for output in cell.outputs if output.output_type == "stream"]
        for line in "".join(printed).split("\n"):
            if len(line) > WIDEST_OUTPUT:
                yield f"cell {i} prints {len(line)} characters in a line; {WIDEST_OUTPUT} are seen"


@rule
def outputs_can_recur(chapter: Chapter) -> Iterator[str]:
    """No output holds an address in memory or a path on the writer's machine."""
    unique = re.compile(r"\b0x[0-9a-f]{6,}|(?<![\w/])/(?:tmp|home|root|Users|work|usr)/|[A-Z]:\\\\")
    for i, cell in chapter.code:
        for text in texts(cell):
            if found := unique.search(text):
                yield f"cell {i} prints {found[0]!r}, which is another one on the next machine"


@rule
def ignored_outputs_are_asserted(chapter: Chapter) -> Iterator[str]:
    """After a cell whose output is not compared, the next asserts what the prose makes of it."""
    following = [*chapter.code[1:], (-1, None)]
    for (i, cell), (_, after) in zip(chapter.code[1:], following[1:], strict=True):
        ignored = IGNORED in cell.metadata.get("tags", [])
        if ignored and (after is None or not _asserts(after)):
            yield f"cell {i} is tagged {IGNORED}, but the next code cell asserts nothing"


# --- Figures --------------------------------------------------------------------------------------


@rule
def figures_have_alt_text(chapter: Chapter) -> Iterator[str]:
    """Each figure has words that say what is to be seen, and no words are left without figure."""
    for i, cell in chapter.code:
        drawn, alt = figures(cell), alt_text(cell)
        if drawn > 1:
            yield f"cell {i} draws {drawn} figures, which would share one alt text"
        if drawn and (len(alt) < SHORTEST_ALT or " " not in alt):
            yield f"cell {i} has the alt text {alt!r}, not a sentence of {SHORTEST_ALT} characters"
        if re.search(r"\.(png|svg|jpe?g)\b", alt):
            yield f"cell {i} has a file name as alt text: {alt!r}"
        if alt and not drawn:
            yield f"cell {i} has an alt text but draws nothing"


@rule
def figures_end_in_show(chapter: Chapter) -> Iterator[str]:
    """A cell with a figure ends in plt.show(), so that nothing is printed beside the figure."""
    for i, cell in chapter.code:
        if figures(cell) and cell.source.rstrip().split("\n")[-1] != "plt.show()":
            yield f"cell {i} draws a figure, but does not end in plt.show()"


@rule
def figures_are_asserted(chapter: Chapter) -> Iterator[str]:
    """What the figure's title claims is asserted in its cell."""
    for i, cell in chapter.code:
        if figures(cell) and not _asserts(cell):
            yield f"cell {i} draws a figure but asserts nothing of what its title claims"


@rule
def figures_can_be_read(chapter: Chapter) -> Iterator[str]:
    """Figures are SVG, and no lettering is so small that it makes a figure wide on a phone."""
    for i, cell in chapter.code:
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                width = narrowest(data["image/svg+xml"])
                if width > WIDEST_FIGURE:
                    yield f"cell {i} must be {width} pixels wide to be read, not {WIDEST_FIGURE}"
            elif any(kind.startswith("image/") for kind in data):
                yield f"cell {i} draws a figure that is not SVG (plotting.style() makes it one)"


# --- Prose ----------------------------------------------------------------------------------------

# What MyST, GitHub or Jupyter Book understand and the two others show as it is typed.
DIALECTS = {
    "a role": r"\{[a-zA-Z][\w:.+-]*\}`",
    "a colon fence": r"(?m)^:::",
    "a label": r"(?m)^\([\w:.\- ]+\)=\s*$",
    "a MyST comment": r"(?m)^%",
    "a block break": r"(?m)^\+\+\+",
    "a substitution": r"\{\{.*?\}\}",
    "an attribute": r"\{[#.][a-zA-Z][\w -]*\}",
    "a GitHub alert": r"(?m)^\[![A-Z]+\]",
    "a task list": r"(?m)^\[[ xX]\] ",
    "a footnote": r"\[\^[^\]]+\]",
    "LaTeX outside of $": r"\\begin\{",
}
HTML = {"details", "summary", "br", "sub", "sup", "kbd"}


@rule
def markdown_is_common(chapter: Chapter) -> Iterator[str]:
    """The prose reads the same on the site, in Colab and on GitHub."""
    for i, tokens in chapter.tokens.items():
        prose = "\n".join(_typed(token) for token in tokens if token.type == "inline")
        # CommonMark takes the text of a footnote for the target of a link.
        prose += "".join(re.findall(r"(?m)^\[\^[^\]]+\]:", chapter.cells[i].source))
        for what, pattern in DIALECTS.items():
            if found := re.search(pattern, prose):
                yield f"cell {i} has {what}, which is not CommonMark: {found[0].strip()!r}"
        for token in _flat(tokens):
            if token.type == "fence" and token.info.strip().startswith("{"):
                yield f"cell {i} has a directive, which is not CommonMark: {token.info}"
            if token.type == "math_block_label":
                yield f"cell {i} has a labelled formula, which is not CommonMark; use \\tag"
            if token.type in ("html_block", "html_inline"):
                for tag in re.findall(r"</?([a-zA-Z]\w*)", token.content):
                    if tag.lower() not in HTML:
                        yield f"cell {i} has <{tag}>; only {sorted(HTML)} read the same everywhere"
            if token.type == "code_block":
                yield f"cell {i} has an indented code block; fence it: {token.content.strip()!r}"


def _typed(inline: Token) -> str:
    """A paragraph as it was typed, but with nothing in its code, its formulas and its HTML."""
    shown = {"softbreak": "\n", "hardbreak": "\n", "code_inline": "`code`"}
    children = inline.children or []
    return "".join(t.content if t.type == "text" else shown.get(t.type, "") for t in children)


@rule
def links_are_absolute(chapter: Chapter) -> Iterator[str]:
    """In Colab a notebook has no neighbours, and the page fetches no picture from elsewhere.

    A link may lead to a heading of the chapter itself. (Colab does not follow it, and has a table
    of contents beside the page.)
    """
    for i, tokens in chapter.tokens.items():
        for token in _flat(tokens):
            target = str(token.attrs.get("href", "https://"))
            if target.startswith("#"):
                if target[1:] not in chapter.anchors:
                    yield (
                        f"cell {i} links to {target!r}, which names no heading of the chapter, or "
                        f"one that is there twice or has code or a formula in it; "
                        f"there are {sorted(chapter.anchors)}"
                    )
            elif not target.startswith("https://"):
                yield f"cell {i} links to {target!r}, which is not https://..."
            if token.type == "image":
                yield f"cell {i} shows a picture, {token.attrs['src']!r}; code draws the figures"


READERS = {
    *("open", "read_text", "read_bytes", "read_csv", "read_json", "read_excel", "imread", "imsave"),
    *("loadtxt", "genfromtxt", "load", "fromfile", "urlopen", "urlretrieve", "savefig", "save"),
    *("write_text", "write_bytes", "chdir", "from_pretrained", "load_state_dict_from_url"),
}
NETWORK = {"requests", "urllib", "http", "socket", "subprocess", "httpx", "aiohttp"}


@rule
def code_reads_no_files(chapter: Chapter) -> Iterator[str]:
    """In Colab nothing lies beside the notebook; the package brings its data along."""
    for i, node in _nodes(chapter):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in READERS:
                yield f"cell {i} calls {name}; what a chapter needs comes with the package"
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.level:
                yield f"cell {i} imports relatively"
        for module in modules:
            if module.partition(".")[0] in NETWORK:
                yield f"cell {i} imports {module}; a chapter asks neither network nor shell"


@rule
def prose_is_plain(chapter: Chapter) -> Iterator[str]:
    """No exclamation marks, no emoji, no words that praise instead of showing; 3 × 3, not 3 x 3."""
    words = r"\b(?:simply|obviously|powerful|crucial|crucially|delve|in essence)\b"
    for block in chapter.blocks:
        if found := re.search(words, no_math(block.text), re.IGNORECASE):
            yield f"cell {block.cell} says {found[0]!r}"
        if found := re.search(r"\d x \d", block.text):
            yield f"cell {block.cell} writes {found[0]!r} without the sign ×"
        if found := re.search(r"!(?!=)|[\U0001f300-\U0001faff\u2600-\u27bf]", no_math(block.text)):
            yield f"cell {block.cell} has {found[0]!r}: {block.text.strip()[:60]}"


# --- Anatomy --------------------------------------------------------------------------------------


@rule
def headings_are_in_order(chapter: Chapter) -> Iterator[str]:
    """One title, first of all, and no level left out."""
    levels = [int(block.kind[1]) for block in chapter.headings]
    if levels.count(1) != 1 or not chapter.blocks or chapter.blocks[0].kind != "h1":
        yield f"there are {levels.count(1)} h1 headings; the chapter starts with its only one"
    for before, after in zip(chapter.headings, chapter.headings[1:], strict=False):
        if int(after.kind[1]) > int(before.kind[1]) + 1:
            yield f"cell {after.cell}: {after.kind} {after.text!r} under {before.kind}"


@rule
def anatomy_is_kept(chapter: Chapter) -> Iterator[str]:
    """It opens with a question, an aim and the time it takes; it ends in exercises and sources.

    An appendix ends in sources.
    """
    if not any(block.section == "Sources" and block.linked for block in chapter.blocks):
        yield "the section Sources has no link"
    sections = [block.text.strip() for block in chapter.headings if block.kind == "h2"]
    last = LAST_SECTIONS[1:] if chapter.appendix else LAST_SECTIONS
    if sections[-len(last) :] != last:
        yield f"the last sections are {sections[-len(last) :]}, not {last}"
    if chapter.appendix:
        return
    first_code = chapter.code[0][0] if chapter.code else len(chapter.cells)
    opening = " ".join(block.text for block in chapter.blocks if block.cell < first_code)
    wanted = {
        "the question that the mechanism answers": r"\?",
        "what you will be able to do": r"you (?:will|can)|able to",
        "minutes to read": r"\d+ minutes",
        "seconds to run": r"\d+ seconds",
    }
    for what, pattern in wanted.items():
        if not re.search(pattern, opening):
            yield f"the opening, above the set-up cell, does not say {what}"
    if not any(block.kind == "math" for block in chapter.blocks):
        yield "there is no displayed formula"


@rule
def length_is_moderate(chapter: Chapter) -> Iterator[str]:
    """A chapter of the first edition is read in one sitting; form.py has the second's bounds."""
    if chapter.box:
        return
    words = sum(block.words for block in chapter.blocks if not block.folded)
    bounds = WORDS_OF_APPENDIX if chapter.appendix else WORDS
    if words not in bounds:
        yield f"{words} words without solutions, not {bounds[0]} to {bounds[-1]}"
    lines = sum(code_lines(cell) for _, cell in chapter.own_code)
    if lines > MOST_CODE_LINES:
        yield f"{lines} lines of code, more than {MOST_CODE_LINES}"
    drawn = sum(figures(cell) for _, cell in chapter.code)
    if drawn not in FIGURES and not chapter.appendix:
        yield f"{drawn} figures, not {FIGURES[0]} to {FIGURES[-1]}"


@rule
def cells_are_short(chapter: Chapter) -> Iterator[str]:
    """One idea a cell; in the second edition twelve lines, or twenty that are folded."""
    for i, cell in chapter.own_code:
        shown = chapter.second and FOLD not in cell.metadata.get("tags", [])
        most = LONGEST_SHOWN_CELL if shown else LONGEST_CODE_CELL
        if code_lines(cell) > most:
            yield f"cell {i} has {code_lines(cell)} lines of code, more than {most}"


# --- Folded text and exercises --------------------------------------------------------------------


@rule
def details_are_well_formed(chapter: Chapter) -> Iterator[str]:
    """Folded text stands between blank lines and is not indented: else the page shows it raw."""
    for i, cell in chapter.markdown:
        inside = fenced = False
        lines = ["", *cell.source.split("\n"), ""]
        for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
            fenced ^= line.startswith(("```", "~~~"))
            if fenced:
                continue
            if complaint := _folding(before, line, after, inside):
                yield f"cell {i}: {complaint}"
            inside = (inside or "<details" in line) and "</details>" not in line
        if inside or fenced:
            yield f"cell {i}: a <details> or a fence is not closed"


def _folding(before: str, line: str, after: str, inside: bool) -> str | None:
    """What is wrong with a line in or around folded text."""
    if "<details" in line:
        if line != "<details>" or inside or before.strip():
            return f"{line!r} is not a lone <details> after a blank line"
        if not re.fullmatch(r"<summary>.+</summary>", after):
            return "<details> is not followed by a line <summary>...</summary>"
    elif "<summary" in line:
        if after.strip() or before != "<details>":
            return f"{line!r} does not stand between <details> and a blank line"
    elif "</details>" in line:
        if line != "</details>" or not inside or before.strip() or after.strip():
            return f"{line!r} is not a lone </details> between blank lines"
    elif inside and re.match(r"\s+\S", line):
        return f"indented inside <details>: {line!r}"
    return None


@dataclass(frozen=True)
class Exercise:
    cell: int
    skeleton: ast.Module  # without its last line
    check: str
    function: str
    solutions: list[list[str]]  # of each folded solution, its fenced Python blocks


@rule
def exercises_have_solutions(chapter: Chapter) -> Iterator[str]:
    """Three to five skeletons, each ending in its checker, each with one folded solution.

    An appendix has none.
    """
    exercises = list(_exercises(chapter))
    if len(exercises) not in EXERCISES and not chapter.appendix:
        yield f"{len(exercises)} exercises, not {EXERCISES[0]} to {EXERCISES[-1]}"
    for exercise in exercises:
        counts = [len(blocks) for blocks in exercise.solutions]
        if counts != [1]:
            yield (
                f"cell {exercise.cell}: exercise {exercise.function} has {len(counts)} solutions "
                f"with {counts} blocks of Python; one with one is wanted"
            )


@rule
def solutions_are_right(chapter: Chapter) -> Iterator[str]:
    """Every solution satisfies the checker of its exercise; the skeleton counts as unattempted."""
    for exercise in _exercises(chapter):
        where = f"cell {exercise.cell}: exercise {exercise.function}"
        check = getattr(chapter.exercises, exercise.check, None)
        if check is None:
            yield f"{where}: there is no attnbook.exercises.{chapter.name}.{exercise.check}"
            continue
        namespace = _imports(chapter)
        exec(compile(exercise.skeleton, where, "exec"), namespace)
        skeleton = namespace.get(exercise.function)
        said = check.verdict(skeleton)
        if said.accepted is not None:
            yield f"{where}: the checker takes the skeleton for an attempt: {said.text}"
        for source in [block for blocks in exercise.solutions for block in blocks]:
            exec(compile(source, f"{where}, solution", "exec"), namespace)
            if namespace[exercise.function] is skeleton:
                yield f"{where}: the solution does not define {exercise.function}"
                continue
            said = check.verdict(namespace[exercise.function])
            if said.accepted is not True:
                yield f"{where}: the checker rejects the solution: {said.text}"


def _exercises(chapter: Chapter) -> Iterator[Exercise]:
    for i, cell in chapter.own_code:
        if chapter.section_of[i] != "Exercises" or (tree := parse(cell)) is None:
            continue
        last = tree.body[-1] if tree.body else None
        call = last.value if isinstance(last, ast.Expr) else None
        if not (isinstance(call, ast.Call) and len(call.args) == 1):
            continue
        check = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if not check.startswith("check_") or not isinstance(call.args[0], ast.Name):
            continue
        following = [j for j, _ in chapter.code if j > i]
        below = range(i + 1, following[0] if following else len(chapter.cells))
        yield Exercise(
            cell=i,
            skeleton=ast.Module(tree.body[:-1], type_ignores=[]),
            check=check,
            function=call.args[0].id,
            solutions=[s for j in below for s in _solutions(chapter.tokens.get(j, []))],
        )


def _solutions(tokens: list[Token]) -> Iterator[list[str]]:
    """Yield, of each folded solution, its Python blocks."""
    blocks = None
    for token in tokens:
        if token.type == "html_block" and re.search("<summary>.*Solution", token.content):
            blocks = []
        elif token.type == "html_block" and "</details>" in token.content and blocks is not None:
            yield blocks
            blocks = None
        elif token.type == "fence" and token.info.strip() == "python" and blocks is not None:
            blocks.append(token.content)


def _imports(chapter: Chapter) -> dict[str, Any]:
    """What the chapter imports at the top level of its cells."""
    namespace: dict[str, Any] = {}
    for _, cell in chapter.own_code:
        tree = parse(cell) or ast.Module([], [])
        found = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(found, type_ignores=[]), "imports", "exec"), namespace)
    namespace.setdefault("torch", importlib.import_module("torch"))
    return namespace


# --- Reading cells --------------------------------------------------------------------------------


def _first_line(cell: NotebookNode) -> str:
    return cell.source.strip().split("\n")[0]


def code_lines(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.split("\n"))


def texts(cell: NotebookNode) -> Iterator[str]:
    """Yield what a cell shows as text: printed, as a result, or as a table."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        data = output.get("data", {})
        if not any(kind.startswith("image/") for kind in data):
            yield from (data[kind] for kind in ("text/plain", "text/markdown") if kind in data)
            if "text/html" in data:
                yield re.sub(r"<[^>]*>", " ", data["text/html"])


def figures(cell: NotebookNode) -> int:
    outputs = [output.get("data", {}) for output in cell.outputs]
    return sum(any(kind.startswith("image/") for kind in data) for data in outputs)


def alt_text(cell: NotebookNode) -> str:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


def parse(cell: NotebookNode) -> ast.Module | None:
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return None


def _nodes(chapter: Chapter) -> Iterator[tuple[int, ast.AST]]:
    for i, cell in chapter.own_code:
        for node in ast.walk(parse(cell) or ast.Module([], [])):
            yield i, node


def _asserts(cell: NotebookNode) -> bool:
    """Whether the cell asserts, by itself or by a function named assert_..."""
    for node in ast.walk(parse(cell) or ast.Module([], [])):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith("assert_"):
                return True
    return False


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or []


def _blocks(chapter: Chapter) -> Iterator[Block]:
    section = ""
    folded = 0
    for i, _ in chapter.markdown:
        tokens = chapter.tokens[i]
        kinds: list[str] = []
        table_linked = linked = False
        for n, token in enumerate(tokens):
            if token.type == "html_block":
                folded += token.content.count("<details") - token.content.count("</details")
            elif token.type == "table_open":
                rest = tokens[n:]
                size = next(k for k, t in enumerate(rest) if t.type == "table_close")
                table_linked = any(t.type == "link_open" for t in _flat(rest[:size]))
            elif token.type == "table_close":
                table_linked = False
            elif token.type in ("math_block", "math_block_label"):
                # A formula belongs to the paragraph that leads to it.
                yield Block(
                    cell=i,
                    kind="math",
                    text=f"${token.content}$",
                    said="",
                    linked=linked,
                    folded=folded > 0,
                    section=section,
                )
            if token.nesting == 1:
                kinds.append(token.tag)
            elif token.nesting == -1:
                kinds.pop()
            if token.type != "inline":
                continue
            children = token.children or []
            linked = table_linked or any(child.type == "link_open" for child in children)
            text = "".join(_text(child) for child in children)
            if kinds[-1] == "h2":
                section = text.strip()
            yield Block(
                cell=i,
                kind=kinds[-1],
                text=text,
                said="".join("x" if child.type in UNREAD else _text(child) for child in children),
                linked=linked,
                folded=folded > 0,
                section=section,
            )


UNREAD = {"code_inline", "math_inline", "math_inline_double"}


def _text(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return " "
    if token.type in ("math_inline", "math_inline_double"):
        return f"${token.content}$"
    return token.content if token.type == "text" else " "


def anchor(title: str) -> str:
    """Return what GitHub and Sphinx call a heading in an address."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def no_math(text: str) -> str:
    return re.sub(r"\$[^$]*\$", " ", text)
