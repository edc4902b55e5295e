"""What a thread runs: a snapshot is bound to the ``run`` of one thread, and replayed around it."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from types import FunctionType, MethodType

from ..replay import replay
from ..snapshot import Snapshot

KEY = "_flaskthreads_autopatch"
"""The name under which a thread that has not run yet has its `BoundRun`, in its ``__dict__``."""


def target_of(thread: threading.Thread) -> t.Any:
    """Return what *thread* calls: its target, or a timer's function; None if that is the ``run`` of its class."""
    state = thread.__dict__
    target = state.get("_target")
    return state.get("function") if target is None else target


class BoundRun:
    """Stands in for ``run`` in a thread's ``__dict__`` until the thread runs, and replays a snapshot around it.

    It is bound to the instance, because a patch of ``Thread.run`` is bypassed by every subclass that defines ``run``
    (H20). It is bound as a method whose ``__func__`` takes the thread, because that is what Sentry calls.
    """

    __slots__ = ("replaced", "snapshot")

    snapshot: Snapshot | None
    replaced: Callable[[], object] | None
    """The ``run`` that was in the thread's ``__dict__`` before; None if there was none."""

    explicit: t.ClassVar[bool] = False
    """Whether `AppContextThread` has bound it. The patches then leave it alone."""

    may_inherit: t.ClassVar[t.Any] = None
    """A method that is called with the app and the thread when it runs. If the result is false, the snapshot is not
    used. None stands for a method that returns True."""

    def __call__(self, thread: threading.Thread) -> object:
        run = self.replaced
        if run is None:
            run = _run_of_class(thread)
        if (ident := _ident(thread)) != threading.get_ident():
            # Other code has called run() itself, as a start() that bypasses threading's does. The context of that code
            # counts.
            if ident is None:
                # The thread has not been started by threading, so nothing else would release the snapshot.
                self.snapshot = None
                self._remove_from(thread)
            return run()
        snapshot, self.snapshot = self.snapshot, None
        self._remove_from(thread)
        try:
            if snapshot is None or (self.may_inherit is not None and not self.may_inherit(snapshot.app, thread)):
                return run()
            return replay(snapshot, run, (), {}, "thread", target_of(thread))
        finally:
            del self, thread, run, snapshot  # See `replay`.

    def _remove_from(self, thread: threading.Thread) -> None:
        state = thread.__dict__
        if state.get(KEY) is self:
            del state[KEY]
        run = state.get("run")
        if type(run) is MethodType and run.__func__ is self:
            if self.replaced is None:
                del state["run"]
            else:
                state["run"] = self.replaced


class ExplicitRun(BoundRun):
    """What `AppContextThread` binds."""

    __slots__ = ()

    explicit = True


Bound = t.TypeVar("Bound", bound=BoundRun)


def bound_to(snapshot: Snapshot | None, kind: type[Bound]) -> Bound:
    """Return a binding of *snapshot*, of the given *kind*. (An ``__init__()`` would take twice as long.)"""
    bound = kind()
    bound.snapshot = snapshot
    bound.replaced = None
    return bound


# This is the property of the base class, because a subclass may define an ident of its own.
_ident: Callable[[threading.Thread], int | None] = t.cast(t.Any, threading.Thread.ident).fget


def is_started(thread: t.Any) -> bool:
    """Return whether *thread* has been started, so that ``start()`` will fail.

    Its ``run`` may be about to be called. What is bound to it must not be taken away for a start that fails.
    """
    # The first question is answered without a call, and nearly always by None.
    return thread.__dict__.get("_ident") is not None and thread._started.is_set()


def keep(thread: threading.Thread, bound: BoundRun) -> None:
    """Have *thread* keep *bound* until it is started. Only then does *bound* become its ``run``.

    As ``run`` it is a bound method, which refers to the thread: a thread that is never started would be a cycle.
    """
    thread.__dict__[KEY] = bound


def kept(thread: threading.Thread) -> BoundRun | None:
    """Return the `BoundRun` that *thread* keeps, or has as its ``run``; None if it has none, or has run."""
    return thread.__dict__.get(KEY)


Before = tuple[t.Any, "BoundRun | None", "Snapshot | None"]
"""What a thread had before `bind_run`: its own ``run``, its `BoundRun`, and the snapshot of that."""


def bind_run(thread: threading.Thread, bound: BoundRun) -> Before:
    """Have *thread* run through *bound*, once, instead of what it kept or was bound to before.

    If ``start()`` then fails, pass the result to `unbind_run`.
    """
    state = thread.__dict__
    run, kept_before = state.get("run"), state.get(KEY)
    snapshot = None
    if kept_before is not None and kept_before is not bound:
        # Other code may have wrapped the previous binding. Without a snapshot it just calls through.
        snapshot, kept_before.snapshot = kept_before.snapshot, None
    if type(thread) is not threading.Thread and hasattr(type(_in_class(thread)), "__set__"):
        # `run` is a data descriptor (a property or a slot) and takes precedence over the instance's __dict__: a binding
        # that is stored there would never run, and never be removed.
        state.pop(KEY, None)
    else:
        is_ours = kept_before is not None and type(run) is MethodType and run.__func__ is kept_before
        bound.replaced = kept_before.replaced if kept_before is not None and is_ours else run
        state["run"] = MethodType(bound, thread)
        state[KEY] = bound
    return run, kept_before, snapshot


def unbind_run(thread: threading.Thread, before: Before) -> None:
    """Leave *thread* as it was before `bind_run`."""
    run, kept_before, snapshot = before
    if kept_before is not None and snapshot is not None:
        kept_before.snapshot = snapshot
    _put(thread.__dict__, KEY, kept_before)
    _put(thread.__dict__, "run", run)


def _run_of_class(thread: threading.Thread) -> Callable[[], object]:
    """Return ``thread.run`` as the class defines it. That may also be a static method, or a mock."""
    run = _in_class(thread)
    if type(run) is FunctionType:
        return MethodType(run, thread)
    return t.cast("Callable[[], object]", run.__get__(thread, type(thread)) if hasattr(type(run), "__get__") else run)


def _in_class(thread: threading.Thread) -> t.Any:
    for base in type(thread).__mro__:
        if "run" in base.__dict__:
            break
    return base.__dict__["run"]


def _put(state: dict[str, t.Any], name: str, value: object) -> None:
    if value is None:
        state.pop(name, None)
    else:
        state[name] = value
