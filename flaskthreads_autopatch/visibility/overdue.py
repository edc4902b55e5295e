"""The two warnings of the option ``warn_after``: a replay still runs after its parent's context, and it has finished.

A single daemon thread, the watcher, checks the registry periodically. It starts with the first snapshot whose policy
sets ``warn_after``, and ends when no such snapshot is left.

Nothing here takes a lock. A finalizer or a signal handler may interrupt a capture and capture as well, in the same
thread, which would then wait without end for a lock that it holds itself (H32). Every change is a single operation on a
dictionary, or on an attribute, instead. In a race, or in a forked process, a second watcher may be started; the older
one then ends.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import typing as t
import weakref

from flask.ctx import AppContext

from ..log import log
from ..names import printable, text_of
from ..snapshot import Snapshot
from . import parents
from .registry import Entry, Replay, describe, entries, replays, request_of, thread_names


class Overdue(t.NamedTuple):
    """A replay that has been warned of."""

    replay: Replay
    parent: weakref.ref[AppContext]


overdue: dict[AppContext, Overdue | None] = {}
"""The replays that have been warned of and still run, by the keys of `registry.replays`; None for one that cannot be
described. The code that removes an entry logs its end."""


def watch(snapshot: Snapshot) -> None:
    """Have the replays of *snapshot*, whose policy has ``warn_after``, watched as long as there can be any."""
    # Note the snapshot first, and look for the watcher afterwards. The watcher works in the opposite order at its end:
    # it announces the end, and looks for snapshots afterwards. So one of the two sees the other.
    _state.snapshots[weakref.ref(snapshot, _forget)] = snapshot.warn_after or 0.0
    watcher = _state.watcher
    if watcher is not None and watcher.is_alive() and not watcher.ends:
        return
    try:
        # The watcher starts in empty context variables: it inherits no context, and keeps no variable alive (H15).
        contextvars.Context().run(_start_watcher)
    except Exception as error:  # as at the end of the process
        # Log the message, not the exception: a stored log record would keep the exception alive and, through its
        # traceback, the snapshot.
        log(logging.WARNING, "warn_after: the thread that watches could not be started: %s.", str(error))


def warn_ended(late: Overdue) -> None:
    """Log the second warning of *late*."""
    _warn(late, "has finished")


class _Watcher(threading.Thread):
    """The thread that checks the registry."""

    ends = False
    """Whether it has seen that there is nothing left to watch."""

    def run(self) -> None:
        try:
            while _state.watcher is self:
                interval = _check()
                if interval is not None:
                    time.sleep(interval)
                    continue
                self.ends = True
                if not _state.snapshots:
                    return
                self.ends = False
        finally:
            self.ends = True


class _State:
    def __init__(self) -> None:
        self.watcher: _Watcher | None = None
        """The watcher that was started last."""
        self.snapshots: dict[weakref.ref[Snapshot], float] = {}
        """The living snapshots that are watched, and the ``warn_after`` of each."""


_state = _State()


def _forget(ref: weakref.ref[Snapshot]) -> None:
    _state.snapshots.pop(ref, None)


def _start_watcher() -> None:
    _state.watcher = watcher = _Watcher(name="flaskthreads_autopatch.overdue", daemon=True)
    watcher.start()


def _check() -> float | None:
    """Warn of each overdue replay. Return the seconds until the next check; None if nothing is left to watch."""
    for ctx, entry in entries():
        if entry.snapshot.warn_after is None or ctx in overdue:
            continue
        try:
            _warn_if_overdue(ctx, entry, entry.snapshot.warn_after)
        except Exception as error:
            # One replay that cannot be described must not hide the others, nor be reported at every check.
            overdue[ctx] = None
            if ctx not in replays:
                overdue.pop(ctx, None)
            message = "warn_after: a replay that may be overdue cannot be described, and is not watched any more: %s"
            log(logging.ERROR, message, text_of(error))
    seconds = min(_state.snapshots.copy().values(), default=None)
    return None if seconds is None else min(1.0, max(0.01, seconds / 10))


def _warn_if_overdue(ctx: AppContext, entry: Entry, warn_after: float) -> None:
    parent = entry.snapshot.parent
    seconds = parents.seconds_over(parent, entry.started)
    if seconds is None or seconds < warn_after:
        return
    names = thread_names()
    if ctx not in replays:
        return
    late = Overdue(describe(entry, names.get(entry.ident)), parent)
    _warn(late, "still runs")
    overdue[ctx] = late
    # The replay may have ended just before it was added to `overdue`. In that case its end is reported here.
    if ctx not in replays and overdue.pop(ctx, None) is not None:
        warn_ended(late)


def _warn(late: Overdue, what: str) -> None:
    replay = late.replay
    place = request_of(replay)
    end_of_parent = (
        "the end of the app context that it inherits" if place is None else f"the end of its request, {place}"
    )
    log(
        logging.WARNING,
        "Thread %r %s %s, a %s of app %r, %.1f s after %s.%s %s",
        replay.thread_name,
        what,
        printable(replay.callable),
        replay.kind,
        replay.app,
        parents.seconds_over(late.parent, replay.started) or 0.0,
        # The end of the parent of a carried task, in another process, is not known here.
        f"the {replay.kind} began" if late.parent is parents.NOWHERE else end_of_parent,
        "" if replay.origin is None else f" It was started at {replay.origin}.",
        _advice(replay, late.parent is parents.NOWHERE),
    )


def _advice(replay: Replay, has_no_parent: bool) -> str:
    if has_no_parent:
        return "If it may take that long, raise warn_after."
    # What runs in a thread may be the run() of its class; the option ignore takes the class.
    path = replay.callable.removesuffix(".run") if replay.kind == "thread" else replay.callable
    return (
        "If it needs no context, start it in suppress_inheritance() or add"
        f" ignore=[{printable(path)!r}]; if it may take that long, raise warn_after."
    )
