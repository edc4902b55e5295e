"""Runs a suite in each column, two processes at a time, and compares test by test."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import tempfile
import typing as t
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from .sources import MissingSuite, Place, Sources
from .suites import CONTEXT, CONTROL, OFF, WITH_CONTEXT, Distributed, Published, Suite

ROOT = Path(__file__).parents[2]
AT_ONCE = 2
RERUNS = 5
GUARD = 1200
"""Seconds after which a column counts as hanging. The slowest suite takes about two minutes on one core."""
RUN = "(the run)"

Outcomes = dict[str, list[str]]
"""By test, its outcome; more than one where subtests fail."""


@dataclasses.dataclass
class Run:
    """One suite in one column."""

    outcomes: Outcomes
    details: dict[str, str]
    missing: str = ""
    replays: int | None = None
    """How many threads, tasks and callbacks inherited; None with the patches off."""
    observed: int | None = None
    """How many would have inherited, in observe mode."""
    ended: bool = False

    def summary(self) -> str:
        """How many tests had which outcome."""
        counts = Counter(outcome for outcomes in self.outcomes.values() for outcome in outcomes)
        counts.pop("as it was", None)
        return ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts)) or "no test ran"


@dataclasses.dataclass
class Row:
    """One suite in all its columns, and what became of the tests that differed."""

    suite: Suite
    flags: tuple[str, ...]
    runs: dict[str, Run]
    unsteady: list[str] = dataclasses.field(default_factory=list)
    by_context: list[str] = dataclasses.field(default_factory=list)
    """The tests that differ where a context is active, with the patches off too."""
    different: list[str] = dataclasses.field(default_factory=list)
    absent: str = ""
    """Why nothing of it could be run."""

    @property
    def tests(self) -> set[str]:
        """What ran in any column."""
        return {name for run in self.runs.values() for name in run.outcomes}

    @property
    def suspects(self) -> list[str]:
        """The tests whose outcome is not the same in all columns, or that did not run in all of them."""
        return differing({column: run.outcomes for column, run in self.runs.items()})

    @property
    def same(self) -> set[str]:
        """The tests whose outcome is the same in all columns."""
        return self.tests - set(self.suspects)

    @property
    def missing(self) -> set[str]:
        """What could not be run, and why."""
        return {why for why in (self.absent, *(run.missing for run in self.runs.values())) if why}


class Runner:
    """Starts the columns, each in a process of its own."""

    def __init__(self, folder: Path, test_package: str, pool: ThreadPoolExecutor, sources: Sources) -> None:
        self._folder = folder
        self._test_package = test_package
        self._pool = pool
        self._sources = sources

    def row(self, suite: Suite, flags: tuple[str, ...]) -> Row:
        """Run *suite*, and again, in all columns and in the control, what differed."""
        place = Place()
        if isinstance(suite, Distributed):
            try:
                place = self._pool.submit(self._sources.place, suite).result()
            except MissingSuite as error:
                return Row(suite, flags, {}, absent=str(error))

        def run(column: str, only: list[str]) -> t.Any:
            return self._pool.submit(self._run, suite, flags, column, only, place)

        started = {column: run(column, []) for column in suite.columns}
        runs: dict[str, Run] = {column: future.result() for column, future in started.items()}
        row = Row(suite, flags, runs)
        broken = [run for run in runs.values() if not run.ended]
        if any(run.observed is not None and run.replays for run in runs.values()):
            row.different.append("a thread or task inherited in observe mode.")
        row.different += [f"a column did not come to its end. {run.details[RUN]}" for run in broken]
        if not row.missing and not any("passed" in outcomes for outcomes in runs[OFF].outcomes.values()):
            row.different.append(f"no test passes with the patches off: nothing is compared. {runs[OFF].details[RUN]}")
        suspects = row.suspects
        if broken or not suspects:
            return row
        columns = (*suite.columns, CONTROL) if CONTEXT in suite.columns else suite.columns
        rerun = {column: [run(column, suspects) for _ in range(RERUNS)] for column in columns}
        repeated = {c: [*([runs[c]] if c in runs else []), *(f.result() for f in many)] for c, many in rerun.items()}
        for name in suspects:
            seen = {c: Counter(as_text(run.outcomes.get(name)) for run in many) for c, many in repeated.items()}
            text = f"{name}: " + "; ".join(f"{c}: {_counted(outcomes)}" for c, outcomes in seen.items())
            if not all(run.ended for many in repeated.values() for run in many):
                row.different.append(text)
            elif is_unsteady(seen):
                row.unsteady.append(text)
            elif is_by_context(seen):
                row.by_context.append(name)
            else:
                row.different.append(text + "\n" + "".join(run.details.get(name, "") for run in runs.values()))
        return row

    def _run(self, suite: Suite, flags: tuple[str, ...], column: str, only: list[str], place: Place) -> Run:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        log, output = folder / "log", folder / "output"
        log.touch()
        source = place.source
        if isinstance(suite, Published):
            # Another column runs at the same time, and a suite may write into its folder.
            source = str(shutil.copytree(source, folder / Path(source).name))
        order = {
            "suite": suite.name,
            "column": column,
            "only": only,
            "source": source,
            "folder": str(folder),
            "test_package": self._test_package,
        }
        command = [place.python, *flags, "-m", "tests.conformance.column", json.dumps(order)]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FLASKTHREADS_AUTOPATCH", "PYTEST_"))}
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=inherited | {"TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                end = f"exit status {process.wait(GUARD)}"
            except subprocess.TimeoutExpired:
                # Its faulthandler says where it hangs.
                os.kill(process.pid, signal.SIGABRT)
                process.wait()
                end = f"hung for {GUARD} seconds"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return _read(log, end, output.read_text(errors="replace"))


def _read(log: Path, end: str, output: str) -> Run:
    run = Run({}, {})
    last = "none"
    for line in log.read_text().splitlines():
        said = json.loads(line)
        last = said.get("start", last)
        run.missing = said.get("missing", run.missing)
        run.replays = said.get("replays", run.replays)
        run.observed = said.get("observed", run.observed)
        if "test" in said:
            run.outcomes.setdefault(said["test"], []).append(said["outcome"])
            run.details[said["test"]] = said.get("detail", "")
        run.ended = run.ended or "ended" in said
    run.details[RUN] = f"{end}; the last test that started: {last}\n{output[-4000:]}"
    return run


def differing(columns: Mapping[str, Outcomes]) -> list[str]:
    """The tests whose outcome is not the same in all columns, or that did not run in all of them."""
    names = dict.fromkeys(name for outcomes in columns.values() for name in outcomes)
    return [name for name in names if len({as_text(outcomes.get(name)) for outcomes in columns.values()}) > 1]


def as_text(outcomes: list[str] | None) -> str:
    """The outcome of one test in one run."""
    return "did not run" if outcomes is None else " + ".join(sorted(set(outcomes)))


def is_unsteady(seen: Mapping[str, Counter[str]]) -> bool:
    """Whether a test has shown, with the patches off, every outcome that it has shown with them on."""
    return all(set(outcomes) <= set(seen[OFF]) for outcomes in seen.values())


def is_by_context(seen: Mapping[str, Counter[str]]) -> bool:
    """Whether a test has shown, with the patches off, every outcome of each column, with a context where that has one.

    Such a test expects that no context is active.
    """
    return CONTROL in seen and all(
        set(outcomes) <= set(seen[CONTROL if column in WITH_CONTEXT else OFF]) for column, outcomes in seen.items()
    )


def _counted(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
