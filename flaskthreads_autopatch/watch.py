"""The warning for the forgotten thread: it still runs, long after its parent's context has ended.

Who watches is one daemon thread. It is started when a policy with ``warn_after`` captures, looks at the register now
and then, and ends when no snapshot of such a policy is left.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
import typing as t
import weakref

from flask.ctx import AppContext

from . import parents
from .register import Replay, describe, going_on, replays, request_of, thread_names

if t.TYPE_CHECKING:
    from .snapshot import Snapshot

_logger = logging.getLogger("flaskthreads_autopatch")


class Overdue(t.NamedTuple):
    """A replay that has been warned of."""

    replay: Replay
    parent: weakref.ref[AppContext]


overdue: dict[AppContext, Overdue] = {}
"""The replays that have been warned of and still run, as in `register.replays`. Whoever takes one out tells its end."""


def watch(snapshot: Snapshot) -> None:
    """Have the replays of *snapshot*, whose policy has ``warn_after``, watched as long as there can be any."""
    with _state.lock:
        _state.snapshots.append(weakref.ref(snapshot))
        if _state.thread is None or not _state.thread.is_alive():
            # In there no context is active that it could inherit, and no variable that a thread may keep (H15).
            try:
                _state.thread = contextvars.Context().run(_start)
            except RuntimeError as error:  # as at the end of the process
                # Its text: who keeps the record would keep the error, and by its traceback the snapshot.
                _logger.warning("warn_after: the thread that watches could not be started: %s.", str(error))


def say_ended(late: Overdue) -> None:
    """The second warning of *late*."""
    _say(late, "has ended")


def _start() -> threading.Thread:
    thread = threading.Thread(target=_watch, name="flaskthreads_autopatch.watch", daemon=True)
    thread.start()
    return thread


def _watch() -> None:
    interval = _look()
    while interval is not None:
        time.sleep(interval)
        interval = _look()


def _look() -> float | None:
    """Warn of what is overdue. Returns the seconds until the next look; None at the end."""
    for ctx, entry in going_on():
        snapshot = entry[2]
        if snapshot.warn_after is None or ctx in overdue:
            continue
        seconds = parents.seconds_over(snapshot.parent)
        if seconds is None or seconds < snapshot.warn_after:
            continue
        names = thread_names()
        if ctx not in replays:
            continue
        late = Overdue(describe(entry, names.get(entry[0])), snapshot.parent)
        _say(late, "still runs")
        overdue[ctx] = late
        # It may have ended meanwhile, and not have seen itself in there.
        if ctx not in replays and overdue.pop(ctx, None) is not None:
            say_ended(late)
    with _state.lock:
        alive = [(ref, kept.warn_after or 0.0) for ref in _state.snapshots if (kept := ref()) is not None]
        _state.snapshots = [ref for ref, _ in alive]
        if not alive:
            _state.thread = None
            return None
    return min(1.0, max(0.01, min(seconds for _, seconds in alive) / 10))


def _say(late: Overdue, what: str) -> None:
    replay = late.replay
    place = request_of(replay)
    _logger.warning(
        "Thread %r %s %s, a %s of app %r, %.1f s after the end of %s.",
        replay.thread_name,
        what,
        replay.callable,
        replay.kind,
        replay.app,
        parents.seconds_over(late.parent) or 0.0,
        "the app context that it inherits" if place is None else f"its request, {place}",
    )


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.snapshots: list[weakref.ref[Snapshot]] = []


_state = _State()


def _after_fork() -> None:
    # It may have been held by another thread, which is not there, as the one that watches is not.
    _state.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
