"""``FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL=USR1``: on that signal, the table of the running replays on stderr."""

from __future__ import annotations

import os
import signal
import threading
import typing as t
from contextlib import suppress
from types import FrameType

from ..environment import DUMP_SIGNAL, say
from ..names import text_of
from .registry import table

_REFUSED = {
    **dict.fromkeys(("INT", "TERM", "HUP", "QUIT", "ABRT"), "a process must end on it"),
    **dict.fromkeys(("SEGV", "BUS", "FPE", "ILL"), "a process that handles it in Python hangs"),
    "CHLD": "a process waits for its children on it",
}
"""The signals for which no handler is set, and the reason. With a handler, the process would survive the first ones."""


class _Handler:
    """Our handler for one signal, and the one that was there before."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.active = True
        # Read before it is replaced: the signal may come as soon as the handler is set.
        self.previous: t.Any = signal.getsignal(number)
        signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.active:
            try:
                text = table()
            except Exception as error:
                # It would be raised in whatever the main thread is doing.
                text = f"flaskthreads_autopatch: the table cannot be written: {text_of(error)}\n"
            _write(text)
        if callable(self.previous):
            self.previous(number, frame)


_handlers: list[_Handler] = []


def install() -> None:
    """Put the handler on, if the environment names a signal. What is wrong is one line on stderr, and nothing else."""
    name = os.environ.get(DUMP_SIGNAL, "").strip()
    # Somebody may have put theirs in its place, as each worker of gunicorn --preload does: then once more.
    if not name or any(t.cast(object, signal.getsignal(handler.number)) is handler for handler in _handlers):
        return
    shown = f"{DUMP_SIGNAL}={os.environ[DUMP_SIGNAL]!r} (environment)"
    number = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if not isinstance(number, signal.Signals):
        say(f"{shown}: there is no such signal here. Allowed is a name, as USR1. No table is written on a signal.")
    elif (reason := _why_refused(number)) is not None:
        say(
            f"{shown}: this signal is not allowed, because {reason}. Use USR1 or USR2. No table is written on a signal."
        )
    elif threading.current_thread() is not threading.main_thread():
        say(f"{shown}: the library is switched on outside of the main thread. No table is written on a signal.")
    else:
        try:
            handler = _Handler(number)
        except (OSError, ValueError) as error:
            say(f"{shown}: a handler cannot be set: {error}. No table is written on a signal.")
        else:
            for below in _handlers:
                below.active = False  # whoever lies between calls it
            _handlers.append(handler)


def uninstall() -> None:
    """Put back the handler that was there before; where somebody's lies above, or in another thread, ours is inert."""
    while _handlers:
        handler = _handlers.pop()
        handler.active = False
        try:
            if t.cast(object, signal.getsignal(handler.number)) is handler:
                signal.signal(handler.number, handler.previous)
        except ValueError:
            pass  # not in the main thread: it only hands on


def _why_refused(number: signal.Signals) -> str | None:
    for name, reason in _REFUSED.items():
        if getattr(signal, f"SIG{name}", None) is number:
            return reason
    if signal.getsignal(number) is None:
        return "its handler was not set by Python, and could neither be called nor put back"
    return None


def _write(text: str) -> None:
    # Not to sys.stderr: the signal may have come while somebody was writing there.
    with suppress(OSError):  # it is closed, and there is no other place to say so
        os.write(2, text.encode())
