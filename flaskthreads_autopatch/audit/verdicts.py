"""The verdict on one place: what inheritance changes for it, and what to do about that.

The rules are in `judge`. A verdict is a name and a proposal, which are shown as one sentence:
``outlives its request: start it in suppress_inheritance() or add ignore=["shop:IndexWorker"], because ...``
"""

from __future__ import annotations

import re
import sys
import typing as t
from collections.abc import Iterable

from .record import BY_A_RUN, Record

STILL_FAILS = "still fails"
NOT_INHERITED = "does not inherit"
OUTLIVES = "outlives its request"
FIXED = "fixed by the library"
INHERITS = "inherits"
PROVIDES = "provides its own context"

NAMES = (STILL_FAILS, OUTLIVES, FIXED, INHERITS, PROVIDES, NOT_INHERITED)
"""The names of all verdicts, in the order in which they are listed."""

LONG = 10.0
"""Seconds. A run that went on for longer after its parent's context had ended outlives its request."""

SHOWN = 5
"""The number of names that a proposal lists, of those that a place inherits."""


class Verdict(t.NamedTuple):
    """What to think of one place."""

    name: str
    """One of `NAMES`."""
    proposal: str
    """What to do, or why there is nothing to do: the rest of a sentence that begins with the name and a colon."""
    severity: int
    """How much it matters. The places with the highest number come first."""


def judge(record: Record, on: bool) -> Verdict:
    """Return the verdict on *record*, which was observed, or was recorded with inheritance *on*.

    The first rule that applies decides:

    1. A run failed for want of a context although inheritance is on: it *still fails*.
    2. It does not inherit: it *does not inherit*, unless it provides a context itself and never fails, or is started
       by a run that would inherit: then it *inherits*.
    3. A run pushed a context of its own: it *provides its own context*. That nothing fails with the library cannot be
       concluded for such a place, because a run may have failed in the context that it pushed itself.
    4. A run failed for want of a context: it is *fixed by the library*.
    5. A run outlived its parent's context by more than `LONG` seconds, or still runs: it *outlives its request*.
    6. Otherwise it *inherits*.
    """
    if on and record.failed:
        return Verdict(STILL_FAILS, f"{_failures(record)}, although inheritance is on: {_why_failing(record)}.", 7)
    if record.key.reason:
        return _not_inherited(record)
    if record.helped:
        return _provides(record)
    if record.failed:
        verb, own = (
            ("it inherits", "It must open its own")
            if record.starts == 1
            else ("they inherit", "They must open their own")
        )
        long = f" {_sentence(_long(record))}: {_opt_out(record)} if it needs no request." if _is_long(record) else ""
        missing = f" {own} {_names([*record.not_inherited])}." if record.not_inherited else ""
        proposal = f"{_failures(record)}. With the library, {verb} {_what(record)}.{missing}{long}"
        return Verdict(FIXED, proposal, 4 if long else 3)
    if record.still_running and record.longest <= LONG:
        # It may have been about to end: a server may be ended right after a request.
        proposal = f"{_opt_out(record)}, if it runs for as long as the process. {_sentence(_long(record))}."
        return Verdict(OUTLIVES, proposal, 5)
    if _is_long(record):
        keeps = f"it inherits {_what(record)}" if on else f"it would inherit {_what(record)}"
        return Verdict(OUTLIVES, f"{_opt_out(record)}. {_sentence(_long(record))}, and {keeps} for all that time.", 5)
    today = "" if on else ", which it does not see today. It did not fail without"
    return Verdict(INHERITS, f"{_what(record)}{today}.", 2)


def worst_first(records: Iterable[Record], on: bool) -> list[tuple[Record, Verdict]]:
    """Return *records* with their verdicts, those first that matter most."""
    judged = [(record, judge(record, on)) for record in records]
    return sorted(judged, key=lambda each: (-each[1].severity, -each[0].failed, -each[0].starts, each[0].key))


def _not_inherited(record: Record) -> Verdict:
    reason = record.key.reason
    if reason == BY_A_RUN:
        failures = f" {_sentence(_failures(record))}: audit --on shows what is left of that." if record.failed else ""
        return Verdict(INHERITS, f"{_BY_A_RUN}.{failures}", 2)
    if record.failed:
        return Verdict(
            NOT_INHERITED,
            f"{reason}. {_sentence(_failures(record))}, which the library does not change: {_help(record)}.",
            6,
        )
    if record.helped == record.starts:
        return Verdict(PROVIDES, f"{_in_runs(record.helped, record)}, so nothing changes for it.", 1)
    if record.helped:
        return Verdict(PROVIDES, f"{_in_runs(record.helped, record)}. It does not inherit: {reason}.", 1)
    return Verdict(NOT_INHERITED, f"{reason}. Nothing changes for it.", 0)


