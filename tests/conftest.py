"""Fixtures for all tests: a small app, and the proof after each test that nothing of ours was left on."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
import wrapt
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context, patches

T = t.TypeVar("T")


def attributes() -> dict[str, object]:
    """What stands at each patch point, in the ``__dict__`` that defines it; None where it is inherited."""
    found = {}
    for point in patches.POINTS:
        owner, attribute, _ = wrapt.resolve_path(point.module, point.attribute)
        found[point.name] = vars(owner).get(attribute)
    return found


BORN_WITH = attributes()


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    """Each test starts and ends with the patches off, every attribute as it was born, and no context left here."""
    assert attributes() == BORN_WITH
    yield
    flaskthreads_autopatch.disable()
    assert attributes() == BORN_WITH
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


def in_thread(fn: Callable[..., T], *args: object) -> T:
    """What *fn* returns or raises in a plain `threading.Thread` that is started here and waited for."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(fn(*args))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    return outcome.result(0)
