"""The measured code. ``measured.py CASE LOOPS`` runs one case, in a process of its own.

Valgrind counts whole processes. Each case is therefore run with two numbers of loops, and their difference counts.

This file is run as a script, from a folder that does not contain the package: the package is found on ``PYTHONPATH``,
in the version that is measured. The script uses Flask, and only the public names of the package.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import os
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import third_party
from flask import Flask, copy_current_request_context, g, has_app_context, session

import flaskthreads_autopatch

WARM_UP = 200
"""Loops before the counted ones: they fill the caches of the interpreter, of Flask and of the package."""

Function = Callable[..., object]

app = Flask(__name__)
app.secret_key = "benchmarks"
app.add_url_rule("/orders/<int:order>", "orders", lambda order: "done")

IN_A_WORKER = contextvars.Context().run
"""Calls a function where no context is active, as the worker of a pool does."""
pool = ThreadPoolExecutor(1)


def task(found: list[bool] | None = None) -> None:
    """Do nothing; with a list, note in it whether an app context is active."""
    if found is not None:
        found.append(has_app_context())


class User:
    """An object on ``g`` that is neither plain nor bound to a thread."""


Context = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def app_context() -> Iterator[None]:
    with app.app_context():
        yield


@contextlib.contextmanager
def request_context(plain: int = 5, objects: int = 0) -> Iterator[None]:
    """A request with a session and with entries of ``g``: plain values, and objects that a teardown could close."""
    with app.test_request_context("/orders/7?page=2"):
        session["user_id"] = 1
        for i in range(plain):
            setattr(g, f"plain_{i}", f"value {i}")
        for i in range(objects):
            setattr(g, f"object_{i}", User())
        yield


request_with_objects = functools.partial(request_context, plain=0, objects=5)

ENVIRON: dict[str, t.Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/orders/7",
    "QUERY_STRING": "page=2",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "localhost",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": BytesIO(),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


def start_response(status: str, headers: object, exc_info: object = None) -> t.Any:
    assert status == "200 OK", status


# What is counted. Each takes the function that the thread or task runs, if it runs one.


def serve(fn: Function) -> None:
    """A plain request that starts no thread, as a WSGI server has it answered."""
    response: t.Any = app(ENVIRON.copy(), start_response)
    for _ in response:
        pass
    response.close()


def own_context(fn: Function) -> None:
    """Flask's own price for a context."""
    with app.app_context():
        pass


def copy_app_context(fn: Function) -> None:
    IN_A_WORKER(flaskthreads_autopatch.copy_current_app_context(fn))


def written_by_hand(fn: Function) -> Function:
    """What a careful user writes to have the request, the session and five values in a thread."""
    values = g.plain_0, g.plain_1, g.plain_2, g.plain_3, g.plain_4

    @copy_current_request_context
    def call() -> None:
        g.plain_0, g.plain_1, g.plain_2, g.plain_3, g.plain_4 = values
        fn()

    return call


def copy_by_hand(fn: Function) -> None:
    IN_A_WORKER(written_by_hand(fn))


def start_thread(fn: Function) -> None:
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


def submit(fn: Function) -> None:
    pool.submit(fn).result()


def start_thread_by_hand(fn: Function) -> None:
    start_thread(written_by_hand(fn))


def submit_by_hand(fn: Function) -> None:
    submit(written_by_hand(fn))


def submit_copy(fn: Function) -> None:
    """Flask's own way, which copies the request and the session, and no entry of ``g``."""
    submit(copy_current_request_context(fn))


def submit_to_flask_executor(fn: Function) -> None:
    """Flask-Executor copies the request, and the entries of ``g``."""
    _flask_executor().submit(fn).result()


@functools.lru_cache
def _flask_executor() -> t.Any:
    from flask_executor import Executor

    return Executor(app)


class Case(t.NamedTuple):
    once: Callable[[Function], object]
    """What is counted."""
    context: Context = contextlib.nullcontext
    """What is active meanwhile."""
    installed: bool = False
    fn: Function = task
    observed: bool = False
    """Whether the library is in observe mode instead."""
    inherits: bool | None = None
    """Whether *fn* finds an app context; None if it is not called. A case that stops inheriting would look cheap."""


CASES: dict[str, Case] = {
    "request": Case(serve),
    "request, on": Case(serve, installed=True),
    "own context": Case(own_context, app_context),
    "copy, app context": Case(copy_app_context, app_context, installed=True, inherits=True),
    "copy, request": Case(copy_app_context, request_context, installed=True, inherits=True),
    "copy, objects": Case(copy_app_context, request_with_objects, installed=True, inherits=True),
    "copy, app context, not installed": Case(copy_app_context, app_context, inherits=True),
    "copy, request, not installed": Case(copy_app_context, request_context, inherits=True),
    "copy by hand": Case(copy_by_hand, request_context, inherits=True),
    "thread": Case(start_thread, inherits=False),
    "thread, on": Case(start_thread, installed=True, inherits=False),
    "thread in request": Case(start_thread, request_context, inherits=False),
    "thread in request, on": Case(start_thread, request_context, installed=True, inherits=True),
    "third party in request": Case(start_thread, request_context, fn=third_party.work, inherits=False),
    "third party in request, on": Case(
        start_thread, request_context, installed=True, fn=third_party.work, inherits=True
    ),
    "submit": Case(submit, inherits=False),
    "submit, on": Case(submit, installed=True, inherits=False),
    "submit in request": Case(submit, request_context, inherits=False),
    "submit in request, on": Case(submit, request_context, installed=True, inherits=True),
    "thread, observed": Case(start_thread, observed=True, inherits=False),
    "thread in request, observed": Case(start_thread, request_context, observed=True, inherits=False),
    "submit in request, observed": Case(submit, request_context, observed=True, inherits=False),
    "thread by hand": Case(start_thread_by_hand, request_context, inherits=True),
    "submit by hand": Case(submit_by_hand, request_context, inherits=True),
    "submit, copy_current_request_context": Case(submit_copy, request_context, inherits=True),
    "submit, Flask-Executor": Case(submit_to_flask_executor, request_context, inherits=True),
}


def _carried(name: str) -> Case:
    from carried import functions  # Not where something else is counted.

    once, context = functions(app, name)
    return Case(once, context, inherits=True if name.startswith("extract") else None)


def main(name: str, loops: int) -> None:
    if name.startswith(("inject", "extract")):
        CASES[name] = _carried(name)
    if name not in CASES:
        sys.exit(f"{name!r} is not a case; the cases are {', '.join(map(repr, CASES))}.")
    once, context, installed, fn, observed, inherits = CASES[name]
    # A thread that waits for the interpreter asks for it by the clock, which would leave the count to chance.
    sys.setswitchinterval(1000)
    gc.disable()
    pool.submit(task).result()  # so that its worker starts outside the context
    if observed:
        flaskthreads_autopatch.enable(observe=True)
    if installed:
        flaskthreads_autopatch.install(app)
        # As in production: until its first request, the config of an app may still name what to provide a context for.
        serve(task)
        pool.submit(task).result()
    with context():
        found: list[bool] = []
        once(functools.partial(fn, found))
        if found != ([] if inherits is None else [inherits]):
            sys.exit(f"{name}: whether an app context is active should be {inherits}, and {found} was found.")
        for _ in range(WARM_UP):
            once(fn)
        for _ in range(loops):
            once(fn)
        # Skips the end of the interpreter, which would be counted too, and is longer after more loops.
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
