"""Contexts that the user's code pushes in a thread are the user's: they are neither in the lent request nor inherited.

Requests are served in such contexts too. Flask 3.2 needs no patch for that.
"""

from __future__ import annotations

import typing as t

from .. import flask_context
from ..flask_context import active
from .layers import PatchPoint
from .wrappers import Args, Kwargs, PolicyFor, Wrapped


def _push_app_context(policy_for: PolicyFor, wrapped: Wrapped, ctx: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None or ctx is None:
        return wrapped(*args, **kwargs)
    return flask_context.push_app_context(ctx, lambda: wrapped(*args, **kwargs))


def _push_request_context(policy_for: PolicyFor, wrapped: Wrapped, ctx: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None or ctx is None:
        return wrapped(*args, **kwargs)
    return flask_context.push_request_context(ctx, lambda: wrapped(*args, **kwargs))


_BEFORE_FLASK_3_2 = (
    # Every request pushes both of its contexts, and nearly always where no other context is active.
    PatchPoint("flask.ctx", "RequestContext.push", _push_request_context, active, None, True),
    PatchPoint("flask.ctx", "AppContext.push", _push_app_context, active, flask_context.note_push_layer, True),
)

POINTS: tuple[PatchPoint, ...] = _BEFORE_FLASK_3_2 if flask_context.REUSES_APP_CONTEXT else ()
