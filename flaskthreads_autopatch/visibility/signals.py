"""The signals that a replay sends when it begins and when it has ended. Without a receiver, nothing is described.

Like Flask's own signals they need blinker, which Flask 2.2 does not require.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import flask.signals
from flask import Flask
from flask.ctx import AppContext

from .. import flask_context
from ..flask_context.teardown import send
from ..log import log
from ..names import path_of_class
from . import parents
from .overdue import overdue, warn_ended
from .registry import Entry, Replay, describe, replays

Receiver = t.TypeVar("Receiver")


class InheritedReceiver(t.Protocol):
    """A receiver of `context_inherited`, as it is called."""

    def __call__(self, sender: Flask, /, *, replay: Replay) -> object: ...


class ReleasedReceiver(t.Protocol):
    """A receiver of `context_released`, as it is called."""

    def __call__(self, sender: Flask, /, *, replay: Replay, error: str | None, outlived: float | None) -> object: ...


class ReplaySignal(t.Protocol[Receiver]):
    """What type checkers see of both signals: a signal of blinker's, its sender, and its receivers.

    The signals themselves are what blinker makes. On Flask 2.2 without blinker they are what Flask puts in its place:
    they have no attribute ``receivers``, and each method raises `RuntimeError`, which tells to install blinker.
    """

    name: str
    receivers: dict[t.Any, t.Any]

    def connect(self, receiver: Receiver, sender: Flask = ..., weak: bool = True) -> Receiver: ...
    def connect_via(self, sender: Flask, weak: bool = False) -> Callable[[Receiver], Receiver]: ...
    def connected_to(self, receiver: Receiver, sender: Flask = ...) -> AbstractContextManager[None]: ...
    def disconnect(self, receiver: Receiver, sender: Flask = ...) -> None: ...
    def has_receivers_for(self, sender: Flask) -> bool: ...


_namespace = flask.signals.Namespace()  # type: ignore[attr-defined]  # Flask imports it, and does not export it.

context_inherited: ReplaySignal[InheritedReceiver] = _namespace.signal(
    "context-inherited",
    """Signal that a replay begins. The app sends it in the context of the thread or task, before the callable runs.

    A receiver is called with the app and ``replay``, a `Replay`. ``connect()`` refers to the receiver weakly.
    """,
)
context_released: ReplaySignal[ReleasedReceiver] = _namespace.signal(
    "context-released",
    """Signal that a replay has ended. The app sends it after the context of the thread or task has been torn down.

    A receiver is called with the app; ``replay``, the `Replay`, with its ``seconds``; ``error``, the type of the
    exception that the callable raised, as ``module:qualname``, or None if it returned; and ``outlived``, the seconds by
    which the replay outlived its parent's context, or None if it did not. ``connect()`` refers to the receiver weakly.
    """,
)

inherited_receivers: Mapping[t.Any, t.Any] = getattr(context_inherited, "receivers", {})
released_receivers: Mapping[t.Any, t.Any] = getattr(context_released, "receivers", {})


def begin(ctx: AppContext) -> None:
    """Tell the receivers that the replay of *ctx* begins."""
    # A thread that a receiver starts does not inherit: its own replay would call the receiver again, without end (H11).
    with flask_context.in_transition(ctx):
        _send(context_inherited, ctx.app, replay=describe(Entry(*replays[ctx]), threading.current_thread().name))


def end(ctx: AppContext, entry: Entry, error: BaseException | None) -> None:
    """Tell the receivers, and log if it was warned of, that the replay of *ctx* has ended, which was *entry*."""
    if (late := overdue.pop(ctx, None)) is not None:
        warn_ended(late)
    if released_receivers:
        # Measure this before `describe` reads the clock. Otherwise `outlived` could exceed `seconds` for a replay that
        # began while its parent was active.
        outlived = parents.seconds_over(entry.snapshot.parent, entry.started)
        _send(
            context_released,
            ctx.app,
            replay=describe(entry, threading.current_thread().name),
            error=None if error is None else path_of_class(type(error)),
            outlived=outlived,
        )


def _send(signal: t.Any, app: Flask, **values: t.Any) -> None:
    try:
        send(signal, app, **values)
    except Exception:
        thread = threading.current_thread().name
        message = "Error in a receiver of the signal %r in thread %r"
        log(logging.ERROR, message, signal.name, thread, app=app, exc_info=True)
