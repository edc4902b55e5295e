"""The place where a thread or task was started, for lists, warnings and signals: a line of the application's own code.

A place is recorded only where the policy asks for it, because the stack has to be searched for that.
"""

from __future__ import annotations

import functools
import os
import sys
import typing as t
from types import FrameType

from . import own_code

_STARTERS = ("threading", "concurrent.futures", "multiprocessing", "wrapt", __name__.partition(".")[0])
"""The packages whose frames lie between the code that starts something and this module."""


class Place(t.NamedTuple):
    """A line of code. As text it is ``shop/views.py:12 in checkout``."""

    file: str
    """The name of the file, as its code has it."""
    line: int
    function: str

    def __str__(self) -> str:
        return f"{_shortened(self.file)}:{self.line} in {self.function}"


def place_of_origin(own: own_code.Own) -> Place | None:
    """Return the place that starts what is captured just now: the innermost frame of own code on this thread's stack.

    *own* is the option. Where no own code is on the stack, it is the innermost frame that is neither this library's nor
    the standard library's for threads and pools. None if there is no such frame either, as in a compiled program.
    """
    frame: FrameType | None = sys._getframe(1)
    first: FrameType | None = None
    try:
        while frame is not None:
            # Locals are never read: up to Python 3.12, frame.f_locals keeps alive what the frame has deleted meanwhile.
            if not _is_starter(str(frame.f_globals.get("__name__"))):
                first = first or frame
                if own_code.is_own_code(own, frame.f_code, frame.f_globals, None):
                    return _place(frame)
            frame = frame.f_back
        return None if first is None else _place(first)
    finally:
        del frame, first


def _place(frame: FrameType) -> Place:
    code = frame.f_code
    return Place(code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name))  # since Python 3.11


@functools.lru_cache(maxsize=1024)
def _is_starter(module: str) -> bool:
    # Ours counts as own code in a checkout.
    return any(module == package or module.startswith(f"{package}.") for package in _STARTERS)


@functools.lru_cache(maxsize=1024)
def _shortened(file: str) -> str:
    """Return *file* as a reader looks for it: from the folder on ``sys.path`` from which it is imported."""
    folders = [own_code.absolute(folder) + os.sep for folder in sys.path if isinstance(folder, str)]
    # A relative folder that cannot be made absolute, since the working directory has been deleted, may be "".
    found = [folder for folder in folders if folder != os.sep and file.startswith(folder)]
    longest = max(found, key=len, default="")
    return file.removeprefix(longest)
