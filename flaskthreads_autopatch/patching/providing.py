"""What the patch points do where no app context is active, while an app has the option ``provide``."""

from __future__ import annotations

import threading
import typing as t

from .. import flask_context
from ..app_policies import policy_for
from ..app_policies import providers as providers
from ..audit.recorder import outer_run, recorders
from ..flask_context import active
from ..observation import observe_nothing, observe_provided
from ..provide import provided
from ..snapshot import Snapshot
from ..suppression import is_suppressed
from .bound import BoundCallable
from .bound_run import BoundRun, target_of
from .wrappers import Args, PolicyFor, log_failure, snapshot_for

gate = flask_context.active_or(providers)
"""The gate of a patch point that provides: true if an app context is active, or while an app may provide one."""


def observed_or(snapshot: Snapshot | None, suppressed: object = False) -> Snapshot | None:
    """Return *snapshot*, which is provided where no context is active, or None; while observing, as an observation.

    *suppressed* is the value of `is_suppressed`, or False where that does not matter.
    """
    if not recorders:
        return snapshot
    return observe_nothing(None, None, suppressed, "") if snapshot is None else observe_provided(snapshot)


def snapshot_here(policy_for: PolicyFor, fn: object, args: Args = ()) -> Snapshot | None:
    """Return what *fn*, a task or callback that will be called with *args*, inherits here, or is provided with."""
    ctx = active()
    return provided_to_task(fn, args) if ctx is None else snapshot_for(policy_for, ctx, fn, args)


def provided_to_task(fn: object, args: Args = ()) -> Snapshot | None:
    """Return what *fn*, a task or callback that will be called with *args*, is provided with; None if nothing."""
    if not providers or issubclass(type(fn), BoundCallable):
        return None
    if is_suppressed() is True:
        return observed_or(None, True)
    try:
        if recorders and (outer := outer_run()) is not None:
            # The run that starts it would have a context. It would inherit that, and nothing would be provided.
            policy = policy_for(outer[1])
            return observe_nothing(None, policy, False, (policy and policy.why_task_not_inherited(fn, args)) or "")
        return observed_or(provided(fn, args))
    except Exception:
        log_failure(fn)
        return None


def provided_to_thread(thread: threading.Thread) -> Snapshot | None:
    """Return what *thread* is provided with; None if nothing."""
    if not providers or is_suppressed() or (recorders and outer_run()):
        return observed_or(None, is_suppressed())
    try:
        return observed_or(provided(target_of(thread), thread.__dict__.get("_args"), type(thread)))
    except Exception:
        log_failure(thread)
        return None


class ProvidedRun(BoundRun):
    """Bound to a thread that was made where no app context is active, and whose class may bypass our ``start()``.

    The thread asks what it is provided with when it runs, because a subclass such as Timer sets its function after
    it was made.
    """

    __slots__ = ()

    def __call__(self, thread: threading.Thread) -> t.Any:
        if threading.current_thread() is thread and active() is None:
            self.snapshot = provided_to_thread(thread)
        return super().__call__(thread)
