"""Capture: take a `Snapshot` of the active app context, in the parent, at ``start()`` or ``submit()``."""

from __future__ import annotations

import logging
import typing as t
import weakref

from flask.ctx import AppContext

from . import entries, flask_context, g_class
from .clean_context import clean_context
from .flask_context import FLASKS_G, MARK
from .log import log
from .names import safe_repr
from .place import place_of_origin
from .policy import Policy
from .snapshot import NO_ENTRIES, NONE_LEFT_OUT, Snapshot
from .visibility import parents
from .visibility.overdue import watch
from .visibility.signals import released_receivers


def capture(ctx: AppContext, policy: Policy, contextvars: bool = True) -> Snapshot | None:
    """Take a snapshot of *ctx*, the active app context, as *policy* says. ``contextvars=False`` overrides its option.

    Returns None while *ctx* is an inherited context that is being entered or left: a thread that a teardown handler
    starts would call the same handler at its own end, and so on without end (H11).
    """
    if getattr(ctx, MARK, None) is False:
        return None
    # The snapshot is filled here and not by an __init__(), which would take 60 ns longer.
    snapshot = Snapshot()
    snapshot.app = ctx.app
    snapshot.values = snapshot.closable = NO_ENTRIES
    snapshot.namespaces = NO_ENTRIES
    snapshot.not_inherited = NONE_LEFT_OUT
    snapshot.shared_g = None
    if policy.share:
        snapshot.shared_g = ctx.g
    else:
        g = ctx.g
        source = g.__dict__ if type(g) is FLASKS_G else g_class.entries_of(g, ctx.app.app_ctx_globals_class)
        if source:
            snapshot.values = values = source.copy()
            snapshot.closable, snapshot.namespaces, snapshot.not_inherited = entries.take(values, policy)
    if policy.preload:
        _read_body(flask_context.active_request(ctx))
    snapshot.lent = flask_context.lendable(ctx) if policy.request else None
    snapshot.variables = clean_context() if contextvars and policy.contextvars else None
    snapshot.warn_after = policy.warn_after
    if policy.warn_after is None and not policy.origins and not released_receivers:
        snapshot.origin = None
        snapshot.parent = weakref.ref(ctx)
        return snapshot
    is_placed = policy.origins or policy.warn_after is not None
    snapshot.origin = place_of_origin(policy.own) if is_placed else None
    is_watched = released_receivers or policy.warn_after is not None
    snapshot.parent = parents.watched(ctx) if is_watched else weakref.ref(ctx)
    if policy.warn_after is not None:
        watch(snapshot)
    return snapshot


_UNREADABLE = "_flaskthreads_autopatch_unreadable"
"""An attribute of a request whose body could not be read: True once that has been logged."""


def _read_body(request: t.Any) -> None:
    if request is None:
        return
    try:
        request.get_data(parse_form_data=True)
    except Exception:
        # A thread is captured twice, when it is made and when it is started. The failure is logged once for a request.
        if getattr(request, _UNREADABLE, False):
            return
        setattr(request, _UNREADABLE, True)
        # safe_repr(), because the request's repr contains the method and the URL as the client has sent them.
        message = "preload: reading the body of %s failed; the thread starts without it."
        log(logging.WARNING, message, safe_repr(request), exc_info=True)
