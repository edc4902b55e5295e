"""How a command is started with the library enabled: its environment, and what to say if it cannot be started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

from .environment import OBSERVE, VARIABLE, has_kill_switch

STARTUP_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")
"""The folder which, on ``PYTHONPATH``, enables the library in every Python that starts."""


def launch_environment(environ: Mapping[str, str], value: str = "", **variables: str) -> dict[str, str]:
    """Return *environ* with FLASKTHREADS_AUTOPATCH set, and with the start-up folder first on PYTHONPATH.

    It is set to *value*, by default to ``1``, or to ``observe`` if it is that already: an audit of the launcher
    observes. *variables* are added. With the kill switch, *environ* is returned as it is. It is looked for even if this
    process runs with ``-E``, because the command itself reads the environment.
    """
    if has_kill_switch(environ):
        return dict(environ)
    path = environ.get("PYTHONPATH", "")
    folders = [folder for folder in path.split(os.pathsep) if folder != STARTUP_FOLDER] if path else []
    path = os.pathsep.join([STARTUP_FOLDER, *folders])
    value = value or (OBSERVE if environ.get(VARIABLE, "").strip().lower() == OBSERVE else "1")
    return {**environ, VARIABLE: value, "PYTHONPATH": path, **variables}


def cannot_run(command: str, error: OSError) -> tuple[str, int]:
    """Return a sentence that says why *command* could not be started, and the exit status for that, as a shell has."""
    reason, status = error.strerror, 126
    if isinstance(error, FileNotFoundError):
        if shutil.which(command):
            reason = "the interpreter that its first line names was not found"
        else:
            status = 127
    return f"cannot run {command!r}: {reason}.{_beside(command)}", status


def _beside(command: str) -> str:
    """Return a hint if *command* is not on ``PATH``, but beside this launcher, a file, or a whole command line."""
    if not os.path.dirname(command) and shutil.which(command) is None:
        if " " in command:
            return " Do not quote the command as a whole."
        if os.path.isfile(command):
            return f" It is a file, and no program on PATH: for a file of Python, write 'python {command}'."
        for program in (sys.argv[0], sys.executable):
            found = os.path.join(os.path.dirname(os.path.abspath(program)), command)
            if os.access(found, os.X_OK):
                return f" It is not on PATH, but beside the launcher: run {found!r}, or activate its environment."
    return ""
