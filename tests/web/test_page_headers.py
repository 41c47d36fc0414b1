"""The pages have no build step, and what all of them show has to be there before any script runs.

So their heads and headers are written out in each; here they are held to be the same.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "web"
# The one page that ships with the package has no header: a site puts its own around it.
PAGES = sorted(path for path in WEB.glob("*.html") if path.name != "start.html")
# What is a page's own, with what stands for it here; test_module_lists.py has its modules.
OWN = (
    (r"<title>Bascule: [^<]+</title>", "<title />"),
    (r'\n    <link rel="stylesheet" href="(?!style\.css")[^"]+" />', ""),
    (r'\n    <link rel="modulepreload" href="[^"]+" />', ""),
    # Of the pages that load a model at once.
    (r'\n    <!-- Python starts [^>]+>\n    <script type="module" async [^>]+></script>', ""),
    (r"<p>[^<]+</p>", "<p />"),
    (r' aria-current="page"', ""),
    (r' data-model="[^"]+"', ""),
)


def shared(page: Path) -> str:
    """A page up to the end of its header, without what is its own."""
    text = page.read_text().partition("</header>")[0]
    for pattern, replacement in OWN:
        text = re.sub(pattern, replacement, text)
    return text


class Navigation(HTMLParser):
    """The links of a page's navigation: address, words, and the address of the current page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.current: list[str] = []
        self._inside = False
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "nav":
            self._inside = True
        elif tag == "a" and self._inside:
            self.links.append((values["href"] or "", ""))
            if values.get("aria-current") == "page":
                self.current.append(values["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "nav"

    def handle_data(self, data: str) -> None:
        if self._inside and data.strip():
            self.links[-1] = self.links[-1][0], data.strip()


def address(page: Path) -> str:
    return "./" if page.name == "index.html" else page.name


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_pages_have_the_same_head_and_header(file: Path) -> None:
    assert "modulepreload" in file.read_text()
    assert shared(file) == shared(WEB / "index.html")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_a_page_links_to_all_pages_and_marks_itself(file: Path) -> None:
    navigation = Navigation(file)
    assert sorted(href for href, _ in navigation.links) == sorted(map(address, PAGES))
    assert all(words for _, words in navigation.links)
    assert navigation.current == [address(file)]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_a_page_says_what_it_needs(file: Path) -> None:
    needs = "<noscript>This page runs Python by WebAssembly and needs JavaScript.</noscript>"
    assert file.read_text().count(needs) == 1
