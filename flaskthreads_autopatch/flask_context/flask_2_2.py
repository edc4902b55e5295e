"""The contexts of Flask 2.2 to 3.1: an app context and a request context, each with a list of the tokens of its pushes.

A lent request is a request context of the child's own. It refers to the parent's request and session, and its list of
tokens has one entry from the start: a nested push, as by ``stream_with_context``, then does not count as the first one,
and its pop neither tears down nor closes the parent's request (H17).

What the user's code pushes in a thread is the subject of `flask_2_2_pushed`, and what it never pops that of
`flask_2_2_forgotten`.
"""

from __future__ import annotations

import typing as t
from types import FunctionType, MethodType

from flask import Flask
from flask.ctx import AppContext, RequestContext

from .flask_2_2_forgotten import before, pop_forgotten
from .flask_2_2_pushed import is_pushed as is_pushed
from .flask_2_2_pushed import push_app_context as push_app_context
from .flask_2_2_pushed import push_request_context as push_request_context
from .request_end import LOAN, lend_2_2
from .teardown import (
    FLASKS_TEARDOWN,
    is_torn_down,
    log_error,
    pop_guarded,
    steps_of,
    tear_down,
    tearing_down_receivers,
)
from .variables import FLASKS_G, MARK, Lent, cv_app, cv_request, note_defaults

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# Since 3.1.3 `session` is a property, which marks the session as accessed.
_SESSION = "_session" if hasattr(RequestContext, "session") else "session"

State = tuple[t.Any, t.Any]
"""The token of our app context, and the request context that was entered with it, or None."""

Entered = tuple[AppContext, State]
"""The app context and the state that `leave` takes."""


def active_request(ctx: AppContext) -> t.Any:
    """Return the active request object, or None. The session is not touched."""
    request_ctx = cv_request.get(None)
    return None if request_ctx is None else request_ctx.request


def own_request(ctx: AppContext) -> t.Any:
    """Return the active request if it is one of the app of *ctx*; else None. Another app's may be active below."""
    request_ctx = cv_request.get(None)
    return None if request_ctx is None or request_ctx.app is not ctx.app else request_ctx.request


Hidden = list[tuple[t.Any, t.Any]]
"""Request contexts that `hide_requests` has hidden, the outermost last, each with the token that covers it or None."""


def hide_requests() -> Hidden:
    """Have no request active here until `show_requests` is called with the result."""
    hidden: Hidden = []
    while (request_ctx := cv_request.get(None)) is not None:
        try:
            # reset(), not set(None), after which the proxy `request` would raise an AttributeError, not a RuntimeError.
            cv_request.reset(request_ctx._cv_tokens[0][0])
        except (IndexError, ValueError, RuntimeError):
            # The request context was pushed in other context variables (contextvars.Context).
            hidden.append((request_ctx, cv_request.set(None)))
            break
        hidden.append((request_ctx, None))
    return hidden


def show_requests(hidden: Hidden) -> None:
    """Have the *hidden* request contexts active again."""
    for request_ctx, token in reversed(hidden):
        if token is not None:
            cv_request.reset(token)
        else:
            # reset() in `hide_requests` has used up the token of its push, so it gets a new one.
            request_ctx._cv_tokens[0] = cv_request.set(request_ctx), request_ctx._cv_tokens[0][1]


def is_ending(ctx: t.Any) -> bool:
    """Return whether *ctx*, which is active here, is being entered or torn down: nothing may inherit it then."""
    request_ctx = cv_request.get(None)
    if request_ctx is not None and (tokens := request_ctx._cv_tokens) and tokens[0][1] is ctx:
        # The request context pushed *ctx* and pops itself before it: *ctx* cannot be in its teardown yet. This saves
        # the walk through the frames for everything that a view starts.
        return False
    mark = getattr(ctx, MARK, None)
    if mark is not None:
        return not mark
    return is_torn_down(ctx, ctx._cv_tokens[0] if ctx._cv_tokens else None)


def lent_request(lent: Lent | None) -> t.Any:
    """Return the request that *lent* lends, or None."""
    return None if lent is None else lent["request"]


