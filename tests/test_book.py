"""Every chapter keeps the rules of tools/rules.py and form.py, and each rejects what breaks it."""

from __future__ import annotations

import copy
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import form
import nbformat
import notebooks
import pytest
from address import Address
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebooks import FOLD, GPU, HIDE, METADATA, ROOT, SET_UP_CELL
from rules import RULES, SET_UP_TAGS, Chapter

import attnbook
from attnbook.exercises import Case, checker

pytestmark = pytest.mark.book

CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
SECOND = {path.stem for path in CHAPTERS} - notebooks.appendices()
ADDRESS = Address("https://github.com/someone/attnbook", "main")


@cache
def read(path: Path) -> Chapter:
    return Chapter.read(path)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_papers_are_in_the_bibliography(path):
    paper = r"https?://(?:arxiv\.org/abs/[\d.]+|doi\.org/[^)\s]+|aclanthology\.org/[^)\s]+)"
    named = {link for _, cell in read(path).markdown for link in re.findall(paper, cell.source)}
    known = (ROOT / "book" / "bibliography.md").read_text(encoding="utf-8")
    assert not {link for link in named if link not in known}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_of_the_second_edition_have_its_box(path):
    assert bool(read(path).box) == (path.stem in SECOND)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_keeps(path, rule):
    complaints = list(RULES[rule](read(path)))
    assert not complaints, "\n".join([f"{path.name}: {RULES[rule].__doc__}", *complaints])


# --- A notebook that keeps all rules, in which one thing at a time is broken ----------------------

FIGURE = """\
ax.bar(["one", "two"], [0.9512, 0.0488])
ax.set_title("The first key takes nearly all the weight")
assert 0.95 < 0.9512
plt.show()"""

SKELETON = """\
def halve(x):
    raise NotImplementedError


exercises.check_halve(halve)"""

SOLUTION = """\
Half of a number is that number times one half.

<details>
<summary>Solution</summary>

```python
def halve(x):
    return x / 2
```

Every 17.25 in here is left unread.

</details>"""

FILLER = "A query meets every key, and each meeting leaves a score that softmax makes a weight. "


