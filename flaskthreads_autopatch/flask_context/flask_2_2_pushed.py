"""Contexts of Flask 2.2 to 3.1 that the user's code pushes in a thread are the user's own, as without this library.

An app context is outside of a request (`push_app_context`). A request context has an app context, a ``g`` and a
teardown of its own (`push_request_context`).
"""

from __future__ import annotations

import typing as t
from threading import get_ident

from .variables import MARK, cv_app, cv_request


def is_pushed(ctx: t.Any) -> bool:
    """Return whether *ctx* is active somewhere. May be called from any thread."""
    # After `leave`, the list still holds the None that it inserted for Flask's pop().
    return any(token is not None for token in ctx._cv_tokens[-1:])


_NOTHING: tuple[int, t.Any] = 0, None  # The ident of a thread is not 0.


class _Tokens(list[t.Any]):
    """The tokens of an app context that hides the lent request. The pop of the push that hid it shows it again."""

    def __init__(self, tokens: list[t.Any]) -> None:
        super().__init__(tokens)
        self.hidden: dict[int, tuple[int, t.Any]] = {}
        """The ident of the thread and its lent request context, by the index of the token of the push that hid it.

        Other threads may push and pop the same app context. None of them is shown the request of another one.
        """

    def pop(self, index: t.SupportsIndex = -1) -> t.Any:
        token = super().pop(index)
        ident, request_ctx = self.hidden.pop(len(self), _NOTHING)
        ctx: t.Any = cv_app.get(None)
        # In other context variables (contextvars.Context) there is no request to show again. A request context that was
        # pushed meanwhile and never popped stays: it is popped at the end of the task.
        if ident == get_ident() and ctx is not None and ctx._cv_tokens is self and cv_request.get(None) is None:
            request_ctx._cv_tokens[0] = cv_request.set(request_ctx), None
        return token


def push_app_context(ctx: t.Any, push: t.Callable[[], object]) -> object:
    """Have *push* push *ctx*, an app context of the user's, outside of the lent request (H28).

    Without this library a thread that pushes an app context has no request in there: its links are absolute.
    """
    request_ctx = cv_request.get(None)
    if request_ctx is None or not hasattr(request_ctx, MARK) or hasattr(ctx, MARK):
        return push()
    try:
        # Not by set(None): the proxy `request` would then raise an AttributeError, and Flask expects a RuntimeError
        # where it renders a template.
        cv_request.reset(request_ctx._cv_tokens[0][0])
    except (ValueError, RuntimeError):
        # In copied context variables, as in a coroutine, a variable cannot be unset. The request remains visible. The
        # RuntimeError says that the token has been used: the thread whose variables were copied has ended, or has
        # hidden the request itself.
        return push()
    if type(ctx._cv_tokens) is not _Tokens:
        ctx._cv_tokens = _Tokens(ctx._cv_tokens)
    ctx._cv_tokens.hidden[len(ctx._cv_tokens)] = get_ident(), request_ctx
    return push()


def push_request_context(request_ctx: t.Any, push: t.Callable[[], object]) -> object:
    """Have *push* push *request_ctx*, a request context of the user's, onto an app context of its own (H14, H29).

    Flask reuses an active app context of the same app, and would reuse the inherited one. During the teardown of that
    one it is reused all the same: tearing down a new app context would call the same handler again, without end (H11).
    Afterwards it may still be active in copied context variables, as in a coroutine that a thread has left to a loop.
    """
    inherited: t.Any = cv_app.get(None)
    mark = getattr(inherited, MARK, None)
    if (
        mark is None
        or (mark is False and is_pushed(inherited))
        or inherited.app is not request_ctx.app
        or hasattr(request_ctx, MARK)
    ):
        return push()
    ctx: t.Any = request_ctx.app.app_context()
    ctx.push()
    count = len(request_ctx._cv_tokens)
    try:
        return push()
    finally:
        # As Flask does, also where push() fails and leaves both pushed: the pop of the request context pops both.
        if len(request_ctx._cv_tokens) > count:
            request_ctx._cv_tokens[-1] = request_ctx._cv_tokens[-1][0], ctx
