"""What the web is told of the book, with an address and without one."""

from __future__ import annotations

import json
import re
import struct
from types import SimpleNamespace

import pictures
import pytest
import rules  # noqa: F401  (it finds book/_ext)
import yaml
from docutils import nodes
from notebooks import ROOT

import attnbook_languages as languages  # isort: skip
import attnbook_web as web  # isort: skip

pytestmark = pytest.mark.book

UNSET = "https://github.com/OWNER_NOT_SET/attnbook"
ADDRESS = "https://github.com/someone/attention"


def app(repository: str, out: object = "") -> SimpleNamespace:
    """Return as much of Sphinx as these steps look at."""
    return SimpleNamespace(
        config=SimpleNamespace(
            html_theme_options={"repository_url": repository, "repository_branch": "main"},
            html_title="attnbook",
            author="the attnbook authors",
            language="en",
        ),
        env=SimpleNamespace(found_docs={"book/index", "book/eca"}),
        builder=SimpleNamespace(format="html"),
        outdir=out,
        add_css_file=lambda name: None,
    )


def head(repository: str, pagename: str = web.HOME) -> str:
    context = {"title": "Attention", "pathto": lambda name, resource=0: f"../{name}"}
    web.add_tags(app(repository), pagename, "page.html", context, page(SAID))
    return context["metatags"]


def page(*paragraphs: str) -> nodes.document:
    return nodes.section("", *(nodes.paragraph("", text) for text in paragraphs))


SAID = "Which channels matter? " + "A network looks at the whole picture once. " * 3


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        (UNSET, ""),
        (ADDRESS, "https://someone.github.io/attention/"),
        ("https://github.com/Someone/someone.github.io", "https://someone.github.io/"),
    ],
)
def test_pages_are_where_github_shows_them(repository, expected):
    assert web.site(app(repository)) == expected
    config = SimpleNamespace()
    web.set_base(app(repository), config)
    assert config.html_baseurl == expected  # Sphinx writes rel="canonical" from it


def test_a_link_to_the_book_has_a_picture_that_is_there():
    told = head(ADDRESS)
    base = "https://someone.github.io/attention/"
    assert f'property="og:url" content="{base}{web.HOME}.html"' in told
    picture = re.search(r'property="og:image" content="([^"]*)"', told)[1]
    assert picture.startswith(f"{base}_static/")
    file = ROOT / "book" / "_static" / picture.rpartition("/")[2]
    data = file.read_bytes()
    size = struct.unpack(">II", data[16:24])
    assert [str(side) for side in size] == [
        re.search(rf'og:image:{side}" content="(\d+)"', told)[1] for side in ("width", "height")
    ]
    assert len(data) < 100_000


def test_without_an_address_nothing_names_one():
    assert not re.search("OWNER_NOT_SET|og:url|og:image", head(UNSET))


def header(repository: str) -> list[dict[str, object]]:
    """Return the header's buttons, as the theme hands them over and name_buttons leaves them."""
    colab = repository.replace("github.com", "colab.research.google.com/github")
    links = [
        {"label": f"source-{name}-button", "url": f"{repository}/{name}", "tooltip": name}
        for name in ("repository", "edit", "issues")
    ]
    launch = [{"url": f"{colab}/eca.ipynb", "tooltip": "Launch on Colab", "text": "Colab"}]
    buttons = [
        {"label": "launch-buttons", "tooltip": "Launch", "buttons": launch},
        {"label": "source-buttons", "tooltip": "Source", "buttons": links},
        {"label": "download-buttons", "tooltip": "Download", "buttons": []},
    ]
    context = {"header_buttons": buttons, "pathto": lambda name, resource=0: f"../{name}"}
    web.name_buttons(app(repository), "book/eca", "page.html", context, None)
    return context["header_buttons"]


def test_the_header_edits_reports_and_cites():
    launch, source, download = header(ADDRESS)
    assert [button["text"] for button in launch["buttons"]] == ["Colab"]
    assert [button.get("text") for button in source["buttons"][1:]] == [
        "Edit this page",
        "Report a mistake",
        "Cite this book",
    ]
    assert download["label"] == "download-buttons"


def test_without_an_address_no_button_leads_nowhere():
    buttons = header(UNSET)
    assert [button["label"] for button in buttons] == ["download-buttons", "cite-button"]
    assert "OWNER_NOT_SET" not in repr(buttons)


