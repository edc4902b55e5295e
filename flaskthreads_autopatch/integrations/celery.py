"""The context carried to Celery's tasks, in a header of their messages."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import typing as t
import weakref
from collections.abc import Callable, Iterable

import wrapt
from celery import Celery, Task, current_task
from celery.utils import uuid
from flask import Flask

from .. import flask_context
from ..apps import is_twin
from ..carrier import KEY, MAX_SIZE, Carrier
from ..clean_context import clean_context
from ..extraction import Extraction
from ..suppression import is_suppressed
from ..switch import unwrap_proxy

HEADER = KEY
"""Under this name the message of a `Carrier` is found in the headers of a task message."""

_ATTRIBUTE = "_flaskthreads_autopatch"


class _Setup(t.NamedTuple):
    app: Flask
    carrier: Carrier


def init_celery(
    celery_app: t.Any,
    app: Flask,
    *,
    g: Iterable[str] = (),
    headers: Iterable[str] = (),
    request: bool | t.Literal["path"] = True,
    signed: bool = False,
    max_size: int = MAX_SIZE,
) -> None:
    """Have each task of *celery_app* run in a context of *app* of its own, filled from the one it was sent in.

    Call it where the Celery app is made, both in the process that sends tasks and in the worker. A task message carries
    what a `Carrier` with the same options carries; ``delay()`` and its like raise `NotPortableError`. A task that is
    sent without a context (by beat, by a program without this library) runs in an app context. Run in place, by
    ``apply()`` or eagerly, it runs in the caller's context if there is one. *signed*: a task whose message is not
    signed for its name and id fails with a `CarrierError`. Called again, this replaces *app* and the options. Raises
    `TypeError` for wrong arguments.
    """
    if not isinstance(celery_app, Celery):
        raise TypeError(f"celery_app={celery_app!r}: allowed is a Celery app. It comes first, the Flask app second.")
    if not isinstance(app, Flask):
        raise TypeError(
            f"app={app!r}: allowed is the Flask app itself, and no path: a worker has it where it makes the Celery app."
        )
    carrier = Carrier(app, g, headers, request=request, signed=signed, max_size=max_size)
    again = _ATTRIBUTE in vars(celery_app)
    setattr(celery_app, _ATTRIBUTE, _Setup(unwrap_proxy(app), carrier))
    if again:
        return
    # The one way out that all messages of this Celery app take. Celery's signal for it does not say whose they are.
    wrapt.wrap_function_wrapper(celery_app, "send_task", _send_task)
    # The one place that all its tasks come to, whenever and however they are made. Not by its property, which is the
    # end of the time in which tasks may be waiting to be made.
    tasks = celery_app._tasks
    for task in list(tasks.values()):
        _adopt(task)
    tasks.__class__ = type(type(tasks).__name__, (_Adopting, type(tasks)), {})


# mypy does not know what super() is in a mixin: three of its checks are silenced for that.


class _Adopting:
    """What the registry of tasks of *celery_app* gets."""

    def __setitem__(self, name: str, task: t.Any) -> None:
        _adopt(task)
        super().__setitem__(name, task)  # type: ignore[misc]


def _adopt(task: t.Any) -> None:
    cls = type(task)
    if not issubclass(cls, _TaskInContext):
        own_calls = [base for base in cls.__mro__ if base is not Task and "__call__" in vars(base)]
        # In front of the class, so that a __call__ of its own runs inside the context.
        names = {"__module__": cls.__module__, "__doc__": cls.__doc__}
        task.__class__ = type(cls.__name__, (_TaskInContext, cls), names)
        task.__class__.own_call = own_calls[0] if own_calls else None
        if own_calls:
            if _push_context(own_calls):
                _pushing.add(own_calls[0])
            task.run = _in_pushed_context(task, task.run)


_pushing: weakref.WeakSet[type] = weakref.WeakSet()
"""The classes of tasks whose ``__call__`` pushes an app context, as far as is known."""


def _push_context(classes: list[type]) -> bool:
    """Return whether the ``__call__`` of the first class pushes a context. It may call the one of the next class."""
    for cls in classes:
        call: t.Any = inspect.unwrap(vars(cls)["__call__"])
        names = getattr(getattr(call, "__code__", None), "co_names", ())
        if not {"app_context", "request_context", "test_request_context"}.isdisjoint(names):
            return True
        if "__call__" not in names:
            return False
    return False


class _TaskInContext:
    """What the class of each task gets: the ``__call__`` that Flask's documentation writes by hand."""

    app: t.Any
    request: t.Any
    own_call: type | None
    """The class whose ``__call__`` runs; None if it is Celery's own."""

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        run: Callable[..., t.Any] = super().__call__  # type: ignore[misc]
        sender = _task_behind(self)
        if sender is None:
            return run(*args, **kwargs)
        setup: _Setup = getattr(self.app, _ATTRIBUTE)
        request, in_place = sender.request, sender.request.is_eager and _is_active(setup.app)
        try:
            if self.own_call is not None:
                return _run_own_call(self, setup, sender, in_place, run, args, kwargs)
            if in_place:
                # It runs in the caller's context, and so without a teardown: that is the caller's.
                return _run_for(request, run, args, kwargs)
            with setup.carrier.open(_carried_by(request), _names(sender), self):
                return _run_for(request, run, args, kwargs)
        finally:
            # The traceback of an exception that is kept keeps this frame and its variables.
            del self, args, kwargs, run, sender, request

    def signature_from_request(self, request: t.Any = None, *args: t.Any, **options: t.Any) -> t.Any:
        # For a retry, which begins with what was sent at first, be that nothing.
        signature = super().signature_from_request(request, *args, **options)  # type: ignore[misc]
        sent = _carried_by(self.request if request is None else request)
        signature.options["headers"] = {**(signature.options.get("headers") or {}), HEADER: sent}
        return signature


