"""The variable that switches the library on, how a yes and a no are written, and how a process is told of a mistake.

Imported at interpreter start, in every process that sees the start-up file: it imports nothing that is not there yet.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "FLASKTHREADS_AUTOPATCH"
DUMP_SIGNAL = f"{VARIABLE}_DUMP_SIGNAL"

WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
"""In any case, with or without blanks around."""


def is_wanted(otherwise: bool) -> bool:
    """What the variable says; *otherwise* if it is not set, or empty. A wrong value is said on stderr, and is a no.

    It is not read where Python was told, by ``-E`` or ``-I``, that the environment switches nothing.
    """
    if sys.flags.ignore_environment:
        return False
    value = os.environ.get(VARIABLE, "").strip()
    if not value:
        return otherwise
    wanted = WORDS.get(value.lower())
    if wanted is None:
        say(f"{VARIABLE}={os.environ[VARIABLE]!r} (environment): allowed are {' '.join(WORDS)}. Nothing is patched.")
        return False
    return wanted


def says_no(environ: Mapping[str, str]) -> bool:
    """Return whether *environ* holds the operator's kill switch: ``FLASKTHREADS_AUTOPATCH=0``, and no wrong value."""
    return WORDS.get(environ.get(VARIABLE, "").strip().lower()) is False


def is_killed() -> bool:
    """Return whether the kill switch is set for this process, now. As `is_wanted`, it is not read under ``-E``."""
    return not sys.flags.ignore_environment and says_no(os.environ)


def say(sentence: str) -> None:
    """One line on stderr, if there is one: nothing that is wrong in the environment may take a process down."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"flaskthreads_autopatch: {sentence}\n")
    except Exception:
        pass  # It is closed, or the application's own and broken. There is no other place to report it.
