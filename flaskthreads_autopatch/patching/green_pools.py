"""gevent's pools of greenlets and of native threads: their tasks inherit one by one, as those of other pools do.

``map()`` and ``imap()`` start a greenlet that reads the items and starts the tasks. It runs in an app context only if
code may run while the items are read. The tasks inherit what was active at the call of ``map()``, not what is active
in that greenlet.
"""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Callable
from types import FrameType

from ..flask_context import active
from ..replay import replay
from ..snapshot import Snapshot
from ..suppression import is_suppressed, starting_workers
from .bound import BoundCallable, BoundTask, bind_to, release
from .layers import PatchPoint
from .lazy_map import current as current_lazy_map
from .lazy_map import reading
from .providing import gate, providers, snapshot_here
from .thread_pool import runs_code
from .wrappers import Args, Kwargs, PolicyFor, Wrapped

KEY = "_flaskthreads_autopatch"
"""The name under which a greenlet that starts the tasks of a map has their snapshot, in its ``__dict__``."""

_POOLS = ("gevent.pool", "gevent.threadpool", "gevent._imap", "wrapt.wrappers")


def is_gevents(what: object) -> bool:
    """Return whether *what*, a function, a class or a frame, is gevent's own code."""
    module = module_of(what)
    return type(module) is str and (module == "gevent" or module.startswith("gevent."))


def module_of(what: t.Any) -> object:
    """Return the name of the module of a function, a class or a frame."""
    return what.f_globals.get("__name__") if type(what) is FrameType else getattr(what, "__module__", None)


def bound_task(policy_for: PolicyFor, fn: t.Any, args: Args, frame: FrameType | None) -> BoundCallable | None:
    """Return *fn*, which a pool is to call with *args*, bound to what it inherits; None to leave it as it is.

    *frame* is the innermost one of the pool's code.
    """
    if issubclass(type(fn), BoundCallable):
        return None
    if reading and (lazy := current_lazy_map()) is not None:
        snapshot = lazy.snapshot
    else:
        while frame is not None and module_of(frame) in _POOLS:
            frame = frame.f_back
        # gevent's own resolver and files use its threads.
        snapshot = None if is_gevents(frame) else _snapshot_of_task(policy_for, fn, args, frame)
    return None if snapshot is None else bind_to(BoundTask, fn, snapshot)


maps: list[None] = []
"""An entry for each map that starts tasks right now. Nearly always empty, so that a start need not ask further."""


def _snapshot_of_task(policy_for: PolicyFor, fn: t.Any, args: Args, frame: FrameType | None) -> Snapshot | None:
    of_map: Snapshot | None = getattr(_current(), KEY, None) if maps else None
    # The code of the items may start tasks too, which inherit what is active there.
    if (
        of_map is None
        or of_map.app is None
        or (active() is not None and (frame is None or frame.f_code is not _start_tasks.__code__))
    ):
        return snapshot_here(policy_for, fn, args)
    policy = policy_for(of_map.app)
    if policy is None or is_suppressed() is True or policy.why_task_not_inherited(fn, args):
        return None
    return of_map


def _current() -> t.Any:
    return sys.modules["greenlet"].getcurrent()


_READS: dict[str, Callable[[Args], bool]] = {
    "GroupMappingMixin.__map": lambda args: runs_code(args[1]),
    "GroupMappingMixin.map_cb": lambda args: args[2] is not None,  # It calls the callback.
    "IMapUnordered._run": lambda args: True,  # Its items are those of a zip() of iterators.
}
"""What starts the tasks of a map, and whether it runs code of the caller's beside them."""


def bound_map(policy_for: PolicyFor, run: t.Any, args: Args, frame: FrameType | None) -> BoundCallable | None:
    """Return *run*, bound to what the tasks inherit, if it starts those of a map; else None."""
    try:
        reads = _READS[run.__qualname__](args)
    except (AttributeError, KeyError, IndexError):
        return None
    if active() is None and not maps:
        return None  # Each task may be provided with a context.
    while frame is not None and module_of(frame) in _POOLS:
        frame = frame.f_back
    if (snapshot := _snapshot_of_task(policy_for, run, args, frame)) is None:
        return None
    return bind_to(BoundReadingMap if reads else BoundMap, run, snapshot)


class BoundMap(BoundTask):
    """What starts the tasks of a map, bound to the snapshot that they inherit."""

    __slots__ = ()

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            snapshot, self._self_snapshot = self._self_snapshot, None
            return _start_tasks(snapshot, self.__wrapped__, args)
        finally:
            del self, args, kwargs, snapshot  # See `replay`.


class BoundReadingMap(BoundTask):
    """Does the same in a replay of the snapshot."""

    __slots__ = ()

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            snapshot, self._self_snapshot = self._self_snapshot, None
            return replay(snapshot, _start_tasks, (snapshot, self.__wrapped__, args), {}, "task", self.__wrapped__)
        finally:
            del self, args, kwargs, snapshot


def _start_tasks(snapshot: Snapshot, run: Callable[..., t.Any], args: Args) -> t.Any:
    greenlet = _current()
    setattr(greenlet, KEY, snapshot)
    maps.append(None)
    try:
        return run(*args)
    finally:
        maps.pop()
        delattr(greenlet, KEY)
        del snapshot, run, args, greenlet


def _spawn_in_thread(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if not args or (active() is None and not (providers or reading or maps)):
        return wrapped(*args, **kwargs)
    if (task := bound_task(policy_for, args[0], args[1:], sys._getframe().f_back)) is not None:
        args = (task, *args[1:])
    return starting_workers(wrapped, *args, **kwargs)


class BoundCallback(BoundTask):
    """A callback that a pool calls with the result of a task."""

    __slots__ = ()

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        snapshot, self._self_snapshot = self._self_snapshot, None
        return replay(snapshot, self.__wrapped__, args, kwargs, "callback")


class BoundToCall(BoundTask):
    """A task with a bound callback, which is not called if the task fails. Its snapshot is then released."""

    __slots__ = ("_self_callback",)

    _self_callback: BoundCallback

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return super().__call__(*args, **kwargs)
        except BaseException:
            release(self._self_callback)
            raise
        finally:
            del self, args, kwargs


def _apply_async(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if not args or not callable(args[0]):
        return wrapped(*args, **kwargs)
    task = bound_task(policy_for, args[0], (), sys._getframe().f_back)
    # gevent calls the callback by a link, in a greenlet of its own if the pool is full, or right after the task.
    callback = args[3] if len(args) > 3 else kwargs.get("callback")
    if callable(callback) and (snapshot := snapshot_here(policy_for, callback)) is not None:
        callback = bind_to(BoundCallback, callback, snapshot)
        task = bind_to(BoundToCall, args[0], None if task is None else task._self_snapshot)
        task._self_callback = callback
        if len(args) > 3:
            args = (*args[:3], callback, *args[4:])
        else:
            kwargs = kwargs | {"callback": callback}
    return wrapped(*args, **kwargs) if task is None else wrapped(task, *args[1:], **kwargs)


LATE_POINTS = (
    PatchPoint("gevent.pool", "GroupMappingMixin.apply_async", _apply_async, gate),
    PatchPoint("gevent.threadpool", "ThreadPool.spawn", _spawn_in_thread),
)
"""Patched once their module is imported by somebody else."""
