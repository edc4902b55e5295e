"""``Executor.map(..., buffersize=)``, since Python 3.14: one context for the whole map, the one at ``map()`` (H34).

Such a map submits while its results are read, in whatever context reads them. While it does, a context variable says to
which map the tasks belong, so that they are bound to that map's snapshot; or to none, if there was no context at
``map()``. The function itself is not bound: an executor may run it in place, or submit a function of its own around it.
"""

from __future__ import annotations

import contextvars
import inspect
import typing as t
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from threading import get_ident

from ..snapshot import Snapshot

IS_LAZY = "buffersize" in inspect.signature(Executor.map).parameters


class LazyMap:
    """A map that submits while it is read, and what its tasks inherit."""

    __slots__ = ("reader", "snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.reader: int | None = None
        """The thread that reads a result right now. Others can have inherited the context variable from it."""


reading: list[LazyMap] = []
"""The maps that submit right now, in any thread. Nearly always empty, so that a ``submit()`` need not ask further."""

_current: contextvars.ContextVar[LazyMap | None] = contextvars.ContextVar("flaskthreads_autopatch.map", default=None)


def current() -> LazyMap | None:
    """Return the map that submits here, or None."""
    lazy = _current.get()
    return lazy if lazy is not None and lazy.reader == get_ident() else None


def map_lazily(
    snapshot: Snapshot | None, map_: Callable[..., t.Any], args: t.Any, kwargs: dict[str, t.Any]
) -> Iterator[t.Any]:
    """Return the results of ``map_(*args, **kwargs)``, whose tasks all inherit *snapshot*."""
    lazy, snapshot = LazyMap(snapshot), None
    try:
        results = _read(lazy, map_, args[0], *map(_Outside, args[1:]), **kwargs)
    except BaseException:
        lazy.snapshot = None
        raise
    return _results(lazy, results)


def _results(lazy: LazyMap, results: t.Any) -> Iterator[t.Any]:
    try:
        while True:
            try:
                yield _read(lazy, next, results)
            except StopIteration:
                return
    finally:
        results.close()  # Cancels what has not been started, even if an exception keeps this frame.
        # Nothing is submitted any more. A kept exception keeps this frame, and where threads inherit context variables,
        # a thread that was started meanwhile keeps the map.
        lazy.snapshot = None


def _read(lazy: LazyMap, read: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any) -> t.Any:
    """Return or raise what ``read(*args, **kwargs)`` does. The tasks that it submits belong to *lazy*."""
    token, lazy.reader = _current.set(lazy), get_ident()
    reading.append(lazy)
    try:
        return read(*args, **kwargs)
    finally:
        reading.remove(lazy)
        lazy.reader = None
        _current.reset(token)


class _Outside:
    """Items of a map. What their code submits, while the map reads them, is not the map's."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[t.Any]) -> None:
        self._items = iter(items)

    def __iter__(self) -> Iterator[t.Any]:
        return self

    def __next__(self) -> t.Any:
        token = _current.set(None)
        try:
            return next(self._items)
        finally:
            _current.reset(token)
