"""The command. Prints a table for each scenario, and the targets; can write pyperf's JSON."""

from __future__ import annotations

import argparse
import platform
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

import pyperf

from . import harness, targets
from .scenarios import BY_NAME, SCENARIOS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two; ratios are good to about a tenth")
    parser.add_argument("--only", action="append", metavar="NAME", help="a scenario, or the beginning of its name")
    parser.add_argument("--list", action="store_true", help="show the names of the scenarios")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values, as pyperf reads them")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="source", help="show a JSON file, measure nothing")
    options = parser.parse_args()
    if options.list:
        print(*(f"{scenario.name:28}{scenario.title}" for scenario in SCENARIOS), sep="\n")
        return
    chosen = _chosen(options.only, options.quick and not options.source)
    if options.source:
        suite = pyperf.BenchmarkSuite.load(str(options.source))
    else:
        suite = _measure(chosen, harness.QUICK if options.quick else harness.FULL)
    if options.json and not options.source:
        suite.dump(str(options.json), replace=True)
    found = {scenario.name: results for scenario in chosen if (results := harness.results(scenario, suite))}
    print(_platform())
    for name, results in found.items():
        print(_table(BY_NAME[name], results))
    print(_targets(targets.judge(found)))


def _chosen(names: list[str] | None, quick: bool) -> list[harness.Scenario]:
    if names:
        chosen = [scenario for scenario in SCENARIOS if scenario.name.startswith(tuple(names))]
    else:
        chosen = [scenario for scenario in SCENARIOS if not (quick and scenario.slow)]
    if not chosen:
        sys.exit(f"No scenario's name begins with {names}; --list shows them.")
    return chosen


def _measure(chosen: list[harness.Scenario], effort: harness.Effort) -> pyperf.BenchmarkSuite:
    benchmarks = []
    for scenario in chosen:
        start = time.monotonic()
        measured = (
            harness.sampled(scenario, effort, _say) if scenario.sampled else harness.in_processes(scenario, effort)
        )
        benchmarks += measured.get_benchmarks()
        _say(f"{scenario.name}: {time.monotonic() - start:.0f} s")
    return pyperf.BenchmarkSuite(benchmarks)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _platform() -> str:
    gil = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL"
    versions = ", ".join(f"{name} {version(name)}" for name in ("flask", "wrapt"))
    return f"{platform.python_implementation()} {platform.python_version()} ({gil}), {versions}"


def _table(scenario: harness.Scenario, results: dict[str, harness.Result]) -> str:
    lines = [
        f"\n## {scenario.title}\n",
        f"| | median | / {scenario.base} | quartiles of the ratio | ratio of minima |",
        "|---|---:|---:|---|---:|",
    ]
    for result in results.values():
        value = _show(result.median, scenario.unit)
        quartiles = f"{result.low:.3f} to {result.high:.3f}"
        lines.append(f"| {result.column} | {value} | {result.ratio:.3f} | {quartiles} | {result.of_minima:.3f} |")
    return "\n".join(lines)


def _show(value: float, unit: str) -> str:
    if unit == "byte":
        return f"{value:,.0f} B"
    if unit != "second":
        return f"{value:.3f}"
    return f"{value * 1e6:,.2f} µs" if value < 1e-3 else f"{value * 1e3:,.2f} ms"


def _targets(judged: list[targets.Target]) -> str:
    lines = ["\n## Targets\n", "| | limit | measured | |", "|---|---:|---:|---|"]
    for target in judged:
        sign, verdict = "≥" if target.at_least else "≤", "met" if target.met else "**missed**"
        lines.append(f"| {target.name} | {sign} {target.limit} | {target.measured:.3f} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
