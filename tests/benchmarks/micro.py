"""Within one thread: capture and replay, the growth with ``g``, and the pass-through of each patch point."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from threading import get_ident
from time import monotonic

from flask import copy_current_request_context

from flaskthreads_autopatch import Policy, flask_context
from flaskthreads_autopatch.capture import capture
from flaskthreads_autopatch.replay import replay
from flaskthreads_autopatch.snapshot import Snapshot
from flaskthreads_autopatch.visibility.overdue import overdue
from flaskthreads_autopatch.visibility.registry import replays
from flaskthreads_autopatch.visibility.signals import inherited_receivers, released_receivers

from .harness import Column, Scenario, State
from .peers import app, app_context, bare_wrapt, both, ours, request_context

POLICY = Policy()
IN_REGISTER = app.app_context()
TASK: t.Literal["task"] = "task"
IN_A_WORKER = contextvars.Context().run
"""Calls where no context is active, as in a pool's worker; its own 30 ns are counted as ours."""


def task() -> None:
    pass


def _capture_and_replay() -> None:
    snapshot = capture(_active(), POLICY)
    assert snapshot is not None
    IN_A_WORKER(replay, snapshot, task, (), {})


def _active() -> t.Any:
    return flask_context.active()


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
        Column("ours, request + session", _capture_and_replay, _with_entries(0, 0)),
        Column("ours, request + session + 5 entries", _capture_and_replay, _with_entries(5, 0)),
        Column("ours, the same, 2 of them objects", _capture_and_replay, _with_entries(3, 2)),
        Column("ours, request + session + 50 entries", _capture_and_replay, _with_entries(50, 0)),
        Column("ours, the same, 20 of them objects", _capture_and_replay, _with_entries(30, 20)),
        Column("copy_current_request_context", _copy_current_request_context, request_context),
        Column("copy_context().run", _copy_context, request_context),
    ]


def _with_entries(plain: int, objects: int) -> State:
    return functools.partial(request_context, plain, objects)


def _part_columns() -> list[Column]:
    """What `capture` and a replay consist of, each part as it grows by what is inherited."""
    columns = [
        Column("with app.app_context(): pass", _own_context, app_context),
        Column("Flask: app_context(), push(), pop() without its teardown", _push_and_pop, app_context),
    ]
    contexts: dict[str, State] = {
        "app context only": app_context,
        "request + session": _with_entries(0, 0),
        "request + session + 5 plain": _with_entries(5, 0),
        "request + session + 5 objects": _with_entries(0, 5),
    }
    for name, context in contexts.items():
        columns.append(Column(f"capture, {name}", lambda: capture(_active(), POLICY), context))
    taken: list[Snapshot] = []
    for name, context in contexts.items():
        state = functools.partial(_snapshot_taken, context, taken)
        columns.append(Column(f"enter and leave, {name}", lambda: IN_A_WORKER(_enter_and_leave, taken[0]), state))
        columns.append(Column(f"replay, {name}", lambda: IN_A_WORKER(replay, taken[0], task, (), {}), state))
    state = functools.partial(_snapshot_taken, app_context, taken)
    columns.append(Column("nothing, called in a worker", lambda: IN_A_WORKER(_not_at_all, taken[0]), state))
    columns.append(Column("the register of running()", lambda: IN_A_WORKER(_register, taken[0]), state))
    columns.append(Column("does anybody listen?", lambda: IN_A_WORKER(_listeners, taken[0]), state))
    return columns


def _register(snapshot: Snapshot) -> None:
    # What a replay does for it, in the same words.
    ctx, fn, shown, kind = IN_REGISTER, task, None, TASK
    entry = replays[ctx] = get_ident(), monotonic(), snapshot, fn if shown is None else shown, kind
    del replays[ctx]
    del entry


def _not_at_all(snapshot: Snapshot) -> None:
    pass


def _listeners(snapshot: Snapshot) -> None:
    if inherited_receivers:
        raise AssertionError
    if released_receivers or overdue:
        raise AssertionError


@contextlib.contextmanager
def _snapshot_taken(context: State, taken: list[Snapshot]) -> Iterator[None]:
    with context():
        snapshot = capture(_active(), POLICY)
        assert snapshot is not None
        taken[:] = [snapshot]
        yield


def _push_and_pop() -> None:
    ctx: t.Any = app.app_context()
    ctx.push()
    if hasattr(ctx, "_cv_tokens"):
        ctx._cv_tokens.insert(0, None)
    ctx.pop(None)


def _enter_and_leave(snapshot: Snapshot) -> None:
    ctx, token = flask_context.enter(app, snapshot.lent, task)
    flask_context.leave(ctx, token, None, task)


def _growth_columns() -> list[Column]:
    columns = [Column("with app.app_context(): pass", _own_context, app_context)]
    for n in (0, 1, 2, 5, 10, 20, 50, 100):
        columns.append(Column(f"{n} plain", _capture_and_replay, _with_entries(n, 0)))
    for n in (10, 50):
        columns.append(Column(f"{n} objects", _capture_and_replay, _with_entries(0, n)))
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


def _thread_pool() -> ThreadPool:
    pool = ThreadPool(1)
    atexit.register(pool.terminate)
    return pool


_INSTANCES: dict[type, Callable[[], object]] = {
    threading.Thread: threading.Thread,
    ThreadPoolExecutor: ThreadPoolExecutor,
    Future: Future,
    ThreadPool: _thread_pool,
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
    Scenario("parts", "The parts of capture and replay", "with app.app_context(): pass", _part_columns),
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
