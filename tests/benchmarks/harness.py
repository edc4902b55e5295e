"""Measuring in turns, in this process or in workers; the values are kept as a `pyperf.BenchmarkSuite`."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import pyperf

ROOT = Path(__file__).parents[2]

State = Callable[[], contextlib.AbstractContextManager[object]]


class Column(t.NamedTuple):
    """One thing that is measured."""

    name: str
    call: Callable[[], object]
    """Is timed, many times in a row; for a scenario that is ``sampled``, returns the value itself."""
    state: State = contextlib.nullcontext
    """What is patched and which context is active meanwhile."""


class Scenario(t.NamedTuple):
    """Columns that are compared with each other."""

    name: str
    title: str
    base: str
    """The column that the ratios refer to."""
    columns: Callable[[], list[Column]]
    unit: str = "second"
    pinned: bool = True
    """To one CPU: unpinned, a round trip between two threads is mostly the waking up of a CPU."""
    sampled: bool = False
    """The columns measure by themselves, in processes of their own, and return the value."""
    share: float = 1.0
    """Of the usual number of rounds."""
    slow: bool = False
    """Left out of a quick run, unless it is asked for by its name."""
    around: State = contextlib.nullcontext
    """What must be there while a sampled scenario is measured."""


class Effort(t.NamedTuple):
    """How much is measured."""

    processes: int
    rounds: int
    batch: float
    """Seconds for one column in one round."""
    quick: bool


QUICK = Effort(processes=2, rounds=15, batch=0.002, quick=True)
FULL = Effort(processes=5, rounds=40, batch=0.003, quick=False)


class Missing(Exception):
    """A column cannot be measured here; the message says why."""


def timed(scenario: Scenario, effort: Effort) -> pyperf.BenchmarkSuite:
    """Time the columns of *scenario* in turns, in this process."""
    if scenario.pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    columns = scenario.columns()
    loops = {column.name: _calibrate(column, effort.batch) for column in columns}
    values: dict[str, list[float]] = {column.name: [] for column in columns}
    for _ in range(max(2, round(effort.rounds * scenario.share))):
        gc.collect()
        # Whoever comes first after the collection finds cold caches: each in its turn.
        columns.append(columns.pop(0))
        for column in columns:
            values[column.name].append(_time(column, loops[column.name]))
    return _suite(scenario, values)


def sampled(scenario: Scenario, effort: Effort, log: Callable[[str], None]) -> pyperf.BenchmarkSuite:
    """Ask the columns of *scenario* in turns for a value each."""
    values: dict[str, list[float]] = {}
    columns = scenario.columns()
    with scenario.around():
        for _ in range(max(2, round(effort.rounds * scenario.share))):
            for column in list(columns):
                try:
                    values.setdefault(column.name, []).append(t.cast(float, column.call()))
                except Missing as error:
                    columns.remove(column)
                    log(f"{scenario.name}: {column.name} is not there: {error}")
    return _suite(scenario, {name: series for name, series in values.items() if series})


def in_processes(scenario: Scenario, effort: Effort) -> pyperf.BenchmarkSuite:
    """The same as `timed`, in several processes one after the other: each has a hash seed and a heap of its own."""
    merged: pyperf.BenchmarkSuite | None = None
    for _ in range(effort.processes):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.json")
            options = ["--quick"] if effort.quick else []
            run_python("-m", "tests.benchmarks.worker", scenario.name, path, *options)
            suite = pyperf.BenchmarkSuite.load(path)
        if merged is None:
            merged = suite
        else:
            merged.add_runs(suite)
    assert merged is not None
    return merged


def run_python(*args: str, **environ: str) -> str:
    """What this interpreter prints, run from the root of the project."""
    command = [sys.executable, *args]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}; what it said stands above.")
    return done.stdout


def _calibrate(column: Column, batch: float) -> int:
    loops = 1
    while (spent := _time(column, loops) * loops) < batch / 2 and loops < 1 << 20:
        loops *= 2
    return max(1, round(loops * batch / max(spent, 1e-9)))


def _time(column: Column, loops: int) -> float:
    call = column.call
    with column.state(), _no_collection():
        # Patching a class empties the interpreter's inline caches: these few calls fill them again.
        for _ in range(min(loops, 20)):
            call()
        turns = range(loops)
        start = perf_counter()
        for _ in turns:
            call()
        return (perf_counter() - start) / loops


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _suite(scenario: Scenario, values: dict[str, list[float]]) -> pyperf.BenchmarkSuite:
    benchmarks = []
    for column, series in values.items():
        metadata = {"name": f"{scenario.name}: {column}", "unit": scenario.unit}
        benchmarks.append(pyperf.Benchmark([pyperf.Run(series, metadata=metadata)]))
    return pyperf.BenchmarkSuite(benchmarks)


class Result(t.NamedTuple):
    """One column, measured."""

    column: str
    median: float
    ratio: float
    """The median of the ratios to the base column, round by round."""
    low: float
    high: float
    """The quartiles of those ratios."""
    of_minima: float
    """The ratio of the shortest time in each process, in the middle of the processes: what the machine can do."""


def results(scenario: Scenario, suite: pyperf.BenchmarkSuite) -> dict[str, Result]:
    """By column, what *suite* says about *scenario*."""
    prefix = f"{scenario.name}: "
    # By process, the values round by round.
    series: dict[str, list[list[float]]] = {
        name.removeprefix(prefix): [list(run.values) for run in suite.get_benchmark(name).get_runs()]
        for name in suite.get_benchmark_names()
        if name.startswith(prefix)
    }
    base = series.get(scenario.base)
    return {column: _result(column, runs, base or runs) for column, runs in series.items()}


def _result(column: str, runs: list[list[float]], base: list[list[float]]) -> Result:
    rounds = [pair for run, base_run in zip(runs, base, strict=True) for pair in zip(run, base_run, strict=True)]
    low, ratio, high = statistics.quantiles([value / reference for value, reference in rounds], n=4)
    of_minima = statistics.median(min(run) / min(base_run) for run, base_run in zip(runs, base, strict=True))
    return Result(column, statistics.median(value for value, _ in rounds), ratio, low, high, of_minima)
