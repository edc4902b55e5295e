"""What carries a snapshot from where it was taken to where it is replayed: a wrapped callable, a thread's ``run``."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from types import MethodType

import wrapt
from flask import Flask

from . import flask_context
from .replay import replay
from .snapshot import Snapshot
from .suppression import P, R

if t.TYPE_CHECKING:
    _Proxy = wrapt.BaseObjectProxy[Callable[..., t.Any]]
else:
    _Proxy = wrapt.BaseObjectProxy


class BoundCallable(_Proxy):
    """A callable bound to a snapshot, which it replays at each call. Looks like the callable: it is a wrapt proxy."""

    # With slots, and without an __init__ of its own, one is made in 160 ns instead of 360, and has no dictionary.
    __slots__ = ("_self_snapshot",)

    _self_snapshot: t.Any  # a Snapshot; None where nothing is inherited, and once a BoundTask has run

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        snapshot = self._self_snapshot
        try:
            if snapshot is None:
                return self.__wrapped__(*args, **kwargs)
            return replay(snapshot, self.__wrapped__, args, kwargs)
        finally:
            # See `replay`: a kept exception keeps this frame.
            del self, args, kwargs, snapshot


class BoundTask(BoundCallable):
    """The same for a callable that runs once: it lets go of the snapshot when it runs."""

    __slots__ = ()

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            snapshot, self._self_snapshot = self._self_snapshot, None
            if snapshot is None:
                return self.__wrapped__(*args, **kwargs)
            return replay(snapshot, self.__wrapped__, args, kwargs)
        finally:
            del self, args, kwargs, snapshot


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


def bind(fn: Callable[P, R], snapshot: Snapshot) -> Callable[P, R]:
    """*fn*, replaying *snapshot* at each call."""
    return t.cast("Callable[P, R]", bind_to(BoundCallable, fn, snapshot))


def bind_once(fn: Callable[P, R], snapshot: Snapshot) -> Callable[P, R]:
    """*fn*, replaying *snapshot* at its first call."""
    return t.cast("Callable[P, R]", bind_to(BoundTask, fn, snapshot))


def bind_callback(fn: Callable[..., t.Any], snapshot: Snapshot) -> BoundCallback:
    """*fn*, replaying *snapshot* at its first call unless that comes from this thread before ``_self_added()``."""
    callback = bind_to(BoundCallback, fn, snapshot)
    callback._self_adder = threading.get_ident()
    return callback


class Lease:
    """A snapshot on its way to another thread, for things that are no callables. `let_go` empties it wherever it is."""

    __slots__ = ("__weakref__", "_self_snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self._self_snapshot = snapshot


def let_go(*bound: BoundCallable | Lease) -> None:
    """Release the snapshots of what will not be used again."""
    for each in bound:
        each._self_snapshot = None


Bound = t.TypeVar("Bound", bound=BoundCallable)


def bind_to(kind: type[Bound], fn: Callable[..., t.Any], snapshot: Snapshot | None) -> Bound:
    """*fn*, bound to *snapshot* by a callable of the given *kind*."""
    bound = kind(fn)
    bound._self_snapshot = snapshot
    return bound


KEY = "_flaskthreads_autopatch"
"""In the ``__dict__`` of a thread that has not run yet: what it keeps."""


def target_of(thread: threading.Thread) -> t.Any:
    """What *thread* calls in the end: the target, the function of a timer; None if that is its class's ``run``."""
    state = thread.__dict__
    target = state.get("_target")
    return state.get("function") if target is None else target


Holds = Callable[[Flask, threading.Thread], object]


