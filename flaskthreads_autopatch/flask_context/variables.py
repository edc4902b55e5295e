"""Flask's context variables, and the mark on the contexts that this library enters, for both generations of Flask."""

from __future__ import annotations

import contextvars
import functools
import typing as t
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import flask.ctx
import flask.globals
from flask import Flask
from flask.ctx import AppContext

HAS_REQUEST_CONTEXT = hasattr(flask.globals, "_cv_request")
"""Whether a request has a context and a context variable of its own (Flask < 3.2)."""

cv_app: contextvars.ContextVar[AppContext | None] = t.cast(t.Any, flask.globals._cv_app)
# On Flask 3.2 this is a variable that is never set.
cv_request: contextvars.ContextVar[t.Any] = getattr(
    flask.globals, "_cv_request", contextvars.ContextVar("flaskthreads_autopatch.no_request_context")
)

# The mark is set through the attribute and not through the context's __dict__, because the interpreter builds that
# dictionary only when it is asked for: setting the attribute three times takes 15 ns, the dictionary 100 ns.
MARK = "_flaskthreads_autopatch"
"""An attribute of an app context that we entered: True while the user's code runs in it, False while it is being
entered or left, when receivers and teardown handlers run and nothing may inherit. On Flask < 3.2 also an attribute of
a request context that is lent, and of one that was made for a carried task."""

DEFAULTS = "_flaskthreads_autopatch_defaults"
"""An attribute of an app context that we entered, see `note_defaults`."""

PARENT = "_flaskthreads_autopatch_parent"
"""An attribute of an app context whose end is noted: its `ParentRef`."""

FLASKS_G: type = flask.ctx._AppCtxGlobals
"""Flask's own class of ``g``."""

Lent: t.TypeAlias = dict[str, t.Any]
"""The state of a request context, by value. It does not refer to the parent's app context."""

active: t.Callable[[], AppContext | None] = functools.partial(cv_app.get, None)
"""Return the active app context, or None. Each patch point calls this at each call."""


def active_or(otherwise: object) -> t.Callable[[], object]:
    """Return a function that returns the active app context, or *otherwise*. It runs no Python, for the gates."""
    return functools.partial(t.cast(t.Any, cv_app.get), otherwise)


foreign_request: t.Callable[[], object] = functools.partial(cv_request.get, None)
"""Return the active request context, or None. Before Flask 3.2 it stays visible when another app context is pushed.
From 3.2 on there is no separate request context, so this is always None."""


def is_inherited(ctx: AppContext) -> bool:
    """Return whether we entered this app context, as a child of another one."""
    return hasattr(ctx, MARK)


def has_served(app: Flask) -> bool:
    """Return whether *app* has begun to serve requests, so that its setup is finished."""
    return bool(getattr(app, "_got_first_request", True))


def note_defaults(ctx: t.Any) -> None:
    """Note what the constructor of a class of the app's own has put on ``g``. *ctx* was made just now."""
    with suppress(Exception):  # The class may have no __dict__, or attributes that raise.
        setattr(ctx, DEFAULTS, dict(ctx.g.__dict__))


def defaults_of(ctx: AppContext) -> dict[str, t.Any]:
    """Return what the constructor of ``g`` has put there, if that is of a class of the app's own."""
    return t.cast("dict[str, t.Any]", getattr(ctx, DEFAULTS, {}))


@contextmanager
def in_transition(ctx: t.Any) -> Iterator[None]:
    """Keep everything from inheriting *ctx* until the end of the block."""
    entered = hasattr(ctx, MARK)
    ctx._flaskthreads_autopatch = False
    try:
        yield
    finally:
        if entered:
            ctx._flaskthreads_autopatch = True
        else:
            del ctx._flaskthreads_autopatch  # Other code has entered it, and leaves it.


def without_flask() -> contextvars.Context:
    """Return a copy of the current context variables in which no Flask context is active."""
    context = contextvars.Context()
    for var, value in contextvars.copy_context().items():
        if var is not cv_app and var is not cv_request:
            context.run(var.set, value)
    return context
