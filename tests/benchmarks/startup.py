"""Start-up of an interpreter, with and without activation, beside other launchers."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time

from .harness import ROOT, Column, Missing, Scenario

NOTHING, IMPORT_FLASK = "pass", "import flask"


def _start(launcher: tuple[str, ...], code: str) -> float:
    """Seconds from the start of an interpreter, through *launcher*, that runs *code*, to its end."""
    command = [*_found(launcher), sys.executable, "-c", code]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASKTHREADS_AUTOPATCH")}
    # No agent may look for its collector.
    environ |= {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    environ |= {"DD_TRACE_ENABLED": "false", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}
    environ |= {"DD_REMOTE_CONFIGURATION_ENABLED": "false"}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    spent = time.perf_counter() - start
    if done.returncode:
        raise Missing(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return spent


def _found(launcher: tuple[str, ...]) -> tuple[str, ...]:
    if not launcher:
        return ()
    if launcher[0] == "flaskthreads_autopatch":
        if importlib.util.find_spec("flaskthreads_autopatch.__main__") is None:
            raise Missing("flaskthreads_autopatch has no launcher")
        return (sys.executable, "-m", "flaskthreads_autopatch", "run")
    program = shutil.which(launcher[0], path=sysconfig.get_path("scripts"))
    if program is None:
        raise Missing(f"{launcher[0]} is not installed")
    return (program, *launcher[1:])


def _activated(code: str) -> float:
    """Started as a child of the launcher is: the launcher itself, which then executes the command, is not counted."""
    launcher = _found(("flaskthreads_autopatch",))
    show = "import os, sys; sys.stdout.write(os.environ['PYTHONPATH'])"
    path = subprocess.run([*launcher, sys.executable, "-c", show], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    environ = {**os.environ, "FLASKTHREADS_AUTOPATCH": "1", "PYTHONPATH": path}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True)
    return time.perf_counter() - start


def _columns() -> list[Column]:
    launchers: dict[str, tuple[str, ...]] = {
        "bare": (),
        "our launcher": ("flaskthreads_autopatch",),
        "opentelemetry-instrument": ("opentelemetry-instrument",),
        "ddtrace-run": ("ddtrace-run",),
    }
    columns = []
    for ending, code in (("never importing Flask", NOTHING), ("importing Flask", IMPORT_FLASK)):
        for name, launcher in launchers.items():
            columns.append(Column(f"{name}, {ending}", functools.partial(_start, launcher, code)))
        columns.append(Column(f"activated, {ending}", functools.partial(_activated, code)))
    return columns


SCENARIOS = (
    Scenario("start-up", "Start of an interpreter", "bare, never importing Flask", _columns, sampled=True, share=0.5),
)
