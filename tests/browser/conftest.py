"""The built site on a loopback port, a browser, and one visit to each page that all tests share."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, ViewportSize

ROOT = Path(__file__).parents[2]
# The first has no window, whose toolbar takes as much of a processor as our pages do.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser")
SITE = ROOT / "_build" / "html"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name is ever looked up, so a page that asks for one is seen to fail.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
# Resolves when every font is there, and what a page does then has been done.
SETTLED = """async () => {
    await document.fonts.ready;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def page_names() -> list[str]:
    """Name the pages of the built site, the search page included, without those around the book.

    Of the Chinese pages that only say that they are not translated yet, one stands for all.
    """
    names = sorted(
        path.relative_to(SITE).with_suffix("").as_posix() for path in SITE.rglob("*.html")
    )
    around = re.compile(r"(zh/)?(index|404|_static/.*)")
    stubs = [name for name in names if name.startswith("zh/book/") and is_stub(name)]
    return [name for name in names if not around.fullmatch(name) and name not in stubs[1:]]


def is_stub(name: str) -> bool:
    """Whether a Chinese page is there in English alone."""
    page = ROOT / name.replace("zh/book/", "book/zh/", 1)
    return not any(page.with_suffix(end).is_file() for end in (".ipynb", ".md"))


@dataclass
class Visit:
    """A page open in the browser, 1440 pixels wide and light, and what was heard from it."""

    name: str
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    if not SITE.is_dir():
        pytest.skip(f"no built site in {SITE.relative_to(ROOT)}: `make book` builds it")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def context() -> Iterator[BrowserContext]:
    """Start a browser; one context for all pages, so that scripts are fetched and compiled once."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip("no browser is installed: on Debian, `apt install chromium`")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
        browser.close()


@pytest.fixture(scope="session")
def open_page(context: BrowserContext, address: str) -> Callable[..., Visit]:
    """Return a function that opens a page by its name, and hears what it asks for and says."""

    def open_page(name: str, query: str = "") -> Visit:
        visit = Visit(name, context.new_page())
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on(
            "console",
            lambda message: (
                visit.complaints.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        visit.page.goto(f"{address}{name}.html{query}", wait_until="load")
        visit.page.evaluate(SETTLED)
        return visit

    return open_page


# A page stays in one process: each is opened once.
PAGES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in page_names()]


@pytest.fixture(scope="session", params=PAGES or ["none"])
def visit(request: pytest.FixtureRequest, open_page: Callable[..., Visit]) -> Iterator[Visit]:
    visit = open_page(request.param)
    yield visit
    visit.page.close()
