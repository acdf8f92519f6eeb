"""The Chinese edition: made from the English pages and their translations, and held to them.

python tools/translation.py todo attention     print what has no translation, or an old one
python tools/translation.py write [PAGE ...]   write book/zh/
python tools/translation.py check [PAGE ...]   say what has drifted, in a second or two

translations/zh/attention.md translates book/attention.ipynb. It has a block for each Markdown cell,
headed <!-- CELL HASH -->, and for each alt text and title of a live figure, headed <!-- CELL alt
HASH --> and <!-- CELL title HASH -->; of a Markdown page, for each section, headed <!-- section-N
HASH -->. HASH is the beginning of the sha256 of the English that was translated. A page that has
no such file is not translated yet.

Links stay as they are in English: `write` leads them to the Chinese page and its headings.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from address import UNSET, book_address
from myst_parser.mdit_to_docutils.base import default_slugify

ROOT = Path(__file__).parent.parent
HEAD = re.compile(r"^<!-- (\S+(?: alt| title)?) ([0-9a-f]{8}) -->\n", re.MULTILINE)
HAN = re.compile("[\u3400-\u9fff]")
NOTE = "<!-- Made by tools/translation.py: edit translations/zh/{}.md -->"

# What a translation has as often as its original. What one line finds is hidden from the next.
SAME = {
    "code block": re.compile(r"^ *(```+).*?^ *\1", re.DOTALL | re.MULTILINE),
    "code": re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL),
    "formula": re.compile(r"\$\$.+?\$\$|(?<![\\$])\$[^$]+\$", re.DOTALL),
    "placeholder": re.compile(r"\b(?:FACT|COLAB|BOOK)_[A-Z0-9_]+"),
    "address": re.compile(r"\]\([^)\s]+\)|<https?://[^>\s]+>"),
    "tag": re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->", re.DOTALL),
    "heading": re.compile(r"^#+ ", re.MULTILINE),
    "list item": re.compile(r"^ *(?:[-*] |\d+\. )", re.MULTILINE),
    "table row": re.compile(r"^ *\|(?=.*\|)", re.MULTILINE),
    "directive": re.compile(r"^ *:{3,}(?:\{[\w-]+\})?|^ *:(?!img-alt|alt)[\w-]+:.*", re.MULTILINE),
    "number": re.compile(r"(?:(?<![A-Za-z0-9,.])[-\u2212])?\d+(?:,\d{3})*(?:\.\d+)?"),
}
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


# The head of a table by which the site knows it.
VERDICTS = ("| Verdict | Where it is shown |", "| 结论 | 在哪里可以看到 |")


def digest(english: str, root: Path = ROOT) -> str:
    """Return what a translation says of its original; where the book lives does not count."""
    here = book_address(root)
    english = english.replace(f"{here.owner}/{here.name}", f"{UNSET}/attnbook")
    english = re.sub(rf"(/{UNSET}/attnbook/blob/){re.escape(here.branch)}/", r"\1main/", english)
    return hashlib.sha256(english.encode()).hexdigest()[:8]


def sections(page: str) -> list[str]:
    """Split a Markdown page before each heading that stands in no fence."""
    parts, fences = [[]], []
    for line in page.splitlines(keepends=True):
        fence = re.match(r" *(`{3,}|:{3,})(.*)", line)
        if fence and fences and fences[-1] == fence[1] and not fence[2].strip():
            fences.pop()
        elif fence and not (fences and fences[-1][0] == "`"):
            fences.append(fence[1])
        elif not fences and re.match("#{1,3} ", line) and "".join(parts[-1]).strip():
            parts.append([])
        parts[-1].append(line)
    return ["".join(part).rstrip() for part in parts]


def source(page: str, root: Path = ROOT) -> Path:
    """Return the English page of that name."""
    paths = [root / "book" / f"{page}{end}" for end in (".ipynb", ".md")]
    return next((path for path in paths if path.is_file()), paths[0])


def originals(path: Path) -> dict[str, str]:
    """Return what a reader of the page reads in English, by the name of its block."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return {f"section-{i}": part for i, part in enumerate(sections(text))}
    found = {}
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "markdown":
            found[cell["id"]] = "".join(cell["source"])
        for kind, (holder, name) in metadata(cell).items():
            found[f"{cell['id']} {kind}"] = holder[name]
    return found


