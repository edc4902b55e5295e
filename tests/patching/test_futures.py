"""`submit()` and `map()` of an executor, and the done-callbacks of a future."""

from __future__ import annotations

import logging
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, g

from flaskthreads_autopatch import disable, install, suppress_inheritance
from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch.entries import _log_once
from flaskthreads_autopatch.log import logger
from flaskthreads_autopatch.patching import wrappers

from ..helpers import LIMIT, Seen, in_thread, user


def test_submit_and_map(installed: Flask) -> None:
    with installed.app_context(), ThreadPoolExecutor(2) as pool:
        g.user = "alice"
        assert pool.submit(user).result(LIMIT) == "alice"
        assert list(pool.map(lambda number: (number, user()), range(3))) == [(0, "alice"), (1, "alice"), (2, "alice")]


def test_a_users_keyword_named_fn_is_the_users(installed: Flask) -> None:
    def task(first: str, *, fn: str, self: str) -> tuple[str, str, str, str]:
        return first, fn, self, user()

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        assert pool.submit(task, "a", fn="b", self="c").result(LIMIT) == ("a", "b", "c", "alice")
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]


def test_h13_a_pools_worker_holds_nobodys_context(installed: Flask) -> None:
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            g.user = "alice"
            assert pool.submit(user).result(LIMIT) == "alice"  # starts the worker
        assert pool.submit(user).result(LIMIT) == "no context"
        with installed.app_context():
            g.user = "bob"
            assert pool.submit(user).result(LIMIT) == "bob"
            with suppress_inheritance():
                assert pool.submit(user).result(LIMIT) == "no context"
    with installed.app_context():
        g.user = "alice"
        thread_pool = ThreadPool(1)
    with thread_pool:
        assert thread_pool.apply(user) == "no context"


def test_h21_a_callback_gets_the_context_of_whoever_added_it(installed: Flask) -> None:
    go_on = threading.Event()
    seen = Seen()
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            g.user = "alice"
            future = pool.submit(go_on.wait, 30)
        with installed.app_context():
            g.user = "bob"
            future.add_done_callback(seen.note)
            future.add_done_callback(fn=seen.note)
            with pytest.raises(TypeError):
                future.add_done_callback(callback=seen.note)  # type: ignore[call-arg]
        future.add_done_callback(seen.note)
        go_on.set()
    assert seen == ["bob", "bob", "no context"]


def test_h21_a_callback_of_a_finished_future_runs_in_the_adders_own_context(installed: Flask) -> None:
    future: Future[None] = Future()
    future.set_result(None)
    with installed.app_context():
        future.add_done_callback(lambda future: setattr(g, "by_callback", fc.active()))
        assert g.by_callback is fc.active()


def test_h27_a_callback_runs_in_the_app_context_that_is_active_unless_that_is_an_inherited_one(
    installed: Flask,
) -> None:
    torn_down: list[str] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(user()))

    def outcomes() -> list[object]:
        seen = Seen()
        for set_off in (lambda future: future.set_result(None), lambda future: future.cancel()):
            future: Future[None] = Future()
            with installed.app_context():
                g.user = "alice"
                future.add_done_callback(seen.note)
            torn_down.clear()
            with installed.app_context():
                g.user = "bob"
                set_off(future)
                assert torn_down == []
        return list(seen)

    assert outcomes() == ["bob", "bob"]
    disable()
    assert outcomes() == ["bob", "bob"]


def test_h21_a_callback_that_is_set_off_in_an_inherited_context_has_the_adders(installed: Flask) -> None:
    seen = Seen()
    future: Future[None] = Future()
    with installed.app_context():
        g.user = "alice"
        future.add_done_callback(seen.note)
    with installed.app_context():
        g.user = "bob"
        in_thread(future.set_result, None)
    assert seen == ["alice"]


def test_what_does_not_inherit_is_not_wrapped_either(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(*args: object) -> None: ...

    submitted: list[object] = []
    submit = ThreadPoolExecutor.submit

    def below(pool: ThreadPoolExecutor, fn: t.Callable[..., t.Any]) -> Future[t.Any]:
        submitted.append(fn)
        return submit(pool, fn)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", below)
    install(app)
    other = Flask("not installed")
    future: t.Any = Future()
    pool = ThreadPool(1)
    try:
        with other.app_context():
            future.add_done_callback(fn)
            result: t.Any = pool.apply_async(fn)
            with ThreadPoolExecutor(1) as executor:
                executor.submit(fn)
        result.get(LIMIT)
    finally:
        pool.terminate()
        disable()
    assert [type(given) for given in submitted] == [type(fn)]
    assert future._done_callbacks == [fn] and type(future._done_callbacks[0]) is type(fn)
    assert result._callback is None and result._error_callback is None


def test_a_callback_that_is_called_again_runs_without_a_context(installed: Flask) -> None:
    seen = Seen()
    future: t.Any = Future()
    with installed.app_context():
        g.user = "alice"
        future.add_done_callback(seen.note)
    [callback] = future._done_callbacks
    callback(future)
    callback(future)
    assert seen == ["alice", "no context"]


def test_a_callback_that_raises_is_logged_by_the_future(installed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    def fails(future: object) -> None:
        raise ValueError("in a callback")

    future: Future[None] = Future()
    with installed.app_context():
        future.add_done_callback(fails)
    future.set_result(None)
    assert "in a callback" in caplog.text


@pytest.mark.parametrize("failing", [False, True])
def test_a_logging_handler_that_submits_does_not_submit_for_ever(
    installed: Flask, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert len(messages) < 10
            messages.append(record.getMessage())
            pool.submit(int)

    def fail(*args: object, **kwargs: object) -> t.NoReturn:
        raise LookupError("no snapshot for you")

    handler = Handler()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.DEBUG)
    try:
        with installed.app_context(), ThreadPoolExecutor(1) as pool:
            if failing:
                monkeypatch.setattr(wrappers, "capture", fail)
            else:
                _log_once.cache_clear()
                g._login_user = object()
            pool.submit(int).result(LIMIT)
    finally:
        logger.setLevel(logging.NOTSET)
    # The first worker of a process may say beside this that its kind does not inherit.
    assert len([message for message in messages if not message.startswith("A thread that runs")]) == 1
