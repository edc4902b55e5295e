"""What is printed."""

from __future__ import annotations

import platform
from importlib.metadata import version

from .rows import Row, cases


def versions() -> str:
    """On what was counted: counts of different versions cannot be compared."""
    packages = (f"{name} {version(name.lower())}" for name in ("Flask", "Werkzeug", "blinker", "wrapt"))
    return f"{platform.python_implementation()} {platform.python_version()}, {', '.join(packages)}"


def table(rows: tuple[Row, ...], instructions: dict[str, float]) -> str:
    lines = ["| | instructions | / | ratio | at most | |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        ratio = row.ratio(instructions)
        target = "" if row.at_most is None else f"{row.at_most:.2f}"
        verdict = "" if row.at_most is None else "met" if ratio <= row.at_most else "**missed**"
        counted = f"{instructions[row.case]:,.0f} | {instructions[row.base]:,.0f}"
        lines.append(f"| {row.title} | {counted} | {ratio:.3f} | {target} | {verdict} |")
    return "\n".join(lines)


def comparison(revision: str, rows: tuple[Row, ...], before: dict[str, float], now: dict[str, float]) -> str:
    """Two versions of the package, case by case and row by row."""
    lines = [f"| instructions | {revision} | now | more | |", "|---|---:|---:|---:|---:|"]
    for case in cases(rows):
        more = now[case] - before[case]
        lines.append(f"| {case} | {before[case]:,.0f} | {now[case]:,.0f} | {more:+,.0f} | {more / before[case]:+.1%} |")
    lines += [f"\n| ratio | {revision} | now | more |", "|---|---:|---:|---:|"]
    for row in rows:
        then, ratio = row.ratio(before), row.ratio(now)
        lines.append(f"| {row.title} | {then:.3f} | {ratio:.3f} | {ratio - then:+.3f} |")
    return "\n".join(lines)