def metadata(cell: dict[str, Any]) -> dict[str, tuple[dict[str, str], str]]:
    """Return where a cell's metadata have words: the alt text, the title of a live figure."""
    kept = cell["metadata"]
    places = {
        "alt": (kept.get("mystnb", {}).get("image", {}), "alt"),
        "title": (kept.get("attnbook", {}), "title"),
    }
    return {kind: (holder, name) for kind, (holder, name) in places.items() if name in holder}


def blocks(page: str, root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Return the hash and the text of each block of a translation, by the block's name."""
    path = root / "translations" / "zh" / f"{page}.md"
    parts = HEAD.split(path.read_text(encoding="utf-8"))[1:] if path.is_file() else []
    return {parts[i]: (parts[i + 1], parts[i + 2].strip()) for i in range(0, len(parts), 3)}


def pages(root: Path = ROOT) -> list[str]:
    """Return the pages that are translated."""
    return sorted(path.stem for path in (root / "translations" / "zh").glob("*.md"))


def found(text: str) -> dict[str, Counter[str]]:
    """Count what has to be the same in both languages."""
    kinds = {}
    for kind, pattern in SAME.items():
        kinds[kind] = Counter(" ".join(match[0].split()) for match in pattern.finditer(text))
        text = pattern.sub(" ", text)
    # A comma between thousands may go, and a minus may be either sign.
    numbers = Counter[str]()
    for number, times in kinds["number"].items():
        numbers[number.replace(",", "").replace("\u2212", "-")] += times
    return {**kinds, "number": numbers}


def faults(english: str, chinese: str) -> list[str]:
    """Return what a translation has lost, and what it has added."""
    here, there = found(english), found(chinese)
    # February 14 is the 14th day of the 2nd month, which Chinese writes with a digit.
    months = Counter(str(i) for i, m in enumerate(MONTHS, 1) for _ in re.findall(m, english))
    written = Counter(re.findall(r"(?<!\d)(\d+) ?\u6708", chinese))
    there["number"] -= written & months & (there["number"] - here["number"])
    said = []
    for kind in SAME:
        said += [f"{kind} lost: {what}" for what in here[kind] - there[kind]]
        said += [f"{kind} added: {what}" for what in there[kind] - here[kind]]
    if VERDICTS[0] in english and VERDICTS[1] not in chinese:
        said.append(f"the head of the table has to end in {VERDICTS[1]}")
    if not HAN.search(chinese) and len(re.findall("[a-z]{2,}", prose(english))) > 3:
        said.append("there is no Chinese in it")
    return said


def prose(text: str) -> str:
    """Return a text without what is the same in both languages."""
    for pattern in SAME.values():
        text = pattern.sub(" ", text)
    return text


def headings(text: str) -> list[str]:
    """Return what GitHub and Sphinx call the headings of a text in an address."""
    plain = SAME["code block"].sub(" ", text)
    titles = re.findall(r"^#+ (.+?) *$", plain, re.MULTILINE)
    return [default_slugify(re.sub(r"[`*]|\]\([^)]*\)|\[", "", title)) for title in titles]


def anchors(page: str, root: Path = ROOT) -> dict[str, str]:
    """Return the Chinese name of each heading of a page, by its English one."""
    made, known = {}, blocks(page, root)
    for name, english in originals(source(page, root)).items():
        chinese = headings(known.get(name, ("", ""))[1])
        made |= dict(zip(headings(english), chinese, strict=False))
    return made


def lead(text: str, page: str, known: dict[str, dict[str, str]], root: Path = ROOT) -> str:
    """Lead the links of a translated text to translated pages, and to English ones elsewhere."""
    here = book_address(root)
    book = f"{here.url}/blob/{here.branch}/book/"
    colab = book.replace("https://github.com/", "https://colab.research.google.com/github/")

    def chinese(link: re.Match[str]) -> str:
        whole, name, end, anchor = link.groups(default="")
        if (name or page) not in known:
            return f"]({whole or book}{name}{end}{anchor})"
        heading = known[name or page].get(anchor[1:], anchor[1:])
        return f"]({whole and whole + 'zh/'}{name}{end}{anchor and '#' + heading})"

    place = rf"({re.escape(book)}|{re.escape(colab)})?([\w/]+)(\.ipynb|\.md)"
    return re.sub(rf"\]\((?=[^)])(?:{place})?(#[^)\s]+)?\)", chinese, text)


def made(page: str, root: Path = ROOT) -> tuple[str, list[str]]:
    """Return the Chinese page, and what its translation lacks; it is complete when nothing is."""
    path, known, said = source(page, root), blocks(page, root), []
    if not path.is_file():
        return "", [f"{page}: there is no English page of this name"]
    known_anchors = {
        name: anchors(name, root) for name in pages(root) if source(name, root).is_file()
    }
    english, texts = originals(path), {}
    for name, original in english.items():
        old, text = known.get(name, ("", ""))
        texts[name] = lead(text, page, known_anchors, root)
        now = digest(original, root)
        if original.strip() and not text:
            said.append(f"{page} {name}: not translated")
        elif text and old != now:
            said.append(f"{page} {name}: the English has changed since ({old}, now {now})")
        elif text:
            said += [f"{page} {name}: {fault}" for fault in faults(original, text)]
    said += [
        f"{page} {name}: nothing in English has this name" for name in known.keys() - english.keys()
    ]
    if path.suffix == ".md":
        return "\n\n".join([NOTE.format(page), *texts.values()]) + "\n", said
    notebook = json.loads(path.read_text(encoding="utf-8"))
    before = copy.deepcopy(notebook)
    first = True
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = texts[cell["id"]] + (f"\n\n{NOTE.format(page)}" if first else "")
            cell["source"], first = text.splitlines(keepends=True), False
        for kind, (holder, name) in metadata(cell).items():
            holder[name] = texts[f"{cell['id']} {kind}"]
    assert run(notebook) == run(before)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", said


def run(notebook: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return what is run, and what came of it: the same in both languages."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [(cell["source"], cell["outputs"]) for cell in code]


def target(page: str, root: Path = ROOT) -> Path:
    """Return where the Chinese page lies."""
    return root / "book" / "zh" / f"{page}{source(page, root).suffix}"


def check(names: list[str], root: Path = ROOT) -> list[str]:
    """Return what has drifted: between the languages, and between a page and its translation."""
    said = []
    for page in names:
        text, lacking = made(page, root)
        path = target(page, root)
        said += lacking
        if not lacking and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            said.append(
                f"book/zh/{path.name} is not what its translation makes: edit "
                f"translations/zh/{page}.md and run tools/translation.py write"
            )
    known = {target(page, root).name for page in pages(root)}
    there = [p for p in (root / "book" / "zh").glob("*") if p.suffix in (".ipynb", ".md")]
    return said + [f"book/zh/{p.name} has no translation" for p in there if p.name not in known]


def todo(page: str, root: Path = ROOT) -> str:
    """Return the blocks that are missing or old, with the English to be translated."""
    known = blocks(page, root)
    wanted = [
        f"<!-- {name} {digest(text, root)} -->\n{text}\n"
        for name, text in originals(source(page, root)).items()
        if text.strip() and known.get(name, ("", ""))[0] != digest(text, root)
    ]
    return "\n".join(wanted)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["todo", "write", "check"])
    parser.add_argument("pages", nargs="*")
    arguments = parser.parse_args()
    if arguments.command == "todo":
        print("\n".join(todo(page) for page in arguments.pages))
        return 0
    names = arguments.pages or pages()
    if arguments.command == "write":
        for page in names:
            target(page).parent.mkdir(exist_ok=True)
            target(page).write_text(made(page)[0], encoding="utf-8")
    said = check(names)
    print("\n".join(said) or f"The Chinese edition agrees: {', '.join(names) or 'no page yet'}.")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
