"""`concurrent.futures`: the wrappers of ``submit()``, ``map()`` and ``add_done_callback()``, and what they bind."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures.thread import ThreadPoolExecutor

from .. import flask_context
from ..flask_context import active
from ..replay import replay
from ..snapshot import Snapshot
from ..suppression import starting_workers
from .bound import BoundCallable, BoundTask, bind_once, bind_to
from .layers import PatchPoint
from .lazy_map import IS_LAZY, current, map_lazily, reading
from .providing import gate, provided_to_task, providers, snapshot_here
from .wrappers import Args, Kwargs, PolicyFor, Wrapped, snapshot_for

_prepare_context = getattr(ThreadPoolExecutor, "prepare_context", None)


def _runs_in_threads(pool: ThreadPoolExecutor) -> bool:
    # Since 3.14 InterpreterPoolExecutor is a subclass, whose tasks must be shareable with another interpreter.
    prepare_context = getattr(type(pool), "prepare_context", None)
    return getattr(prepare_context, "__func__", None) is getattr(_prepare_context, "__func__", None)


_ADD_WORKER = "_adjust_thread_count"
_add_worker = getattr(ThreadPoolExecutor, _ADD_WORKER, None)


def _submit(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if (ctx is None and not reading and not providers) or not args:
        return wrapped(*args, **kwargs)
    if not (_prepare_context is None or _runs_in_threads(pool)):
        return wrapped(*args, **kwargs)
    fn, rest = args[0], args[1:]
    if reading and (lazy := current()) is not None:
        snapshot = None if issubclass(type(fn), BoundCallable) else lazy.snapshot
    else:
        snapshot = provided_to_task(fn, rest) if ctx is None else snapshot_for(policy_for, ctx, fn, rest)
    if snapshot is not None:
        args = (bind_once(fn, snapshot), *rest)
    if type(pool) is ThreadPoolExecutor and getattr(ThreadPoolExecutor, _ADD_WORKER, None) is _add_worker:
        return wrapped(*args, **kwargs)  # A thread that is started here is the standard library's own worker.
    return starting_workers(wrapped, *args, **kwargs)


def _executor_map(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if kwargs.get("buffersize") is None or not args or current() is not None:
        return wrapped(*args, **kwargs)
    # Nothing is kept in a variable: an exception that is kept, as one of the items', keeps this frame.
    return map_lazily(snapshot_here(policy_for, args[0]), wrapped, args, kwargs)


def _add_done_callback(policy_for: PolicyFor, wrapped: Wrapped, future: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if len(args) + len(kwargs) != 1 or (fn := args[0] if args else kwargs.get("fn")) is None:
        return wrapped(*args, **kwargs)
    if (snapshot := provided_to_task(fn) if ctx is None else snapshot_for(policy_for, ctx, fn)) is None:
        return wrapped(*args, **kwargs)
    callback = bind_callback(fn, snapshot)
    if ctx is None:
        callback._self_added()  # Called here and now, it has no context to run in either.
    try:
        return wrapped(callback)
    finally:
        callback._self_added()


class BoundCallback(BoundTask):
    """A future's callback, bound to a snapshot that it replays at its first call.

    Without this library it runs in the app context that is active where it is called: in the adder's own, if the future
    was done already, or if the adder sets the result itself; in that of a view that cancels the future. There it still
    does, and nothing is torn down (H27). The snapshot is replayed in a pool's worker, and in a context that other code
    has inherited.
    """

    __slots__ = ("_self_adder",)

    _self_adder: int | None

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        ctx = None
        try:
            snapshot, self._self_snapshot = self._self_snapshot, None
            ctx = flask_context.active()
            if (
                snapshot is None
                or self._self_adder == threading.get_ident()
                or (ctx is not None and (not flask_context.is_inherited(ctx) or ctx is snapshot.parent()))
            ):
                return self.__wrapped__(*args, **kwargs)
            return replay(snapshot, self.__wrapped__, args, kwargs, "callback")
        finally:
            del self, args, kwargs, snapshot, ctx

    def _self_added(self) -> None:
        self._self_adder = None


def bind_callback(fn: Callable[..., t.Any], snapshot: Snapshot) -> BoundCallback:
    """Return *fn*, replaying *snapshot* at its first call, unless this thread makes it before ``_self_added()``."""
    callback = bind_to(BoundCallback, fn, snapshot)
    callback._self_adder = threading.get_ident()
    return callback


POINTS: tuple[PatchPoint, ...] = (
    # A lazy map submits while its results are read, which may be where no context is active.
    PatchPoint("concurrent.futures.thread", "ThreadPoolExecutor.submit", _submit, *(() if IS_LAZY else (gate,))),
    *((PatchPoint("concurrent.futures._base", "Executor.map", _executor_map),) if IS_LAZY else ()),
    PatchPoint("concurrent.futures._base", "Future.add_done_callback", _add_done_callback, gate),
)
