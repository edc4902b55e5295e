"""Flask's contexts, seen from a thread: the only file that knows Flask's private names.

Flask has two generations of contexts, told apart by feature and never by version number:

* 2.2 to 3.1 keep an app context and a request context in two context variables; a context lists the
  tokens of its pushes in ``_cv_tokens``; a dispatch reuses an active app context of the same app.
* 3.2 has one app context, which may have request data; it counts its pushes in ``_push_count``.

Everything above this file speaks of what is *active*, what may be *lent*, *enter*, *leave*, and a context variable
space *without Flask*.
"""

from __future__ import annotations

import contextvars
import functools
import typing as t
from collections.abc import Iterator
from contextlib import contextmanager

import flask.globals
from flask import Flask
from flask.ctx import AppContext

from .teardown import guarded, log_error, owner_of_teardown, tear_down, tearing_down_receivers

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_cv_app: contextvars.ContextVar[AppContext] = flask.globals._cv_app
_HAS_REQUEST_CONTEXT = hasattr(flask.globals, "_cv_request")
# On Flask 3.2 a variable that nobody sets.
_cv_request: contextvars.ContextVar[t.Any] = getattr(
    flask.globals, "_cv_request", contextvars.ContextVar("flaskthreads_autopatch.no_request_context")
)

REUSES_APP_CONTEXT = _HAS_REQUEST_CONTEXT
"""Whether a dispatch reuses an active app context of the same app (Flask < 3.2)."""

# Set through the attribute and not through the context's __dict__, which the interpreter builds only when asked for it
# (three times 15 ns; through the __dict__ 100 ns more).
MARK = "_flaskthreads_autopatch"
"""An attribute of an app context that we entered: True while the user's code runs in it, False while it is being
entered or left, when receivers and teardown handlers run and nothing may inherit."""

# What a 3.2 context is lent. `g` is its own, and so is the bookkeeping of pushes.
_LENT = ("_request", "_session", "url_adapter", "_flashes", "_after_request_functions")

Lent = t.NewType("Lent", dict[str, t.Any])
"""The state of a request context, by value; nothing of it refers to the parent's app context."""

Entered = tuple[AppContext, t.Any]
"""The app context, and the token, that `leave` takes."""

active: t.Callable[[], AppContext | None] = functools.partial(_cv_app.get, None)
"""The app context that is active here, or None. Asked by every patch point at every call."""


def is_inherited(ctx: AppContext) -> bool:
    """Whether we entered this app context, as a child of another one."""
    return hasattr(ctx, MARK)


@contextmanager
def in_transition(ctx: t.Any) -> Iterator[None]:
    """Nothing inherits from *ctx*, which we entered, until the end of the block."""
    ctx._flaskthreads_autopatch = False
    try:
        yield
    finally:
        ctx._flaskthreads_autopatch = True


foreign_request: t.Callable[[], object] = functools.partial(_cv_request.get, None)
"""The request context that an app context entered now would not cover, or None (always, from Flask 3.2 on)."""


def without_flask() -> contextvars.Context:
    """A copy of the current context variables in which no Flask context is active."""
    context = contextvars.Context()
    for var, value in contextvars.copy_context().items():
        if var is not _cv_app and var is not _cv_request:
            context.run(var.set, value)
    return context


def leaves_something_active(context: contextvars.Context) -> bool:
    """Whether a Flask context is still pushed in these context variables, as by a streaming response."""
    return context.get(_cv_app) is not None


def active_request(ctx: AppContext) -> t.Any:
    """The active request object, or None. Does not touch the session."""
    if not _HAS_REQUEST_CONTEXT:
        return t.cast(t.Any, ctx)._request
    request_ctx = _cv_request.get(None)
    return None if request_ctx is None else request_ctx.request


def own_request(ctx: AppContext) -> t.Any:
    """The active request if it is one of the app of *ctx*; else None. (Before 3.2 another app's may lie below.)"""
    if _HAS_REQUEST_CONTEXT and getattr(_cv_request.get(None), "app", None) is not ctx.app:
        return None
    return active_request(ctx)


