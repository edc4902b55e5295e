"""Callables that are bound to a snapshot, which they replay when they are called."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import wrapt

from ..replay import replay
from ..snapshot import Snapshot
from ..suppression import P, R
from ..visibility.registry import Kind
from ..wrapped import wrapped_by

if t.TYPE_CHECKING:
    _Proxy = wrapt.BaseObjectProxy[Callable[..., t.Any]]
else:
    _Proxy = wrapt.BaseObjectProxy


class BoundCallable(_Proxy):
    """A callable that replays a snapshot at each call. It looks like the callable: it is a wrapt proxy."""

    # With slots, and without an __init__(), it is made in 160 ns instead of 360, and has no dictionary.
    __slots__ = ("_self_snapshot",)

    _self_snapshot: t.Any  # A Snapshot; None if nothing is inherited, and once the snapshot has been released.

    def __repr__(self) -> str:
        return repr(self.__wrapped__)  # The repr of a greenlet shows it.

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        snapshot = self._self_snapshot
        try:
            if snapshot is None:
                return self.__wrapped__(*args, **kwargs)
            return replay(snapshot, wrapped_by(self), args, kwargs)
        finally:
            del self, args, kwargs, snapshot  # See `replay`.


class BoundTask(BoundCallable):
    """A callable that is called once, with a snapshot that it replays then, and releases."""

    __slots__ = ()

    _self_kind: t.ClassVar[Kind] = "task"
    """What `running` calls its replay."""

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            snapshot, self._self_snapshot = self._self_snapshot, None
            if snapshot is None:
                return self.__wrapped__(*args, **kwargs)
            return replay(snapshot, wrapped_by(self), args, kwargs, type(self)._self_kind)
        finally:
            del self, args, kwargs, snapshot


def bind(fn: Callable[P, R], snapshot: Snapshot) -> Callable[P, R]:
    """Return *fn*, replaying *snapshot* at each call."""
    bound = BoundCallable(fn)
    bound._self_snapshot = snapshot
    return bound


def bind_once(fn: Callable[P, R], snapshot: Snapshot) -> Callable[P, R]:
    """Return *fn*, replaying *snapshot* at its first call."""
    bound = BoundTask(fn)
    bound._self_snapshot = snapshot
    return bound


class Lease:
    """A snapshot on its way to another thread, for what is no callable. `release` empties it, wherever it is."""

    __slots__ = ("__weakref__", "_self_snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self._self_snapshot = snapshot


def release(*bound: BoundCallable | Lease) -> None:
    """Release the snapshots of callables and leases that will not be used again."""
    for each in bound:
        each._self_snapshot = None


Bound = t.TypeVar("Bound", bound=BoundCallable)


def bind_to(kind: type[Bound], fn: Callable[..., t.Any], snapshot: Snapshot | None) -> Bound:
    """Return *fn*, bound to *snapshot* by a callable of the given *kind*."""
    bound = kind(fn)
    bound._self_snapshot = snapshot
    return bound
