"""The search: its index knows Chinese, and is loaded by the search page alone."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u9fff"


class SearchEnglishAndChinese(SearchEnglish):
    """English words by their stems; Chinese by each character and each pair of characters.

    Chinese is written without spaces. Sphinx's own index takes a run of characters for one word, in
    which no word of two characters is found, and its Chinese splitter needs a dictionary.
    """

    lang = "en+zh"
    language_name = "English"
    # The text of a query is split into pairs too; one character alone stays what it is.
    js_splitter_code = f"""
function splitQuery(query) {{
  return query
    .split(/([{HAN}]+)|[^\\p{{Letter}}\\p{{Number}}_\\p{{Emoji_Presentation}}]+/u)
    .filter(Boolean)
    .flatMap((run) => /[{HAN}]/.test(run) && run.length > 1
      ? Array.from({{length: run.length - 1}}, (_, i) => run.slice(i, i + 2))
      : [run]);
}}
"""

    def split(self, input: str) -> list[str]:
        """Return the words, characters and pairs of characters of a text."""
        found = []
        for run in re.findall(rf"[{HAN}]+|[^\W{HAN}]+", input):
            pairs = [run[i : i + 2] for i in range(len(run) - 1)]
            found += [*run, *pairs] if re.match(f"[{HAN}]", run) else [run]
        return found


def on_the_search_page_alone(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Give the search page its script, and take from the others the one that marks words.

    Sphinx's would mark the words in the contents as well, and cut the text of formulas and figures;
    attnbook.js marks them in its place.
    """
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer")
        return
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "sphinx_highlight" not in str(getattr(script, "filename", script))
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the search to Sphinx."""
    app.add_search_language(SearchEnglishAndChinese)
    app.connect("html-page-context", on_the_search_page_alone)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
