"""The context of Flask 3.2: one app context, which has request data in a request, and counts its pushes.

Such a context is pushed for each request, so a context that the user's code pushes in a thread is the user's own
already. The lent request becomes the child's own context's request; it is taken back after the teardown, because from
this version on a teardown handler may read ``request``.
"""

from __future__ import annotations

import contextvars
import typing as t

from flask import Flask
from flask.ctx import AppContext
from flask.signals import appcontext_popped

from .request_end import LOAN, lend_3_2
from .teardown import guarded, is_torn_down, log_error, pop_guarded, send
from .variables import DEFAULTS, FLASKS_G, MARK, PARENT, Lent, cv_app, note_defaults

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# What a context is not lent. All else belongs to the request: what a class of the app's own has set on it, too.
# The method `pop` is in the instance while the end of the request is awaited (`request_end`).
_OWN = ("app", "g", "_cv_token", "_push_count", "pop", DEFAULTS, PARENT)

Tokens = t.Any
"""The token of our app context."""

Entered = tuple[AppContext, Tokens]
"""The app context and the token that `leave` takes."""


def active_request(ctx: t.Any) -> t.Any:
    """Return the request of *ctx*, which is active, or None. The session is not touched."""
    return ctx._request


own_request = active_request
"""Return the same: here a request is always one of the app of its context."""


def is_pushed(ctx: t.Any) -> bool:
    """Return whether *ctx* is active somewhere. May be called from any thread."""
    return ctx._cv_token is not None


def hide_requests() -> None:
    """Do nothing: here an app context that is pushed hides the request."""


def show_requests(hidden: None) -> None:
    """Do nothing."""


def is_ending(ctx: t.Any) -> bool:
    """Return whether *ctx*, which is active here, is being entered or torn down: nothing may inherit it then."""
    mark = getattr(ctx, MARK, None)
    if mark is not None:
        return not mark
    # While a context is being torn down its pushes are counted down to 0. A handler of teardown_request is called in
    # that time too, but may start a thread that inherits: it is not called in the thread again.
    return ctx._push_count == 0 and is_torn_down(ctx, ctx._cv_token)


def lent_request(lent: Lent | None) -> t.Any:
    """Return the request that *lent* lends, or None."""
    return None if lent is None else lent["_request"]


def lendable(ctx: AppContext) -> Lent | None:
    """Return the active request and session, ready to be lent; None outside of a request."""
    state = ctx.__dict__
    if state["_request"] is None:
        return None
    lent = _lent(state)
    if LOAN not in lent:
        lent[LOAN] = lend_3_2(ctx)
    if lent["_session"] is None:
        # The parent is just opening its session. A child must not open another one: a thread that open_session()
        # starts would call open_session() again, and so on without end (H38).
        lent["_get_session"] = _not_open_yet
    return lent


def _lent(state: dict[str, t.Any]) -> dict[str, t.Any]:
    lent = state.copy()
    for name in _OWN:
        lent.pop(name, None)
    return lent


def _not_open_yet() -> t.NoReturn:
    """Stands in for the method that opens a session."""
    raise RuntimeError(
        "The session cannot be used here: this thread was started before the session of its request was open. Start"
        " the thread in the view, or in before_request."
    )


def enter(app: Flask, lent: Lent | None, fn: object) -> Entered:
    """Push a new app context of *app* for *fn* and lend it a request. Returns what `leave` takes."""
    ctx: t.Any = app.app_context()
    ctx._flaskthreads_autopatch = False
    if type(ctx.g) is not FLASKS_G:
        note_defaults(ctx)
    try:
        ctx.push()
        ctx._flaskthreads_autopatch = True
        if lent is not None:
            ctx.__dict__.update(lent)
        return ctx, ctx._cv_token
    except BaseException as exc:
        # A receiver of appcontext_pushed raised, and Flask leaves the context pushed; or an asynchronous exception was
        # raised (H41).
        if ctx._cv_token is not None:
            leave(ctx, ctx._cv_token, exc, fn)
        elif cv_app.get(None) is ctx:
            cv_app.set(None)  # Without memory for a token, set() sets, and raises (H43).
        raise


def enter_with_request(app: Flask, environ: WSGIEnvironment, session: t.Any, fn: object) -> Entered:
    """Do the same with a new request, made from *environ*. Without a *session*, one is opened as by Flask."""
    own: t.Any = app.request_context(environ)
    lent = _lent(own.__dict__) | {"_session": session}
    ctx: t.Any
    ctx, token = enter(app, lent, fn)
    try:
        ctx._get_session()
        if ctx.url_adapter is not None:
            ctx.match_request()
    except BaseException as exc:
        leave(ctx, token, exc, fn)
        raise
    return ctx, token