def lendable(ctx: AppContext) -> Lent | None:
    """Return the active request and session, ready to be lent; None outside of a request."""
    request_ctx = cv_request.get(None)
    if request_ctx is None:
        return None
    state: Lent = request_ctx.__dict__.copy()
    if LOAN not in state:
        state[LOAN] = lend_2_2(request_ctx)
    # The parent's tokens refer to the parent's contexts, so they are left out. Until `enter` makes a list for the
    # child, the class of the request context is kept under that name.
    state["_cv_tokens"] = type(request_ctx)
    # A nested push, as by stream_with_context, must not match the URL again (H4).
    state["match_request"] = _already_matched
    state[MARK] = True
    return state


def _already_matched() -> None:
    """Do nothing. Stands in for ``match_request``: the parent has matched this request."""


# In a list, because an attribute of a class that is read would bind the layer, as a method is bound.
_noted_layer: list[t.Any] = [None]


def note_push_layer(layer: object) -> None:
    """Note our own *layer* on ``AppContext.push``. `enter` skips it, which makes `enter` a tenth faster."""
    _noted_layer[0] = layer


def enter(app: Flask, lent: Lent | None, fn: object) -> Entered:
    """Push a new app context of *app* for *fn* and lend it a request. Returns what `leave` takes."""
    ctx: t.Any = app.app_context()
    ctx._flaskthreads_autopatch = False
    if type(ctx.g) is not FLASKS_G:
        note_defaults(ctx)
    request_ctx: t.Any = None
    try:
        # Our own layer has nothing to do for a context of ours. If there is another layer, each one is called.
        layer: t.Any = AppContext.__dict__["push"]
        if layer is _noted_layer[0] and type(ctx) is AppContext and type(push := layer.__wrapped__) is FunctionType:
            push(ctx)
        else:
            ctx.push()
        ctx._flaskthreads_autopatch = True
        app_token = ctx._cv_tokens[0]
        if lent is None:
            return ctx, (app_token, None)
        # RequestContext.copy() builds a URL adapter, which takes ten times as long as this. The copy of the state
        # becomes the __dict__ instead of filling the one that is there, which is 90 ns faster.
        state = lent.copy()
        request_ctx = object.__new__(state["_cv_tokens"])
        request_ctx.__dict__ = state
        # map() calls set(), because an asynchronous exception may be raised after a call, and the token be lost (H41).
        (token,) = map(cv_request.set, (request_ctx,))
        # The lent request context counts as pushed once already, so that the pop of a nested push does not tear down
        # and close the parent's request (H17).
        state["_cv_tokens"] = [(token, None)]
        return ctx, (app_token, request_ctx)
    except BaseException as exc:
        # A receiver of appcontext_pushed raised, and Flask leaves the context pushed; or an asynchronous exception was
        # raised (H41).
        if (active := cv_request.get(None)) is not request_ctx:
            request_ctx = None
        elif active is not None and type(active._cv_tokens) is not list:
            request_ctx = cv_request.set(None) and None  # Without memory for a token, set() sets, and raises (H43).
        if ctx._cv_tokens:
            leave(ctx, (ctx._cv_tokens[0], request_ctx), exc, fn)
        elif cv_app.get(None) is ctx:
            cv_app.set(None)  # See above.
        raise


def enter_with_request(app: Flask, environ: WSGIEnvironment, session: t.Any, fn: object) -> Entered:
    """Push a new app context of *app* for *fn*, and a new request made from *environ*. Returns what `leave` takes.

    If *session* is None, Flask opens one.
    """
    ctx, state = enter(app, None, fn)
    try:
        request_ctx: t.Any = app.request_context(environ)
        # With the mark, `push_request_context` lets Flask reuse the app context that was just pushed.
        request_ctx._flaskthreads_autopatch = True
        # push() does not open a session if one is set.
        setattr(request_ctx, _SESSION, session)
        request_ctx.push()
    except BaseException as exc:
        leave(ctx, state, exc, fn)
        raise
    return ctx, (state[0], request_ctx)


