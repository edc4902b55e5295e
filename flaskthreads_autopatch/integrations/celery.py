"""The context carried to Celery's tasks, in a header of their messages."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable

import wrapt
from celery import Celery, current_task
from flask import Flask

from .. import flask_context
from ..portable import AllowList, Settings, alone, replay, take
from ..snapshot import is_inherited
from ..switch import real

HEADER = "flaskthreads_autopatch"
"""Under this name the snapshot stands in a task message's headers."""

_ATTRIBUTE = "_flaskthreads_autopatch"


class _Setup(t.NamedTuple):
    app: Flask
    allowed: AllowList
    settings: Settings


def init_celery(celery_app: t.Any, app: Flask, *, g: Iterable[str] = (), headers: Iterable[str] = ()) -> None:
    """Have each task of *celery_app* run in a context of *app* of its own, filled from the one it was sent in.

    Call it where the Celery app is made, in what sends tasks and in the worker alike. A task message carries the
    entries of ``g`` that *g* names and, if it is sent in a request, that one's method, its URL and the headers that
    *headers* names; ``delay()`` and its like raise `NotPortableError`. A task that is sent without a context (by beat,
    by a program without us) runs in an app context. Run in place, by ``apply()`` or eagerly, it runs in the caller's
    context if there is one. Called again, it replaces *app* and the names. Raises `TypeError` for what is no Celery
    app, no Flask app, or no names.
    """
    if not isinstance(celery_app, Celery):
        raise TypeError(f"celery_app={celery_app!r}: allowed is a Celery app. It comes first, the Flask app second.")
    if not isinstance(app, Flask):
        raise TypeError(
            f"app={app!r}: allowed is the Flask app itself, and no path: a worker has it where it makes the Celery app."
        )
    again = _ATTRIBUTE in vars(celery_app)
    setattr(celery_app, _ATTRIBUTE, _Setup(real(app), AllowList.of(g, headers), Settings()))
    if again:
        return
    # The one way out that all messages of this Celery app take. Celery's signal for it does not say whose they are.
    wrapt.wrap_function_wrapper(celery_app, "send_task", _send_task)
    celery_app.Task = _in_context(celery_app.Task)
    if celery_app.finalized:
        _adopt(celery_app)
    else:
        celery_app.on_after_finalize.connect(_adopt)


class _TaskInContext:
    """What the task classes of *celery_app* get: the ``__call__`` that Flask's documentation writes by hand."""

    app: t.Any
    request: t.Any

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        run: Callable[..., t.Any] = super().__call__  # type: ignore[misc]
        request = self.request
        if request.called_directly:
            return run(*args, **kwargs)
        app = getattr(self.app, _ATTRIBUTE).app
        ctx = flask_context.active()
        if request.is_eager and ctx is not None and ctx.app is app:
            # In the caller's context, and so without a teardown: that is the caller's.
            return run(*args, **kwargs)
        return alone(_replay, app, _carried_by(request), run, args, kwargs, self)


def _replay(app: Flask, message: str, run: Callable[..., t.Any], args: t.Any, kwargs: t.Any, task: object) -> t.Any:
    return replay(app, message, run, args, kwargs, shown=task)


def _carried_by(request: t.Any) -> str:
    return t.cast(str, (request.headers or {}).get(HEADER, ""))


def _send_task(wrapped: Callable[..., t.Any], celery_app: t.Any, args: t.Any, kwargs: dict[str, t.Any]) -> t.Any:
    headers = kwargs.get("headers") or {}
    # A retry has the headers of what it repeats.
    if HEADER not in headers and (message := _to_carry(celery_app)):
        kwargs = {**kwargs, "headers": {**headers, HEADER: message}}
    return wrapped(*args, **kwargs)


def _to_carry(celery_app: t.Any) -> str:
    if is_inherited() or not current_task or current_task.app is not celery_app:
        return _take(celery_app)
    # Sent by Celery itself once the task is over, and its context gone: the next of a chain, a chord's body. Or a task
    # that runs in place, in the caller's context, and carries nothing itself.
    return _carried_by(current_task.request) or _take(celery_app)


def _take(celery_app: t.Any) -> str:
    setup: _Setup = getattr(celery_app, _ATTRIBUTE)
    return take(setup.allowed, setup.settings)


def _in_context(cls: type) -> type:
    return type(cls.__name__, (_TaskInContext, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def _adopt(sender: t.Any, **_: t.Any) -> None:
    """The tasks that have a base class of their own, or were made before `init_celery`."""
    for task in sender.tasks.values():
        if not isinstance(task, _TaskInContext):
            task.__class__ = _in_context(type(task))
