"""What others do to the attributes that we wrap, in the small, without the packages that do it (H22)."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures.thread import ThreadPoolExecutor

import pytest
import wrapt
from flask import Flask, g

import flaskthreads_autopatch as autopatch
from tests.helpers import BORN_WITH, changed


@pytest.fixture
def replays(app: Flask) -> Callable[[], tuple[int, int]]:
    """How many replays a thread makes, and a task, that are started in a context."""
    count = []
    app.teardown_appcontext(lambda exc: count.append(autopatch.is_inherited()))

    def measure() -> tuple[int, int]:
        with app.app_context(), ThreadPoolExecutor(1) as pool:
            count.clear()
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
            in_thread = count.count(True)
            pool.submit(lambda: None).result()
            return in_thread, count.count(True) - in_thread

    return measure


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Whatever a test leaves of its own at these places is taken away."""
    start, submit = vars(threading.Thread)["start"], vars(ThreadPoolExecutor)["submit"]
    yield
    threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]


def write_back() -> None:
    """What patchers do that put back what they found: they have read the method's bound form."""
    threading.Thread.start = threading.Thread.start  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = ThreadPoolExecutor.submit  # type: ignore[method-assign]


def test_written_back_layer_is_taken_out(replays: t.Any) -> None:
    with autopatch.enable():
        write_back()
        assert replays() == (1, 1)
    assert changed() == []


def test_written_back_layer_is_taken_out_from_below_another_wrapper(replays: t.Any) -> None:
    def passing(wrapped: t.Any, instance: t.Any, args: t.Any, kwargs: t.Any) -> t.Any:
        return wrapped(*args, **kwargs)

    autopatch.enable()
    write_back()
    handle = wrapt.wrap_function_wrapper(threading.Thread, "start", passing)
    autopatch.disable()
    assert replays() == (0, 0)
    assert handle.__wrapped__ is BORN_WITH["threading.Thread.start"]
    wrapt.unwrap_object(threading.Thread, "start", handle)
    assert changed() == []


def test_inert_layer_that_was_written_back_is_used_again(replays: t.Any) -> None:
    autopatch.enable()
    layer = vars(threading.Thread)["start"]
    found = threading.Thread.start
    threading.Thread.start = lambda thread: found(thread)  # type: ignore[method-assign]
    autopatch.disable()
    threading.Thread.start = found  # type: ignore[method-assign]
    with autopatch.enable():
        assert replays() == (1, 1)
        assert vars(threading.Thread)["start"].__wrapped__ is BORN_WITH["threading.Thread.start"]
    assert layer.__wrapped__ is BORN_WITH["threading.Thread.start"]
    assert changed() == []


def test_enabling_again_puts_back_what_somebody_took_out(replays: t.Any) -> None:
    autopatch.enable()
    # What OpenTelemetry's off switch does, whose own layer is below.
    ThreadPoolExecutor.submit = vars(ThreadPoolExecutor)["submit"].__wrapped__  # type: ignore[method-assign]
    assert replays() == (1, 0)
    assert autopatch.status().patch_points["concurrent.futures.thread.ThreadPoolExecutor.submit"] == []
    autopatch.enable()
    assert replays() == (1, 1)


@pytest.mark.usefixtures("as_it_was")
def test_one_replay_if_enabled_again_below_a_function_that_hides_us(replays: t.Any) -> None:
    autopatch.enable()
    hidden = ThreadPoolExecutor.submit
    # Its task is no longer recognised as bound to a snapshot.
    ThreadPoolExecutor.submit = lambda pool, fn: hidden(pool, lambda: fn())  # type: ignore[method-assign, assignment]
    for _ in range(3):
        autopatch.enable()
        assert replays() == (1, 1)
    assert len(autopatch.status().patch_points["concurrent.futures.thread.ThreadPoolExecutor.submit"]) == 1
    autopatch.disable()
    assert replays() == (0, 0)
    ThreadPoolExecutor.submit = hidden  # type: ignore[method-assign]
    autopatch.disable()
    assert changed() == []


def test_all_teardown_handlers_run_below_somebodys_wrapper_of_flasks_h9(app: Flask, installed: Flask) -> None:
    # As New Relic and Datadog wrap it.
    def passing(wrapped: t.Any, instance: t.Any, args: t.Any, kwargs: t.Any) -> t.Any:
        return wrapped(*args, **kwargs)

    ran = []
    app.teardown_appcontext(lambda exc: ran.append(g.get("own")))

    @app.teardown_appcontext
    def raises(exc: BaseException | None) -> None:
        if autopatch.is_inherited():
            raise RuntimeError("on purpose")

    def work() -> None:
        g.own = "own"

    handle = wrapt.wrap_function_wrapper(Flask, "do_teardown_appcontext", passing)
    try:
        with app.app_context():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    finally:
        wrapt.unwrap_object(Flask, "do_teardown_appcontext", handle)
    assert ran == ["own", None]


def test_subclasses_of_a_class_in_the_place_of_thread_inherit(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    # Datadog's coverage puts one there. What names its package means the threads of its other classes.
    autopatch.install(app, ignore=("ddtrace.internal",))
    theirs = t.cast(t.Any, type("CoverageCollectingThread", (threading.Thread,), {"__module__": "ddtrace.internal.x"}))
    monkeypatch.setattr(threading, "Thread", theirs)

    class Subclass(theirs):
        def run(self) -> None:
            inherited.append(autopatch.is_inherited())

    class Background(Subclass):
        __module__ = "ddtrace.internal.y"

    inherited: list[bool] = []
    with app.app_context():
        for thread in (Subclass(), Background()):
            thread.start()
            thread.join()
    assert inherited == [True, False]


def test_timers_can_be_ignored(app: Flask) -> None:
    inherited: list[bool] = []
    autopatch.install(app, ignore=("threading:Timer",))
    with app.app_context():
        for thread in (
            threading.Timer(0, lambda: inherited.append(autopatch.is_inherited())),
            threading.Thread(target=lambda: inherited.append(autopatch.is_inherited())),
        ):
            thread.start()
            thread.join()
    assert inherited == [False, True]