def lend_to(ctx: t.Any, environ: WSGIEnvironment | None, session: t.Any, fn: object) -> State:
    """Lend a new request, made from *environ*, to *ctx*, an active app context of other code.

    Nothing is lent where a request is active already, or without an *environ*. Returns what `take_back` takes.
    """
    request_ctx = cv_request.get(None)
    if request_ctx is None and environ is not None:
        request_ctx = ctx.app.request_context(environ)
        request_ctx._flaskthreads_autopatch = True
        setattr(request_ctx, _SESSION, session)
        try:
            request_ctx.push()
        except BaseException as exc:
            take_back(ctx, (ctx._cv_tokens[0], None), exc, fn)
            raise
    return ctx._cv_tokens[0], request_ctx


def take_back(ctx: t.Any, state: State, exc: BaseException | None, fn: object) -> None:
    """Undo `lend_to`. The app context stays active; a context that *fn* pushed and never popped is popped."""
    app_token, request_ctx = state
    try:
        if cv_app.get(None) is not ctx or cv_request.get(None) is not request_ctx:
            pop_forgotten(ctx, app_token, request_ctx, exc, fn)
    finally:
        if hasattr(request_ctx, MARK) and request_ctx._cv_tokens:
            cv_request.reset(request_ctx._cv_tokens[0][0])


def leave(ctx: t.Any, state: State, exc: BaseException | None, fn: object) -> None:
    """Take the lent request back, tear the app context down, and pop it. Each step runs, whatever another one raises.

    A context that *fn* pushed and never popped is popped first, and so torn down. Afterwards the context variables are
    what they were before `enter`.
    """
    ctx._flaskthreads_autopatch = False
    app_token, request_ctx = state
    try:
        if cv_app.get(None) is not ctx or cv_request.get(None) is not request_ctx:
            pop_forgotten(ctx, app_token, request_ctx, exc, fn)
    finally:
        try:
            if request_ctx is not None and request_ctx._cv_tokens:  # Otherwise the task has popped it itself.
                cv_request.reset(request_ctx._cv_tokens[0][0])
        except (RuntimeError, ValueError):
            # The task pushed an app context, which hid the request, and popped it out of order or in other context
            # variables (contextvars.Context). The request is then not active here, and need not be reset.
            pass
        except MemoryError:
            cv_request.set(None)  # (H43)
            raise
        finally:
            if ctx._cv_tokens:  # Otherwise the task has popped, and so torn down, the context itself.
                app: Flask = ctx.app
                method = app.do_teardown_appcontext
                is_replaced = type(method) is not MethodType or method.__func__ is not FLASKS_TEARDOWN
                interrupt = steps = None
                try:
                    if is_replaced or app.teardown_appcontext_funcs or tearing_down_receivers:
                        try:
                            steps = steps_of(app, is_replaced)
                            interrupt = tear_down(steps, app, exc, fn)
                        except BaseException:
                            tear_down(steps_of(app, is_replaced) if steps is None else steps, app, exc, fn)
                            raise
                        finally:
                            if cv_app.get(None) is not ctx or cv_request.get(None) is not None:
                                pop_forgotten(ctx, app_token, None, exc, fn)  # by a teardown handler
                finally:
                    tokens: list[t.Any] = ctx._cv_tokens
                    # Remove the tokens of further pushes of this context by the task. Then insert an entry: with two of
                    # them, pop() takes itself for the end of a nested push, and does not run the teardown a second
                    # time.
                    if len(tokens) > 1:
                        del tokens[1:]
                    tokens.insert(0, None)
                    try:
                        ctx.pop(exc)
                    except Exception:
                        leave_again(ctx, state, exc, fn)
                        log_error(app, fn)
                if interrupt is not None:
                    raise interrupt
            elif cv_app.get(None) is ctx:
                # It did so in other context variables, in which the token of this push could not be used.
                cv_app.set(before(app_token))


def leave_again(ctx: t.Any, state: State, exc: BaseException | None, fn: object) -> None:
    """Do what is left to do where `leave` has raised. Only an asynchronous exception leaves something (H41)."""
    if ctx._flaskthreads_autopatch:  # It has not even begun.
        leave(ctx, state, exc, fn)
    elif (active := t.cast(t.Any, cv_app.get(None))) is ctx:
        # It has torn the context down.
        active._cv_tokens[:] = None, active._cv_tokens[-1]
        pop_guarded(ctx, exc, fn)
        if cv_app.get(None) is ctx:
            cv_app.set(before(state[0]))
