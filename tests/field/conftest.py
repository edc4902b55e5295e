"""Code that has already worked around the missing context: one function runs it, and returns what it has observed.

A scenario is given a new app. It is run with the patches off, and then once for each way of switching them on. The test
asserts what the first run has observed, which is what worked before, and `unchanged` asserts that the others have
observed the same.
"""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from flask import Flask
from flask.ctx import AppContext

import flaskthreads_autopatch
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from ..conftest import in_thread

T = t.TypeVar("T")
Work = Callable[[], T]
Start = Callable[[Work[T]], T]
Scenario = Callable[[Flask], T]
NewApp = Callable[[], Flask]

LIMIT = 30

FLASK_3_2 = hasattr(AppContext, "has_request")
"""Whether an app context may have a request, and is kept by a copy that is pushed again (Flask 3.2)."""

WAYS: dict[str, Callable[[Flask], object]] = {
    "install": flaskthreads_autopatch.install,
    "enable": lambda app: flaskthreads_autopatch.enable(),
    "share": lambda app: flaskthreads_autopatch.install(app, share=True),
    "contextvars": lambda app: flaskthreads_autopatch.install(app, contextvars=True),
}
"""The ways of switching the patches on that `unchanged` tries."""


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


class Compare(t.Protocol):
    """Run a scenario with the patches off and on."""

    def __call__(self, scenario: Scenario[T], /, *ways: str) -> T: ...


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
        return without

    return compare


@pytest.fixture
def off_and_on(new_app: NewApp) -> Callable[[Scenario[T]], tuple[T, T]]:
    """Run a scenario without us and with us, and return both outcomes, where they are not the same."""
    if THREADS_INHERIT_CONTEXT:
        pytest.skip("without us a thread has the view's own context by itself")
    return lambda scenario: (scenario(new_app()), switched_on("install", scenario, new_app()))


def switched_on(way: str, scenario: Scenario[T], app: Flask) -> T:
    """What *scenario* observes with the patches on."""
    WAYS[way](app)
    try:
        return scenario(app)
    finally:
        flaskthreads_autopatch.disable()


def in_view(app: Flask, view: Work[T], **request: t.Any) -> T:
    """What *view* returns, called as a view of *app*; raises what it raises."""
    returned: list[T] = []

    def call() -> str:
        returned.append(view())
        return "done"

    app.add_url_rule("/view", "view", call)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.test_client().get("/view", buffered=True, **request)
    return returned[0]


# Ways to have something done in the background. Each returns or raises what the work does.


def by_thread(work: Work[T]) -> T:
    return in_thread(work)


def by_executor(work: Work[T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(LIMIT)


def by_thread_pool(work: Work[T]) -> T:
    with ThreadPool(1) as pool:
        return pool.apply_async(work).get(LIMIT)


def by_timer(work: Work[T]) -> T:
    outcome: Future[T] = Future()
    timer = threading.Timer(0, _settle, (outcome, work))
    timer.start()
    timer.join(LIMIT)
    return outcome.result(0)


class BackgroundThread(threading.Thread):
    """A subclass with a ``run`` of its own."""

    def __init__(self, work: Work[t.Any]) -> None:
        super().__init__()
        self.work = work
        self.outcome: Future[t.Any] = Future()

    def run(self) -> None:
        _settle(self.outcome, self.work)


def by_subclass(work: Work[T]) -> T:
    thread = BackgroundThread(work)
    thread.start()
    thread.join(LIMIT)
    return t.cast(T, thread.outcome.result(0))


def _settle(outcome: Future[T], work: Work[T]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:
        outcome.set_exception(error)


STARTS: tuple[Start[t.Any], ...] = (by_thread, by_executor, by_thread_pool, by_timer, by_subclass)


@pytest.fixture(params=STARTS, ids=lambda start: start.__name__)
def start(request: pytest.FixtureRequest) -> Start[t.Any]:
    """Have something done in the background, in one of several ways, and return what it returns."""
    return t.cast("Start[t.Any]", request.param)
