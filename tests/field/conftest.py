"""Code that has already worked around the missing context: one function runs it, and returns what it has observed.

A scenario is given a new app. It is run with the patches off, and then once for each way of switching them on. The test
asserts what the first run has observed, which is what worked before, and `unchanged` asserts that the others have
observed the same.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import OBSERVE, STARTS, WAYS, Compare, NewApp, Scenario, Start, T, switched_on


@pytest.fixture
def new_app(tmp_path: Path) -> NewApp:
    """Make an app with a folder of its own for its database; any number of them."""
    made: list[Flask] = []

    def make() -> Flask:
        app = Flask("tests.field.app", instance_path=str(tmp_path / str(len(made))))
        app.config.update(SECRET_KEY="tests", SERVER_NAME="shop.example", PREFERRED_URL_SCHEME="https")
        made.append(app)
        return app

    return make


@pytest.fixture
def unchanged(new_app: NewApp) -> Compare:
    """Run a scenario without us and with us, and return what it observes without us; it observes the same with us."""

    def compare(scenario: Scenario[T], /, *ways: str) -> T:
        # Where threads inherit context variables by themselves, a thread has the view's own context without us. With us
        # it has what it has elsewhere.
        app = new_app()
        without = switched_on("install", scenario, app) if THREADS_INHERIT_CONTEXT else scenario(app)
        for way in ways or WAYS:
            assert (way, switched_on(way, scenario, new_app())) == (way, without)
        if not ways:
            off = scenario(new_app()) if THREADS_INHERIT_CONTEXT else without
            assert (OBSERVE, switched_on(OBSERVE, scenario, new_app())) == (OBSERVE, off)
        return without

    return compare


@pytest.fixture
def off_and_on(new_app: NewApp) -> Callable[[Scenario[T]], tuple[T, T]]:
    """Run a scenario without us and with us, and return both outcomes, where they are not the same."""
    if THREADS_INHERIT_CONTEXT:
        pytest.skip("without us a thread has the view's own context by itself")
    return lambda scenario: (scenario(new_app()), switched_on("install", scenario, new_app()))


@pytest.fixture(params=STARTS, ids=lambda start: start.__name__)
def start(request: pytest.FixtureRequest) -> Start[t.Any]:
    """Have something done in the background, in one of several ways, and return what it returns."""
    return t.cast("Start[t.Any]", request.param)
