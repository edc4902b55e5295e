"""`_thread.start_new_thread`: low-level threads, which inherit as those of `threading` do.

`threading` itself has taken that function from `_thread` long ago, and is not reached by this.
"""

from __future__ import annotations

import _thread
import functools
import sys
import threading
import typing as t
from types import MethodType

from .bound import BoundTask
from .bound_run import target_of
from .layers import PatchPoint
from .providing import gate
from .starting import Started, bound_start
from .threads import start as start_thread
from .wrappers import Args, Kwargs, PolicyFor, Wrapped


class BoundThread(BoundTask):
    """What a low-level thread runs, bound to a snapshot."""

    __slots__ = ()

    _self_kind = "thread"


def _start_new_thread(policy_for: PolicyFor, wrapped: Wrapped, module: object, args: Args, kwargs: Kwargs) -> t.Any:
    if len(args) < 2 or not callable(fn := args[0]):
        return wrapped(*args, **kwargs)
    frame = sys._getframe().f_back
    if type(fn) is MethodType and isinstance(thread := fn.__self__, threading.Thread):
        # A start() of the thread's class calls this.
        if getattr(fn, "__name__", "") == "_bootstrap":
            return start_thread(policy_for, functools.partial(wrapped, *args, **kwargs), thread, (), {})
        started = Started(target_of(thread), thread.__dict__.get("_args"), frame, type(thread))
    else:
        started = Started(fn, args[1], frame)
    bound = bound_start(policy_for, fn, started, BoundThread)
    return wrapped(*args, **kwargs) if bound is None else wrapped(bound, *args[1:], **kwargs)


POINTS = tuple(
    PatchPoint("_thread", name, _start_new_thread, gate)
    for name in ("start_new_thread", "start_new")  # The second one is an old name of the first.
    if hasattr(_thread, name)
)
