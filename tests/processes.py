"""Real processes for tests: commands that end, services that are ended, and no variable inherited by chance."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .helpers import LIMIT

ROOT = Path(__file__).parent.parent
LEGACY = Path(__file__).parent / "legacy"
EXAMPLE = ROOT / "sitecustomize_example"

_SWITCHES = re.compile("FLASK|PYTHON|AUTOWRAPT|OTEL_|DD_")


def environment(**variables: object) -> dict[str, str]:
    """This process's environment without what could switch anything on, and with *variables*."""
    inherited = {name: value for name, value in os.environ.items() if not _SWITCHES.match(name)}
    return inherited | {"PYTHONUNBUFFERED": "1"} | {name: str(value) for name, value in variables.items()}


def script(name: str) -> str:
    """The path of a console script of the environment that the tests run in."""
    return os.path.join(sysconfig.get_path("scripts"), name)


LAUNCHER = (script("flaskthreads-autopatch"), "run")
DOCTOR = (script("flaskthreads-autopatch"), "doctor")
IS_ON = "import flask, sys; on = sys.modules.get('flaskthreads_autopatch.switch'); print(bool(on and on.is_enabled()))"
"""Imports Flask, and nothing of ours, as a legacy app does."""

WAYS = {
    "launcher": (LAUNCHER, {}),
    "sitecustomize": ((), {"FLASKTHREADS_AUTOPATCH": "1", "PYTHONPATH": str(EXAMPLE)}),
}
"""To switch a legacy app on from outside: what stands before its command, and what is added to its environment."""


def run(*command: str | Path, cwd: Path | None = None, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(part) for part in command],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def python(code: str, *options: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run *code* in a new Python."""
    return run(sys.executable, *options, "-c", code, **variables)


class Service:
    """A process that runs until it is ended, and the lines that it writes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line that matches *pattern*; fails with all that was written if the process ends before."""
        for line in self._process.stdout:
            self._lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the process ended without writing {pattern!r}:\n{''.join(self._lines)}")


class Site:
    """A server process, and the address that one of its lines names."""

    def __init__(self, service: Service) -> None:
        self.wait_for = service.wait_for
        self.address = self.wait_for(r"127\.0\.0\.1:[1-9]\d*").group()

    def get(self, path: str) -> dict[str, str]:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=LIMIT) as response:
            return json.load(response)


@contextmanager
def started(*command: str | Path, cwd: Path = LEGACY, **variables: object) -> Iterator[Service]:
    """A process, until the end of the block."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env=environment(**variables),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    guard = threading.Timer(LIMIT, _end, [process, signal.SIGKILL])
    guard.start()
    try:
        yield Service(process)
    finally:
        guard.cancel()
        _end(process, signal.SIGTERM)
        try:
            process.communicate(timeout=LIMIT)
        finally:
            _end(process, signal.SIGKILL)


@contextmanager
def serving(*command: str | Path, cwd: Path = LEGACY, **variables: object) -> Iterator[Site]:
    """A server that was told to listen at 127.0.0.1:0, from the line that names its port to the end of the block."""
    with started(*command, cwd=cwd, **variables) as service:
        yield Site(service)


def _end(process: subprocess.Popen[str], number: int) -> None:
    # Its session is its own: workers and reloaders go with it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
