"""Fixtures for all tests: a small app, and the proof after each test that nothing of ours was left on."""

from __future__ import annotations

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
