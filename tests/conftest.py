"""Fixtures for all tests: a small app, and the proof after each test that nothing of ours was left on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import wrapt
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context, patches


def attributes() -> dict[str, object]:
    """What stands at each patch point, in the ``__dict__`` that defines it; None where it is inherited."""
    found = {}
    for point in patches.POINTS:
        owner, attribute, _ = wrapt.resolve_path(point.module, point.attribute)
        found[point.name] = vars(owner).get(attribute)
    return found


BORN_WITH = attributes()


def changed() -> list[str]:
    """The patch points where not the identical object stands any more; a wrapt layer equals what it wraps."""
    return [name for name, value in attributes().items() if value is not BORN_WITH[name]]


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
