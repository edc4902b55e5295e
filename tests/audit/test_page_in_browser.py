"""The page in a real browser, from a file: sorted, filtered, light, dark and narrow."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from flaskthreads_autopatch.audit.page import page as page_of
from flaskthreads_autopatch.audit.verdicts import worst_first

from ..test_narrow_pages import BROKEN, OVERFLOWING
from .records import NO_CONTEXT, NO_HAND, audit, record

pytestmark = pytest.mark.chromium

LONG = "shop.a_package_with_a_long_name.and_a_module:Class.a_method_that_has_a_long_name_too"
RECORDS = [
    record("shop:c", NO_CONTEXT, starts=10, app="", endpoint=""),
    record("shop:b", failed=2, starts=9, most_at_once=7),
    record(LONG, NO_HAND, starts=2, failed=1, place=f"shop/{'a_folder/' * 8}views.py:1234 in {LONG}"),
    record("shop:a", starts=1_000_000, not_inherited={"g.db": "sqlite3 refuses a connection outside the thread"}),
    record("shop:w", still_running=1, outlived=1, longest=3600),
    record("shop:</td><script>", helped=5),
]
AUDIT = audit(*RECORDS)
NAMES = [each.key.callable for each, _ in worst_first(RECORDS, False)]

CONTRASTS = """() => {
    const light = css => css.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const page = light(getComputedStyle(document.body).backgroundColor);
    return [...document.querySelectorAll("h1, p, td, small, strong, summary, label, legend, output, th button")]
        .map(e => light(getComputedStyle(e).color))
        .map(text => (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05));
}"""
"""The contrast of each text to the page, as WCAG computes it: a small text is readable from 4.5 on."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with an earlier audit beside it."""
    file = tmp_path_factory.mktemp("page") / "audit.html"
    file.write_text(page_of(AUDIT, audit(RECORDS[0], record("shop:gone"))), encoding="utf-8")
    return file


@pytest.fixture
def opened(browser: t.Any, file: Path) -> Iterator[t.Callable[..., t.Any]]:
    """Opens the page; no script may fail in it, and it may ask for nothing but itself."""
    complaints: list[str] = []
    requested: list[str] = []
    pages: list[t.Any] = []

    def open_page(scheme: str = "light", width: int = 1280) -> t.Any:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []
    assert set(requested) == {file.as_uri()}


def shown(page: t.Any) -> list[str]:
    """What runs in the rows that can be seen, from top to bottom."""
    return [text.splitlines()[0] for text in page.locator("tbody tr:visible td.runs").all_inner_texts()]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(opened: t.Callable[..., t.Any], scheme: str, width: int) -> None:
    page = opened(scheme, width)
    assert shown(page) == NAMES
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    assert page.evaluate(OVERFLOWING) == []
    assert (
        page.evaluate("() => [...document.querySelectorAll('td')].filter(e => e.scrollWidth > e.clientWidth + 1)") == []
    )
    # A name that fits into no line of its own is the only one that may be broken inside a word.
    assert [text for text in page.evaluate(BROKEN) if "a_folder" not in text and "a_method" not in text] == []


def test_a_click_on_a_heading_sorts(opened: t.Callable[..., t.Any]) -> None:
    page = opened()
    starts = page.get_by_role("columnheader", name="Starts")
    assert starts.get_attribute("aria-sort") == "none"
    by_starts = [each.key.callable for each in sorted(RECORDS, key=lambda each: -each.starts)]
    starts.get_by_role("button").click()
    assert (shown(page), starts.get_attribute("aria-sort")) == (by_starts, "descending")
    starts.get_by_role("button").click()
    assert shown(page)[0] == LONG
    assert starts.get_attribute("aria-sort") == "ascending"
    runs = page.get_by_role("columnheader", name="What runs")
    runs.get_by_role("button").click()
    assert (runs.get_attribute("aria-sort"), starts.get_attribute("aria-sort")) == ("ascending", "none")
    assert [name for name in shown(page) if len(name) == 6] == ["shop:a", "shop:b", "shop:c", "shop:w"]
    page.get_by_role("columnheader", name="Verdict").get_by_role("button").click()
    assert shown(page) == NAMES


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts(opened: t.Callable[..., t.Any], key: str) -> None:
    page = opened()
    page.get_by_role("columnheader", name="At once").get_by_role("button").focus()
    page.keyboard.press(key)
    assert shown(page)[0] == "shop:b"
    page.keyboard.press("Tab")
    page.keyboard.press(key)  # on the next heading
    assert page.get_by_role("columnheader", name="Failed").get_attribute("aria-sort") == "descending"


def test_the_filter_looks_for_every_word_in_every_cell(opened: t.Callable[..., t.Any]) -> None:
    page = opened()
    box = page.get_by_role("searchbox")
    for text, expected in (
        ("refuses SQLITE3", ["shop:a"]),
        ("fixed by", ["shop:b"]),
        ("shop:w", ["shop:w"]),
        ("</td><script>", ["shop:</td><script>"]),
        ("nowhere", []),
        ("", NAMES),
    ):
        box.fill(text)
        assert (shown(page), page.locator("output").inner_text()) == (expected, f"{len(expected)} of 6 shown")


def test_the_verdicts_can_be_unchecked(opened: t.Callable[..., t.Any]) -> None:
    page = opened(width=400)
    page.get_by_label("does not inherit (2)").uncheck()
    page.get_by_label("fixed by the library (1)").uncheck()
    assert shown(page) == [name for name in NAMES if name not in ("shop:c", "shop:b", LONG)]
    page.get_by_role("searchbox").fill("shop:b")
    assert shown(page) == []
    page.get_by_label("fixed by the library (1)").check()
    assert shown(page) == ["shop:b"]


def test_without_scripts_it_is_a_plain_table(browser: t.Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("tbody tr").count() == len(RECORDS)
    assert page.locator("form").is_hidden()
    context.close()
