"""Within one thread: capture and replay, the growth with ``g``, and the pass-through of each patch point."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

from flask import copy_current_request_context

from flaskthreads_autopatch import Policy, flask_context
from flaskthreads_autopatch.snapshot import capture

from .harness import Column, Scenario
from .peers import app, app_context, bare_wrapt, both, ours, request_context

POLICY = Policy()


def task() -> None:
    pass


def _capture_and_replay() -> None:
    ctx = flask_context.active()
    assert ctx is not None
    snapshot = capture(ctx, POLICY)
    assert snapshot is not None
    snapshot.run(task)


def _own_context() -> None:
    with app.app_context():
        pass


def _copy_current_request_context() -> None:
    copy_current_request_context(task)()


def _copy_context() -> None:
    contextvars.copy_context().run(task)


def _replay_columns() -> list[Column]:
    # Flask's own price is taken where ours is, under a context.
    return [
        Column("with app.app_context(): pass", _own_context, app_context),
        Column("ours, app context only", _capture_and_replay, app_context),
        Column("ours, request + session", _capture_and_replay, functools.partial(request_context, 0, 0)),
        Column("ours, request + session + 5 entries", _capture_and_replay, request_context),
        Column("ours, request + session + 5 plain", _capture_and_replay, functools.partial(request_context, 5, 0)),
        Column("ours, request + session + 50 entries", _capture_and_replay, functools.partial(request_context, 30, 20)),
        Column("copy_current_request_context", _copy_current_request_context, request_context),
        Column("copy_context().run", _copy_context, request_context),
    ]


def _growth_columns() -> list[Column]:
    columns = [Column("with app.app_context(): pass", _own_context, app_context)]
    for n in (0, 1, 2, 5, 10, 20, 50, 100):
        columns.append(Column(f"{n} plain", _capture_and_replay, functools.partial(request_context, n, 0)))
    for n in (10, 50):
        columns.append(Column(f"{n} objects", _capture_and_replay, functools.partial(request_context, 0, n)))
    return columns


@contextlib.contextmanager
def _emptied(owner: type, name: str) -> Iterator[None]:
    """The attribute does nothing, so that the price of a layer on it is not lost in the price of what is below."""
    real = vars(owner).get(name)
    setattr(owner, name, _nothing)
    try:
        yield
    finally:
        if real is None:
            delattr(owner, name)  # inherited, as ThreadPool's methods are from Pool
        else:
            setattr(owner, name, real)


def _nothing(*args: object, **kwargs: object) -> None:
    pass


PASS_THROUGH_POINTS: dict[str, tuple[type, str]] = {
    "Thread.__init__": (threading.Thread, "__init__"),
    "Thread.start": (threading.Thread, "start"),
    "submit": (ThreadPoolExecutor, "submit"),
    "add_done_callback": (Future, "add_done_callback"),
    "ThreadPool.apply_async": (ThreadPool, "apply_async"),
}

_INSTANCES: dict[type, Callable[[], object]] = {
    threading.Thread: threading.Thread,
    ThreadPoolExecutor: ThreadPoolExecutor,
    Future: Future,
    ThreadPool: functools.partial(ThreadPool, 1),
}


def _pass_through_columns(point: str) -> list[Column]:
    owner, name = PASS_THROUGH_POINTS[point]
    thing = _INSTANCES[owner]()
    # Code of its own for each point, as in real life: the call site is specialised for this attribute.
    scope: dict[str, t.Any] = {"thing": thing, "task": task}
    exec(f"def call(): thing.{name}(task)", scope)
    call = scope["call"]
    empty = functools.partial(_emptied, owner, name)
    return [
        Column("a bare wrapt wrapper", call, both(empty, functools.partial(bare_wrapt, (owner, name)))),
        Column("ours, no context", call, both(empty, ours)),
        Column("nothing", call, empty),
    ]


SCENARIOS = (
    Scenario("replay", "Capture and replay", "with app.app_context(): pass", _replay_columns),
    Scenario("growth", "Growth with the entries of g", "with app.app_context(): pass", _growth_columns),
    *(
        Scenario(
            f"pass-through {point}",
            f"Pass-through: {point}, enabled, no context active (what lies below does nothing)",
            "a bare wrapt wrapper",
            functools.partial(_pass_through_columns, point),
            share=0.5,
        )
        for point in PASS_THROUGH_POINTS
    ),
)
