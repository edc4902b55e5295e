"""Log messages of the library. An error of the application's logging is reported on stderr, and is not raised.

The library logs in a teardown, in a capture and in the thread of `overdue`. There, an error in logging would become the
outcome of a task or of ``start()``. A filter that reads ``request`` raises such an error, and so does a handler that
does not catch its own (H36).
"""

from __future__ import annotations

import collections
import logging
import sys
import typing as t

from flask import Flask

from .environment import print_to_stderr
from .names import printable, text_of
from .suppression import suppress_inheritance

logger = logging.getLogger("flaskthreads_autopatch")


def log(level: int, message: str, *args: object, app: Flask | None = None, exc_info: bool = False) -> None:
    """Log *message* on the logger of *app*, or on the library's own. With *exc_info*, log the current exception too.

    A thread that a logging handler starts does not inherit: its own capture and teardown could log again, without end.
    """
    logged = sys.exc_info()[1] if exc_info else None
    with suppress_inheritance():
        try:
            chosen: t.Any = logger if app is None else app.logger
            chosen.log(level, message, *args, exc_info=exc_info or None, stacklevel=2)
        except Exception as error:
            about = "" if logged is None else f" {text_of(logged)}"
            print_to_stderr(
                f"Logging failed with {text_of(error)}. The message was: {_formatted(message, args)}{about}"
            )


deferred: collections.deque[tuple[int, str, tuple[object, ...]]] = collections.deque()
"""What `log_in_child` was called with, until the next replay begins."""


def log_in_child(level: int, message: str, *args: object) -> None:
    """Log *message* when the next replay begins, and not at once.

    The code that starts a thread may hold a lock, as a pool does that starts a worker. A logging handler that submits
    to that pool would wait for the lock without end. Where a child begins, no lock of its parent is held.
    """
    deferred.append((level, message, args))


def log_deferred() -> None:
    """Log what `log_in_child` was called with."""
    while deferred:
        try:
            level, message, args = deferred.popleft()
        except IndexError:
            return  # Another thread was faster.
        log(level, message, *args)


def _formatted(message: str, args: tuple[object, ...]) -> str:
    try:
        return printable(message % args)
    except Exception:
        return message  # The __repr__ of an argument raises.
