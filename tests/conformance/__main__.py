"""``python -m tests.conformance``: the table for this interpreter. Exit status 1 if two columns differ."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .runs import AT_ONCE, RERUNS, Row, Runner, as_text
from .suites import COLUMNS, CONTEXT, OFF, SUITES, Distributed, Suite

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
    missing: list[str] = []
    # The rows side by side, so that a third column or a sleeping test leaves no processor idle.
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(AT_ONCE) as pool,
        ThreadPoolExecutor(len(SUITES) * len(FLAGS)) as side_by_side,
    ):
        folder = Path(name)
        runner = Runner(folder, arguments.test_package, pool)
        started: list[tuple[Suite, list[Future[Row]]]] = []
        for suite in SUITES:
            if arguments.suite and suite.name not in arguments.suite:
                continue
            source = why = ""
            if isinstance(suite, Distributed):
                source, why = _source(suite, folder, arguments.download)
            if why:
                missing.append(f"{suite.name}: {why}")
            else:
                flags = FLAGS if sys.version_info >= suite.since else ()
                started.append((suite, [side_by_side.submit(runner.row, suite, each, source) for each in flags]))
        for suite, futures in started:
            if not futures:
                _print_line(suite.name, _python(), *("new in Python {}.{}".format(*suite.since) for _ in COLUMNS))
            for future in futures:
                row = future.result()
                missing += [f"{suite.name}: {why}" for why in row.missing]
                if row.tests or row.different:
                    rows.append(row)
                    _print_row(row)
    return _conclude(rows, missing)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    names = [suite.name for suite in SUITES]
    parser.add_argument("--suite", action="append", choices=names, help="only this one; may be given again")
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch, with pip, the source distributions of Flask and Flask-Threads for their suites",
    )
    parser.add_argument(
        "--test-package",
        metavar="FOLDER",
        default=os.environ.get("CONFORMANCE_TEST_PACKAGE", ""),
        help="the folder in which a 'test' package lies, for an interpreter that comes without or with a part of it"
        " (in CPython's sources: Lib); also read from $CONFORMANCE_TEST_PACKAGE",
    )
    return parser


def _source(suite: Distributed, folder: Path, download: bool) -> tuple[str, str]:
    """The folder of an unpacked source distribution; or why there is none."""
    requirement = suite.distribution or f"flask=={_version('flask')}"
    if "dev" in requirement:
        checkout = os.environ.get("FLASK_DEV", "")
        return checkout, "" if checkout else "a development version's source tree is taken from $FLASK_DEV, not set"
    if not download:
        return "", f"not asked for: --download fetches {requirement}"
    target = folder / suite.name
    options = ["--no-deps", "--no-binary", requirement.partition("==")[0], "--dest", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *options, requirement], check=True)
    (archive,) = target.iterdir()
    shutil.unpack_archive(archive, target)
    (source,) = (path for path in target.iterdir() if path.is_dir())
    return str(source), ""


def _print_line(*cells: str) -> None:
    widths = (34, 18, 24, 24, 24)
    print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |", flush=True)


def _print_row(row: Row) -> None:
    cells = [row.runs[column].summary() if column in row.runs else "-" for column in COLUMNS]
    if CONTEXT in row.runs:
        cells[-1] += f" ({row.runs[CONTEXT].replays} replays)"
    _print_line(row.suite.name, " ".join((_python(), "inherit" if row.flags else "")), *cells)


def _conclude(rows: list[Row], missing: list[str]) -> int:
    """Print what needs saying beside the table; return the exit status."""
    different = [(row, text) for row in rows for text in row.different]
    tests = sum(not name.startswith("(") for row in rows for name in row.tests)
    print(f"\n{tests} tests in every column, {len(different)} differences.\n")
    for suite in dict.fromkeys(row.suite for row in rows if row.suite.note):
        print(f"{suite.name}: {suite.note}.")
    if any(row.flags for row in rows):
        print(f"inherit: with {' '.join(FLAGS[-1])}.")
    for text in dict.fromkeys(missing):
        print(f"MISSING: {text}")
    for row in rows:
        for name, outcomes in row.runs[OFF].outcomes.items():
            if {"failed", "error"} & set(outcomes) and name in row.same:
                print(f"{as_text(outcomes)} in every column: {row.suite.name}: {name}")
        for text in row.unsteady:
            print(f"UNSTEADY, with the patches off too ({RERUNS} more runs in each column): {row.suite.name}: {text}")
    for row, text in different:
        print(f"DIFFERENT ({RERUNS} more runs in each column): {row.suite.name} {' '.join(row.flags)}: {text}")
    if not rows:
        print("Nothing ran at all.")
    return 1 if different or not rows else 0


def _python() -> str:
    return platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")


def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)


if __name__ == "__main__":
    sys.exit(main())
