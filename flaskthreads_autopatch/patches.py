"""The patch points: which attribute, which wrapper.

Every wrapper has the same shape. Without an active app context, or with one whose app has no policy, it passes straight
through. Else it takes a snapshot, unless the thread or callable is ignored, and binds it to what is going to run.

wrapt gives None as the instance where somebody calls the attribute of the class with something else, or with nothing.
"""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Callable
from concurrent.futures.thread import ThreadPoolExecutor

from flask import Flask
from flask.ctx import AppContext

from . import flask_context
from .binding import BoundCallable, bind_callback, bind_once
from .capture import capture
from .flask_context import active, is_ending
from .layers import PatchPoint
from .lazy_map import IS_LAZY, current, map_lazily, reading
from .log import log
from .policy import Policy
from .snapshot import Snapshot
from .suppression import is_suppressed, starting_workers

Args = tuple[t.Any, ...]
Kwargs = dict[str, t.Any]
Wrapped = Callable[..., t.Any]
PolicyFor = Callable[[Flask], "Policy | None"]
"""Asked with the app of the active context: its policy, or None if nothing of it is inherited."""


def snapshot_for(policy_for: PolicyFor, ctx: AppContext, fn: object, args: Args = ()) -> Snapshot | None:
    """What *fn*, which is going to be called with *args*, inherits from *ctx*; None if nothing."""
    if issubclass(type(fn), BoundCallable):  # isinstance() would ask for the user's __class__
        return None
    policy = policy_for(ctx.app)
    if policy is None or is_suppressed() is True or is_ending(ctx):
        return None
    try:
        return None if policy.why_task_not_inherited(fn, args) else capture(ctx, policy)
    except Exception:
        log_failure(fn)
        return None


def log_failure(what: object) -> None:
    """Log the exception that is being handled: no snapshot could be taken for *what*."""
    # Two arguments, because logging calls isinstance() on a single one, which may run the object's own __class__.
    then = "which runs without one"
    log(logging.ERROR, "No snapshot of the app context could be taken for %r, %s.", what, then, exc_info=True)


_prepare_context = getattr(ThreadPoolExecutor, "prepare_context", None)


def _runs_in_threads(pool: ThreadPoolExecutor) -> bool:
    # Since 3.14 InterpreterPoolExecutor is a subclass, whose tasks must be shareable with another interpreter.
    prepare_context = getattr(type(pool), "prepare_context", None)
    return getattr(prepare_context, "__func__", None) is getattr(_prepare_context, "__func__", None)


_ADD_WORKER = "_adjust_thread_count"
_add_worker = getattr(ThreadPoolExecutor, _ADD_WORKER, None)


def _submit(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if (ctx is None and not reading) or not args or not (_prepare_context is None or _runs_in_threads(pool)):
        return wrapped(*args, **kwargs)
    fn, rest = args[0], args[1:]
    if reading and (lazy := current()) is not None:
        snapshot = None if issubclass(type(fn), BoundCallable) else lazy.snapshot
    else:
        snapshot = None if ctx is None else snapshot_for(policy_for, ctx, fn, rest)
    if snapshot is not None:
        args = (bind_once(fn, snapshot), *rest)
    if type(pool) is ThreadPoolExecutor and getattr(ThreadPoolExecutor, _ADD_WORKER, None) is _add_worker:
        return wrapped(*args, **kwargs)  # What this starts is the standard library's own worker.
    return starting_workers(wrapped, *args, **kwargs)


def _executor_map(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if kwargs.get("buffersize") is None or not args or current() is not None:
        return wrapped(*args, **kwargs)
    # Not in variables: an exception that is kept, as one of the items', keeps this frame.
    return map_lazily(_snapshot_of_map(policy_for, args[0]), wrapped, args, kwargs)


def _snapshot_of_map(policy_for: PolicyFor, fn: object) -> Snapshot | None:
    return None if (ctx := active()) is None else snapshot_for(policy_for, ctx, fn)


def _add_done_callback(policy_for: PolicyFor, wrapped: Wrapped, future: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if ctx is None or len(args) + len(kwargs) != 1 or (fn := args[0] if args else kwargs.get("fn")) is None:
        return wrapped(*args, **kwargs)
    if (snapshot := snapshot_for(policy_for, ctx, fn)) is None:
        return wrapped(*args, **kwargs)
    callback = bind_callback(fn, snapshot)
    try:
        return wrapped(callback)
    finally:
        callback._self_added()


def _push_app_context(policy_for: PolicyFor, wrapped: Wrapped, ctx: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None or ctx is None:
        return wrapped(*args, **kwargs)
    return flask_context.push_app_context(ctx, lambda: wrapped(*args, **kwargs))


def _push_request_context(policy_for: PolicyFor, wrapped: Wrapped, ctx: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None or ctx is None:
        return wrapped(*args, **kwargs)
    return flask_context.push_request_context(ctx, lambda: wrapped(*args, **kwargs))


_ON_FLASK_BEFORE_3_2 = (
    PatchPoint("flask.ctx", "RequestContext.push", _push_request_context, active),
    PatchPoint("flask.ctx", "AppContext.push", _push_app_context, active, flask_context.note_push_layer),
)

POINTS: tuple[PatchPoint, ...] = (
    # A lazy map submits while its results are read, which may be where no context is active.
    PatchPoint("concurrent.futures.thread", "ThreadPoolExecutor.submit", _submit, *(() if IS_LAZY else (active,))),
    *((PatchPoint("concurrent.futures._base", "Executor.map", _executor_map),) if IS_LAZY else ()),
    PatchPoint("concurrent.futures._base", "Future.add_done_callback", _add_done_callback, active),
    *(_ON_FLASK_BEFORE_3_2 if flask_context.REUSES_APP_CONTEXT else ()),
)

LATE_POINTS = (PatchPoint("gevent.threadpool", "ThreadPoolExecutor.submit", _submit, active),)
"""Patched once their module is imported by somebody else."""
