"""Log messages of the library. What the application's logging raises is reported on stderr, and goes no further.

The library logs in places where an error would become the outcome of a task or of ``start()``: in a teardown, in a
capture, in the thread that watches. A filter that reads ``request``, or a handler that lets its errors out, raises
there (H36).
"""

from __future__ import annotations

import logging
import sys
import typing as t

from flask import Flask

from .environment import say
from .names import printable, text_of
from .suppression import suppress_inheritance

logger = logging.getLogger("flaskthreads_autopatch")


def log(level: int, message: str, *args: object, app: Flask | None = None, exc_info: bool = False) -> None:
    """Log *message* on the logger of *app*, or on the library's own. What a handler starts does not inherit.

    With *exc_info*, the exception that is being handled is logged too.
    """
    # A logging handler may start a thread. If that inherited, its own capture and teardown could log again, and so on.
    logged = sys.exc_info()[1] if exc_info else None
    with suppress_inheritance():
        try:
            chosen: t.Any = logger if app is None else app.logger
            chosen.log(level, message, *args, exc_info=exc_info or None, stacklevel=2)
        except Exception as error:
            about = "" if logged is None else f" {text_of(logged)}"
            say(f"Logging failed with {text_of(error)}. The message was: {_formatted(message, args)}{about}")


def _formatted(message: str, args: tuple[object, ...]) -> str:
    try:
        return printable(message % args)
    except Exception:
        return message  # an argument has a __repr__ that raises
