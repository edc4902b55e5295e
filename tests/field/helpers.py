"""Ways of switching the patches on, and of having something done in the background."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

from flask import Flask
from flask.ctx import AppContext

import flaskthreads_autopatch

from ..helpers import LIMIT, in_thread

T = t.TypeVar("T")
Work = Callable[[], T]
Start = Callable[[Work[T]], T]
Scenario = Callable[[Flask], T]
NewApp = Callable[[], Flask]

FLASK_3_2 = hasattr(AppContext, "has_request")
"""Whether an app context may have a request, and is kept by a copy that is pushed again (Flask 3.2)."""

WAYS: dict[str, Callable[[Flask], object]] = {
    "install": flaskthreads_autopatch.install,
    "enable": lambda app: flaskthreads_autopatch.enable(),
    "share": lambda app: flaskthreads_autopatch.install(app, share=True),
    "contextvars": lambda app: flaskthreads_autopatch.install(app, contextvars=True),
}
"""The ways of switching the patches on that `unchanged` tries."""

OBSERVE = "observe"
"""The way in which nothing is inherited. `unchanged` tries it too."""


class Compare(t.Protocol):
    """Run a scenario with the patches off and on."""

    def __call__(self, scenario: Scenario[T], /, *ways: str) -> T: ...


def switched_on(way: str, scenario: Scenario[T], app: Flask) -> T:
    """What *scenario* observes with the patches on."""
    if way == OBSERVE:
        flaskthreads_autopatch.enable(observe=True)
    else:
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
