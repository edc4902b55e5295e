"""The panel in a real browser: opened, clicked, and read against what the view did."""

from __future__ import annotations

import shutil
import threading
import typing as t
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, g
from werkzeug.serving import make_server

import flaskthreads_autopatch

from ..helpers import LIMIT

pytestmark = pytest.mark.chromium
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def double(number: int) -> int:
    return 2 * number


def fail() -> None:
    raise LookupError


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """An app with the toolbar, served; the thread that a view leaves behind waits until the end."""
    from flask_debugtoolbar import DebugToolbarExtension

    app.debug = True
    app.config["DEBUG_TB_PANELS"] = ["flaskthreads_autopatch.integrations.debugtoolbar.ThreadsPanel"]
    flaskthreads_autopatch.install(app, exclude=["password"])
    DebugToolbarExtension(app)
    opened, left = threading.Event(), []

    @app.get("/<int:number>")
    def view(number: int) -> str:
        entered = threading.Event()

        def wait() -> None:
            entered.set()
            opened.wait(LIMIT)

        g.user, g.password = "alice", "s3cret"
        if number:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(double, range(number - 2)))
                pool.submit(fail).exception(LIMIT)
            g.phase = "the end"
            left.append(threading.Thread(target=wait, name="<left behind>"))
            left[-1].start()
            entered.wait(LIMIT)
        return "<!doctype html><title>served</title><body>served</body>"

    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.port}"
    opened.set()
    for thread in left:
        thread.join(LIMIT)
    server.shutdown()
    serving.join(LIMIT)
    server.server_close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[t.Any]:
    """A page of a new browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "the Debian package chromium is not installed"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=chromium,
            args=FLAGS,
            color_scheme=request.param,
            viewport={"width": 1280, "height": 640},
        )
        yield context.new_page()
        context.close()


CONTRASTS = """() => {
    const light = css => css.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const page = light(getComputedStyle(document.querySelector(".ftap")).backgroundColor);
    return [...document.querySelectorAll(".ftap :is(p, th, td, small)")].map(e => light(getComputedStyle(e).color))
        .map(text => (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05));
}"""
"""Of each text to its background, as WCAG counts it; from 4.5 on small text is taken to be readable."""


def open_panel(page: t.Any, url: str) -> None:
    page.goto(url)
    if not page.locator("#flDebugToolbar").is_visible():
        page.click("#flDebugShowToolBarButton")
    page.click("a.flDebugThreadsPanel")
    page.wait_for_selector("#flDebugThreadsPanel-content", state="visible")


@pytest.mark.parametrize("number", [3, 200])
def test_the_panel_shows_what_the_view_has_started(address: str, page: t.Any, number: int) -> None:
    open_panel(page, f"{address}/{number}")
    panel = page.locator("#flDebugThreadsPanel-content")
    assert panel.locator("tbody tr").count() == panel.locator(".bar").count() == number
    outcomes = panel.locator(".outcome").all_inner_texts()
    assert sorted(outcomes) == sorted(["returned"] * (number - 2) + ["raised builtins:LookupError", "still running"])
    callables = [text.split()[0] for text in panel.locator(".callable").all_inner_texts()]
    assert [callables.count(f"{__name__}:{name}") for name in ("double", "fail")] == [number - 2, 1]
    # Escaped, and the last one.
    assert panel.locator(".running .thread").all_inner_texts() == ["<left behind>"]
    # Said where it is not the same as in the row above.
    first, *same, last = panel.locator(".inherited").all_inner_texts()
    assert first == "debug_toolbar, user, request\nnot password: excluded by 'password'"
    assert same == ["as above"] * (number - 2)
    assert last == first.replace("user", "user, phase")
    # Each bar lies on the axis, and the one of what still runs reaches its end.
    boxes = [bar.bounding_box() for bar in panel.locator(".bar").all()]
    track = panel.locator(".track").first.bounding_box()
    end = track["x"] + track["width"]
    assert all(box["width"] >= 2 for box in boxes)
    assert all(track["x"] - 0.1 <= box["x"] and box["x"] + box["width"] <= end + 0.1 for box in boxes)
    running = panel.locator(".running .bar").bounding_box()
    assert abs(running["x"] + running["width"] - end) <= 2
    # Every text can be read, and lies in its cell.
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    assert (
        panel.evaluate("e => [...e.querySelectorAll('th, td')].filter(c => c.scrollWidth > c.clientWidth + 1).length")
        == 0
    )
    assert "1 running" in page.locator("#flDebugThreadsPanel").inner_text()


def test_the_panel_of_a_request_that_starts_nothing(address: str, page: t.Any) -> None:
    open_panel(page, f"{address}/0")
    assert "started nothing" in page.locator("#flDebugThreadsPanel-content").inner_text()
