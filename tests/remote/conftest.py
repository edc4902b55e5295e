"""Pools of real processes, by every way of starting them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from flask import Flask

from . import shop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Since 3.12 Python warns of a fork while there are threads, as pools have them.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"))


@pytest.fixture(scope="module", params=multiprocessing.get_all_start_methods())
def processes(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    """A pool of one process, so that one task can ask what the one before it has left."""
    with ProcessPoolExecutor(1, multiprocessing.get_context(request.param)) as pool:
        yield pool


@pytest.fixture
def app() -> Flask:
    """The parent's own instance of the app, not installed, without what the workers are asked about."""
    app = shop.create_app(install=False)
    app.teardown_appcontext_funcs.clear()
    return app
