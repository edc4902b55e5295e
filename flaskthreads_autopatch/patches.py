"""The patch points: which attribute, which wrapper; apply and revert.

Every wrapper has the same shape. Without an active app context, or with one whose app has no policy, it passes straight
through. Else it takes a snapshot, unless the thread or callable is ignored, and binds it to what is going to run.
"""

from __future__ import annotations

import contextvars
import functools
import importlib.util
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures.thread import ThreadPoolExecutor

import wrapt
from flask import Flask

from . import flask_context
from .binding import BoundCallable, BoundCallback, BoundTask, bind_run, bound_run
from .policy import Policy
from .snapshot import THREADS_INHERIT_CONTEXT, Snapshot, capture, clean_context, is_suppressed, logger

Args = tuple[t.Any, ...]
Kwargs = dict[str, t.Any]
Wrapped = Callable[..., t.Any]
PolicyFor = Callable[[Flask], "Policy | None"]
"""Asked with the app of the active context: its policy, or None if nothing of it is inherited."""


def _snapshot_for(policy_for: PolicyFor, fn: object, args: Args = ()) -> Snapshot | None:
    """What *fn*, which is going to be called with *args*, inherits; None if nothing."""
    ctx = flask_context.active()
    if ctx is None or isinstance(fn, BoundCallable):
        return None
    policy = policy_for(ctx.app)
    if policy is None or is_suppressed():
        return None
    try:
        return None if policy.why_ignored(fn, args) else capture(ctx, policy)
    except Exception:
        logger.exception("No snapshot of the app context could be taken for %r, which runs without one.", fn)
        return None


def _thread_snapshot(policy: Policy, thread: threading.Thread) -> Snapshot | None:
    """What *thread* inherits from the active context; None if nothing."""
    ctx = flask_context.active()
    if ctx is None or is_suppressed():
        return None
    state, cls = thread.__dict__, type(thread)
    target = state.get("_target") or state.get("function")
    try:
        if cls is not threading.Thread and policy.why_class_ignored(cls):
            return None
        if target is not None and policy.why_ignored(target, tuple(state.get("_args") or ())):
            return None
        # Since 3.14 a thread can be given its context variables: those stay.
        return capture(ctx, policy, contextvars=state.get("_context") is None)
    except Exception:
        logger.exception("No snapshot of the app context could be taken for %r, which runs without one.", thread)
        return None


def _init(policy_for: PolicyFor, wrapped: Wrapped, thread: threading.Thread, args: Args, kwargs: Kwargs) -> None:
    # The fallback, for a thread that is started outside the context, or by a start() that bypasses ours, as the one
    # that OpenTelemetry puts into Timer.
    wrapped(*args, **kwargs)
    ctx = flask_context.active()
    if ctx is None or (policy := policy_for(ctx.app)) is None:
        return
    if (snapshot := _thread_snapshot(policy, thread)) is not None:
        bind_run(thread, snapshot, holds=policy_for)


