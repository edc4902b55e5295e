"""The patch points: which attribute, which wrapper; apply and revert.

Every wrapper has the same shape. Without an active app context, or with one whose app has no policy, it passes straight
through. Else it takes a snapshot, unless the thread or callable is ignored, and binds it to what is going to run.
"""

from __future__ import annotations

import contextvars
import importlib.util
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures.thread import ThreadPoolExecutor
from types import MethodType

import wrapt
from flask import Flask
from flask.ctx import AppContext

from . import flask_context
from .binding import BoundCallable, bind, bind_callback, bind_once, bind_run, bound_run
from .flask_context import active
from .policy import Policy
from .snapshot import THREADS_INHERIT_CONTEXT, Snapshot, capture, clean_context, is_suppressed, logger

Args = tuple[t.Any, ...]
Kwargs = dict[str, t.Any]
Wrapped = Callable[..., t.Any]
PolicyFor = Callable[[Flask], "Policy | None"]
"""Asked with the app of the active context: its policy, or None if nothing of it is inherited."""


def _snapshot_for(policy_for: PolicyFor, ctx: AppContext, fn: object, args: Args = ()) -> Snapshot | None:
    """What *fn*, which is going to be called with *args*, inherits from *ctx*; None if nothing."""
    if isinstance(fn, BoundCallable):
        return None
    policy = policy_for(ctx.app)
    if policy is None or is_suppressed():
        return None
    try:
        return None if policy.why_ignored(fn, args) else capture(ctx, policy)
    except Exception:
        logger.exception("No snapshot of the app context could be taken for %r, which runs without one.", fn)
        return None


def _thread_snapshot(policy: Policy, ctx: AppContext, thread: threading.Thread) -> Snapshot | None:
    """What *thread* inherits from *ctx*; None if nothing."""
    if is_suppressed():
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
    ctx = active()
    if ctx is None or (policy := policy_for(ctx.app)) is None:
        return
    if (snapshot := _thread_snapshot(policy, ctx, thread)) is not None:
        bind_run(thread, snapshot, holds=policy_for)


def _start(policy_for: PolicyFor, wrapped: Wrapped, thread: threading.Thread, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if ctx is None or (policy := policy_for(ctx.app)) is None:
        return wrapped(*args, **kwargs)
    bound = bound_run(thread)
    if bound is not None and bound.explicit:
        return wrapped(*args, **kwargs)
    snapshot = _thread_snapshot(policy, ctx, thread)
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
    ctx = active()
    if ctx is None or not args or not (_prepare_context is None or _runs_in_threads(pool)):
        return wrapped(*args, **kwargs)
    fn, rest = args[0], args[1:]
    snapshot = _snapshot_for(policy_for, ctx, fn, rest)
    return wrapped(*args, **kwargs) if snapshot is None else wrapped(bind_once(fn, snapshot), *rest, **kwargs)


def _add_done_callback(policy_for: PolicyFor, wrapped: Wrapped, future: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
    if ctx is None or len(args) != 1 or kwargs or (snapshot := _snapshot_for(policy_for, ctx, args[0])) is None:
        return wrapped(*args, **kwargs)
    callback = bind_callback(args[0], snapshot)
    try:
        return wrapped(callback)
    finally:
        callback._self_added()


def _pool_call(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if (ctx := active()) is not None:
        args, kwargs = _bind_arguments(policy_for, ctx, bind, args, kwargs)
    return wrapped(*args, **kwargs)


def _pool_call_once(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if (ctx := active()) is not None:
        args, kwargs = _bind_arguments(policy_for, ctx, bind_once, args, kwargs)
    return wrapped(*args, **kwargs)


def _bind_arguments(
    policy_for: PolicyFor, ctx: AppContext, bind_fn: Callable[..., Wrapped], args: Args, kwargs: Kwargs
) -> tuple[Args, Kwargs]:
    # The function comes first in all of ThreadPool's methods; the two callbacks, where there are any, fourth and fifth.
    def bound(name: str | int, fn: t.Any) -> t.Any:
        if name not in (0, 3, 4, "func", "callback", "error_callback") or fn is None:
            return fn
        snapshot = _snapshot_for(policy_for, ctx, fn)
        return fn if snapshot is None else (bind_fn if name in (0, "func") else bind_once)(fn, snapshot)

    return tuple(bound(i, arg) for i, arg in enumerate(args)), {k: bound(k, arg) for k, arg in kwargs.items()}


def _serve(policy_for: PolicyFor, wrapped: Wrapped, app: Flask, args: Args, kwargs: Kwargs) -> t.Any:
    ctx = active()
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
        if (layer := self._layers.get(point)) is not None:
            if _is_there(point, layer.handle):
                return
            # Somebody's off switch has taken it out, or it cannot be seen below theirs: one layer at most is alive.
            layer.alive.clear()
            self._buried.append((point, self._layers.pop(point)))
        for buried in self._buried:
            if buried[0] == point and _is_there(point, buried[1].handle):
                self._buried.remove(buried)
                self._layers[point] = buried[1]
                buried[1].alive.append(True)
                return
        alive = [True]
        # A method of the policy: 15 ns less at each call than a functools.partial, of the 60 that a pass-through has.
        wrapper = MethodType(point.wrapper, self._policy_for)
        handle = wrapt.wrap_object(*_place(point), wrapt.FunctionWrapper, (wrapper, alive))
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
            _is_there(point, layer.handle)
            try:
                wrapt.unwrap_object(*_place(point), layer.handle)
            except (wrapt.WrapperNotFoundError, wrapt.WrapperNotOutermostError):
                self._buried.append((point, layer))


def _place(point: PatchPoint) -> tuple[type, str]:
    """The class that *point* names, and the attribute."""
    found, attribute, _ = wrapt.resolve_path(point.module, point.attribute)
    # gevent puts a subclass of its own in the place of Thread, which stands before Timer in the MRO of gevent's Timer:
    # a wrapper in there would hide Timer.__init__.
    owner = t.cast(type, found)
    return next((cls for cls in owner.__mro__ if cls.__module__ == point.module), owner), attribute


def _chain(point: PatchPoint) -> list[t.Any]:
    return list(wrapt.wrapper_chain(wrapt.resolve_path(*_place(point))[2]))


def _is_there(point: PatchPoint, handle: object) -> bool:
    """Whether *handle* lies on *point*.

    Who reads a wrapped method from its class, and later writes it back, writes its bound form, as OpenTelemetry's off
    switch does: the handle itself is put back in its place, where it can be taken out.
    """
    above = None
    for entry in _chain(point):
        if entry is handle:
            return True
        if issubclass(type(entry), wrapt.BoundFunctionWrapper) and entry._self_parent is handle:
            if above is None:
                setattr(*_place(point), handle)
            elif issubclass(type(above), wrapt.BaseObjectProxy):
                above.__wrapped__ = handle
            return True
        above = entry
    return False


def _origin(layer: t.Any) -> str:
    if isinstance(layer, (wrapt.FunctionWrapper, wrapt.BoundFunctionWrapper)):
        layer = layer._self_wrapper
    layer = getattr(layer, "func", layer)
    # functools.wraps copies __module__ from what it wraps; the globals are the layer's own.
    return str(getattr(layer, "__globals__", {}).get("__name__") or getattr(layer, "__module__", "unknown"))