def is_pushed(ctx: AppContext) -> bool:
    """Whether *ctx* is active somewhere; may be asked from any thread."""
    if not _HAS_REQUEST_CONTEXT:
        return t.cast(t.Any, ctx)._cv_token is not None
    # What `leave` puts there for Flask's pop() stays there.
    return any(token is not None for token in t.cast(t.Any, ctx)._cv_tokens[-1:])


def lent_request(lent: Lent | None) -> t.Any:
    """The request that *lent* lends, or None."""
    return None if lent is None else lent["request" if _HAS_REQUEST_CONTEXT else "_request"]


if _HAS_REQUEST_CONTEXT:
    from flask.ctx import RequestContext

    # Since 3.1.3 `session` is a property, which marks the session as accessed.
    _SESSION = "_session" if hasattr(RequestContext, "session") else "session"

    def lendable(ctx: AppContext) -> Lent | None:
        """The active request and session, ready to be lent; None outside a request."""
        request_ctx = _cv_request.get(None)
        if request_ctx is None:
            return None
        state = request_ctx.__dict__.copy()
        # The tokens refer to the parent's contexts, and belong to its pushes alone.
        state["_cv_tokens"] = type(request_ctx)
        # A nested push, as by stream_with_context, must not match the URL again (H4).
        state["match_request"] = _already_matched
        return Lent(state)

    def enter(app: Flask, lent: Lent | None, fn: object) -> Entered:
        """Push a new app context of *app* for *fn* and lend it a request. Returns what `leave` takes."""
        ctx: t.Any = app.app_context()
        ctx._flaskthreads_autopatch = False
        try:
            ctx.push()
        except BaseException as exc:
            # A receiver of appcontext_pushed raised, and Flask leaves the context pushed.
            leave(ctx, None, exc, fn)
            raise
        ctx._flaskthreads_autopatch = True
        if lent is None:
            return ctx, None
        # RequestContext.copy() builds a URL adapter: ten times the price. The copy of the state becomes the __dict__,
        # instead of filling the one that is there: 90 ns less.
        state = lent.copy()
        request_ctx = object.__new__(state["_cv_tokens"])
        request_ctx.__dict__ = state
        token = _cv_request.set(request_ctx)
        # Counts as pushed once already: a nested push must not tear down and close the parent's request when it is
        # popped (H17).
        state["_cv_tokens"] = [(token, None)]
        return ctx, token

    def enter_with_request(app: Flask, environ: WSGIEnvironment, session: t.Any, fn: object) -> Entered:
        """The same with a request of its own, made from *environ*. Without a *session*, one is opened as by Flask."""
        ctx, _ = enter(app, None, fn)
        try:
            # Finds the app context that was just pushed, and makes no other.
            request_ctx: t.Any = app.request_context(environ)
            request_ctx._flaskthreads_autopatch = True  # see wants_app_context
            # Where there is one, push() opens none.
            setattr(request_ctx, _SESSION, session)
            request_ctx.push()
        except BaseException as exc:
            leave(ctx, None, exc, fn)
            raise
        return ctx, request_ctx._cv_tokens[0][0]

    def wants_app_context(request_ctx: t.Any) -> bool:
        """Whether *request_ctx*, which is going to be pushed, would reuse an inherited app context that is not for it.

        What is lent, and a copy of it, has a session already: these belong to the inherited one. While that is on its
        way out, an app context that a teardown handler pushes would be torn down by the same handler (H11).
        """
        ctx = _cv_app.get(None)
        return (
            getattr(ctx, MARK, None) is True
            and t.cast(AppContext, ctx).app is request_ctx.app
            and getattr(request_ctx, _SESSION) is None
            and not hasattr(request_ctx, MARK)
        )

    def push_with_app_context(request_ctx: t.Any, push: t.Callable[[], object]) -> None:
        """Have *push* push *request_ctx* onto a new app context, which is popped with it."""
        ctx: t.Any = request_ctx.app.app_context()
        try:
            ctx.push()
            push()
        except BaseException as exc:
            # Flask leaves both pushed. Who pops the request context even so finds it without an app context to pop.
            ctx.pop(exc)
            raise
        token, _ = request_ctx._cv_tokens[-1]
        request_ctx._cv_tokens[-1] = token, ctx

    def leave(ctx: t.Any, token: t.Any, exc: BaseException | None, fn: object) -> None:
        """Take the lent request back, tear the app context down, and pop it; every step, come what may."""
        ctx._flaskthreads_autopatch = False
        if token is not None:
            try:
                _cv_request.reset(token)
            except RuntimeError:
                _unwind_requests()  # the task has popped the lent request itself, and the token is used
        elif _cv_request.get(None) is not None:
            _unwind_requests()
        tokens: list[t.Any] = ctx._cv_tokens
        if not tokens:
            return  # the task has popped, and so torn down, the context itself
        if _cv_app.get(None) is not ctx:
            _cv_app.set(ctx)  # H16: somebody pushed a context and never popped it
        app: Flask = ctx.app
        try:
            own_teardown = type(app) is not Flask and owner_of_teardown(type(app)) is not Flask
            if app.teardown_appcontext_funcs or own_teardown or tearing_down_receivers:
                try:
                    tear_down(app, own_teardown, exc, fn)
                finally:
                    if _cv_app.get(None) is not ctx:
                        _cv_app.set(ctx)  # the same, by a teardown handler
        finally:
            if len(tokens) > 1:
                del tokens[1:]  # the task has pushed this very context again
            # With a second entry in the list, pop() takes this for a nested push and leaves the teardown, which has
            # run, alone.
            tokens.insert(0, None)
            try:
                ctx.pop(exc)
            except Exception:
                log_error(app, fn)

    def _unwind_requests() -> None:
        # Nothing was lent, and nothing was active before: what is active now, the task has forgotten (H16).
        while (request_ctx := _cv_request.get(None)) is not None:
            try:
                _cv_request.reset(request_ctx._cv_tokens.pop()[0])
            except (IndexError, ValueError, RuntimeError):
                # Pushed in another contextvars.Context: it cannot be unset, but it can be covered.
                _cv_request.set(None)

    def _already_matched() -> None:
        """In the place of match_request: the parent has matched this request."""