def _start(policy_for: PolicyFor, wrapped: Wrapped, thread: threading.Thread, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = flask_context.active()
    if ctx is None or (policy := policy_for(ctx.app)) is None:
        return wrapped(*args, **kwargs)
    bound = bound_run(thread)
    if bound is not None and bound.explicit:
        return wrapped(*args, **kwargs)
    snapshot = _thread_snapshot(policy, thread)
    undo = bind_run(thread, snapshot) if snapshot is not None or bound is not None else None
    try:
        if snapshot is None or THREADS_INHERIT_CONTEXT:
            # It must not get the contexts by itself either: a worker would keep them for ever (H15).
            return clean_context().run(wrapped, *args, **kwargs)
        return wrapped(*args, **kwargs)
    except Exception:
        if undo is not None:
            undo()
        raise


_prepare_context = getattr(ThreadPoolExecutor, "prepare_context", None)


def _runs_in_threads(pool: ThreadPoolExecutor) -> bool:
    # Since 3.14 InterpreterPoolExecutor is a subclass, whose tasks must be shareable with another interpreter.
    prepare_context = getattr(type(pool), "prepare_context", None)
    return getattr(prepare_context, "__func__", None) is getattr(_prepare_context, "__func__", None)


def _submit(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if args and (snapshot := _snapshot_for(policy_for, args[0], args[1:])) is not None and _runs_in_threads(pool):
        args = (BoundTask(args[0], snapshot), *args[1:])
    return wrapped(*args, **kwargs)


def _add_done_callback(policy_for: PolicyFor, wrapped: Wrapped, future: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if len(args) != 1 or kwargs or (snapshot := _snapshot_for(policy_for, args[0])) is None:
        return wrapped(*args, **kwargs)
    callback = BoundCallback(args[0], snapshot)
    try:
        return wrapped(callback)
    finally:
        callback._self_added()


def _pool_call(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    bound = _bind_arguments(policy_for, BoundCallable, args, kwargs)
    return wrapped(*bound[0], **bound[1])


def _pool_call_once(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    bound = _bind_arguments(policy_for, BoundTask, args, kwargs)
    return wrapped(*bound[0], **bound[1])


def _bind_arguments(
    policy_for: PolicyFor, kind: type[BoundCallable], args: Args, kwargs: Kwargs
) -> tuple[Args, Kwargs]:
    # The function comes first in all of ThreadPool's methods; the two callbacks, where there are any, fourth and fifth.
    def bound(name: str | int, fn: t.Any) -> t.Any:
        if name not in (0, 3, 4, "func", "callback", "error_callback") or fn is None:
            return fn
        snapshot = _snapshot_for(policy_for, fn)
        return fn if snapshot is None else (kind if name in (0, "func") else BoundTask)(fn, snapshot)

    if flask_context.active() is None:
        return args, kwargs
    return tuple(bound(i, arg) for i, arg in enumerate(args)), {k: bound(k, arg) for k, arg in kwargs.items()}


def _serve(policy_for: PolicyFor, wrapped: Wrapped, app: Flask, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = flask_context.active()
    if ctx is None or not flask_context.is_inherited(ctx):
        return wrapped(*args, **kwargs)
    context = clean_context()
    response = context.run(wrapped, *args, **kwargs)
    return _InContext(response, context) if flask_context.leaves_something_active(context) else response


class _InContext:
    """A streaming response, whose request context is still pushed in *context*: read and closed in there."""

    def __init__(self, response: t.Any, context: contextvars.Context) -> None:
        self._response = response
        self._iterator = context.run(iter, response)
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return t.cast(bytes, self._context.run(next, self._iterator))

    def close(self) -> None:
        if hasattr(self._response, "close"):
            self._context.run(self._response.close)


class PatchPoint(t.NamedTuple):
    """One attribute that is wrapped."""

    module: str
    attribute: str
    wrapper: Callable[..., t.Any]

    @property
    def name(self) -> str:
        return f"{self.module}.{self.attribute}"


_ON_FLASK_BEFORE_3_2 = (
    # wsgi_app may be called by itself, and may have been replaced by a middleware that __call__ calls: both.
    PatchPoint("flask.app", "Flask.__call__", _serve),
    PatchPoint("flask.app", "Flask.wsgi_app", _serve),
)

POINTS: tuple[PatchPoint, ...] = (
    PatchPoint("threading", "Thread.__init__", _init),
    PatchPoint("threading", "Thread.start", _start),
    PatchPoint("concurrent.futures.thread", "ThreadPoolExecutor.submit", _submit),
    PatchPoint("concurrent.futures._base", "Future.add_done_callback", _add_done_callback),
    PatchPoint("multiprocessing.pool", "ThreadPool.apply_async", _pool_call_once),
    *(
        PatchPoint("multiprocessing.pool", f"ThreadPool.{method}", _pool_call)
        for method in ("map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")
    ),
    *(_ON_FLASK_BEFORE_3_2 if flask_context.REUSES_APP_CONTEXT else ()),
)

LATE_POINTS = (PatchPoint("gevent.threadpool", "ThreadPoolExecutor.submit", _submit),)
"""Patched once their module is imported by somebody else."""


class _Layer(t.NamedTuple):
    handle: wrapt.FunctionWrapper[..., t.Any]
    # wrapt tests its truth at each call: an empty list makes the layer inert.
    alive: list[bool]


class Patches:
    """The layers that this library has put on the patch points. Its methods may be called from any thread."""

    def __init__(self, policy_for: PolicyFor) -> None:
        self._policy_for = policy_for
        self.lock = threading.RLock()
        self.applied = False
        self._layers: dict[PatchPoint, _Layer] = {}
        # Layers that could not be taken out because a foreign one, which is not wrapt's, lies above: they are inert.
        self._buried: list[tuple[PatchPoint, _Layer]] = []
        self._watched: set[str] = set()

    def apply(self) -> None:
        """Put a layer on each patch point that has none of ours."""
        with self.lock:
            self.applied = True
            try:
                for point in POINTS:
                    self._wrap(point)
                for point in LATE_POINTS:
                    self._wrap_when_imported(point)
            except BaseException:
                self.revert()
                raise

    def revert(self) -> None:
        """Take our layers out, and only ours. What cannot be taken out yet is inert, and tried again next time."""
        with self.lock:
            self.applied = False
            self._buried += self._layers.items()
            self._layers = {}
            for _, layer in self._buried:
                layer.alive.clear()
            self._dig_out()

    def describe(self) -> dict[str, list[str]]:
        """By patch point, the layers that lie on it from the outside in: where each comes from."""
        points = [point for point in POINTS + LATE_POINTS if point.module in sys.modules]
        return {point.name: [_origin(entry) for entry in _chain(point)[:-1]] for point in points}

    def _wrap(self, point: PatchPoint) -> None:
        if point in self._layers:
            return
        chain = _chain(point)
        for buried in self._buried:
            if buried[0] == point and any(entry is buried[1].handle for entry in chain):
                self._buried.remove(buried)
                self._layers[point] = buried[1]
                buried[1].alive.append(True)
                return
        alive = [True]
        wrapper = functools.partial(point.wrapper, self._policy_for)
        handle = wrapt.wrap_object(point.module, point.attribute, wrapt.FunctionWrapper, (wrapper, alive))
        self._layers[point] = _Layer(handle, alive)

    def _wrap_when_imported(self, point: PatchPoint) -> None:
        if point.module in sys.modules:
            self._wrap(point)
        elif point.module not in self._watched and importlib.util.find_spec(point.module.partition(".")[0]):
            self._watched.add(point.module)
            wrapt.register_post_import_hook(lambda module: self._on_import(point), point.module)

    def _on_import(self, point: PatchPoint) -> None:
        with self.lock:
            if self.applied:
                self._wrap(point)

    def _dig_out(self) -> None:
        buried, self._buried = self._buried, []
        for point, layer in buried:
            owner, name, found = wrapt.resolve_path(point.module, point.attribute)
            if getattr(found, "_self_parent", None) is layer.handle:
                # Somebody has put back what getattr() gave them of ours: wrapt's bound form of the layer.
                setattr(owner, name, layer.handle)
            try:
                wrapt.unwrap_object(point.module, point.attribute, layer.handle)
            except (wrapt.WrapperNotFoundError, wrapt.WrapperNotOutermostError):
                self._buried.append((point, layer))


def _chain(point: PatchPoint) -> list[t.Any]:
    return list(wrapt.wrapper_chain(wrapt.resolve_path(point.module, point.attribute)[2]))


def _origin(layer: t.Any) -> str:
    if isinstance(layer, (wrapt.FunctionWrapper, wrapt.BoundFunctionWrapper)):
        layer = layer._self_wrapper
    layer = getattr(layer, "func", layer)
    # functools.wraps copies __module__ from what it wraps; the globals are the layer's own.
    return str(getattr(layer, "__globals__", {}).get("__name__") or getattr(layer, "__module__", "unknown"))
