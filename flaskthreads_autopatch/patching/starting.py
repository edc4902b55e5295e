"""A function that is started by itself, in a greenlet or a low-level thread: what it inherits, and what is bound to it.

It inherits as a thread does: only if own code has a hand in it.
"""

from __future__ import annotations

import functools
import logging
import threading
import typing as t
from types import FrameType

from flask.ctx import AppContext

from .. import who_inherits
from ..audit.recorder import outer_run, recorders
from ..capture import capture
from ..flask_context import active, is_ending
from ..log import log, logger
from ..observation import observe_capture, observe_nothing
from ..policy import Policy
from ..provide import provided
from ..snapshot import Snapshot
from ..suppression import is_suppressed
from .bound import BoundCallable, BoundTask, bind_to
from .providing import observed_or, providers
from .wrappers import PolicyFor, log_failure

PLAIN: type = threading.Thread
"""A class that says nothing of who has a hand in a thread or greenlet."""


class Started(t.NamedTuple):
    """What is started, as far as it says who has a hand in it."""

    fn: t.Any
    """What it runs."""
    args: object
    frame: FrameType | None
    """The innermost frame that may be the one that starts it."""
    cls: type = PLAIN
    """The class of the thread or greenlet."""


def bound_start(
    policy_for: PolicyFor, fn: t.Any, started: Started, kind: type[BoundTask] = BoundTask
) -> BoundCallable | None:
    """Return *fn*, bound to what it inherits where this is called, or is provided with; None to start it as it is."""
    ctx, policy, snapshot = active(), None, None
    if issubclass(type(fn), BoundCallable) or (is_suppressed() and not recorders):
        return None
    try:
        if recorders:
            snapshot = _observed(policy_for, ctx, started)
        elif ctx is None:
            snapshot = provided(started.fn, started.args, started.cls) if providers else None
        elif (policy := policy_for(ctx.app)) is not None and not is_ending(ctx) and _inherits(policy, started):
            snapshot = capture(ctx, policy)
    except Exception:
        log_failure(fn)
        return None
    if snapshot is not None:
        return bind_to(kind, fn, snapshot)
    if ctx is None or policy is None or is_ending(ctx) or not logger.isEnabledFor(logging.DEBUG):
        return None
    return _explained(policy, fn, started)


def _inherits(policy: Policy, started: Started) -> bool:
    fn, args, frame, cls = started
    return who_inherits.inherits(policy.own, policy.ignore, cls, fn, args, lambda: frame)


def _observed(policy_for: PolicyFor, ctx: AppContext | None, started: Started) -> Snapshot | None:
    """Return the observation of what *started* inherits, or would inherit, from *ctx*."""
    suppressed, (fn, args, frame, cls) = is_suppressed(), started
    # The run that starts it would have a context. It would inherit that, and nothing would be provided.
    if ctx is not None:
        app = ctx.app
    elif (outer := outer_run()) is not None:
        app = outer[1]
    else:
        return observed_or(None if suppressed else provided(fn, args, cls), suppressed)
    policy = policy_for(app)
    if policy is None or suppressed or (ctx is not None and is_ending(ctx)):
        return observe_nothing(ctx, policy, suppressed, "")
    if _inherits(policy, started):
        return observe_nothing(None, policy, False, "") if ctx is None else observe_capture(ctx, policy)
    own, ignore = policy.own, policy.ignore
    reason = who_inherits.why_thread_not_inherited(own, ignore, cls, fn, args, lambda: frame)
    return observe_nothing(ctx, policy, False, reason or "")


class _Explained(BoundCallable):
    """Binds no snapshot, and logs why when it is called: where it is started, a lock may be held (see `threads`)."""

    __slots__ = ("_self_reason", "_self_what")

    _self_what: str
    _self_reason: str

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            log_reason(self._self_what, self._self_reason)
            return self.__wrapped__(*args, **kwargs)
        finally:
            del self, args, kwargs


def _explained(policy: Policy, fn: t.Any, started: Started) -> _Explained | None:
    run, args, frame, cls = started
    try:
        reason = who_inherits.why_thread_not_inherited(policy.own, policy.ignore, cls, run, args, lambda: frame)
        what = who_inherits.path_of_thread(cls, run)
    except Exception:
        return None
    if not reason or not is_new_kind(what, reason):
        return None
    explained = bind_to(_Explained, fn, None)
    explained._self_what, explained._self_reason = what, reason
    return explained


def log_reason(what: str, reason: str) -> None:
    """Log why a thread or greenlet that runs *what* does not inherit."""
    log(logging.DEBUG, "A thread that runs %s does not inherit: %s.", what, reason)


def is_new_kind(what: str, reason: str) -> bool:
    """Return whether this is the first call for a thread that runs *what* and does not inherit for *reason*."""
    is_new = _kind(what, reason)
    was_new = bool(is_new)
    is_new.clear()
    return was_new


@functools.lru_cache(maxsize=1024)
def _kind(what: str, reason: str) -> list[bool]:
    """Return a list, one for each kind of thread, which the caller empties when that kind is logged."""
    return [True]
