"""The end of a lent request: the last pop of the context that the request was pushed with.

A context that lends its request keeps a `Loan` until then, and so does everything that the request is lent to, because
`LOAN` is part of the lent state. If the loan is still alive when the context has released it, the request is still
lent, and gets an environ of its own (`lent_request`).

No method of Flask's is patched for this, and no signal is connected: Flask 2.2 may have no signals, and an app that
overrides ``do_teardown_request`` may send none. Only a context that lends its request is changed, so that no other
request pays for it.
"""

from __future__ import annotations

import typing as t
import weakref
from contextvars import Token

from ..lent_request import keep_own_data
from .variables import MARK, cv_app

if t.TYPE_CHECKING:
    from flask import Response

LOAN = "_flaskthreads_autopatch_loan"
"""An attribute of a context that lends its request, of a context that the request is lent to, and of the request."""

_DEEPEST = 100
"""The number of contexts below the active one that are looked at. Contexts that were not popped in the order of their
pushes may refer to each other."""


class Loan:
    """A token that is alive as long as a request is lent."""

    __slots__ = ("__weakref__", "outer")

    outer: Loan | None
    """The loan of another context with the same request."""


class _RequestEnd:
    """What notices the end of the request of one context, which has this in an attribute."""

    ctx: weakref.ref[t.Any]  # A strong reference would be a cycle, which would keep the request.
    response: weakref.ref[Response] | None

    def await_end(self, ctx: t.Any) -> None:
        self.ctx = weakref.ref(ctx)
        self.response = None
        ctx._after_request_functions.append(self.note)

    def note(self, response: Response) -> Response:
        """Remember a response that is made piece by piece while it is sent."""
        if not getattr(response, "is_sequence", True):
            self.response = weakref.ref(response)
            response.call_on_close(self.forget)
        return response

    def forget(self) -> None:
        """The response has been sent."""
        self.response = None

    def has_passed(self) -> bool:
        """Return whether the context is popped, and its response sent."""
        ctx = self.ctx()
        if ctx is not None and self.is_pushed(ctx):
            return False
        # A response that is not sent, as for a HEAD request, is not closed either. It dies.
        return self.response is None or self.response() is None

    def is_pushed(self, ctx: t.Any) -> bool:
        raise NotImplementedError

    def come(self, ctx: t.Any, request: t.Any) -> None:
        """Release the loan of *ctx*. If it is alive after that, *request* is still lent."""
        loan = ctx.__dict__.pop(LOAN, None)
        if loan is None:
            return
        if request.__dict__.get(LOAN) is loan:
            del request.__dict__[LOAN]
        ref = weakref.ref(loan)
        del loan
        if ref() is not None:
            keep_own_data(request, self.has_passed)


class _AwaitedTokens(_RequestEnd, list[t.Any]):
    """The tokens of a request context of Flask < 3.2; its request ends when the last one is popped."""

    def pop(self, index: t.SupportsIndex = -1) -> t.Any:
        token = list.pop(self, index)
        if not self and (ctx := self.ctx()) is not None:
            environ = ctx.request.environ
            self.come(ctx, ctx.request)
            # Flask sets this in ``request.environ`` right after this, so that no cycle keeps the request alive. By then
            # the request may have another environ.
            environ["werkzeug.request"] = None
        return token

    def is_pushed(self, ctx: t.Any) -> bool:
        return bool(self)


class _AwaitedPop(_RequestEnd):
    """The method ``pop`` of a context of Flask 3.2; its request ends with the last pop."""

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> None:
        ctx: t.Any = self.ctx()  # It is active, and so alive.
        try:
            ctx.__class__.pop(ctx, *args, **kwargs)
        finally:
            if ctx._cv_token is None:
                self.come(ctx, ctx._request)
            del ctx

    def is_pushed(self, ctx: t.Any) -> bool:
        return ctx._cv_token is not None


def _before(token: t.Any) -> t.Any:
    return None if token.old_value is Token.MISSING else token.old_value


def lend_2_2(request_ctx: t.Any) -> Loan:
    """Return the loan for a child of *request_ctx*, which is active, and await the end of its request."""
    request = request_ctx.request
    known: Loan | None = request.__dict__.get(LOAN)
    if known is not None and _is_in_replay():
        return known  # The request is lent here, although an app context of the user's may hide that.
    owner = ctx = request_ctx
    for _ in range(_DEEPEST):
        ctx = _before(ctx._cv_tokens[0][0]) if ctx._cv_tokens else None
        if ctx is None:
            break
        if ctx.request is request:
            # The other one is a copy, as made by copy_current_request_context. It ends before the request does.
            owner = ctx
    loan: Loan | None = owner.__dict__.get(LOAN)
    if loan is None:
        loan = _new_loan(owner, request, known)
        owner._cv_tokens = tokens = _AwaitedTokens(owner._cv_tokens)
        tokens.await_end(owner)
    return loan


def _is_in_replay() -> bool:
    ctx: t.Any = cv_app.get()
    for _ in range(_DEEPEST):
        if hasattr(ctx, MARK):
            return True
        ctx = _before(ctx._cv_tokens[0]) if ctx._cv_tokens else None
        if ctx is None:
            break
    return False


def lend_3_2(request_ctx: t.Any) -> Loan:
    """Return the loan for a child of *request_ctx*, which is active, and await the end of its request."""
    request = request_ctx._request
    owner = ctx = request_ctx
    for _ in range(_DEEPEST):
        ctx = _before(ctx._cv_token)
        if ctx is None:
            break
        if ctx._request is request:
            owner = ctx  # as in lend_2_2
    loan: Loan | None = owner.__dict__.get(LOAN)
    if loan is None:
        loan = _new_loan(owner, request, request.__dict__.get(LOAN))
        owner.pop = pop = _AwaitedPop()
        pop.await_end(owner)
        if owner._push_count == 0:
            # The last pop has begun before its method was replaced: a handler of teardown_request lends the request.
            keep_own_data(request, pop.has_passed)
    return loan


def _new_loan(owner: t.Any, request: t.Any, known: Loan | None) -> Loan:
    loan = owner._flaskthreads_autopatch_loan = Loan()
    # In a thread that inherits nothing, a copy of the request context cannot know the context it was copied from. What
    # it lends is lent by both.
    loan.outer = known
    if known is None:
        request.__dict__[LOAN] = loan
    return loan
