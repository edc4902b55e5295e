"""docs/ways-to-start.md: each row is started here in a context of alice's, and does what its second cell says."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import logging.handlers
import queue
import re
import socket
import socketserver
import sys
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, g, has_app_context

from flaskthreads_autopatch import is_inherited

from .helpers import LIMIT
from .pages import ROOT
from .processes import run

PAGE = ROOT / "docs" / "ways-to-start.md"

Seen = tuple[object, bool]
Look = Callable[..., Seen]
start_early = _thread.start_new_thread

EXPECTED: dict[str, Seen] = {"yes": ("alice", True), "no": (None, False), "the same": ("alice", False)}


def rows() -> dict[str, str]:
    """What each row says: whether the way inherits, by the way."""
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return {cells[0]: cells[1] for cells in lines if len(cells) > 2 and cells[1] in EXPECTED}


def look(*args: object) -> Seen:
    return (g.get("user") if has_app_context() else None), is_inherited()


def seen_by(start: Callable[[Callable[..., None]], object]) -> Seen:
    """What is seen by what *start* starts, given a function that looks."""
    outcome: queue.SimpleQueue[Seen] = queue.SimpleQueue()
    started = start(lambda *args: outcome.put(look()))
    found = outcome.get(timeout=LIMIT)
    getattr(started, "join", int)()
    return found


# The standard library


def by_subclass() -> Seen:
    class Subclass(threading.Thread):
        def run(self) -> None:
            self.seen = look()

    thread = Subclass()
    thread.start()
    thread.join()
    assert thread.seen == seen_by(lambda work: started(threading.Thread(target=work)))
    return thread.seen


def started(thread: threading.Thread) -> threading.Thread:
    thread.start()
    return thread


def by_executor() -> Seen:
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(look).result()
        assert set(pool.map(look, range(2))) == {seen}
    return seen


def by_thread_pool() -> Seen:
    with ThreadPool(1) as pool:
        seen = pool.apply_async(look).get()
        assert {*pool.map(look, range(2)), *pool.imap(look, range(2))} == {seen}
    return seen


def by_done_callback() -> Seen:
    def start(work: Callable[..., None]) -> threading.Thread:
        future: Future[None] = Future()
        future.add_done_callback(work)
        # The thread that sets the result has no context of its own.
        return started(threading.Thread(target=contextvars.Context().run, args=(future.set_result, None)))

    return seen_by(start)


def by_initializer() -> Seen:
    found: list[Seen] = []
    with ThreadPoolExecutor(1, initializer=lambda: found.append(look())) as pool:
        pool.submit(int).result()
    return found[0]


def by_queue_listener() -> Seen:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(look())

    found: list[Seen] = []
    records: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, Handler())
    listener.start()
    records.put(logging.makeLogRecord({}))
    listener.stop()
    return found[0]


def by_server() -> Seen:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            found.append(look())

    found: list[Seen] = []
    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = started(threading.Thread(target=server.serve_forever))
        with socket.create_connection(server.server_address) as client:
            client.recv(1)
        server.shutdown()
        thread.join()
    return found[0]


def in_process() -> Seen:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(look).result(LIMIT)


def in_interpreter() -> Seen:
    try:
        from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return EXPECTED["no"]  # It is new in Python 3.14, and the row says that it does not inherit.
    with InterpreterPoolExecutor(1) as pool:
        return t.cast(Seen, pool.submit(look).result(LIMIT))


# asyncio


def in_loop(start: Callable[[asyncio.AbstractEventLoop], t.Any]) -> Seen:
    async def main() -> Seen:
        return t.cast(Seen, await start(asyncio.get_running_loop()))

    return asyncio.run(main())


async def look_later() -> Seen:
    return look()


def from_a_thread() -> Seen:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        return asyncio.run_coroutine_threadsafe(look_later(), loop).result(LIMIT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


HERE: dict[str, Callable[[], Seen]] = {
    "`threading.Thread`, and its subclasses": by_subclass,
    "`threading.Timer`": lambda: seen_by(lambda work: started(threading.Timer(0, work))),
    "`_thread.start_new_thread`": lambda: seen_by(lambda work: _thread.start_new_thread(work, ())),
    "`_thread.start_new_thread`, imported by name before this library is enabled": lambda: seen_by(
        lambda work: start_early(work, ())
    ),
    "`ThreadPoolExecutor.submit`, `map`": by_executor,
    "`ThreadPool.apply_async`, `map`, `imap`": by_thread_pool,
    "`Future.add_done_callback`": by_done_callback,
    "`initializer=` of a pool": by_initializer,
    "a thread that a package starts for itself, as `QueueListener` does": by_queue_listener,
    "`Thread(target=copy_context().run, args=(fn,))`": lambda: seen_by(
        lambda work: started(threading.Thread(target=contextvars.copy_context().run, args=(work,)))
    ),
    "`Thread(target=server.serve_forever)`": by_server,
    "`ProcessPoolExecutor`, `multiprocessing.Process`": in_process,
    "`InterpreterPoolExecutor`": in_interpreter,
    "`asyncio.create_task`, `gather`": lambda: in_loop(lambda loop: loop.create_task(look_later())),
    "`asyncio.to_thread`": lambda: in_loop(lambda loop: asyncio.to_thread(look)),
    "`loop.run_in_executor`": lambda: in_loop(lambda loop: loop.run_in_executor(None, look)),
    "`asyncio.run` in a thread": lambda: seen_by(
        lambda work: started(threading.Thread(target=lambda: work(asyncio.run(asyncio.sleep(0)))))
    ),
    "`asyncio.run_coroutine_threadsafe`": from_a_thread,
}
"""The ways that need no other package."""


ELSEWHERE: dict[str, tuple[str, str]] = {
    "`gevent.spawn`, `spawn_later`, `Greenlet` and its subclasses": (
        "gevent",
        """
        class Subclass(gevent.Greenlet):
            def _run(self):
                note()
        with context():
            for greenlet in (gevent.spawn(note), gevent.spawn_later(0.001, note), early(note), Subclass()):
                greenlet.start()
                greenlet.get()
        """,
    ),
    "`gevent.spawn_raw`": ("gevent", "with context(): gevent.spawn_raw(note)\n        gevent.sleep(0)"),
    "`gevent.spawn_raw`, imported by name before this library is enabled": (
        "gevent",
        "with context(): early_raw(note)\n        gevent.sleep(0)",
    ),
    "`gevent.pool.Group`, `Pool`: `spawn`, `apply_async`, `map`, `imap`": (
        "gevent",
        """
        with context():
            for pool in (gevent.pool.Group(), gevent.pool.Pool(1)):
                (pool.spawn(note).get(), pool.apply_async(note).get(), pool.map(note, [1]), list(pool.imap(note, [1])))
        """,
    ),
    "`gevent.threadpool.ThreadPool`, `get_hub().threadpool`": (
        "gevent",
        """
        with context():
            for pool in (gevent.threadpool.ThreadPool(1), gevent.get_hub().threadpool):
                (pool.spawn(note).get(), pool.apply_async(note).get(), pool.map(note, [1]), list(pool.imap(note, [1])))
        """,
    ),
    "`gevent.threadpool.ThreadPoolExecutor`": (
        "gevent",
        "with context(): gevent.threadpool.ThreadPoolExecutor(1).submit(note).result()",
    ),
    "`Greenlet.link`, `rawlink`": (
        "gevent",
        """
        with context():
            greenlet = gevent.spawn(int)
            greenlet.link(note)
            greenlet.rawlink(note)
            gevent.idle()
        """,
    ),
    "`Greenlet` made in a context, started outside of it": (
        "gevent",
        """
        with context():
            greenlet = gevent.Greenlet(note)
        greenlet.start()
        greenlet.get()
        """,
    ),
    "gevent's servers": (
        "gevent",
        """
        from gevent.server import StreamServer
        with context():
            server = StreamServer(("127.0.0.1", 0), note)
            serving = gevent.spawn(server.serve_forever)
            gevent.sleep(0)
            gevent.socket.create_connection(server.address).recv(1)
            server.stop()
            serving.get()
        """,
    ),
    'Flask-SocketIO: `start_background_task`, `async_mode="threading"`': (
        "extensions",
        "in_background('threading')",
    ),
    'Flask-SocketIO: `start_background_task`, `async_mode="gevent"`': (
        "gevent, extensions",
        "in_background('gevent')",
    ),
    'Flask-SocketIO: `start_background_task`, `async_mode="eventlet"`': (
        "eventlet, extensions",
        "in_background('eventlet')",
    ),
    "eventlet: `spawn`, `GreenPool`, `tpool`": (
        "eventlet",
        """
        from eventlet import tpool
        with context():
            eventlet.spawn(note).wait()
            eventlet.GreenPool(1).spawn(note).wait()
            tpool.execute(note)
        """,
    ),
    "eventlet: `threading.Thread` and `ThreadPoolExecutor`, monkey-patched": (
        "eventlet",
        """
        import concurrent.futures, threading
        with context():
            thread = threading.Thread(target=note)
            thread.start()
            thread.join()
            concurrent.futures.ThreadPoolExecutor(1).submit(note).result()
        """,
    ),
    "Flask-Executor: `submit`": (
        "extensions",
        """
        from flask_executor import Executor
        executor = Executor(app)
        with context():
            executor.submit(note).result()
        """,
    ),
}
"""The ways that need another package, each in a process of its own."""

PROGRAM = """
import sys, textwrap
packages, body = sys.argv[1], sys.argv[2]
if "eventlet" in packages:
    import eventlet
    eventlet.monkey_patch()
