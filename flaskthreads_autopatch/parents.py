"""The parent's app context as its children see it, without keeping it: is it over, and since when.

A snapshot has a weak reference to it, which answers the first question. Who asks for the second one has a `ParentRef`
instead, from `watched`, which costs every app context of the process a receiver of ``appcontext_tearing_down``.
"""

from __future__ import annotations

import time
import typing as t
import weakref

from flask.ctx import AppContext
from flask.signals import appcontext_tearing_down

from . import flask_context

_ATTRIBUTE = "_flaskthreads_autopatch_parent"


class ParentRef(weakref.ref[AppContext]):
    """A weak reference to an app context that learns when that one ends. Each context has one at most."""

    __slots__ = ("ended",)

    ended: float | None
    """By `time.monotonic`."""


def watched(ctx: AppContext) -> ParentRef:
    """The `ParentRef` of *ctx*, whose end is noted from now on."""
    state = vars(ctx)
    parent: ParentRef | None = state.get(_ATTRIBUTE)
    if parent is None:
        # Without blinker, which Flask 2.2 does not require, the death of the context is its end.
        if hasattr(appcontext_tearing_down, "receivers"):
            appcontext_tearing_down.connect(_note_end)
        made = ParentRef(ctx, _note_death)
        made.ended = None
        # A finalizer or a signal handler may have captured in this context since it was asked for (H32).
        parent = state.setdefault(_ATTRIBUTE, made)
    return parent


def watch_no_more() -> None:
    """Take the receiver out; the next call of `watched` puts it in again."""
    if hasattr(appcontext_tearing_down, "receivers"):
        appcontext_tearing_down.disconnect(_note_end)


def is_over(parent: weakref.ref[AppContext]) -> bool:
    """Whether the app context has ended."""
    ctx = parent()
    return ctx is None or not flask_context.is_pushed(ctx)


def seconds_over(parent: weakref.ref[AppContext]) -> float | None:
    """For how long it has been over; None while it is not. 0.0 if its end was not seen, because nobody watched."""
    if not is_over(parent):
        return None
    if not isinstance(parent, ParentRef):
        return 0.0
    if parent.ended is None:
        parent.ended = time.monotonic()  # an app whose own do_teardown_appcontext sends no signal
    return time.monotonic() - parent.ended


def _note_end(sender: object, **extra: t.Any) -> None:
    parent = getattr(flask_context.active(), _ATTRIBUTE, None)
    if parent is not None:
        parent.ended = time.monotonic()


def _note_death(parent: weakref.ref[AppContext]) -> None:
    if isinstance(parent, ParentRef) and parent.ended is None:
        parent.ended = time.monotonic()
