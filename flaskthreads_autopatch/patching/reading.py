"""An iterable that another thread is going to read, bound to a snapshot: all of it is read in one replay.

A replay around each item would tear down, after that item, what a generator has opened and is still using: a database
session whose rows it yields. The app context therefore stays pushed from the first item to the end of the iterable, in
context variables of its own. Between two items the thread that reads has no context.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Sized
from types import SimpleNamespace

from ..observation import Observation
from ..replay import begin, end, end_again, own_variables
from ..snapshot import Snapshot
from .bound import Lease


class BoundItems:
    """The items of an iterable, read in one replay of the snapshot that is leased. Can be iterated once."""

    __slots__ = ("_items", "_lease")

    def __init__(self, items: t.Any, lease: Lease) -> None:
        self._items = items
        self._lease = lease

    def __iter__(self) -> Iterator[t.Any]:
        snapshot, self._lease = self._lease._self_snapshot, _NO_LEASE
        if type(snapshot) is Observation:
            snapshot = snapshot.replayed
        if snapshot is None:
            # "yield from" would close a generator that the caller still has a reference to.
            for item in self._items:
                yield item
            return
        context = own_variables(snapshot)
        reading = read(snapshot, self._items)
        try:
            while True:
                try:
                    item = context.run(next, reading)
                except StopIteration:
                    return
                yield item
        finally:
            context.run(reading.close)
            # An exception that is kept, as the pool hands it to the caller, keeps this frame.
            del self, snapshot, context, reading


class BoundSizedItems(BoundItems):
    """Bound items that tell their number, for a pool that asks for it before it reads them."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(t.cast(Sized, self._items))


_NO_LEASE = Lease(None)


def read(snapshot: Snapshot, items: t.Any) -> t.Generator[t.Any, None, None]:
    """Yield *items*. Does what `replay` does, which cannot be suspended between two of them."""
    replaying = error = None
    try:
        replaying = begin(snapshot, _shown(items))
        try:
            for item in items:  # noqa: UP028 - see `BoundItems`
                yield item
        except GeneratorExit:  # The pool was terminated, which is no error of the items.
            raise
        except BaseException as exc:
            error = exc
            raise
        finally:
            try:
                end(replaying, error)
            except BaseException:
                end_again(replaying, error)
                raise
    finally:
        del snapshot, items, replaying, error  # See `replay`.


def _shown(items: t.Any) -> t.Any:
    """Return what describes *items* in `running`. For a generator, that is a stand-in which does not refer to it."""
    frame = getattr(items, "gi_frame", None)
    if frame is None:
        return items
    return SimpleNamespace(__module__=frame.f_globals.get("__name__"), __qualname__=items.__qualname__)