def code(source: str, *outputs: NotebookNode, **metadata: object) -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def printed(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def shown(source: str) -> NotebookNode:
    return new_output("display_data", data={"text/markdown": f"```python\n{source}```"})


def figure() -> NotebookNode:
    lettering = '<g transform="translate(2 9) scale(0.1 -0.1)"/>'
    svg = f'<svg width="518pt" height="230pt">{lettering}</svg>'
    data = {"image/svg+xml": svg, "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return new_output("display_data", data=data)


@checker
def check_halve() -> Iterator[Case]:
    yield Case((3.0,), 1.5)


def good() -> NotebookNode:
    alt = "Two bars; the first is 0.95 high, the second hardly to be seen."
    cells = [
        new_markdown_cell(
            "# Attention\n\nWhere does a query look? You will be able to say it in numbers.\n"
            "Reading takes 20 minutes, running 10 seconds."
        ),
        code(SET_UP_CELL.format(**ADDRESS._asdict()), printed("device: CPU\n"), tags=SET_UP_TAGS),
        new_markdown_cell("## One key wins\n\n" + FILLER * 110 + "\n\n$$\ny = x\n$$"),
        code('import math\n\nprint(f"{math.exp(-0.05):.4f}")', printed("0.9512\n")),
        new_markdown_cell("The weight is 0.95, or 95.1 %, see eq. 2.7 and section 1.2.2."),
        *(code(FIGURE, figure(), mystnb={"image": {"alt": alt}}) for _ in range(5)),
        code("import time\n\nprint(time.time())", printed("1.5\n"), tags=["nbval-ignore-output"]),
        code("assert time.time() > 0"),
        new_markdown_cell("## Exercises"),
        *(
            cell
            for _ in range(3)
            for cell in (
                new_markdown_cell("### Half\n\nHalve it."),
                code(SKELETON, printed("Nothing here yet.\n")),
                new_markdown_cell(SOLUTION),
            )
        ),
        new_markdown_cell(
            "## Sources\n\n[A paper](https://arxiv.org/abs/1409.0473), eq. 3.1: 7.77."
        ),
    ]
    notebook = new_notebook(cells=cells, metadata=copy.deepcopy(METADATA))
    notebooks.normalise(notebook)
    return notebook


BOX = """\
> **In short**
>
> - One key wins: [the weights](#one-key-wins).
> - A weight of 0.95 leaves little to the others: [the weights](#one-key-wins).
> - Half of a number is *less* than that number. It is its half: [halves](#half-of-a-number)."""

CLOSE = f"""\
### Spread

The weight of the first of both keys is 0.90 ± 0.02, half of a 95 % confidence interval (sd 0.03).

## What to remember

- One key wins nearly all of the weight that there is.
- Weights are computed, each of them from one score.
- Half of a number is that number times one half.

## Going further

### Half of a number

{FILLER * 20}"""

PATH = (
    "Reading to What to remember takes 15 minutes, the whole page 19 minutes. It runs 10 seconds."
)


def second() -> NotebookNode:
    """Return the notebook in the form of the second edition."""
    notebook = good()
    opening = notebook.cells[0]
    opening.source = opening.source.replace("Reading takes 20 minutes, running 10 seconds.", PATH)
    opening.source += f"\n\n{BOX}"
    swap(FILLER * 110, FILLER * 100)(notebook)
    for cell in notebook.cells[5:10]:
        cell.metadata.tags = [FOLD]
    notebook.cells[10:10] = [
        code(FIGURE, figure(), tags=[FOLD], mystnb=notebook.cells[5].metadata.mystnb),
        new_markdown_cell(CLOSE),
        code("for x in range(9):\n    print(x)", printed("0.5\n" * 9), tags=[HIDE]),
    ]
    notebooks.normalise(notebook)
    return notebook


def chapter(notebook: NotebookNode, *, appendix: bool = False) -> Chapter:
    return Chapter(
        "halves",
        notebook,
        address=ADDRESS,
        exercises=SimpleNamespace(check_halve=check_halve),
        appendix=appendix,
    )


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


Break = Callable[[NotebookNode], object]


def say(text: str) -> Break:
    """Say something in the second section, in a paragraph of its own."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[4].source += f"\n\n{text}"

    return change


def swap(old: str, new: str) -> Break:
    """Replace text in the sources of all cells."""

    def change(notebook: NotebookNode) -> None:
        assert any(old in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)

    return change


def add(source: str, *outputs: NotebookNode, **metadata: object) -> Break:
    """Put a code cell before the exercises."""

    def change(notebook: NotebookNode) -> None:
        at = next(i for i, cell in enumerate(notebook.cells) if cell.source == "## Exercises")
        notebook.cells.insert(at, code(source, *outputs, **metadata))
        for count, cell in enumerate(code_cells(notebook), start=1):
            cell.execution_count = count

    return change


def alter(what: Callable[[NotebookNode], object]) -> Break:
    return what


def drop(text: str) -> Break:
    """Remove the cells in which a text stands."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells = [cell for cell in notebook.cells if text not in cell.source]

    return change


def box_and(change: Break) -> Break:
    """Make a chapter of the second edition of it, and then change it."""

    def both(notebook: NotebookNode) -> None:
        notebook.cells[0].source += f"\n\n{BOX}"
        change(notebook)

    return both


def set_alt(alt: str) -> Break:
    return lambda notebook: notebook.cells[5].metadata.mystnb.image.update(alt=alt)


def redraw(change: Callable[[str], dict[str, str]]) -> Break:
    """Change what the first figure is."""

    def redraw(notebook: NotebookNode) -> None:
        output = notebook.cells[5].outputs[0]
        output.data = nbformat.from_dict(change(output.data["image/svg+xml"]))

    return redraw


# Of every rule: what breaks it, and a piece of what it then says.
BROKEN: dict[str, list[tuple[Break, str]]] = {
    "metadata_are_the_same": [
        (alter(lambda nb: nb.metadata.update(accelerator="TPU")), "metadata"),
        (alter(lambda nb: nb.metadata.kernelspec.update(name="conda-env")), "metadata"),
        (alter(lambda nb: nb.metadata.language_info.update(version="3.11.7")), "metadata"),
        (alter(lambda nb: nb.update(nbformat_minor=4)), "older than 4.5"),
        (alter(lambda nb: nb.cells[1].metadata.update(execution={})), "when it was run"),
        (alter(lambda nb: nb.cells[1].metadata.pop("cellView")), "in Colab alone"),
        (alter(lambda nb: nb.cells[3].metadata.update(cellView="form")), "in Colab alone"),
        (alter(lambda nb: nb.cells[3].metadata.update(tags=[HIDE])), "in Colab alone"),
    ],
    "a_gpu_is_used": [(alter(lambda nb: nb.metadata.update(GPU)), "no cell uses `device`")],
    "set_up_cell_is_the_same": [
        (swap(ADDRESS.url, "https://github.com/fork/attnbook"), "not the set-up cell"),
        (swap("@main", "@master"), "the branch main"),
        (swap("%pip install -qqq", "%pip install -U"), "not the set-up cell"),
        (alter(lambda nb: nb.cells[1].metadata.pop("tags")), "tagged None"),
        (alter(lambda nb: nb.cells.insert(1, code("import torch"))), "not the set-up cell"),
        (alter(lambda nb: nb.update(cells=nb.cells[:1])), "no code cell"),
    ],
    "code_is_plain_python": [
        (add("!pip install einops"), "magic or a shell"),
        (add("%matplotlib inline"), "magic or a shell"),
        (add("if True:\n    %pip install einops"), "magic or a shell"),
        (add("print?"), "magic or a shell"),
        (add("print("), "not Python"),
    ],
    "tags_are_known": [
        (add("print(1)", printed("1\n"), tags=["nbval-skip"]), "nbval-skip"),
        (add("print(1)", printed("1\n"), tags=SET_UP_TAGS), "remove-output"),
        (add("# NBVAL_IGNORE_OUTPUT\nprint(1)", printed("1\n")), "by a comment"),
    ],
    "counts_run_in_order": [
        (alter(lambda nb: nb.cells[3].update(execution_count=7)), "execution counts are"),
        (alter(lambda nb: nb.cells[3].update(execution_count=None)), "execution counts are"),
        (add(""), "is empty"),
    ],
    "outputs_are_stored": [
        (alter(lambda nb: nb.cells[3].outputs.clear()), "cell 3 has lost its output"),
        (alter(lambda nb: nb.cells[5].outputs.clear()), "cell 5 has lost its output"),
    ],
    "nothing_went_wrong": [
        (add("1 / 0", new_output("error", ename="ZeroDivisionError", evalue="")), "an error"),
        (add("warn()", new_output("stream", name="stderr", text="UserWarning")), "stderr"),
    ],
    "outputs_are_short": [
        (add("print(log)", printed("epoch\n" * 41)), "41 lines"),
        (add("print(log)", printed("epoch\n" * 81), tags=[HIDE]), "81 lines"),
        (add("print(log)", printed("a\n" * 30), printed("b\n" * 30)), "60 lines"),
    ],
    "outputs_are_narrow": [(add("print(row)", printed("3.14 " * 21 + "\n")), "105 characters")],
    "outputs_can_recur": [
        (add("print(f)", printed("<function f at 0x7f1d2c3b4a50>\n")), "0x7f1d2c3b4a50"),
        (add("print(file)", printed("/home/me/attnbook/attention.py\n")), "/home/"),
    ],
    "ignored_outputs_are_asserted": [
        (swap("assert time.time() > 0", "print(2)"), "asserts nothing"),
        (drop("assert time"), "asserts nothing"),
        (alter(lambda nb: nb.update(cells=nb.cells[:11])), "asserts nothing"),
    ],
    "figures_have_alt_text": [
        (alter(lambda nb: nb.cells[5].metadata.pop("mystnb")), "alt text ''"),
        (set_alt("A heat map."), "not a sentence"),
        (set_alt("a_very_long_name_of_a_figure_without_any_words"), "not a sentence"),
        (set_alt("The picture in attention_weights_3.png shows it."), "file name"),
        (alter(lambda nb: nb.cells[5].outputs.append(figure())), "2 figures"),
        (
            add("print(1)", printed("1\n"), mystnb={"image": {"alt": "Left behind."}}),
            "draws nothing",
        ),
    ],
    "figures_end_in_show": [
        (swap("plt.show()", "ax.plot([1, 2]);"), "plt.show()"),
        (swap("plt.show()", "fig"), "plt.show()"),
    ],
    "figures_can_be_read": [
        (redraw(lambda svg: {"image/png": "iVBORw0KGgo="}), "not SVG"),
        (redraw(lambda svg: {"image/svg+xml": svg.replace("0.1", "0.08")}), "583 pixels"),
    ],
    "figures_are_asserted": [(swap("assert 0.95 < 0.9512\n", ""), "asserts nothing")],
    "markdown_is_common": [
        (say("As {ref}`attention` says."), "a role"),
        (say("As {cite:p}`bahdanau2014` says."), "a role"),
        (say("It is {glue:text}`loss:.2f`."), "a role"),
        (say("```{note}\nLook.\n```"), "a directive"),
        (say(":::{note}\nLook.\n:::"), "a colon fence"),
        (say("(a-label)=\n"), "a label"),
        (say("% nobody sees this"), "a MyST comment"),
        (say("+++"), "a block break"),
        (say("It is {{ loss }}."), "a substitution"),
        (say("As shown[^1].\n\n[^1]: There."), "a footnote"),
        (say("[word]{.highlight}"), "an attribute"),
        (say("> [!NOTE]\n> Look."), "a GitHub alert"),
        (say("- [ ] to do"), "a task list"),
        (say("\\begin{align}\na &= b\n\\end{align}"), "LaTeX outside"),
        (say("$$\na = b\n$$ (eq-1)"), "labelled formula"),
        (say('<div class="note">\nLook.\n</div>'), "<div>"),
        (say('A <span style="color: red">word</span>.'), "<span>"),
        (say("    print(1)"), "indented code block"),
    ],
    "links_are_absolute": [
        (say("See [there](self_attention.ipynb)."), "self_attention.ipynb"),
        (say("See [there](../README.md)."), "../README.md"),
        (say("See [there](./glossary.md)."), "./glossary.md"),
        (say("See [there](#elsewhere)."), "#elsewhere"),
        (say("See [there](#Exercises)."), "#Exercises"),
        (say("### It is `one`\n\nSee [there](#it-is-one)."), "#it-is-one"),
        (say("### Half\n\nSee [there](#half)."), "there twice"),
        (say("See [there](http://example.org)."), "http://example.org"),
        (say("See [there][1].\n\n[1]: cbam.md"), "cbam.md"),
        (say("![A cat](cat.png)"), "cat.png"),
        (say("![A cat](https://example.org/cat.png)"), "picture"),
    ],
    "code_reads_no_files": [
        (add("open('notes.txt')"), "calls open"),
        (add("image = plt.imread('cat.png')"), "calls imread"),
        (add("weights = torch.load('model.pt')"), "calls load"),
        (add("text = Path('notes.txt').read_text()"), "calls read_text"),
        (add("import urllib.request"), "imports urllib"),
        (add("from . import helpers"), "relatively"),
    ],
    "prose_is_plain": [
        (say("It works!"), "'!'"),
        (say("It works \U0001f600."), "\U0001f600"),
        (say("It is simply a sum."), "simply"),
        (say("A window of 3 x 3 places."), "3 x 3"),
        (say("Attention is a powerful idea."), "powerful"),
    ],
    "headings_are_in_order": [
        (say("# Another title"), "2 h1"),
        (swap("# Attention", "Attention"), "h1"),
        (swap("## One key wins", "### One key wins"), "under h1"),
        (alter(lambda nb: nb.cells.insert(0, new_markdown_cell("Before."))), "starts with"),
    ],
    "anatomy_is_kept": [
        (swap("Where does a query look?", "A query looks."), "question"),
        (swap("You will be able to say it in numbers.", ""), "able to do"),
        (swap("20 minutes", "a while"), "minutes to read"),
        (swap("10 seconds", "a moment"), "seconds to run"),
        (swap("## Exercises", "## Problems"), "last sections"),
        (drop("## Sources"), "last sections"),
        (swap("$$", ""), "formula"),
        (swap("[A paper](https://arxiv.org/abs/1409.0473)", "A paper"), "no link"),
    ],
    "length_is_moderate": [
        (swap(FILLER * 60, ""), "words"),
        (swap(FILLER * 60, FILLER * 300), "words"),
        (swap("import math\n", "import math\n" * 300), "lines of code"),
        (drop("ax.bar"), "0 figures"),
        (alter(lambda nb: nb.cells.extend([nb.cells[5]] * 12)), "17 figures"),
    ],
    "cells_are_short": [
        (add("x = 1\n" * 21), "21 lines"),
        (box_and(add("x = 1\n" * 13)), "13 lines of code, more than 12"),
    ],
    "details_are_well_formed": [
        (swap("</summary>\n\n", "</summary>\n"), "a blank line"),
        (swap("\n\n</details>", "\n</details>"), "lone </details>"),
        (swap("<details>\n<summary>", "<details><summary>"), "lone <details>"),
        (swap("<details>\n<summary>", "<details>\n\n<summary>"), "not followed by"),
        (swap("Every 17.25", "  Every 17.25"), "indented"),
        (swap("\n\n</details>", ""), "not closed"),
        (swap("one half.\n\n<details>", "one half.\n<details>"), "after a blank line"),
    ],
    "exercises_have_solutions": [
        (drop("check_halve"), "0 exercises"),
        (swap("exercises.check_halve(halve)", "halve(2)"), "0 exercises"),
        (drop("<details>"), "0 solutions"),
        (swap("```python", "```text"), "[0] blocks"),
        (swap("Every 17.25", "```python\nx = 1\n```\n\nEvery"), "[2] blocks"),
        (swap("<summary>Solution", "<summary>Hint"), "0 solutions"),
    ],
    "solutions_are_right": [
        (swap("x / 2", "x / 3"), "rejects the solution"),
        (swap("check_halve", "check_third"), "no attnbook.exercises.halves.check_third"),
        (swap("def halve(x):\n    return", "def half(x):\n    return"), "does not define halve"),
        (swap("raise NotImplementedError", "return x / 2"), "for an attempt"),
    ],
    # Of the second edition:
    "minutes_are_measured": [
        (swap("takes 15 minutes", "takes 12 minutes"), "first path takes 15 minutes (1"),
        (swap("whole page 19 minutes", "whole page 61 minutes"), "everything 19 minutes (2"),
        (swap("remember takes", "remember asks"), "has to say"),
        (swap("import math\n", "import math\n" * 30), "takes 18 minutes"),
        (swap("## Going further", "| a |\n|---|\n| b |\n\n## Going further"), "1 tables"),
        (add("show_source(f)", shown("x = 1\n" * 30)), "everything 22 minutes"),
    ],
    "layers_have_their_length": [
        (swap(FILLER * 100, FILLER * 60), "first path has 1"),
        (swap(FILLER * 100, FILLER * 150), "its longest sections: 'One key wins' 2"),
        (swap("## Exercises", "## Exercises\n\n" + FILLER * 450), "without solutions, more than"),
        (swap(FILLER * 20, FILLER * 2), "'Half of a number', under"),
        (swap(FILLER * 20, FILLER * 40), "'Half of a number', under"),
        (alter(lambda nb: nb.cells.pop(9)), "5 figures"),
    ],
    "sections_are_in_order": [
        (swap("## What to remember", "## Summary"), "the last sections are"),
        (swap("## Going further", "## Costs\n\n## Going further"), "the last sections are"),
        (swap("\n- Half of a number is that", "\nHalf of a number is that"), "has 2 bullets"),
    ],
    "box_is_short": [
        (alter(lambda nb: nb.cells.insert(0, nb.cells.pop(1))), "above the set-up cell"),
        (swap("**In short**", "**In short** we say"), "and not with"),
        (swap("> - Half of", "> Half of"), "has 2 bullets"),
        (swap("is its half:", "is its half. So it is. " + FILLER), "two short ones"),
        (swap("[halves](#half-of-a-number)", "halves"), "links to no section"),
        (swap("(#half-of-a-number)", "(https://example.org)"), "links to no section"),
    ],
    "cells_are_formatted": [
        (add("x = {'a':1}"), 'x = {"a": 1}'),
        (add("print("), "cannot format"),
    ],
    "plumbing_is_folded": [
        (alter(lambda nb: nb.cells[7].metadata.pop("tags")), "cell 7 draws"),
        (add("class Net:\n    pass", tags=[FOLD]), "defines Net"),
        (add("def print(x):\n    pass", tags=[FOLD]), "defines print"),
        (add("x = 1", tags=[HIDE]), "prints none"),
        (alter(lambda nb: nb.cells[7].metadata.tags.append(HIDE)), "prints none"),
    ],
    "words_are_the_fields": [
        (say("It is a thousand million."), "say billion"),
        (say("The order is drawn by lot."), "'drawn by lot'; say at random"),
        (say("Its gate is shut."), "'is shut'"),
        (say("No difference is resolved."), "at this size"),
        (say("It is just a sum."), "leave it out"),
    ],
    "plus_minus_has_one_meaning": [
        (swap("half of a 95 % confidence interval", "over five seeds"), "'Spread' does not say"),
        (say("It is $0.90 \\pm 0.02$."), "'One key wins' does not say"),
        (add("print(x)", printed("0.5 +- 0.1\n")), "'Half of a number' does not say"),
        (swap("(sd 0.03)", "with sd ± 0.03"), "gives a standard deviation"),
    ],
    "numbers_are_few": [(say("It is 0.25, or 125, or 17 %. " * 20), "more than 46")],
    "sentences_vary": [(say("It is so. " * 40), "have 8 words or fewer")],
}


@pytest.mark.parametrize("edition", [good, second])
@pytest.mark.parametrize("rule", RULES)
def test_good_notebook_keeps(rule, edition):
    assert list(RULES[rule](chapter(edition()))) == []


@pytest.mark.parametrize(
    ("rule", "change", "complaint"),
    [(rule, *broken) for rule, examples in BROKEN.items() for broken in examples],
    ids=[f"{rule}-{said}" for rule, examples in BROKEN.items() for _, said in examples],
)
def test_rule_rejects(rule, change, complaint):
    notebook = second() if RULES[rule].__module__ == form.__name__ else good()
    change(notebook)
    assert complaint in "\n".join(RULES[rule](chapter(notebook)))


def test_every_rule_has_an_example_that_it_rejects():
    assert set(BROKEN) == set(RULES)


def test_folded_code_takes_no_minutes_and_a_link_may_lead_to_a_section():
    notebook = second()
    add("x = 1\n" * 12, tags=[FOLD])(notebook)
    add("show_source(f)", shown("x = 1\n" * 60), tags=[HIDE])(notebook)
    say("<details>\n<summary>More</summary>\n\n| a |\n|---|\n| b |\n\n</details>")(notebook)
    assert list(RULES["minutes_are_measured"](chapter(notebook))) == []
    say("See [how](#what-to-remember).")(notebook)
    assert list(RULES["links_are_absolute"](chapter(notebook))) == []


def test_an_appendix_has_no_exercises_and_no_first_path():
    notebook = good()
    swap("You will be able to say it in numbers.\nReading takes 20 minutes", "It is read")(notebook)
    notebook.cells = [*notebook.cells[:5], notebook.cells[-1]]

    def said() -> str:
        kept = chapter(notebook, appendix=True)
        return "\n".join(complaint for rule in RULES.values() for complaint in rule(kept))

    assert said() == ""
    say("It is a thousand million. " + FILLER * 40)(notebook)
    swap("## Sources", "## Literature")(notebook)
    for complaint in ("say billion", "words without", "last sections", "Sources has no link"):
        assert complaint in said()


def test_common_markdown_may_use_what_looks_like_myst():
    notebook = good()
    say("In code: `{ref}` and `:::`; in a formula $x_{\\text{max}}$ and $\\{a\\}$ and 50% of it.")(
        notebook
    )
    say("```python\nprint(f'{x}`')  # [^1] {{ x }}\n```")(notebook)
    say("$$\n\\begin{aligned}\na &= b \\tag{1}\n\\end{aligned}\n$$")(notebook)
    assert list(RULES["markdown_is_common"](chapter(notebook))) == []


def test_a_gpu_may_be_asked_for_where_it_is_used():
    notebook = good()
    notebook.metadata.update(GPU)
    add("layer = layer.to(device)")(notebook)
    assert list(RULES["a_gpu_is_used"](chapter(notebook))) == []
    notebooks.normalise(notebook)
    assert list(RULES["metadata_are_the_same"](chapter(notebook))) == []


# --- The commands behind make ---------------------------------------------------------------------


def test_run_stores_outputs_and_nothing_of_the_machine(tmp_path):
    path = tmp_path / "small.ipynb"
    cells = [
        code(
            "import os\n\nprint(1)\nprint([f for f in os.listdir() if f != 'small.ipynb'])",
            execution={"iopub.status.busy": "now"},
        ),
        code("2 + 2"),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    notebooks.run(path)
    stored = nbformat.read(path, as_version=4)
    assert stored.metadata == METADATA
    assert [cell.execution_count for cell in stored.cells] == [1, 2]
    assert stored.cells[0].metadata == {}
    assert [output.text for output in stored.cells[0].outputs] == ["1\n[]\n"]
    assert stored.cells[1].outputs[0].data == {"text/plain": "4"}
    assert notebooks.check([path], jobs=1, threads=1) == 0
    stored.cells[1].outputs[0].data["text/plain"] = "5"
    nbformat.write(stored, path)
    assert notebooks.check([path], jobs=1, threads=1) != 0


def test_run_stores_nothing_if_a_cell_fails(tmp_path):
    path = tmp_path / "small.ipynb"
    nbformat.write(new_notebook(cells=[code("1 / 0")]), path)
    before = path.read_text()
    with pytest.raises(CellExecutionError):
        notebooks.run(path)
    assert path.read_text() == before


@pytest.mark.skipif("ATTNBOOK_INSTALLED" not in os.environ, reason="set by make")
def test_the_installed_package_is_tested():
    assert Path(attnbook.__file__).is_relative_to(sysconfig.get_paths()["purelib"])
