"""The table of an audit on a terminal: three lines or more for each place, the worst place first."""

from __future__ import annotations

import textwrap
import typing as t
from collections.abc import Mapping

from .compared import Pair, difference, pairs
from .record import Record
from .report import Audit, counted
from .verdicts import NOT_INHERITED, PROVIDES, seconds, worst_first

NARROW, WIDE, DEFAULT_WIDTH = 80, 140, 90
"""The width of the table, in columns: at least, at most, and where there is no terminal."""

_HEADINGS = ("starts", "at once", "failed", "own ctx", "outlived by")

LEGEND = (
    "starts: how often it ran; at once: how many ran at the same time, at most, in one process; failed: runs that"
    ' raised "Working outside of ... context"; own ctx: runs that pushed a context of their own; outlived by: the'
    " longest time that a run went on after the context in which it was started had ended, with + if it still ran at"
    " the end."
)
"""What the headings mean."""


def table(audit: Audit, earlier: Audit | None, width: int = DEFAULT_WIDTH) -> str:
    """Return the table of *audit*, with what has changed since *earlier* if that is given. It ends with a newline."""
    audit, earlier = audit.printable(), earlier and earlier.printable()
    width = min(max(width, NARROW), WIDE)
    lines = _wrapped(audit.title(), width, "")
    judged = worst_first(audit.records, audit.is_on)
    changed = {} if earlier is None else {pair.now.key: pair for pair in pairs(earlier, audit) if pair.now}
    if judged:
        rows = [numbers(record) for record, _ in judged]
        widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
        space = width - sum(widths) - 2 * len(widths)
        lines += ["", *_row("place, and what runs there: the worst first", _HEADINGS, widths, space)]
        for (record, verdict), row in zip(judged, rows, strict=True):
            lines += ["", *_row(place_of(record), row, widths, space)]
            lines += _wrapped(what_runs(record), width, "    ")
            lines += _wrapped(f"=> {verdict.name}: {verdict.proposal}", width, "    ", "       ")
            if record.not_inherited and verdict.name not in (NOT_INHERITED, PROVIDES):
                lines += _wrapped(f"not inherited: {_reasons(record.not_inherited)}.", width, "       ")
            if earlier is not None:
                pair = changed[record.key]
                lines += _wrapped(f"since the earlier audit ({earlier.mode}): {difference(pair)}", width, "       ")
        lines += ["", *_wrapped(LEGEND, width, "")]
    if earlier is not None:
        lines += _gone(pairs(earlier, audit), width)
    return "\n".join(lines) + "\n"


def place_of(record: Record) -> str:
    """Return the place of origin, or a text that says that it is not known."""
    return record.key.place or "(not started by code of the application)"


def what_runs(record: Record) -> str:
    """Return what runs there, its kind, and the context in which it was started, as text."""
    key = record.key
    context = f"an app context of {key.app!r}" if key.app else "no app context"
    if key.endpoint:
        context = f"a request for the endpoint {key.endpoint!r} of {key.app!r}"
    raised = f"; {counted(record.raised, 'run')} raised another exception" if record.raised else ""
    return f"{key.callable}, a {key.kind}, started in {context}{raised}"


def numbers(record: Record) -> tuple[str, ...]:
    """Return the cells of the numbers, in the order of the headings."""
    outlived = seconds(record.longest) + ("+" if record.still_running else "") if record.outlived else "-"
    counts = (record.starts, record.most_at_once, record.failed, record.helped)
    return (*(f"{count:,}" if count else "-" for count in counts), outlived)


def _reasons(not_inherited: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in not_inherited.items())


def _gone(found: list[Pair], width: int) -> list[str]:
    gone = [pair for pair in found if pair.earlier and not pair.now]
    if not gone:
        return []
    lines = ["", "Gone since the earlier audit:"]
    for pair in gone:
        record = t.cast(Record, pair.earlier)
        lines += _wrapped(f"{place_of(record)}: {what_runs(record)}", width, "    ", "      ")
    return lines


def _row(text: str, cells: tuple[str, ...], widths: list[int], space: int) -> list[str]:
    """Return *text*, cut into as many lines as it needs, with the cells in the first one."""
    first, *others = textwrap.wrap(text, space, break_on_hyphens=False) or [""]
    numbers = "".join(f"  {cell.rjust(width)}" for cell, width in zip(cells, widths, strict=True))
    return [f"{first.ljust(space)}{numbers}", *(f"  {line}" for line in others)]


def _wrapped(text: str, width: int, indent: str, following: str | None = None) -> list[str]:
    following = indent if following is None else following
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=following, break_on_hyphens=False)
