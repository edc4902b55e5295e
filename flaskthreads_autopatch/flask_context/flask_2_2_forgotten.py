"""Contexts of Flask 2.2 to 3.1 that a task pushed and never popped: they are popped at its end, and so torn down.

App contexts and request contexts lie in two context variables. The order in which both were pushed is read from the
tokens of their pushes.
"""

from __future__ import annotations

import contextvars
import typing as t

from .teardown import pop_guarded
from .variables import cv_app, cv_request


def pop_forgotten(ctx: t.Any, app_token: t.Any, request_ctx: t.Any, exc: BaseException | None, fn: object) -> None:
    """Pop each context that was pushed after *ctx*, and the lent *request_ctx* (or None), and never popped (H16, H30).

    A forgotten context that is only covered dies without a teardown. A database session that is kept by its ``id()``
    is then found again by the next context at that address.
    """
    if not ctx._cv_tokens:
        # The task has popped *ctx* itself: what was active before it is the end of the search.
        ctx = before(app_token)
    interrupt: BaseException | None = None
    while True:
        app_ctx, top = cv_app.get(None), cv_request.get(None)
        if top is not None and top is not request_ctx and (app_ctx is ctx or not _is_below(top, app_ctx)):
            interrupt = _pop(top, cv_request, exc, fn) or interrupt
        elif app_ctx is not None and app_ctx is not ctx:
            interrupt = _pop(app_ctx, cv_app, exc, fn) or interrupt
        else:
            break
    if app_ctx is not ctx:
        cv_app.set(ctx)  # Contexts were popped in another order than they were pushed.
    if interrupt is not None:
        raise interrupt


def _is_below(request_ctx: t.Any, app_ctx: object) -> bool:
    """Return whether *app_ctx* was pushed after *request_ctx*, as far as that can be told."""
    tokens = request_ctx._cv_tokens
    return bool(tokens) and tokens[-1][1] not in (None, app_ctx)


def _pop(top: t.Any, variable: contextvars.ContextVar[t.Any], exc: BaseException | None, fn: object) -> t.Any:
    """Pop *top*, which is the value of *variable*. Returns an exception that must not be swallowed, or None."""
    count = len(top._cv_tokens)
    # A list entry is the token, or for a request context the token and an app context.
    token = None if count == 0 else top._cv_tokens[-1] if variable is cv_app else top._cv_tokens[-1][0]
    interrupt = pop_guarded(top, exc, fn) if count else None
    if variable.get(None) is top and len(top._cv_tokens) in (0, count):
        # The context was pushed in other context variables (contextvars.Context): its token cannot be used here.
        below = None if token is None else before(token)
        variable.set(None if below is top else below)
    return interrupt


def before(token: t.Any) -> t.Any:
    """Return the value that *token* would restore, or None."""
    return None if token.old_value is contextvars.Token.MISSING else token.old_value
