"""Between threads: the round trip through a pool, the start of a thread and of a timer, and maps over many items."""

from __future__ import annotations

import atexit
import functools
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

from flask import copy_current_request_context
from flask_executor import Executor as FlaskExecutor

from . import peers
from .harness import Column, Scenario
from .peers import app, app_context, both, ours, request_context

ITEMS = range(1000)


def task() -> None:
    pass


def identity(item: int) -> int:
    return item


def _round_trip_columns() -> list[Column]:
    pool = _warm(ThreadPoolExecutor(1))
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    theirs = FlaskExecutor(app)

    def submit() -> None:
        pool.submit(task).result()

    def copied() -> None:
        pool.submit(copy_current_request_context(task)).result()

    def flask_executor() -> None:
        theirs.submit(task).result()

    return [
        Column("bare", submit, request_context),
        Column("ours, no context", submit, ours),
        Column("ours, app context only", submit, both(ours, app_context)),
        Column("ours, in a request", submit, both(ours, request_context)),
        Column("OpenTelemetry", submit, both(peers.opentelemetry, request_context)),
        Column("Sentry", submit, both(peers.sentry, request_context)),
        Column("copy_current_request_context", copied, request_context),
        Column("Flask-Executor", flask_executor, request_context),
        *_flask_threads("Flask-Threads", lambda executor: executor.submit(task).result()),
    ]


def _flask_threads(name: str, use: Callable[[t.Any], object]) -> list[Column]:
    import contextlib
    from collections.abc import Iterator

    from flaskthreads import ThreadPoolWithAppContextExecutor

    executors: list[t.Any] = []

    @contextlib.contextmanager
    def state() -> Iterator[None]:
        # It holds on to the one context in which it is made.
        with request_context():
            executors.append(ThreadPoolWithAppContextExecutor(1))
            yield
            executors.pop().shutdown()

    return [Column(name, lambda: use(executors[-1]), state)]


def _thread_columns() -> list[Column]:
    from flaskthreads import AppContextThread

    def start() -> None:
        thread = threading.Thread(target=task)
        thread.start()
        thread.join()

    def copied() -> None:
        thread = threading.Thread(target=copy_current_request_context(task))
        thread.start()
        thread.join()

    def flask_threads() -> None:
        thread = AppContextThread(target=task)
        thread.start()
        thread.join()

    return [
        Column("bare", start, request_context),
        Column("ours, no context", start, ours),
        Column("ours, app context only", start, both(ours, app_context)),
        Column("ours, in a request", start, both(ours, request_context)),
        Column("OpenTelemetry", start, both(peers.opentelemetry, request_context)),
        Column("Sentry", start, both(peers.sentry, request_context)),
        Column("copy_current_request_context", copied, request_context),
        Column("Flask-Threads", flask_threads, request_context),
    ]


def _timer_columns() -> list[Column]:
    def start(fn: Callable[[], Callable[[], None]]) -> None:
        timer = threading.Timer(0, fn())
        timer.start()
        timer.join()

    plain = functools.partial(start, lambda: task)
    return [
        Column("bare", plain, request_context),
        Column("ours, no context", plain, ours),
        Column("ours, in a request", plain, both(ours, request_context)),
        Column("OpenTelemetry", plain, both(peers.opentelemetry, request_context)),
        Column("Sentry", plain, both(peers.sentry, request_context)),
        Column(
            "copy_current_request_context",
            functools.partial(start, lambda: copy_current_request_context(task)),
            request_context,
        ),
    ]


def _map_columns() -> list[Column]:
    pool = _warm(ThreadPoolExecutor(1))
    # With more workers its map fails: it pushes one copy of the request context in all of them.
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    theirs = FlaskExecutor(app)

    def mapped() -> None:
        for _ in pool.map(identity, ITEMS):
            pass

    def copied() -> None:
        # The copy can be in one thread at a time: each item needs one.
        for future in [pool.submit(copy_current_request_context(identity), item) for item in ITEMS]:
            future.result()

    def flask_executor() -> None:
        for _ in theirs.map(identity, ITEMS):
            pass

    return [
        Column("bare", mapped, request_context),
        Column("ours, no context", mapped, ours),
        Column("ours, in a request", mapped, both(ours, request_context)),
        Column("OpenTelemetry", mapped, both(peers.opentelemetry, request_context)),
        Column("Sentry", mapped, both(peers.sentry, request_context)),
        Column("copy_current_request_context", copied, request_context),
        Column("Flask-Executor", flask_executor, request_context),
    ]


def _thread_pool_columns() -> list[Column]:
    pool = ThreadPool(1)
    atexit.register(pool.terminate)
    pool.map(identity, ITEMS)

    def mapped() -> None:
        pool.map(identity, ITEMS)

    def copied() -> None:
        # One worker: its items come one after the other, and one copy does.
        pool.map(copy_current_request_context(identity), ITEMS)

    return [
        Column("bare", mapped, request_context),
        Column("ours, no context", mapped, ours),
        Column("ours, in a request", mapped, both(ours, request_context)),
        Column("OpenTelemetry", mapped, both(peers.opentelemetry, request_context)),
        Column("Sentry", mapped, both(peers.sentry, request_context)),
        Column("copy_current_request_context", copied, request_context),
    ]


def _warm(pool: ThreadPoolExecutor) -> ThreadPoolExecutor:
    """Its worker is born outside of every context, as by the first submit of a process."""
    pool.submit(task).result()
    return pool


SCENARIOS = (
    Scenario("round trip", "submit().result()", "bare", _round_trip_columns),
    Scenario("round trip, unpinned", "submit().result(), on any CPU", "bare", _round_trip_columns, pinned=False),
    Scenario("thread", "Thread: start(); join()", "bare", _thread_columns),
    Scenario("timer", "Timer(0): start(); join()", "bare", _timer_columns, share=0.5),
    Scenario("map", "ThreadPoolExecutor.map over 1,000 items", "bare", _map_columns, share=0.5),
    Scenario(
        "thread pool", "multiprocessing.pool.ThreadPool.map over 1,000 items", "bare", _thread_pool_columns, share=0.5
    ),
)