class BoundRun:
    """Stands in for ``run`` in a thread's ``__dict__`` until the thread runs, and replays a snapshot around it.

    In the instance, because a patch of ``Thread.run`` is bypassed by every subclass with a ``run`` of its own (H20). As
    a method whose ``__func__`` takes the thread, because that is what Sentry calls.
    """

    __slots__ = ("covered", "explicit", "holds", "snapshot")

    def __init__(self, snapshot: Snapshot | None, explicit: bool = False, holds: Holds | None = None) -> None:
        self.snapshot = snapshot
        self.explicit = explicit
        """Bound by `AppContextThread`: the patches leave it alone."""
        self.holds = holds
        """Called with the app and the thread when it runs; the snapshot is used only if the result is true."""
        self.covered: Callable[[], object] | None = None

    def __call__(self, thread: threading.Thread) -> object:
        run = _run_of_class(thread) if self.covered is None else self.covered
        if (ident := _ident(thread)) != threading.get_ident():
            # Code has called run() itself, as a start() that bypasses threading's does, so the caller's context is the
            # one that counts. Nothing else would release the snapshot.
            if ident is None:
                self.snapshot = None
                self._remove_from(thread)
            return run()
        snapshot, self.snapshot = self.snapshot, None
        self._remove_from(thread)
        try:
            if snapshot is None or (self.holds is not None and not self.holds(snapshot.app, thread)):
                return run()
            return replay(snapshot, run, (), {}, "thread", target_of(thread))
        finally:
            del self, thread, run, snapshot

    def _remove_from(self, thread: threading.Thread) -> None:
        state = thread.__dict__
        if state.get(KEY) is self:
            del state[KEY]
        if _is_method_of(state.get("run"), self):
            _put(state, "run", self.covered)


# Not by the attribute: a subclass may number its threads in its own way.
_ident: Callable[[threading.Thread], int | None] = t.cast(t.Any, threading.Thread.ident).fget


def keep(thread: threading.Thread, bound: BoundRun) -> None:
    """Have *thread* keep *bound* until it is started: not yet as its ``run``, which would refer to the thread."""
    thread.__dict__[KEY] = bound


def kept(thread: threading.Thread) -> BoundRun | None:
    """What a thread that has not run yet keeps, or has as its ``run``."""
    return thread.__dict__.get(KEY)


def bind_run(thread: threading.Thread, bound: BoundRun) -> Callable[[], None]:
    """Have *thread* run through *bound*, once, in the place of what it kept or was bound to before.

    Returns a function that leaves the thread as it was, for a ``start()`` that fails.
    """
    state = thread.__dict__
    run, before = state.get("run"), kept(thread)
    old_snapshot = None
    if before is not None and before is not bound:
        # Somebody's run may have come to lie over the old one: once it is empty, it passes through.
        old_snapshot, before.snapshot = before.snapshot, None
    if type(thread) is not threading.Thread and hasattr(type(_in_class(thread)), "__set__"):
        # A property, or a slot: it comes before the __dict__, and whatever lies in there would stay for ever.
        state.pop(KEY, None)
    else:
        bound.covered = before.covered if before is not None and _is_method_of(run, before) else run
        state["run"] = MethodType(bound, thread)
        state[KEY] = bound

    def undo() -> None:
        if before is not None and before is not bound:
            before.snapshot = old_snapshot
        _put(state, KEY, before)
        _put(state, "run", run)

    return undo


def _run_of_class(thread: threading.Thread) -> Callable[[], object]:
    """``thread.run``, as if its ``__dict__`` had none: a class may have a static method there, or a mock."""
    run = _in_class(thread)
    return t.cast("Callable[[], object]", run.__get__(thread, type(thread)) if hasattr(type(run), "__get__") else run)


def _in_class(thread: threading.Thread) -> t.Any:
    for base in type(thread).__mro__:
        if "run" in base.__dict__:
            break
    return base.__dict__["run"]


def _is_method_of(run: object, bound: BoundRun) -> bool:
    return type(run) is MethodType and run.__func__ is bound


def _put(state: dict[str, t.Any], name: str, value: object) -> None:
    if value is None:
        state.pop(name, None)
    else:
        state[name] = value
