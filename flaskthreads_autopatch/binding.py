"""What carries a snapshot from where it was taken to where it is replayed: a wrapped callable, a thread's ``run``."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from types import MethodType

import wrapt
from flask import Flask

from .snapshot import P, R, Snapshot

if t.TYPE_CHECKING:
    _Proxy = wrapt.BaseObjectProxy[Callable[..., t.Any]]
else:
    _Proxy = wrapt.BaseObjectProxy


class BoundCallable(_Proxy):
    """A callable bound to a snapshot, which it replays at each call. Looks like the callable: it is a wrapt proxy."""

    def __init__(self, fn: Callable[..., t.Any], snapshot: Snapshot | None) -> None:
        super().__init__(fn)
        self._self_snapshot = snapshot

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            snapshot = self._self_take()
            if snapshot is None:
                return self.__wrapped__(*args, **kwargs)
            return snapshot.run(self.__wrapped__, *args, **kwargs)
        finally:
            # See Snapshot.run: a kept exception keeps this frame.
            del self, args, kwargs, snapshot

    def _self_take(self) -> Snapshot | None:
        return self._self_snapshot


class BoundTask(BoundCallable):
    """The same for a callable that runs once: it lets go of the snapshot when it runs."""

    def _self_take(self) -> Snapshot | None:
        snapshot, self._self_snapshot = self._self_snapshot, None
        return snapshot


class BoundCallback(BoundTask):
    """The same for a callback, which is called by whoever adds it if the future is done already.

    Then it runs where it would have run without us: in the adder's own context.
    """

    def __init__(self, fn: Callable[..., t.Any], snapshot: Snapshot) -> None:
        super().__init__(fn, snapshot)
        self._self_adder: int | None = threading.get_ident()

    def _self_added(self) -> None:
        self._self_adder = None

    def _self_take(self) -> Snapshot | None:
        snapshot = super()._self_take()
        return None if self._self_adder == threading.get_ident() else snapshot


class BoundEnd(BoundTask):
    """The same for what is called when all is done: then each of the *others* lets go of its snapshot too."""

    def __init__(self, fn: Callable[..., t.Any], snapshot: Snapshot | None, others: list[BoundCallable]) -> None:
        super().__init__(fn, snapshot)
        self._self_others = others

    def _self_take(self) -> Snapshot | None:
        while self._self_others:
            self._self_others.pop()._self_snapshot = None
        return super()._self_take()


def bind_with_ends(
    fns: list[Callable[..., t.Any] | None], snapshots: list[Snapshot | None]
) -> tuple[BoundCallable, BoundEnd, BoundEnd]:
    """A function that a pool calls, its callback and its error callback, each bound to its snapshot.

    Of the callbacks one is called at the end, and the result keeps both; a result that is an exception keeps, by its
    traceback, the function. So both are there, whether they were given or not, and the one called lets all go.
    """
    func, callback, error_callback = (fn or _do_nothing for fn in fns)
    bound = BoundCallable(func, snapshots[0])
    end = BoundEnd(callback, snapshots[1], [bound])
    error_end = BoundEnd(error_callback, snapshots[2], [bound, end])
    end._self_others.append(error_end)
    return bound, end, error_end


def _do_nothing(outcome: object) -> None:
    """A callback."""


def bind(fn: Callable[P, R], snapshot: Snapshot) -> Callable[P, R]:
    """*fn*, replaying *snapshot* at each call."""
    return t.cast("Callable[P, R]", BoundCallable(fn, snapshot))


_KEY = "_flaskthreads_autopatch"


class BoundRun:
    """Stands in for ``run`` in a thread's ``__dict__`` until the thread runs, and replays a snapshot around it.

    In the instance, because a patch of ``Thread.run`` is bypassed by every subclass with a ``run`` of its own (H20). As
    a method whose ``__func__`` takes the thread, because that is what Sentry calls.
    """

    __slots__ = ("covered", "explicit", "holds", "snapshot")

    def __init__(
        self,
        snapshot: Snapshot | None,
        covered: Callable[[], object] | None,
        explicit: bool,
        holds: Callable[[Flask], object] | None,
    ) -> None:
        self.snapshot = snapshot
        self.covered = covered
        self.explicit = explicit
        self.holds = holds

    def __call__(self, thread: threading.Thread) -> object:
        run = MethodType(type(thread).run, thread) if self.covered is None else self.covered
        if thread.ident != threading.get_ident():
            return run()  # run() without start(): the caller's own context is the one that counts
        snapshot, self.snapshot = self.snapshot, None
        self._remove_from(thread)
        try:
            if snapshot is None or (self.holds is not None and not self.holds(snapshot.app)):
                return run()
            return snapshot.run(run)
        finally:
            del self, thread, run, snapshot

    def _remove_from(self, thread: threading.Thread) -> None:
        state = thread.__dict__
        if state.get(_KEY) is self:
            del state[_KEY]
        if _is_method_of(state.get("run"), self):
            _put(state, "run", self.covered)


def bind_run(
    thread: threading.Thread,
    snapshot: Snapshot | None,
    *,
    explicit: bool = False,
    holds: Callable[[Flask], object] | None = None,
) -> Callable[[], None]:
    """Have *thread* replay *snapshot* around its ``run``, once, in the place of what was bound before.

    *explicit*: bound by `AppContextThread`; the patches leave it alone. *holds* is asked with the app when the thread
    runs, and the snapshot counts only if the answer is true. Returns a function that leaves the thread as it was.
    """
    state = thread.__dict__
    run, bound = state.get("run"), bound_run(thread)
    covered = bound.covered if bound is not None and _is_method_of(run, bound) else run
    state[_KEY] = new = BoundRun(snapshot, covered, explicit, holds)
    state["run"] = MethodType(new, thread)
    old_snapshot = None
    if bound is not None:
        # Somebody's run may have come to lie over the old one: once it is empty, it passes through.
        old_snapshot, bound.snapshot = bound.snapshot, None

    def undo() -> None:
        if bound is not None:
            bound.snapshot = old_snapshot
        _put(state, _KEY, bound)
        _put(state, "run", run)

    return undo


def bound_run(thread: threading.Thread) -> BoundRun | None:
    """What is bound to the ``run`` of a thread that has not run yet."""
    return thread.__dict__.get(_KEY)


def _is_method_of(run: object, bound: BoundRun) -> bool:
    return type(run) is MethodType and run.__func__ is bound


def _put(state: dict[str, t.Any], name: str, value: object) -> None:
    if value is None:
        state.pop(name, None)
    else:
        state[name] = value