def lend_to(ctx: t.Any, environ: WSGIEnvironment | None, session: t.Any, fn: object) -> dict[str, t.Any]:
    """Lend a new request, made from *environ*, to *ctx*, an active app context of other code.

    Nothing is lent where it has a request already, or without an *environ*. Returns what `take_back` takes.
    """
    if environ is None or ctx._request is not None:
        return {}
    lent = _lent(ctx.app.request_context(environ).__dict__) | {"_session": session}
    before = {name: ctx.__dict__.get(name, _MISSING) for name in lent}
    ctx.__dict__.update(lent)
    try:
        ctx._get_session()
        if ctx.url_adapter is not None:
            ctx.match_request()
    except BaseException as exc:
        take_back(ctx, before, exc, fn)
        raise
    return before


_MISSING = object()


def take_back(ctx: t.Any, before: dict[str, t.Any], exc: BaseException | None, fn: object) -> None:
    """Undo `lend_to`. The app context stays active; a context that *fn* pushed and never popped is popped."""
    try:
        if cv_app.get(None) is not ctx and ctx._cv_token is not None:
            _pop_forgotten(ctx, ctx._cv_token, exc, fn)
    finally:
        for name, value in before.items():
            if value is _MISSING:
                ctx.__dict__.pop(name, None)
            else:
                ctx.__dict__[name] = value


def leave(ctx: t.Any, token: Tokens, exc: BaseException | None, fn: object) -> None:
    """Tear the app context down, take the lent request back, and pop it. Each step runs, whatever another one raises.

    A context that *fn* pushed and never popped is popped first, and so torn down. Afterwards the context variable is
    what it was before `enter`.
    """
    ctx._flaskthreads_autopatch = False
    app: Flask = ctx.app
    try:
        if cv_app.get(None) is not ctx:
            _pop_forgotten(ctx, token, exc, fn)
    finally:
        if ctx._cv_token is not None:  # Otherwise the task has popped, and so torn down, the context itself.
            try:
                # Not by ctx.pop() alone: it would tear down and close the request, which belongs to the parent, and a
                # handler could not read the request if that were taken back before (H37).
                if ctx._push_count > 0:  # Otherwise the task has done so, by a pop() in other context variables.
                    t.cast(t.Any, app).do_teardown_appcontext(ctx, exc)
            except Exception:
                log_error(app, fn)
            finally:
                try:
                    if cv_app.get(None) is not ctx:
                        _pop_forgotten(ctx, token, exc, fn)  # by a teardown handler
                finally:
                    _pop(ctx, exc, fn)


def leave_again(ctx: t.Any, token: Tokens, exc: BaseException | None, fn: object) -> None:
    """Do what is left to do where `leave` has raised. Only an asynchronous exception leaves something (H41)."""
    if ctx._flaskthreads_autopatch:  # It has not even begun.
        leave(ctx, token, exc, fn)
    elif ctx._cv_token is not None:
        _pop(ctx, exc, fn)


def _pop(ctx: t.Any, exc: BaseException | None, fn: object) -> None:
    """Pop *ctx*, which has been torn down."""
    ctx._request = ctx._session = None
    # Counted as pushed twice, the context is left pushed by Flask's own pop(). A pop() of a customised class runs.
    ctx._push_count = 2
    try:
        guarded(ctx.app, fn, ctx.pop, exc)
    finally:
        # If the task has popped this very context and pushed it again, it has another token than at first.
        token, ctx._cv_token = ctx._cv_token, None
        ctx._push_count = 0
        try:
            cv_app.reset(token)
        except MemoryError:
            cv_app.set(_before(token))
            raise
        if appcontext_popped.receivers:
            guarded(ctx.app, fn, send, appcontext_popped, ctx.app)


def _pop_forgotten(ctx: t.Any, token: t.Any, exc: BaseException | None, fn: object) -> None:
    """Pop each context that was pushed after *ctx* and never popped (H16, H30).

    A forgotten context that is only covered dies without a teardown. A database session that is kept by its ``id()``
    is then found again by the next context at that address.
    """
    if ctx._cv_token is None:
        # The task has popped *ctx* itself: what was active before it is the end of the search.
        ctx = _before(token)
    interrupt: BaseException | None = None
    while (top := t.cast(t.Any, cv_app.get(None))) is not None and top is not ctx:
        pushed = top._cv_token
        # At 0 it has been torn down already, by a pop() in other context variables, where its token could not be used.
        if top._push_count > 0:
            top._push_count = 1  # It may have been pushed more than once.
            interrupt = pop_guarded(top, exc, fn) or interrupt
        if cv_app.get(None) is top:
            # The context was pushed in other context variables (contextvars.Context): its token cannot be used here.
            below = None if pushed is None else _before(pushed)
            cv_app.set(None if below is top else below)
    if top is not ctx:
        cv_app.set(ctx)  # Contexts were popped in another order than they were pushed.
    if interrupt is not None:
        raise interrupt


def _before(token: t.Any) -> t.Any:
    return None if token.old_value is contextvars.Token.MISSING else token.old_value


def note_push_layer(layer: object) -> None:
    """Do nothing: here ``AppContext.push`` has no layer of ours."""


def push_app_context(ctx: t.Any, push: t.Callable[[], object]) -> object:
    """Call *push*: here an app context that the user's code pushes is outside of a request."""
    return push()


push_request_context = push_app_context
"""Call *push*: here a request context that the user's code pushes is the app context as well."""
