"""``python -m tests.conformance``: the table for this interpreter. Exit status 1 if two columns differ."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import sysconfig
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .ecosystem import ALL, ECOSYSTEM
from .runs import AT_ONCE, RERUNS, Row, Runner, as_text
from .sources import Sources
from .suites import COLUMNS, OFF, SUITES, Published, Suite

INHERIT = "thread_inherit_context"
INHERITS = bool(getattr(sys.flags, INHERIT, False))
# Free-threaded builds since 3.14 have it on; elsewhere everything runs without it and with it.
FLAGS: tuple[tuple[str, ...], ...] = ((),)
if sys.version_info >= (3, 14) and not INHERITS:
    FLAGS = ((), ("-X", f"{INHERIT}=1"))


def main() -> int:
    """Run what is asked for and print the table."""
    arguments = _parser().parse_args()
    print(f"Flask {_version('flask')}, wrapt {_version('wrapt')}; each column in a process of its own.\n")
    _print_line("suite", "Python", *COLUMNS)
    _print_line("---", "---", *("---" for _ in COLUMNS))
    rows: list[Row] = []
    suites = _asked_for(arguments)
    # The rows side by side, so that a last column or a sleeping test leaves no processor idle.
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(AT_ONCE) as pool,
        ThreadPoolExecutor(len(suites) * len(FLAGS)) as side_by_side,
    ):
        folder = Path(name)
        sources = Sources(folder, arguments.download or arguments.ecosystem is not None)
        runner = Runner(folder, arguments.test_package, pool, sources)
        started: list[tuple[Suite, list[Future[Row]]]] = []
        for suite in suites:
            flags = FLAGS if sys.version_info >= suite.since else ()
            started.append((suite, [side_by_side.submit(runner.row, suite, each) for each in flags]))
        for suite, futures in started:
            if not futures:
                _print_line(suite.name, _python(), *("new in Python {}.{}".format(*suite.since) for _ in COLUMNS))
            for future in futures:
                rows.append(row := future.result())
                if row.tests or row.different:
                    _print_row(row)
    return _conclude(rows)


def _asked_for(arguments: argparse.Namespace) -> list[Suite]:
    if arguments.suite:
        return [suite for suite in ALL if suite.name in arguments.suite]
    if arguments.ecosystem is None:
        return list(SUITES)
    return [suite for suite in ECOSYSTEM if suite.quick or arguments.ecosystem == "all"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    names = [suite.name for suite in ALL]
    parser.add_argument("--suite", action="append", choices=names, help="only this one; may be given again")
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch, with pip, the source distributions that suites come with",
    )
    parser.add_argument(
        "--ecosystem",
        nargs="?",
        choices=("all", "quick"),
        const="all",
        help="the suites of packages that stand in the same process as an app, which are fetched with pip; 'quick' for"
        " those that run for every change",
    )
    parser.add_argument(
        "--test-package",
        metavar="FOLDER",
        default=os.environ.get("CONFORMANCE_TEST_PACKAGE", ""),
        help="the folder in which a 'test' package lies, for an interpreter that comes without or with a part of it"
        " (in CPython's sources: Lib); also read from $CONFORMANCE_TEST_PACKAGE",
    )
    return parser


def _print_line(*cells: str) -> None:
    widths = (32, 14, 24, 36, 36, 36)
    print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |", flush=True)


def _print_row(row: Row) -> None:
    cells = []
    for column in COLUMNS:
        run = row.runs.get(column)
        if run is None:
            cells.append("-")
        elif run.observed is not None:
            cells.append(f"{run.summary()} ({run.replays} replays, {run.observed} observed)")
        else:
            cells.append(run.summary() + ("" if run.replays is None else f" ({run.replays} replays)"))
    _print_line(row.suite.name, " ".join((_python(), "inherit" if row.flags else "")), *cells)


def _conclude(rows: list[Row]) -> int:
    """Print what needs saying beside the table; return the exit status."""
    different = [(row, text) for row in rows for text in row.different]
    tests = sum(not name.startswith("(") for row in rows for name in row.tests)
    print(f"\n{tests} tests in every column, {len(different)} differences.\n")
    for suite in dict.fromkeys(row.suite for row in rows if row.suite.note):
        print(f"{suite.name}: {suite.note}.")
    if any(row.flags for row in rows):
        print(f"inherit: with {' '.join(FLAGS[-1])}.")
    for row in rows:
        if row.by_context:
            names = ", ".join([*row.by_context[:3], "..."][: len(row.by_context)])
            print(
                f"{len(row.by_context)} tests of {row.suite.name} expect that no context is active: where one is, they"
                f" have the same outcome, with the patches off too: {names}"
            )
    for text in dict.fromkeys(f"{row.suite.name}: {why}" for row in rows for why in row.missing):
        print(f"MISSING: {text}")
    for row in rows:
        for name, outcomes in row.runs[OFF].outcomes.items() if row.runs else ():
            if {"failed", "error"} & set(outcomes) and name in row.same:
                print(f"{as_text(outcomes)} in every column: {row.suite.name}: {name}")
        for text in row.unsteady:
            print(f"UNSTEADY, with the patches off too ({RERUNS} more runs in each column): {row.suite.name}: {text}")
    for row, text in different:
        print(f"DIFFERENT ({RERUNS} more runs in each column): {row.suite.name} {' '.join(row.flags)}: {text}")
    if not any(row.tests for row in rows):
        print("Nothing ran at all.")
        return 1
    # An interpreter may come without a part of its test package; what can be fetched has to be there.
    absent = any(row.missing and isinstance(row.suite, Published) for row in rows)
    return 1 if different or absent else 0


def _python() -> str:
    return platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")


def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)


if __name__ == "__main__":
    sys.exit(main())