if "gevent" in packages:
    import gevent, gevent.pool, gevent.threadpool, gevent.socket
    from gevent import spawn as early, spawn_raw as early_raw
from contextlib import contextmanager
from flask import Flask, g, has_app_context
import flaskthreads_autopatch
app = Flask("ways")
flaskthreads_autopatch.install(app)
seen = []
def note(*args):
    seen.append(((g.get("user") if has_app_context() else None), flaskthreads_autopatch.is_inherited()))
@contextmanager
def context():
    with app.test_request_context():
        g.user = "alice"
        yield
def in_background(mode):
    from flask_socketio import SocketIO
    socketio = SocketIO(app, async_mode=mode)
    with context():
        socketio.start_background_task(note).join()
    while not seen:  # Under eventlet, its join() does not wait for a task that has not begun.
        socketio.sleep(0)
if "extensions" in packages:
    from flask_socketio import SocketIO
exec(textwrap.dedent("        " + body.lstrip()))
print(sorted(set(seen)))
"""

OTHER_TESTS = {
    "Flask-APScheduler, APScheduler: jobs": (
        "tests/extensions/test_provide.py",
        "test_a_job_that_is_added_in_a_request_has_no_part_of_it",
    ),
    "Celery: `task.delay`": ("tests/remote/test_celery.py", "test_a_task_sees_what_is_named_and_nothing_else"),
    "joblib's threads, requests-futures, Dash, graphql-core 2": (
        "tests/field/test_pools_of_packages.py",
        "test_jobs_of_joblib_inherit",
    ),
    "a package that runs its caller's function in a thread for that: func_timeout, Pebble's decorators, Promise,"
    " reactivex": ("tests/own_code/test_pools_h24.py", "test_h24_what_runs_its_callers_function_once"),
    "a package that has pools of its own: futurist, mpire, Pykka": (
        "tests/own_code/test_pools_h24.py",
        "test_h24_a_pool_of_another_package",
    ),
}
"""The ways that another test starts: its file and its name."""


def test_each_row_has_one_test() -> None:
    assert sorted(rows()) == sorted([*HERE, *ELSEWHERE, *OTHER_TESTS])


@pytest.mark.parametrize("way", HERE)
def test_a_way_of_the_standard_library(installed: Flask, way: str) -> None:
    with installed.app_context():
        g.user = "alice"
        assert HERE[way]() == EXPECTED[rows()[way]]


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.gevent) for way, (packages, _) in ELSEWHERE.items() if packages == "gevent"],
)
def test_a_way_of_gevent(way: str) -> None:
    outside(way)


@pytest.mark.extensions
@pytest.mark.parametrize("way", [way for way, (packages, _) in ELSEWHERE.items() if packages != "gevent"])
def test_a_way_of_an_extension(way: str) -> None:
    outside(way)


def outside(way: str) -> None:
    packages, body = ELSEWHERE[way]
    result = run(sys.executable, "-W", "ignore", "-c", PROGRAM, packages, body)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str([EXPECTED[rows()[way]]])


@pytest.mark.parametrize("way", OTHER_TESTS)
def test_the_other_tests_exist(way: str) -> None:
    file, name = OTHER_TESTS[way]
    assert f"def {name}(" in (ROOT / file).read_text()