else:

    def lendable(ctx: AppContext) -> Lent | None:
        """The active request and session, ready to be lent; None outside a request."""
        state = ctx.__dict__
        if state["_request"] is None:
            return None
        return Lent({name: state[name] for name in _LENT})

    def enter(app: Flask, lent: Lent | None, fn: object) -> Entered:
        """Push a new app context of *app* for *fn* and lend it a request. Returns what `leave` takes."""
        ctx: t.Any = app.app_context()
        ctx._flaskthreads_autopatch = False
        try:
            ctx.push()
        except BaseException as exc:
            # A receiver of appcontext_pushed raised, and Flask leaves the context pushed.
            leave(ctx, None, exc, fn)
            raise
        ctx._flaskthreads_autopatch = True
        if lent is not None:
            ctx.__dict__.update(lent)
        return ctx, None

    def enter_with_request(app: Flask, environ: WSGIEnvironment, session: t.Any, fn: object) -> Entered:
        """The same with a request of its own, made from *environ*. Without a *session*, one is opened as by Flask."""
        own: t.Any = app.request_context(environ)
        own._session = session
        ctx: t.Any = enter(app, lendable(own), fn)[0]
        try:
            ctx._get_session()
            if ctx.url_adapter is not None:
                ctx.match_request()
        except BaseException as exc:
            leave(ctx, None, exc, fn)
            raise
        return ctx, None

    def leave(ctx: t.Any, token: t.Any, exc: BaseException | None, fn: object) -> None:
        """Take the lent request back, tear the app context down, and pop it; every step, come what may."""
        ctx._flaskthreads_autopatch = False
        if ctx._cv_token is None:
            return  # the task has popped, and so torn down, the context itself
        if _cv_app.get(None) is not ctx:
            _cv_app.set(ctx)  # H16: somebody pushed a context and never popped it
        ctx._request = ctx._session = None
        # More than one: the task has pushed this very context again.
        ctx._push_count = 1
        guarded(ctx.app, fn, ctx.pop, exc)