def _provides(record: Record) -> Verdict:
    pushed = _in_runs(record.helped, record)
    if record.failed:
        failures = _sentence(_failures(record))
        return Verdict(
            PROVIDES, f"{pushed}. {failures}; those that failed in there keep failing, because {_OWN_CONTEXT}.", 6
        )
    others = "" if record.helped >= record.starts else f" Before, and in the other runs, it inherits {_what(record)}."
    if _is_long(record):
        return Verdict(PROVIDES, f"{pushed}.{others} {_sentence(_long(record))}: {_opt_out(record)}.", 3)
    return Verdict(PROVIDES, f"{pushed}.{others}" if others else f"{pushed}, so nothing changes in there.", 1)


_BY_A_RUN = "what its starter inherits, which has no context while the library only observes"
_OWN_CONTEXT = "it is outside of a request in there, unless it copies the request context"


def _failures(record: Record) -> str:
    which = "the run" if record.starts == 1 else f"{record.failed:,} of {record.starts:,} runs"
    if record.failed == record.starts > 1:
        which = f"all {record.starts:,} runs"
    return f"{which} failed for want of a context"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _in_runs(count: int, record: Record) -> str:
    return "in every run" if count >= record.starts else f"in {count:,} of {record.starts:,} runs"


def _what(record: Record) -> str:
    """Return what the place inherits, as text: ``current_app, request and g.user``."""
    return _names(["current_app", *record.inherited])


def _names(names: list[str]) -> str:
    if len(names) > SHOWN + 1:
        names = [*names[:SHOWN], f"{len(names) - SHOWN} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_long(record: Record) -> bool:
    return record.still_running > 0 or record.longest > LONG


def _long(record: Record) -> str:
    of = "its request" if record.key.endpoint or "request" in record.inherited else "the context that started it"
    if record.still_running:
        return f"it still ran at the end, {seconds(record.longest)} after {of}"
    return f"it went on for {seconds(record.longest)} after {of}"


def seconds(number: float) -> str:
    """Return a number of seconds as text: ``0.4 s``, ``12 s``."""
    return f"{number:.1f} s" if number < 10 else f"{number:,.0f} s"


def _opt_out(record: Record) -> str:
    return f'start it in suppress_inheritance() or add ignore=["{_pattern(record)}"]'


def _pattern(record: Record) -> str:
    """Return what runs, as the options ``ignore`` and ``provide`` take it."""
    # What runs in a thread may be the run() of its class; the options take the class.
    path = record.key.callable
    return path.removesuffix(".run") if record.key.kind == "thread" else path


def _why_failing(record: Record) -> str:
    if record.key.reason:
        return f"it does not inherit, because {record.key.reason}. To change that, {_help(record)}"
    if record.helped:
        return f"it pushes a context of its own, and {_OWN_CONTEXT}"
    if "request" not in record.inherited:
        return "it inherits an app context without a request, because none was active, or because of request=False"
    return "its traceback, which the command has printed, names the line"


def _help(record: Record) -> str:
    """Return what helps a place that does not inherit, and fails."""
    reason = record.key.reason
    if match := _NO_HAND.fullmatch(reason):
        packages = {module.partition(".")[0] for module in match.groups()} - sys.stdlib_module_names
        copied = "pass it copy_current_app_context(...) of what it calls"
        if not packages:
            return copied
        are = "that is a package" if len(packages) == 1 else "those are packages"
        return f"add own={_listed(packages)} if {are} of yours, or {copied}"
    if reason.startswith("no app context"):
        return f'add provide=["{_pattern(record)}"] to install(app), or push app.app_context() in it'
    if reason.startswith("nothing of this app"):
        return "call install(app) for it, or correct the option, which the log names"
    if reason.startswith("ignored by"):
        return f"remove {reason.removeprefix('ignored by ')} from the option ignore, or push app.app_context() in it"
    if "suppress_inheritance" in reason:
        return "start it outside of suppress_inheritance(), or push app.app_context() in it"
    if "worker of a pool" in reason or "pool's worker" in reason:
        return "push app.app_context() in the initializer of the pool"
    return "push app.app_context() in it"


_NO_HAND = re.compile(r"neither ([^:\s]+)\S* nor (\S+?), which starts it, is own code")
"""The reason of `who_inherits.no_hand`: the modules of what runs, and of what starts it."""


def _listed(packages: Iterable[str]) -> str:
    return "[{}]".format(", ".join(f'"{name}"' for name in sorted(packages)))
