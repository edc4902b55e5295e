"""The process that runs the cases: it forks for each, and has imported what takes time to import."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import typing as t
from collections.abc import Callable, Iterator

import pytest

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

Steps = tuple[tuple[str, str], ...]
RunCase = Callable[[str, Steps], dict[str, t.Any]]


@pytest.fixture(scope="session")
def run_case() -> Iterator[RunCase]:
    """Run steps with what stands in our place, in a process of its own, and return its report."""
    command = [sys.executable, "-m", "tests.patchers.case"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env={**os.environ, **QUIET}
    )
    assert process.stdin is not None
    assert process.stdout is not None

    @functools.cache
    def run(in_our_place: str, steps: Steps) -> dict[str, t.Any]:
        process.stdin.write(json.dumps({"in our place": in_our_place, "steps": steps}) + "\n")
        report: dict[str, t.Any] = json.loads(process.stdout.readline())
        assert "steps" in report, report.get("raised", report)
        return report

    yield run
    process.stdin.close()
    process.stdout.close()
    assert process.wait(30) == 0
