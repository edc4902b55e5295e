"""gevent: what a greenlet inherits.

`Greenlet` is compiled, and its methods cannot be replaced. But gevent has a hook, `Greenlet.add_spawn_callback`: it is
called where a greenlet is started, in whatever way, and by whatever name that way was imported. What the greenlet will
call is its attribute ``_run``, so that is what a snapshot is bound to.
"""

from __future__ import annotations

import sys
import typing as t
from types import FrameType

from ..flask_context import active
from .bound import BoundCallable, BoundTask
from .green_pools import bound_map, bound_task, is_gevents, maps, module_of
from .layers import Hook, PatchPoint
from .providing import gate, providers
from .starting import PLAIN, Started, bound_start
from .wrappers import Args, Kwargs, PolicyFor, Wrapped, log_failure


class BoundGreenlet(BoundTask):
    """What a greenlet runs, bound to a snapshot."""

    __slots__ = ()

    _self_kind = "greenlet"


def _bound(policy_for: PolicyFor, greenlet: t.Any, run: t.Any, frame: FrameType | None) -> BoundCallable | None:
    """Return *run*, which *greenlet* is to call, bound to what it inherits; None to leave it as it is.

    *frame* is the innermost one of the code that starts the greenlet.
    """
    if getattr(run, "__name__", None) == "_bootstrap" and hasattr(getattr(run, "__self__", None), "_bootstrap_inner"):
        return None  # The greenlet of a thread. What that inherits is bound to the thread.
    args = greenlet.args
    if (mapping := bound_map(policy_for, run, args, frame)) is not None:
        return mapping
    if frame is not None and module_of(frame) == "gevent.pool":
        # If a pool is full, apply_async() starts a greenlet that waits. The task is bound already.
        return None if frame.f_code.co_name == "apply_async" else bound_task(policy_for, run, args, frame)
    cls = type(greenlet)
    return _bound_start(policy_for, run, Started(run, args, frame, PLAIN if is_gevents(cls) else cls))


def _spawn_raw(policy_for: PolicyFor, wrapped: Wrapped, module: object, args: Args, kwargs: Kwargs) -> t.Any:
    if args and callable(args[0]):
        started = Started(args[0], args[1:], _beyond(sys._getframe().f_back))
        if (bound := _bound_start(policy_for, args[0], started)) is not None:
            args = (bound, *args[1:])
    return wrapped(*args, **kwargs)


def _bound_start(policy_for: PolicyFor, fn: t.Any, started: Started) -> BoundCallable | None:
    if is_gevents(started.frame) and is_gevents(fn):
        return None  # What gevent starts for itself does not inherit, not even with the option own="*".
    return bound_start(policy_for, fn, started, BoundGreenlet)


_BETWEEN = frozenset(("gevent.greenlet", "gevent.thread", "wrapt.wrappers"))
"""Modules through which a greenlet is started. The code that starts it is beyond them."""


def _beyond(frame: FrameType | None) -> FrameType | None:
    while frame is not None and module_of(frame) in _BETWEEN:
        frame = frame.f_back
    return frame


class _SpawnCallback:
    """Our callback among those that gevent calls with each greenlet that is started."""

    module = "gevent"
    name = "gevent.Greenlet.add_spawn_callback"

    def __init__(self) -> None:
        self._policy_for: PolicyFor | None = None
        self._is_added = False
        self._calls: list[None] = []
        """An entry for each call that goes on right now. With the option ``preload``, other greenlets run meanwhile."""

    def add(self, policy_for: PolicyFor) -> None:
        """Have gevent call `_spawned`."""
        self._policy_for = policy_for
        if not self._is_added:
            self._is_added = True
            _greenlet_class().add_spawn_callback(self._spawned)

    def remove(self) -> None:
        """Have gevent call `_spawned` no longer. While it is going on, it does nothing from now on, but remains."""
        self._policy_for = None
        # gevent iterates over a set of the callbacks. If that changes meanwhile, starting the greenlet fails.
        if self._is_added and not self._calls:
            self._is_added = False
            _greenlet_class().remove_spawn_callback(self._spawned)

    def describe(self) -> list[str]:
        """Return the module that the callback comes from, in a list, which is empty if it is not in force."""
        return [] if self._policy_for is None else [__name__]

    def _spawned(self, greenlet: t.Any) -> None:
        if active() is None and not providers and not maps:
            return
        policy_for = self._policy_for
        if policy_for is None:
            return
        self._calls.append(None)
        try:
            run = greenlet._run
            if type(run) is BoundGreenlet:
                run = run.__wrapped__  # It has been started before, and that failed.
            if (bound := _bound(policy_for, greenlet, run, _beyond(sys._getframe().f_back))) is not None:
                greenlet._run = bound
        except Exception:
            log_failure(greenlet)
        finally:
            self._calls.pop()


def _greenlet_class() -> t.Any:
    return sys.modules["gevent"].Greenlet


HOOKS: tuple[Hook, ...] = (_SpawnCallback(),)

LATE_POINTS = (
    PatchPoint("gevent", "spawn_raw", _spawn_raw, gate),
    # It is patched once all of gevent is imported, which takes the function from there.
    PatchPoint("gevent", "hub.spawn_raw", _spawn_raw, gate),
)
"""Patched once their module is imported by somebody else."""