class _Due(t.NamedTuple):
    """A task whose class has a ``__call__`` of its own, from the start of that to the start of ``run()``."""

    task: t.Any
    extraction: Extraction
    before: t.Any
    """The app context that is active when ``__call__`` starts; None if none is."""
    is_ready: bool
    """Whether ``run()`` may be called in that one: it is the task's own, or the caller's."""


_due: contextvars.ContextVar[_Due | None] = contextvars.ContextVar("flaskthreads_autopatch.due_task", default=None)


def _run_own_call(
    task: t.Any, setup: _Setup, sender: t.Any, in_place: bool, run: Callable[..., t.Any], args: t.Any, kwargs: t.Any
) -> t.Any:
    """Run *task*, whose class has a ``__call__`` of its own: *run*.

    The class that Flask's documentation shows pushes an app context, and tears it down. Then that context is filled,
    and no other one is made, so that each teardown handler runs once.
    """
    pushes = task.own_call in _pushing
    if not in_place and pushes and (flask_context.active() is not None or is_suppressed()):
        # A worker that was forked in the middle of a request has that request's context variables.
        return clean_context().run(_run_own_call, task, setup, sender, in_place, run, args, kwargs)
    names = _names(sender)
    text = setup.carrier.take(names) if in_place else _carried_by(sender.request)
    extraction = setup.carrier.open(text, names, task)
    with contextlib.ExitStack() as around:
        if not in_place and not pushes:
            around.enter_context(setup.carrier.open(text, names, task))
        due = _Due(task, extraction, flask_context.active(), in_place or not pushes)
        around.callback(_due.reset, _due.set(due))
        try:
            return _run_for(sender.request, run, args, kwargs)
        finally:
            del task, setup, sender, run, args, kwargs, extraction, due  # As in __call__.


def _in_pushed_context(task: t.Any, run: Callable[..., t.Any]) -> Callable[..., t.Any]:
    """Return the ``run()`` of *task*: it fills the app context that the ``__call__`` of its class has pushed for it."""

    @functools.wraps(run)
    def run_in_pushed_context(*args: t.Any, **kwargs: t.Any) -> t.Any:
        due = _due.get()
        if due is None or due.task is not task:
            return run(*args, **kwargs)  # It is called as a function.
        _due.set(None)
        ctx = flask_context.active()
        try:
            if ctx is due.before:
                with contextlib.nullcontext() if due.is_ready else due.extraction:
                    return run(*args, **kwargs)
            if ctx is None or not is_twin(ctx.app, due.extraction.app):
                return run(*args, **kwargs)
            # A context that was active before, as one that is left over from a fork, is never filled.
            _pushing.add(task.own_call)
            with due.extraction.into(ctx):
                return run(*args, **kwargs)
        finally:
            del args, kwargs, due, ctx  # As in __call__.

    return run_in_pushed_context


_running: contextvars.ContextVar[t.Any] = contextvars.ContextVar("flaskthreads_autopatch.running_task", default=None)
"""The request (Celery's: what came with the message) for which a task's own code runs here; None elsewhere."""


def _task_behind(task: t.Any) -> t.Any:
    """Return the task for whose message *task* is called: mostly itself.

    None where *task* is called as a function, and so part of the code that calls it.
    """
    running, request = _running.get(), task.request
    if running is not None:
        # Called as a function, a task has a copy of the request that is there. Applied, it has one of its own.
        return None if request.called_directly or request.id == running.id else task
    if not request.called_directly:
        return task
    if current_task and current_task.app is task.app and not current_task.request.called_directly:
        return current_task  # Celery itself calls an errback, once the task has failed.
    return None


def _names(task: t.Any) -> tuple[str, str]:
    """Return the *context* of a message, which is signed with it."""
    return task.name, task.request.id or ""


def _is_active(app: Flask) -> bool:
    ctx = flask_context.active()
    return ctx is not None and is_twin(ctx.app, app)


def _run_for(request: t.Any, run: Callable[..., t.Any], args: t.Any, kwargs: t.Any) -> t.Any:
    token = _running.set(request)
    try:
        return run(*args, **kwargs)
    finally:
        _running.reset(token)


def _carried_by(request: t.Any) -> str:
    return t.cast(str, (request.headers or {}).get(HEADER, ""))


def _send_task(wrapped: Callable[..., t.Any], celery_app: t.Any, args: t.Any, kwargs: dict[str, t.Any]) -> t.Any:
    def send(
        name: str,
        args: t.Any = None,
        kwargs: t.Any = None,
        countdown: t.Any = None,
        eta: t.Any = None,
        task_id: t.Any = None,
        *rest: t.Any,
        **options: t.Any,
    ) -> t.Any:
        task_id = task_id or uuid()
        headers = options.get("headers") or {}
        # A retry has the headers of the message that it repeats.
        if HEADER not in headers and (message := _to_carry(celery_app, (name, task_id))):
            options["headers"] = {**headers, HEADER: message}
        return wrapped(name, args, kwargs, countdown, eta, task_id, *rest, **options)

    return send(*args, **kwargs)


def _to_carry(celery_app: t.Any, names: tuple[str, str]) -> str:
    carrier = getattr(celery_app, _ATTRIBUTE).carrier
    over = _running.get() is None and current_task and current_task.app is celery_app
    if over and not current_task.request.is_eager:
        # Sent by Celery itself once the task is over, and its context gone: the next task of a chain, or a chord's
        # body. Or by one of the task's handlers.
        return t.cast(str, carrier.forward(_carried_by(current_task.request), _names(current_task), names))
    return t.cast(str, carrier.take(names))
