"""The environment variables that enable the library, and reports of a mistake in the environment.

This module is imported at interpreter start, in every process that runs the start-up file. It therefore imports only
modules that every Python has imported by then.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "FLASKTHREADS_AUTOPATCH"
DUMP_SIGNAL_VARIABLE = f"{VARIABLE}_DUMP_SIGNAL"

AUDIT_FOLDER_VARIABLE = f"{VARIABLE}_AUDIT"
"""The folder in which each process keeps what an audit records: set by ``flaskthreads-autopatch audit``."""

OBSERVE = "observe"
"""The value of the variable that has the library observe: it records what would be inherited, and nothing is."""

BOOLEAN_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
"""The words for True and False. They are read in upper or lower case, with or without blanks around them."""


def is_enabled_by_environment(default: bool) -> bool:
    """Return whether the environment enables the library, or *default* if the variable is unset or empty.

    `OBSERVE` enables it too. An invalid value is reported on stderr and counts as false. With ``python -E`` or ``-I``
    the variable is ignored.
    """
    if sys.flags.ignore_environment:
        return False
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return default
    is_enabled = True if _word(os.environ) == OBSERVE else BOOLEAN_WORDS.get(_word(os.environ))
    if is_enabled is None:
        allowed = one_of([*BOOLEAN_WORDS, OBSERVE])
        print_to_stderr(f"{VARIABLE} must be {allowed}, not {text!r} (set in the environment). Nothing is patched.")
        return False
    return is_enabled


def has_kill_switch(environ: Mapping[str, str]) -> bool:
    """Return whether *environ* has the operator's kill switch, ``FLASKTHREADS_AUTOPATCH=0``."""
    return BOOLEAN_WORDS.get(_word(environ)) is False


def is_kill_switch_on() -> bool:
    """Return whether this process has the kill switch. With ``python -E`` or ``-I`` the variable is ignored."""
    return not sys.flags.ignore_environment and has_kill_switch(os.environ)


def is_observing_by_environment() -> bool:
    """Return whether the environment has this process observe. With ``python -E`` or ``-I`` the variable is ignored.

    It does so too where an audit observes, and a server has set the variable to ``1`` for its workers meanwhile. The
    audit then has a file of that name in its folder.
    """
    if sys.flags.ignore_environment:
        return False
    folder = audit_folder()
    return _word(os.environ) == OBSERVE or bool(folder and os.path.exists(os.path.join(folder, OBSERVE)))


def audit_folder() -> str:
    """Return the folder for what is recorded, or an empty text if none is set.

    With ``python -E`` or ``-I`` the variable is ignored.
    """
    return "" if sys.flags.ignore_environment else os.environ.get(AUDIT_FOLDER_VARIABLE, "")


def _word(environ: Mapping[str, str]) -> str:
    return environ.get(VARIABLE, "").strip().lower()


def one_of(words: list[str]) -> str:
    """Return *words* as the end of a sentence: ``a, b or c``."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def print_to_stderr(sentence: str) -> None:
    """Print *sentence* as one line on stderr, if there is one. Does not raise.

    A mistake in the environment must not take a process down.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"flaskthreads_autopatch: {sentence}\n")
    except Exception:
        pass  # It is closed, or it is the application's own and broken. There is no other place for the report.
