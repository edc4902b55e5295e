"""`multiprocessing.pool.ThreadPool`: the wrappers of its methods, and what they bind.

A pool calls one function for many items, so its snapshot is replayed many times. It is released when no call is left:
by the callbacks of a result, by each item of `imap`, or by the end of the pool.
"""

from __future__ import annotations

import collections
import traceback
import typing as t
import weakref
from collections.abc import Callable, Iterable, Iterator

from ..replay import replay
from ..snapshot import Snapshot
from ..suppression import starting_workers
from .bound import BoundCallable, BoundTask, Lease, bind_to, release
from .bound_run import KEY
from .layers import PatchPoint
from .providing import gate, snapshot_here
from .reading import BoundItems, BoundSizedItems, read
from .wrappers import Args, Kwargs, PolicyFor, Wrapped

Bound = tuple[BoundCallable, ...]


def _add_workers(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    # A subclass may have workers of its own, which own code starts, or which run own code.
    return starting_workers(wrapped, *args, **kwargs)


def _map(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    args, kwargs, bound = _bind_func(policy_for, pool, *_by_position(args, kwargs))
    try:
        return wrapped(*args, **kwargs)
    except Exception as error:
        # The exception's traceback keeps what is bound alive. If a task raised it, all tasks have finished and the
        # snapshot can be released. If a signal handler raised it, some tasks may still have to run.
        if _comes_out_of_a_task(error):
            release(*bound)
        raise


def _bind_func(policy_for: PolicyFor, pool: t.Any, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs, Bound]:
    """Return *args* and *kwargs* with the function bound that a pool calls, if it inherits, and the bound functions."""
    # The context is read here: an exception that is kept, as map() raises those of the tasks, keeps the caller's frame.
    if not args:
        return args, kwargs, ()
    snapshot = snapshot_here(policy_for, args[0])
    args = _bind_sized_items(policy_for, pool, args, snapshot)
    if snapshot is None:
        return args, kwargs, ()
    func = bind_to(BoundCallable, args[0], snapshot)
    return (func, *args[1:]), kwargs, (func,)


def _comes_out_of_a_task(error: BaseException) -> bool:
    codes = BoundCallable.__call__.__code__, read.__code__
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _call_async(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    args, kwargs, bound = _bind_with_ends(policy_for, *_by_position(args, kwargs))
    return _start(wrapped, args, kwargs, bound)


def _map_async(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    args, kwargs, bound = _bind_with_ends(policy_for, *_by_position(args, kwargs))
    args = _bind_sized_items(policy_for, pool, args, bound[0]._self_snapshot if bound else None)
    return _start(wrapped, args, kwargs, bound)


def _start(wrapped: Wrapped, args: Args, kwargs: Kwargs, bound: Bound) -> t.Any:
    result = wrapped(*args, **kwargs)
    if bound and getattr(result, "ready", bool)():
        release(*bound)  # No callback is called for an empty list.
    return result


class BoundEnd(BoundTask):
    """A bound callback of a pool. The pool calls it once, after the last task; it then also releases *others*."""

    __slots__ = ("_self_others",)

    _self_others: tuple[BoundCallable, ...]

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        release(*self._self_others)
        snapshot, self._self_snapshot = self._self_snapshot, None
        if snapshot is None:
            return self.__wrapped__(*args, **kwargs)
        return replay(snapshot, self.__wrapped__, args, kwargs, "callback")


def _bind_with_ends(policy_for: PolicyFor, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs, Bound]:
    """Return *args* and *kwargs* with the function and both callbacks bound. Each method takes these fourth and fifth.

    The pool calls exactly one of the two callbacks, after the last task, but its result object keeps both, and a stored
    exception keeps the function through its traceback. The callback that is called therefore releases all three
    snapshots. A callback that was not passed is replaced by a function that does nothing, so that there is always one
    to call.
    """
    if not args:
        return args, kwargs, ()
    fns = [args[0], *(args[i] if i < len(args) else kwargs.get(name) for i, name in _CALLBACKS)]
    snapshots = [None if fn is None else snapshot_here(policy_for, fn) for fn in fns]
    if not any(snapshots):
        return args, kwargs, ()
    # Compared with None, because the truth of a callable may be False: it may be an empty list as well.
    calls = [_do_nothing if fn is None else fn for fn in fns]
    func = bind_to(BoundCallable, calls[0], snapshots[0])
    ends = [bind_to(BoundEnd, fn, snapshot) for fn, snapshot in zip(calls[1:], snapshots[1:], strict=True)]
    for end, other in zip(ends, reversed(ends), strict=True):
        end._self_others = (func, other)
    names = [name for _, name in _CALLBACKS]
    return (func, *args[1:3], *args[5:]), kwargs | dict(zip(names, ends, strict=True)), (func, *ends)


_CALLBACKS = ((3, "callback"), (4, "error_callback"))


def _do_nothing(outcome: object) -> None:
    """Do nothing. Stands in for a callback that the caller did not pass."""


# What a pool's own thread reads


def _imap(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    args, kwargs = _bind_each(policy_for, pool, *_by_position(args, kwargs))
    return wrapped(*args, **kwargs)


def _bind_each(policy_for: PolicyFor, pool: t.Any, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """Return *args* and *kwargs* of `imap` with the items bound, to be read and to be worked on."""
    if len(args) < 2:
        return args, kwargs
    func, items = args[:2]
    snapshot = snapshot_here(policy_for, func)
    if runs_code(items) and (reading := snapshot or snapshot_here(policy_for, items)) is not None:
        items = BoundItems(items, _lease(pool, reading))
    if snapshot is not None:
        items = _leased(items, _lease(pool, snapshot), args[2] if len(args) > 2 else kwargs.get("chunksize", 1))
        func = bind_to(_ForLeased, func, None)
    return (func, items, *args[2:]), kwargs


class _Leased:
    """One item, and the lease of the chunk to which it belongs."""

    __slots__ = ("chunk", "item")

    def __init__(self, item: object, chunk: list[Lease]) -> None:
        self.item = item
        self.chunk = chunk


def _leased(items: Iterable[t.Any], lease: Lease, chunksize: int) -> Iterator[_Leased]:
    """Yield *items*, each with what it needs to be worked on, which goes when that is done.

    `imap` calls nothing at its end. A function that kept the snapshot would keep it in the traceback of an exception.
    """
    chunk: list[Lease] = []
    try:
        for number, item in enumerate(items):
            if number % chunksize == 0:
                chunk = [lease]
            yield _Leased(item, chunk)
    finally:
        del lease, chunk  # An exception that the items raise keeps this frame.


class _ForLeased(BoundCallable):
    """A function that `imap` calls with leased items."""

    __slots__ = ()

    def __call__(self, leased: _Leased, /) -> t.Any:
        chunk, leased.chunk = leased.chunk, []
        snapshot = chunk[0]._self_snapshot
        try:
            if snapshot is None:
                return self.__wrapped__(leased.item)
            return replay(snapshot, self.__wrapped__, (leased.item,), {})
        except BaseException:
            chunk.clear()  # The rest of the chunk is dropped, and kept by the traceback.
            raise
        finally:
            del self, leased, chunk, snapshot


def _bind_sized_items(policy_for: PolicyFor, pool: t.Any, args: Args, snapshot: Snapshot | None) -> Args:
    """Return *args* of a map with the items bound, if the pool reads them in its own thread, as those with a length."""
    if len(args) < 2 or not hasattr(args[1], "__len__") or not runs_code(args[1]):
        return args
    if (reading := snapshot or snapshot_here(policy_for, args[1])) is None:
        return args
    return (args[0], BoundSizedItems(args[1], _lease(pool, reading)), *args[2:])


_PLAIN: tuple[type[Iterable[t.Any]], ...] = (
    *(list, tuple, dict, set, frozenset, str, bytes, bytearray, range, collections.deque),
    *map(type, ({}.keys(), {}.values(), {}.items())),
)


def runs_code(items: object) -> bool:
    """Return whether reading *items* may run Python code, which needs a context."""
    reads = getattr(type(items), "__iter__", None)
    return not any(reads is cls.__iter__ for cls in _PLAIN)


# The end of a pool


def _terminate(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    try:
        return wrapped(*args, **kwargs)
    finally:
        # No task is started any more, and no callback called. A result that is kept, and has none, keeps all of them.
        release(*list(getattr(pool, "__dict__", {}).get(KEY, {}).values()))
        for result in list(getattr(pool, "_cache", {}).values()):
            if type(end := getattr(result, "_callback", None)) is BoundEnd:
                release(end, *end._self_others)


def _lease(pool: t.Any, snapshot: Snapshot) -> Lease:
    """Return a lease of *snapshot*, which the end of *pool* empties."""
    lease = Lease(snapshot)
    noted = getattr(pool, "__dict__", {}).setdefault(KEY, weakref.WeakValueDictionary())
    noted[id(lease)] = lease
    return lease


def _by_position(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """Return *args* and *kwargs* with the function and the iterable, if there is one, in *args*."""
    for name in ("func", "iterable")[len(args) :]:
        if name not in kwargs:
            break
        args, kwargs = (*args, kwargs[name]), {key: value for key, value in kwargs.items() if key != name}
    return args, kwargs


_WRAPPERS: dict[str, Callable[..., t.Any]] = {
    "__init__": _add_workers,
    "_repopulate_pool": _add_workers,
    "apply_async": _call_async,
    "map_async": _map_async,
    "starmap_async": _map_async,
    "imap": _imap,
    "imap_unordered": _imap,
    "map": _map,
    "starmap": _map,
}

POINTS = (
    *(
        PatchPoint("multiprocessing.pool", f"ThreadPool.{method}", wrapper, gate)
        for method, wrapper in _WRAPPERS.items()
    ),
    PatchPoint("multiprocessing.pool", "ThreadPool.terminate", _terminate),
)
