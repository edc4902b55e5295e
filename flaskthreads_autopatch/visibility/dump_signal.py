"""Handler of the signal that ``FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL`` names: writes the running replays to stderr."""

from __future__ import annotations

import os
import signal
import threading
import typing as t
from contextlib import suppress
from types import FrameType

from ..environment import DUMP_SIGNAL_VARIABLE, print_to_stderr
from ..names import text_of
from .registry import table

_REFUSED = {
    **dict.fromkeys(("INT", "TERM", "HUP", "QUIT", "ABRT"), "a process must end on it"),
    **dict.fromkeys(("SEGV", "BUS", "FPE", "ILL"), "a process that handles it in Python hangs"),
    "CHLD": "a process waits for its children on it",
}
"""The signals for which no handler is set, and the reason. With a handler, a process would survive the first ones."""


class _Handler:
    """Our handler for one signal. It calls the previous handler, too."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.active = True
        # The signal may come as soon as our handler is set, so the previous handler is read before.
        self.previous: t.Any = signal.getsignal(number)
        signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.active:
            try:
                text = table()
            except Exception as error:
                # A handler raises into whatever the main thread is doing.
                text = f"flaskthreads_autopatch: the table cannot be written: {text_of(error)}\n"
            _write(text)
        if callable(self.previous):
            self.previous(number, frame)


_handlers: list[_Handler] = []


def install() -> None:
    """Set the handler, if the environment names a signal. A wrong name is reported in one line on stderr."""
    name = os.environ.get(DUMP_SIGNAL_VARIABLE, "").strip()
    # Set the handler again if another one has replaced it, as each worker of gunicorn does with --preload.
    if not name or any(t.cast(object, signal.getsignal(handler.number)) is handler for handler in _handlers):
        return
    value = f"{os.environ[DUMP_SIGNAL_VARIABLE]!r} (set in the environment)"
    number = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if not isinstance(number, signal.Signals):
        _report(f"{DUMP_SIGNAL_VARIABLE} must be the name of a signal of this system, such as USR1, not {value}.")
    elif (reason := _why_refused(number)) is not None:
        _report(f"{DUMP_SIGNAL_VARIABLE} must not be {value}, because {reason}. Use USR1 or USR2.")
    elif threading.current_thread() is not threading.main_thread():
        _report(
            f"{DUMP_SIGNAL_VARIABLE}={value} has no effect, because the library is enabled outside of the main thread."
        )
    else:
        try:
            handler = _Handler(number)
        except (OSError, ValueError) as error:
            _report(f"{DUMP_SIGNAL_VARIABLE}={value} has no effect, because its handler cannot be set: {error}.")
        else:
            for older in _handlers:
                older.active = False  # The new handler may still call it, by way of the one that had replaced it.
            _handlers.append(handler)


def uninstall() -> None:
    """Restore the previous handler.

    Where that is not possible, because another handler wraps ours or this is not the main thread, our handler stays and
    only calls the previous one.
    """
    while _handlers:
        handler = _handlers.pop()
        handler.active = False
        try:
            if t.cast(object, signal.getsignal(handler.number)) is handler:
                signal.signal(handler.number, handler.previous)
        except ValueError:
            pass  # Only the main thread can set a handler.


def _why_refused(number: signal.Signals) -> str | None:
    for name, reason in _REFUSED.items():
        if getattr(signal, f"SIG{name}", None) is number:
            return reason
    if signal.getsignal(number) is None:
        return "its handler was not set by Python, and could neither be called nor put back"
    return None


def _report(sentence: str) -> None:
    print_to_stderr(f"{sentence} No table is written on a signal.")


def _write(text: str) -> None:
    # The signal may have come in the middle of a write to sys.stderr, which must not be entered twice. The table is
    # therefore written to the file descriptor.
    with suppress(OSError):  # It is closed, and there is no other place to report that.
        os.write(2, text.encode())
