"""What all wrappers share.

Every wrapper has the same shape. Without an active app context, or with one whose app has no policy, it calls straight
through. Otherwise it takes a snapshot, unless the thread or task does not inherit, and binds it to what will run.

wrapt passes None as the instance if a method is called on the class with a foreign first argument, or with none. Such
calls go straight through.
"""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Callable

from flask import Flask
from flask.ctx import AppContext

from ..audit.recorder import recorders
from ..capture import capture
from ..flask_context import is_ending
from ..log import log
from ..observation import observe_capture, observe_nothing
from ..policy import Policy
from ..snapshot import Snapshot
from ..suppression import is_suppressed
from .bound import BoundCallable

Args = tuple[t.Any, ...]
Kwargs = dict[str, t.Any]
Wrapped = Callable[..., t.Any]
PolicyFor = Callable[[Flask], "Policy | None"]
"""Called with the app of the active context. Returns its policy; None if nothing is inherited from that app."""


def snapshot_for(policy_for: PolicyFor, ctx: AppContext, fn: object, args: Args = ()) -> Snapshot | None:
    """Return what *fn*, a task or callback that will be called with *args*, inherits from *ctx*; None if nothing."""
    if issubclass(type(fn), BoundCallable):  # isinstance() would ask for the user's __class__
        return None
    if recorders:
        return _observed(policy_for, ctx, fn, args)
    policy = policy_for(ctx.app)
    if policy is None or is_suppressed() is True or is_ending(ctx):
        return None
    try:
        return None if policy.why_task_not_inherited(fn, args) else capture(ctx, policy)
    except Exception:
        log_failure(fn)
        return None


def _observed(policy_for: PolicyFor, ctx: AppContext, fn: object, args: Args) -> Snapshot | None:
    """Return the observation of what *fn* inherits, or would inherit, from *ctx*."""
    try:
        policy, suppressed = policy_for(ctx.app), is_suppressed() is True
        if policy is None or suppressed or is_ending(ctx):
            return observe_nothing(ctx, policy, suppressed, "")
        reason = policy.why_task_not_inherited(fn, args)
        return observe_nothing(ctx, policy, False, reason) if reason else observe_capture(ctx, policy)
    except Exception:
        log_failure(fn)
        return None


def log_failure(what: object) -> None:
    """Log the exception that is being handled: no snapshot could be taken for *what*."""
    # Two arguments, because logging calls isinstance() on a single one, which may run the object's own __class__.
    then = "which runs without one"
    log(logging.ERROR, "No snapshot of the app context could be taken for %r, %s.", what, then, exc_info=True)
