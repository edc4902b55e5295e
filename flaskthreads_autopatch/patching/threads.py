"""`threading.Thread`: the wrappers of its methods, and whether a thread inherits what is active where it is started."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import typing as t

from flask import Flask
from flask.ctx import AppContext

from .. import who_inherits
from ..audit.recorder import outer_run, recorders
from ..capture import capture
from ..clean_context import clean_context
from ..flask_context import active, is_ending
from ..log import logger
from ..observation import is_only_observing, observe_capture, observe_nothing
from ..policy import Policy
from ..snapshot import Snapshot
from ..suppression import THREADS_INHERIT_CONTEXT, is_suppressed, unsuppressed
from ..who_inherits import Caller
from .bound_run import KEY, BoundRun, bind_run, bound_to, is_started, keep, kept, target_of, unbind_run
from .layers import PatchPoint
from .providing import ProvidedRun, gate, provided_to_thread, providers
from .starting import is_new_kind, log_reason
from .wrappers import Args, Kwargs, PolicyFor, Wrapped, log_failure


def _init(policy_for: PolicyFor, wrapped: Wrapped, thread: threading.Thread, args: Args, kwargs: Kwargs) -> None:
    # This is the fallback for a thread that is made in a context and started outside of it. A subclass such as Timer
    # sets its function only after this call, so whether own code has a hand in the thread is decided later: when it is
    # started, or when it runs, if its class may bypass our start().
    wrapped(*args, **kwargs)
    ctx = active()
    if ctx is None:
        if providers and thread is not None and _has_start_of_its_own(type(thread)):
            if recorders:
                bind_run(thread, bound_to(provided_to_thread(thread), BoundRun))
            else:
                bind_run(thread, bound_to(None, ProvidedRun))
        return
    if (policy := policy_for(ctx.app)) is None or thread is None:
        return
    if (snapshot := _snapshot(policy, ctx, thread, None)) is None:
        return
    bound = bound_to(snapshot, _BoundWhenMade)
    bound.policy_for, bound.maker = policy_for, None
    if type(thread) is not threading.Thread and _has_start_of_its_own(type(thread)):
        if not _is_made_by_own_code(policy, thread):
            bound.maker = _no_caller
        bind_run(thread, bound)
    else:
        keep(thread, bound)


class _BoundWhenMade(BoundRun):
    """Bound to what was active where the thread was made. Whether it may inherit that is asked when it runs."""

    __slots__ = ("maker", "policy_for")

    policy_for: PolicyFor
    maker: Caller | None
    """Finds the code that made the thread; None stands for own code."""

    def may_inherit(self, app: Flask, thread: threading.Thread) -> bool:
        return _holds(self.policy_for, self.maker, app, thread)


def start(policy_for: PolicyFor, wrapped: Wrapped, thread: threading.Thread, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if ctx is None and (type(thread) is threading.Thread or thread is None):
        # getattr(), not thread.__dict__: until Python 3.12 that dictionary is built when it is asked for, and every
        # later access to an attribute of the thread takes longer.
        if getattr(thread, KEY, None) is None and (not providers or thread is None):
            return wrapped(*args, **kwargs) if args or kwargs else wrapped()  # The second one takes half as long.
    elif thread is None or (ctx is None and not providers and KEY not in thread.__dict__):
        return wrapped(*args, **kwargs)
    if is_started(thread):
        return wrapped(*args, **kwargs)
    before = kept(thread)
    policy = None if ctx is None else policy_for(ctx.app)
    if before is None and policy is None and (ctx is not None or not providers) and not recorders:
        return wrapped(*args, **kwargs)
    bound = before if before is not None and before.explicit else _binding(policy_for, policy, ctx, thread, before)
    if bound is None and policy is None:
        return wrapped(*args, **kwargs)  # No app provides for it.
    undo = None if bound is None else bind_run(thread, bound)
    try:
        if bound is None or bound.snapshot is None or THREADS_INHERIT_CONTEXT:
            # Python itself may pass the caller's context variables to the thread (H15). Flask's contexts must not be in
            # them: a worker would keep the parent's, and a thread that inherits has contexts of its own.
            if not is_only_observing():
                return clean_context().run(wrapped, *args, **kwargs)
            if THREADS_INHERIT_CONTEXT:
                return unsuppressed(wrapped, *args, **kwargs)
        return wrapped(*args, **kwargs)
    except Exception:
        if undo is not None:
            unbind_run(thread, undo)
        raise


def _binding(
    policy_for: PolicyFor,
    policy: Policy | None,
    ctx: AppContext | None,
    thread: threading.Thread,
    before: BoundRun | None,
) -> BoundRun | None:
    """Return what *thread* is bound to when it is started; None if it is bound to nothing, and was not before.

    ===================  =============================  ================================================
    context at start     bound when it was made         bound now
    ===================  =============================  ================================================
    with a policy        to any snapshot, or none       to a snapshot of the context at start
    none, or no policy   to a snapshot                  to the same one, unless it may not inherit or
                                                        `suppress_inheritance` is active
    none                 to any other, or none          to what an app provides for it
    ===================  =============================  ================================================
    """
    snapshot = None
    if ctx is not None and policy is not None:
        snapshot = _snapshot(policy, ctx, thread, _caller)
    elif before is not None and before.snapshot is not None and before.snapshot.app and not is_suppressed():
        policy = policy_for(before.snapshot.app)
        if _holds(policy_for, _caller, before.snapshot.app, thread):
            return before
    # A run that is observed has no context, and would have one: then nothing would be provided.
    if ctx is None and providers and not (recorders and outer_run()):
        snapshot = provided_to_thread(thread)
    if snapshot is not None:
        return bound_to(snapshot, BoundRun)
    if recorders:
        if ctx is None and policy is None and (outer := outer_run()) is not None:
            policy = policy_for(outer[1])
        return bound_to(_observed(policy, thread, ctx), BoundRun)
    if policy is not None and logger.isEnabledFor(logging.DEBUG):
        explained = _explained(policy, thread, ctx)
        if explained is not None:
            return explained
    return None if before is None else bound_to(None, BoundRun)


POINTS: tuple[PatchPoint, ...] = (
    PatchPoint("threading", "Thread.__init__", _init, gate),
    PatchPoint("threading", "Thread.start", start),
)


def _snapshot(policy: Policy, ctx: AppContext, thread: threading.Thread, caller: Caller | None) -> Snapshot | None:
    """Return what *thread* inherits from *ctx*; None if nothing.

    *caller* finds the code that starts the thread; None stands for own code.
    """
    if is_suppressed() or is_ending(ctx):
        return None
    try:
        state, cls = thread.__dict__, type(thread)
        if not who_inherits.inherits(policy.own, policy.ignore, cls, target_of(thread), state.get("_args"), caller):
            return None
        # Since 3.14 a thread can be given its context variables: those stay.
        take = observe_capture if recorders else capture
        return take(ctx, policy, state.get("_context") is None)
    except Exception:
        log_failure(thread)
        return None


def _observed(policy: Policy | None, thread: threading.Thread, ctx: AppContext | None) -> Snapshot | None:
    """Return the observation that *thread* inherits nothing of *ctx*, and why."""
    try:
        suppressed, reason = is_suppressed(), ""
        if policy is not None and not suppressed:
            own, ignore, args = policy.own, policy.ignore, thread.__dict__.get("_args")
            cls, target = type(thread), target_of(thread)
            # With a context here, it is known that nothing is inherited. Started by a run that is observed, it may be.
            if ctx is not None or not who_inherits.inherits(own, ignore, cls, target, args, _caller):
                reason = who_inherits.why_thread_not_inherited(own, ignore, cls, target, args, _caller) or ""
        return observe_nothing(ctx, policy, suppressed, reason)
    except Exception:
        log_failure(thread)
        return None


class _Explained(BoundRun):
    """Binds no snapshot, and logs at the beginning of the thread why it does not inherit.

    The reason is not logged at ``start()``, because its caller may hold a lock that a logging handler waits for: a
    handler may submit to the very pool that is starting a worker.
    """

    __slots__ = ("reason", "what")

    what: str
    reason: str

    def __call__(self, thread: threading.Thread) -> object:
        if threading.current_thread() is thread:
            log_reason(self.what, self.reason)
        return super().__call__(thread)


def _explained(policy: Policy, thread: threading.Thread, ctx: AppContext | None) -> _Explained | None:
    """Return a binding that logs why *thread* does not inherit; None if suppressed, or if its kind has been logged."""
    if is_suppressed() or (ctx is not None and is_ending(ctx)):
        return None
    cls, target, args = type(thread), target_of(thread), thread.__dict__.get("_args")
    try:
        own, ignore = policy.own, policy.ignore
        reason = who_inherits.why_thread_not_inherited(own, ignore, cls, target, args, _caller)
        what = who_inherits.path_of_thread(cls, target)
    except Exception:
        return None  # log_failure() has said so.
    if not reason or not is_new_kind(what, reason):
        return None
    explained = bound_to(None, _Explained)
    explained.what, explained.reason = what, reason
    return explained


# `who_inherits` calls this. Above its own frame are `_snapshot`, `_holds` or `_explained`, then `_binding`, then the
# wrapper, and fourth the code that calls ``start()``.
_caller = functools.partial(sys._getframe, 4)


def _no_caller() -> None:
    """Find no frame. Stands in for a `Caller` if it is known that own code does not start the thread."""


def _holds(policy_for: PolicyFor, caller: Caller | None, app: Flask, thread: threading.Thread) -> bool:
    """Return whether *thread*, which was made in a context of *app*, may inherit that when it is started or runs."""
    policy = policy_for(app)
    try:
        if policy is None:
            return False
        cls, args = type(thread), thread.__dict__.get("_args")
        return who_inherits.inherits(policy.own, policy.ignore, cls, target_of(thread), args, caller)
    except Exception:
        log_failure(thread)
        return False


def _has_start_of_its_own(cls: type) -> bool:
    # A start() of the class may bypass ours, as the one that OpenTelemetry puts into Timer does.
    for base in cls.__mro__:
        if base.__qualname__ == "Thread" and base.__module__ == "threading":
            return False
        if "start" in vars(base):
            return True
    return False


def _is_made_by_own_code(policy: Policy, thread: threading.Thread) -> bool:
    try:
        return who_inherits.inherits(policy.own, policy.ignore, type(thread), None, (), _maker)
    except Exception:
        log_failure(thread)
        return False


# Above the frame of `who_inherits` are `_is_made_by_own_code`, then the wrapper, and third the code that makes the
# thread.
_maker = functools.partial(sys._getframe, 3)
