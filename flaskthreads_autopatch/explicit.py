"""The explicit API, which works with the patches or without them: a thread, an executor, and a callable."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import CO_COROUTINE
from types import FunctionType, MethodType

from flask import Flask

from . import flask_context
from .capture import capture
from .clean_context import clean_context
from .patching.bound import bind, bind_once
from .patching.bound_run import BoundRun, ExplicitRun, bind_run, bound_to, is_started, keep, kept, unbind_run
from .patching.lazy_map import current, map_lazily
from .snapshot import Snapshot
from .suppression import THREADS_INHERIT_CONTEXT, P, R, suppress_inheritance
from .switch import EXTENSION, policy_or_default


def _snapshot_or_none() -> Snapshot | None:
    ctx = flask_context.active()
    if ctx is None:
        return None
    # The policy of an installed app is looked up here, which takes two calls less.
    return capture(ctx, ctx.app.extensions.get(EXTENSION) or policy_or_default(ctx.app))


def _refuse(what: str) -> t.NoReturn:
    raise RuntimeError(
        f"{what} needs an app context to inherit, and none is active here. Call it in a view or a command, or in"
        " 'with app.app_context():'; what needs no context can use the standard library's class. (The teardown of"
        " an inherited context is not a place to inherit from.)"
    )


def _start_clean(start: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    # A thread that is started here must not get the contexts from Python itself: a pool's worker would keep them (H15).
    return clean_context().run(start, *args, **kwargs) if THREADS_INHERIT_CONTEXT else start(*args, **kwargs)


class AppContextThread(threading.Thread):
    """A `threading.Thread` that runs in an app context of its own, filled from the one it was started in.

    Takes what `threading.Thread` takes. The context is captured when the thread is made and, if one is active
    there, again at ``start()``. Raises `RuntimeError` if it is made outside of an app context.
    """

    if not t.TYPE_CHECKING:  # Type checkers see the parameters of Thread.

        def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
            snapshot = _snapshot_or_none() or _refuse("AppContextThread")
            with suppress_inheritance():  # The patches would capture a second time.
                super().__init__(*args, **kwargs)
            keep(self, bound_to(snapshot, ExplicitRun))

    def start(self) -> None:
        """Start the thread, in the app context that is active here or else in the one it was made in."""
        if is_started(self):
            return super().start()  # which raises
        bound: BoundRun | None = kept(self)
        snapshot = _snapshot_or_none()
        if snapshot is not None:
            bound = bound_to(snapshot, ExplicitRun)
        undo = None if bound is None else bind_run(self, bound)
        try:
            _start_clean(super().start)
        except Exception:
            if undo is not None:
                unbind_run(self, undo)
            raise


class ThreadPoolWithAppContextExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose tasks each run in an app context of their own.

    Takes what `ThreadPoolExecutor` takes. A task inherits the app context that is active at ``submit()`` (or
    ``map()``), else the one that was active when the executor was made, which the executor keeps for that.
    """

    _made_in: Snapshot | None
    _is_shut_down: bool

    if not t.TYPE_CHECKING:  # Type checkers see the parameters of ThreadPoolExecutor.

        def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
            super().__init__(*args, **kwargs)
            self._made_in = _snapshot_or_none()
            self._is_shut_down = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule ``fn(*args, **kwargs)``. Raises `RuntimeError` if there is no app context to inherit."""
        if self._is_shut_down:
            return super().submit(fn, *args, **kwargs)  # which raises
        snapshot = lazy.snapshot if (lazy := current()) is not None else None
        snapshot = snapshot or self._snapshot("submit")
        return _start_clean(super().submit, bind_once(fn, snapshot), *args, **kwargs)

    def map(self, fn: Callable[..., R], *iterables: Iterable[t.Any], **options: t.Any) -> Iterator[R]:
        """Schedule *fn* for each item, as `ThreadPoolExecutor.map` does, in one context even if that submits lazily."""
        if options.get("buffersize") is None or self._is_shut_down:
            return super().map(fn, *iterables, **options)
        return map_lazily(self._snapshot("map"), super().map, (fn, *iterables), options)

    def _snapshot(self, method: str) -> Snapshot:
        return _snapshot_or_none() or self._made_in or _refuse(f"ThreadPoolWithAppContextExecutor.{method}()")

    def shutdown(self, *args: t.Any, **kwargs: t.Any) -> None:
        """Accept no more tasks, as `ThreadPoolExecutor.shutdown` does, and release the context that it was made in."""
        self._is_shut_down = True
        super().shutdown(*args, **kwargs)
        # The traceback of an exception that a future keeps refers to the executor, by the frame of the worker.
        self._made_in = None


def copy_current_app_context(fn: Callable[P, R]) -> Callable[P, R]:
    """Return *fn*, to be called anywhere, any number of times, in an app context of its own filled from the active one.

    For any API that runs callables; named after Flask's ``copy_current_request_context``. An ``async def`` is run to
    its end, as Flask runs an async view. Raises `RuntimeError` outside of an app context.
    """
    snapshot = _snapshot_or_none() or _refuse("copy_current_app_context()")
    ensure_sync = snapshot.app.ensure_sync
    # Flask's own asks inspect whether the function is async, which takes as long as a fifth of a context. Of a plain
    # function without attributes, its code says so.
    is_plain = type(fn) is FunctionType and not fn.__code__.co_flags & CO_COROUTINE and not fn.__dict__
    # A wrapt proxy, which another patcher may have put around it, shows the __func__ of what it wraps.
    if not is_plain or type(ensure_sync) is not MethodType or ensure_sync.__func__ is not _FLASKS_ENSURE_SYNC:
        fn = ensure_sync(fn)
    return bind(fn, snapshot)


_FLASKS_ENSURE_SYNC = Flask.ensure_sync
