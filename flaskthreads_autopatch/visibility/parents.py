"""The end of a parent's app context, as its children see it: whether it has ended, and since when.

The parent is not kept alive for that. A weak reference, which every snapshot has, tells whether it has ended. A
`ParentRef` from `watched` tells since when. It connects a receiver to ``appcontext_tearing_down``, which every app
context in the process then pays for.
"""

from __future__ import annotations

import time
import typing as t
import weakref

from flask.ctx import AppContext
from flask.signals import appcontext_tearing_down

from .. import flask_context
from ..flask_context import PARENT


class ParentRef(weakref.ref[AppContext]):
    """A weak reference to an app context, with the time at which that ended. Each context has one at most."""

    __slots__ = ("ended",)

    ended: float | None
    """The time of the end, by `time.monotonic`; None before it."""


class _Gone:
    __slots__ = ("__weakref__",)


NOWHERE: weakref.ref[AppContext] = weakref.ref(t.cast(AppContext, _Gone()))
"""Stands for the parent of a carried task, which is in another process, and of a provided one, which has none. It
counts as ended when the replay began."""


def watched(ctx: AppContext) -> ParentRef:
    """Return the `ParentRef` of *ctx*, and note the end of *ctx* from now on."""
    state = vars(ctx)
    parent: ParentRef | None = state.get(PARENT)
    if parent is None:
        # Without blinker, which Flask 2.2 does not require, the death of the context is its end.
        if hasattr(appcontext_tearing_down, "receivers"):
            appcontext_tearing_down.connect(_note_end)
        made = ParentRef(ctx, _note_death)
        made.ended = None
        # A finalizer or a signal handler may have captured in this context since it was asked for (H32).
        parent = state.setdefault(PARENT, made)
    return parent


def stop_watching() -> None:
    """Disconnect the receiver. The next call of `watched` connects it again."""
    if hasattr(appcontext_tearing_down, "receivers"):
        appcontext_tearing_down.disconnect(_note_end)


def is_over(parent: weakref.ref[AppContext]) -> bool:
    """Return whether the app context has ended."""
    ctx = parent()
    return ctx is None or not flask_context.is_pushed(ctx)


def seconds_over(parent: weakref.ref[AppContext], began: float) -> float | None:
    """Return the time since the app context ended; None if it has not. 0.0 if its end was not noted.

    *began* is the time at which the replay began, by `time.monotonic`.
    """
    if parent is NOWHERE:
        return time.monotonic() - began
    if not is_over(parent):
        return None
    if not isinstance(parent, ParentRef):
        return 0.0
    if parent.ended is None:
        parent.ended = time.monotonic()  # The app's own do_teardown_appcontext sends no signal.
    return time.monotonic() - parent.ended


def _note_end(sender: object, **extra: t.Any) -> None:
    parent = getattr(flask_context.active(), PARENT, None)
    if parent is not None:
        parent.ended = time.monotonic()


def _note_death(parent: weakref.ref[AppContext]) -> None:
    if isinstance(parent, ParentRef) and parent.ended is None:
        parent.ended = time.monotonic()
