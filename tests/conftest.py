"""Fixtures for all tests: a small app, and the proof after each test that nothing of ours was left on."""

from __future__ import annotations

import shutil
import typing as t
from collections.abc import Iterator

import pytest
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context

from .helpers import changed


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    """Each test starts and ends with the patches off, every attribute as it was born, and no context left here."""
    assert changed() == []
    yield
    flaskthreads_autopatch.disable()
    assert changed() == []
    assert flask_context.active() is None


@pytest.fixture
def app() -> Flask:
    """An app with a session, not installed."""
    app = Flask("tests")
    app.secret_key = "tests"
    return app


@pytest.fixture
def installed(app: Flask) -> Flask:
    """The same app, installed."""
    flaskthreads_autopatch.install(app)
    return app


@pytest.fixture(scope="module")
def browser() -> Iterator[t.Any]:
    """Debian's Chromium, for the tests that are marked ``chromium``."""
    from playwright.sync_api import sync_playwright

    from .panel.test_panel import FLAGS

    chromium = shutil.which("chromium")
    assert chromium, "the Debian package chromium is not installed"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


# The tests are run by several processes, and pytest-xdist does not add up how many tests each of them leaves out.

_LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the tests that the command leaves out, in a process that collects them."""
    config = items[0].config
    config.stash[_LEFT_OUT] = config.stash.get(_LEFT_OUT, 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send their number to the process that reports."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: t.Any) -> None:
    """Take their number from one of the processes that run tests: each of them has collected all tests."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: t.Any, config: pytest.Config) -> None:
    """Say how many tests were left out."""
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{left_out} tests were left out, which need other packages or programs: see docs/contributing.md."
        )
