"""Two audits of one command beside each other: which places are new, which are gone, and which promises were broken."""

from __future__ import annotations

import re
import typing as t

from .record import Key, Record
from .report import Audit
from .verdicts import FIXED, NOT_INHERITED, judge

_COUNTS = {
    "failed": "failed",
    "raised": "raised another exception",
    "helped": "pushed a context",
    "outlived": "runs that outlived their context",
}
"""The counts of a record that are compared, each with a text."""


class Pair(t.NamedTuple):
    """One place in two audits. One of the two records is None where the place is new, or gone."""

    earlier: Record | None
    now: Record | None


def pairs(earlier: Audit, now: Audit) -> list[Pair]:
    """Return each place of the two audits once.

    A place whose reason has changed is one place, and so is one whose line has moved, if its function has only one of
    that key.
    """
    before, after = [*earlier.records], [*now.records]
    found: list[Pair] = []
    for name in (_whole, _without_reason, _without_line):
        then = _by(name, before)
        for key, records in _by(name, after).items():
            if len(records) == len(then.get(key, ())) == 1:
                found.append(Pair(then[key][0], records[0]))
                before.remove(then[key][0])
                after.remove(records[0])
    return [*found, *(Pair(record, None) for record in before), *(Pair(None, record) for record in after)]


def _by(name: t.Callable[[Key], Key], records: list[Record]) -> dict[Key, list[Record]]:
    found: dict[Key, list[Record]] = {}
    for record in records:
        found.setdefault(name(record.key), []).append(record)
    return found


def _whole(key: Key) -> Key:
    return key


def _without_reason(key: Key) -> Key:
    return key._replace(reason="")


def _without_line(key: Key) -> Key:
    return key._replace(place=re.sub(r":\d+ in ", " in ", key.place), reason="")


def difference(pair: Pair) -> str:
    """Return what has changed, as text: ``failed 12 -> 0``."""
    before, after = pair
    if before is None:
        return "new"
    if after is None:
        return f"gone (it had {before.starts} runs)"
    counts = [(name, getattr(before, name), getattr(after, name)) for name in _COUNTS]
    changes = [f"{_COUNTS[name]} {then} -> {now}" for name, then, now in counts if then != now]
    if before.key.place != after.key.place:
        changes.append(f"was at {before.key.place}")
    if before.key.reason != after.key.reason:
        changes.append("inherits -> does not" if after.key.reason else "did not inherit -> inherits")
    if before.starts != after.starts:
        changes.append(f"started {before.starts} -> {after.starts}")
    return ", ".join(changes) or "no change"


def broken(earlier: Audit, now: Audit) -> list[str]:
    """Return the promises of an observation that were not kept with inheritance on, as sentences.

    A place that was *fixed by the library*, or never failed, must not fail, and one that does not inherit must not
    inherit. Nor may a place that was to be fixed raise another exception: it may miss an entry of ``g``.
    """
    if earlier.is_on or not now.is_on:
        return []
    found = []
    for before, after in pairs(earlier, now):
        if before is None or after is None:
            continue
        verdict = judge(before, on=False).name
        if after.failed and (verdict == FIXED or not before.failed):
            found.append(
                f"{_name(after)}: the library was to fix it, or it never failed, but it fails for want of a context."
            )
        elif verdict == FIXED and after.raised > before.raised:
            found.append(f"{_name(after)}: the library was to fix it, and now it raises another exception.")
        if verdict == NOT_INHERITED and not after.key.reason:
            found.append(f"{_name(after)}: it was not to inherit, and inherits.")
    return found


def _name(record: Record) -> str:
    return f"{record.key.callable}, started at {record.key.place or 'an unknown place'}"
