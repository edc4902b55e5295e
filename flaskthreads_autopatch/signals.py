"""The signals that a replay sends when it begins and when it has ended. Nothing is built where nobody listens.

As Flask's own signals they need blinker, which Flask 2.2 does not require.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from collections.abc import Mapping

import flask.signals
from flask import Flask
from flask.ctx import AppContext

from . import flask_context, parents
from .flask_context.teardown import send
from .log import log
from .register import Entry, describe, replays
from .watch import overdue, say_ended

_namespace = t.cast(t.Any, flask.signals).Namespace()

context_inherited = _namespace.signal("context-inherited")
"""Sent by the app, in the child's context, before the callable runs. ``replay``: a `Replay`."""

context_released = _namespace.signal("context-released")
"""Sent by the app, after the child's context has been torn down. ``replay``: the `Replay`, with its ``seconds``;
``error``: the type of what the callable raised, as ``module:qualname``, or None if it returned; ``outlived``: the
seconds by which the replay outlived its parent's context, or None."""

inherited_receivers: Mapping[t.Any, t.Any] = getattr(context_inherited, "receivers", {})
released_receivers: Mapping[t.Any, t.Any] = getattr(context_released, "receivers", {})


def begin(ctx: AppContext) -> None:
    """Tell the receivers that the replay of *ctx* begins."""
    # What a receiver starts does not inherit: it would begin a replay, and so on for ever (H11).
    with flask_context.in_transition(ctx):
        _send(context_inherited, ctx.app, replay=describe(replays[ctx], threading.current_thread().name))


def end(ctx: AppContext, entry: Entry, error: BaseException | None) -> None:
    """Tell who listens, or has been warned of it, that the replay of *ctx*, which was *entry*, has ended."""
    if (late := overdue.pop(ctx, None)) is not None:
        say_ended(late)
    if released_receivers:
        # First: what is read later is longer, and what began in its parent's time outlives it by less than it ran.
        outlived = parents.seconds_over(entry[2].parent)
        _send(
            context_released,
            ctx.app,
            replay=describe(entry, threading.current_thread().name),
            error=None if error is None else f"{type(error).__module__}:{type(error).__qualname__}",
            outlived=outlived,
        )


def _send(signal: t.Any, app: Flask, **values: t.Any) -> None:
    try:
        send(signal, app, **values)
    except Exception:
        thread = threading.current_thread().name
        message = "Error in a receiver of the signal %r in thread %r"
        log(logging.ERROR, message, signal.name, thread, app=app, exc_info=True)
