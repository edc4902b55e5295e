"""Count the instructions of each row of the table, with the patches and without."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from pathlib import Path

from . import counting, recorded
from .chart import draw
from .profiling import profile
from .report import comparison, table, versions
from .rows import ROWS, Row, cases

Rows = tuple[Row, ...]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.instructions", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--compare", metavar="REV", help="count the package as it is in REV too, and show both")
    what.add_argument("--check", action="store_true", help="fail if a ratio is too far above the recorded one")
    what.add_argument("--profile", metavar="CASE", help="show where the instructions of a case go, by function")
    what.add_argument("--list", action="store_true", help="show the names of the rows, and of the cases in each")
    parser.add_argument("--only", action="append", metavar="ROW", help="a row, or the beginning of its name")
    parser.add_argument("--record", action="store_true", help="record the ratios that --check compares with")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="also draw the chart of docs/performance.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was counted")
    options = parser.parse_args()
    rows = tuple(row for row in ROWS if not options.only or row.name.startswith(tuple(options.only)))
    if not rows:
        sys.exit(f"No row's name begins with {options.only}; --list shows them.")
    try:
        if options.list:
            print(*(f"{row.name:36}{row.case} / {row.base}" for row in rows), sep="\n")
        elif options.profile:
            print(profile(counting.ROOT, options.profile))
        elif options.check:
            _check(rows)
        else:
            _show(rows, options)
    except counting.Failed as error:
        sys.exit(str(error))


_count = functools.partial(counting.count, log=functools.partial(print, file=sys.stderr, flush=True))


def _show(rows: Rows, options: argparse.Namespace) -> None:
    with contextlib.nullcontext() if options.compare is None else counting.worktree(options.compare) as other:
        now = _count(counting.ROOT, cases(rows), counting.SEEDS)
        before = None if other is None else _count(other, cases(rows), counting.SEEDS)
    ratios = _ratios(rows, now)
    print(versions(), table(rows, now), sep="\n\n")
    if before is not None:
        print("", comparison(options.compare, rows, before, now), sep="\n")
    if options.json:
        found = {"versions": versions(), "cases": now, "ratios": ratios, "before": before}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.record:
        recorded.write({row.name: ratios[row.name] for row in rows if row.is_recorded}, versions())
    if options.chart:
        options.chart.write_text(draw(now))


def _check(rows: Rows) -> None:
    """Count with one seed. Where that is too much, all seeds decide."""
    rows = tuple(row for row in rows if row.is_recorded)
    ratios = _ratios(rows, _count(counting.ROOT, cases(rows), counting.SEEDS[:1]))
    if doubtful := recorded.faults(ratios):
        again = tuple(row for row in rows if row.name in doubtful)
        ratios |= _ratios(again, _count(counting.ROOT, cases(again), counting.SEEDS))
    if faults := recorded.faults(ratios):
        sys.exit(recorded.explain(faults, versions()))
    print(f"No ratio is more than {recorded.TOLERANCE:.0%} above the recorded one.")


def _ratios(rows: Rows, instructions: dict[str, float]) -> dict[str, float]:
    return {row.name: row.ratio(instructions) for row in rows}


if __name__ == "__main__":
    main()
