"""The process that runs the cases: it forks for each, and has imported what takes time to import."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import typing as t
from collections.abc import Iterator

import pytest

from .helpers import Ask, RunCase, Steps

QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "NEW_RELIC_APP_NAME": "tests",
    "NEW_RELIC_DEVELOPER_MODE": "true",
    "NEW_RELIC_LICENSE_KEY": "0" * 40,
    "NEW_RELIC_LOG": os.devnull,
}
"""Agents must not look for their servers."""


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Have something done in a process of its own, and return what is reported."""
    command = [sys.executable, "-m", "tests.patchers.case"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env={**os.environ, **QUIET}
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(request: dict[str, t.Any]) -> t.Any:
        process.stdin.write(json.dumps(request) + "\n")
        report: dict[str, t.Any] = json.loads(process.stdout.readline())
        assert "answer" in report, report.get("raised", report)
        return report["answer"]

    yield ask
    process.stdin.close()
    process.stdout.close()
    assert process.wait(30) == 0


@pytest.fixture(scope="session")
def run_case(ask: Ask) -> RunCase:
    """Run steps with what stands in our place, and return the report."""

    @functools.cache
    def run(in_our_place: str, steps: Steps) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", ask({"in our place": in_our_place, "steps": steps}))

    return run
