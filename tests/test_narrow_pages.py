"""The built docs in a real browser, on a wide and on a narrow screen."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import ROOT

pytestmark = pytest.mark.chromium

OVERFLOWING = """() => {
    const width = document.documentElement.clientWidth;
    const needed = document.documentElement.scrollWidth;
    if (needed <= width)
        return [];
    const scrolls = e => e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
    const wide = [...document.body.querySelectorAll("*")]
        .filter(e => e.getBoundingClientRect().right > width && !scrolls(e.parentElement))
        .map(e => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 60)}`);
    return [`needs ${needed} pixels`, ...wide];
}"""
"""If the page is wider than the screen: how wide, and the elements that make it so, not those in a scrolling box."""

BROKEN = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), broken = [];
    for (let text; text = texts.nextNode();)
        for (const word of text.data.matchAll(/[A-Z]?[a-z]+|[A-Z]+|[0-9]+/g)) {
            const range = document.createRange();
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
            if (lines.size > 1)
                broken.push(text.data.trim());
        }
    return broken;
}"""
"""The texts with a word that begins on one line and ends on another."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The docs, built."""
    folder = tmp_path_factory.mktemp("html")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", ROOT / "docs", folder], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def address(html: Path) -> Iterator[str]:
    """The docs, served: a page from a file might not ask for what it asks for on a server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join(60)
    server.server_close()


@pytest.mark.parametrize("width", [1280, 400])
def test_no_page_overflows_breaks_a_word_or_fetches_from_another_host(
    html: Path, address: str, browser: t.Any, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    names = [file.name for file in sorted(html.glob("*.html"))]
    assert {f"{file.stem}.html" for file in ROOT.glob("docs/*.md")} <= set(names)
    found = {}
    for name in names:
        page.goto(f"{address}/{name}")
        page.evaluate("document.fonts.ready")
        found[name] = page.evaluate(OVERFLOWING), page.evaluate(BROKEN)
    page.wait_for_load_state("networkidle")
    assert {name: complaints for name, complaints in found.items() if any(complaints)} == {}
    assert [url for url in requested if not url.startswith((f"{address}/", "data:"))] == []
    page.close()


def test_what_is_wrong_on_a_page_is_found(browser: t.Any, tmp_path: Path) -> None:
    """A word that is broken, a page that is too wide, and a scrolling box that is none of either."""
    page = browser.new_page(viewport={"width": 400, "height": 900})
    file = tmp_path / "page.html"
    for style, text, expected in (
        ("width: 100px; overflow-wrap: anywhere", "supercalifragilistic", ([], ["supercalifragilistic"])),
        ("width: 100px", "two words_that_are_not_broken (in two)", ([], [])),
        ("white-space: pre; overflow-x: auto", "wide " * 100, ([], [])),
    ):
        file.write_text(f'<!doctype html><p style="{style}">{text}</p>')
        page.goto(file.as_uri())
        assert (page.evaluate(OVERFLOWING), page.evaluate(BROKEN)) == expected
    file.write_text('<!doctype html><body style="margin: 0"><p style="width: 500px">wide')
    page.goto(file.as_uri())
    assert page.evaluate(OVERFLOWING) == ["needs 500 pixels", "P : wide"]
    page.close()