@pytest.mark.parametrize("name", ["book/index.md", "translations/zh/index.md"])
def test_the_landing_page_offers_what_there_is(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    told = {}
    for repository in (ADDRESS, UNSET):
        built = app(repository)
        built.env.note_dependency = lambda path: None
        source = [text]
        web.fill_in(built, web.HOME, source)
        told[repository] = source[0]
    assert told[ADDRESS].count("colab.research.google.com/github/someone/attention/blob/main") == 2
    assert "url = {https://someone.github.io/attention/}" in told[ADDRESS]
    assert not re.search("OWNER_NOT_SET|COLAB|BOOK_|FACT_", told[UNSET])
    left = set(told[UNSET].splitlines()) - set(told[ADDRESS].splitlines())
    assert len(left) == 2  # the line of buttons, and the one on how to run a chapter
    assert all(line.strip() for line in left)


def test_engines_read_what_the_book_is():
    def read(told: str) -> dict[str, object]:
        return json.loads(re.search(r'ld\+json">(.*?)</script>', told)[1])

    said = read(head(ADDRESS))
    assert said["url"].startswith("https://someone.github.io/")
    assert SAID.startswith(said["description"])
    assert "url" not in read(head(UNSET))
    assert "ld+json" not in head(ADDRESS, "book/eca")


@pytest.mark.parametrize(
    ("paragraphs", "expected"),
    [
        ([SAID], SAID.strip()),
        (["Too short.", SAID], SAID.strip()),
        ([SAID + "This one goes past the end of what an engine shows. " * 2], SAID.strip()),
        (["word " * 60], " ".join(["word"] * 40) + " ..."),
        (["A line that is long enough to tell a reader something, and has no stop"], None),
        (["$x$"], ""),
    ],
)
def test_a_description_ends_with_a_sentence(paragraphs, expected):
    assert web.describe(page(*paragraphs)) == (paragraphs[0] if expected is None else expected)


def test_the_doors_lead_in(tmp_path):
    web.write_doors(app(ADDRESS, tmp_path), None)
    root, lost, robots, sitemap = (
        (tmp_path / name).read_text(encoding="utf-8")
        for name in ("index.html", "404.html", "robots.txt", "sitemap.xml")
    )
    home = "https://someone.github.io/attention/book/index.html"
    assert f'rel="canonical" href="{home}"' in root
    assert f'href="{home}"' in lost  # it is shown at any depth
    assert "Sitemap: https://someone.github.io/attention/sitemap.xml" in robots
    assert f"<loc>{home}</loc>" in sitemap
    assert sitemap.count("<loc>") == len(app(ADDRESS).env.found_docs)


def test_how_to_cite_agrees_with_the_citation_file():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    shown = (ROOT / "book" / "index.md").read_text(encoding="utf-8").partition("```bibtex")[2]
    assert f"title = {{{cff['title']}}}" in shown
    assert f"year = {{{cff['date-released'].year}}}" in shown
    for author in cff["authors"]:
        assert author["name"] in shown


def test_the_cards_are_those_that_the_script_draws():
    folder = ROOT / "book" / "_static" / "cards"
    drawn = pictures.cards()
    assert sorted(drawn) == sorted(path.stem for path in folder.iterdir())
    for name, drawing in drawn.items():
        assert drawing in (folder / f"{name}.svg").read_text(encoding="utf-8"), (
            "run python tools/pictures.py"
        )


@pytest.mark.parametrize(("language", "folder"), [("en", ""), ("zh_CN", "zh/")])
@pytest.mark.parametrize("repository", [ADDRESS, UNSET])
def test_both_languages_are_told_of_where_there_is_an_address(
    tmp_path, monkeypatch, language, folder, repository
):
    for name in ("index.md", "eca.ipynb"):
        (tmp_path / name).touch()
    monkeypatch.setattr(languages, "ZH", tmp_path)
    built = app(repository)
    built.config.language = language
    web.set_base(built, built.config)
    base = "https://someone.github.io/attention/"
    assert built.config.html_baseurl == (base + folder if repository == ADDRESS else "")
    for page, both in (("book/eca", repository == ADDRESS), ("book/cbam", False)):
        context = {"pathto": lambda name, resource=0: f"../{name}"}
        languages.link_both(built, page, "page.html", context, None)
        told = re.findall(r'hreflang="([\w-]+)" href="([^"]+)"', context.get("metatags", ""))
        english, chinese = f"{base}{page}.html", f"{base}zh/{page}.html"
        expected = [("en", english), ("zh-Hans", chinese), ("x-default", english)]
        assert told == (expected if both else [])
