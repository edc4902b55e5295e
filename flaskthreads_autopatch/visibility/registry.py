"""The registry of running replays, and what can be read from it.

The registry is one dictionary. A replay adds its entry and removes it, each with a single operation, which is atomic on
free-threaded builds too. So no lock is taken. Both take 160 ns, of which 60 are the clock and the thread's ident. An
entry is described only when the registry is read, in plain strings and numbers, which keep no context, request or
thread alive.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
import typing as t
import weakref
from collections.abc import Mapping

from flask.ctx import AppContext

from ..names import path_of, printable
from ..snapshot import Snapshot
from . import parents

Kind = t.Literal["thread", "greenlet", "task", "callback"]


class Entry(t.NamedTuple):
    """What the registry knows of a running replay."""

    ident: int
    """The ident of its thread."""
    started: float
    """When it began, by `time.monotonic`."""
    snapshot: Snapshot
    shown: object
    """The callable that describes the replay, usually the one that is called."""
    kind: Kind


replays: dict[AppContext, tuple[int, float, Snapshot, object, Kind]] = {}
"""The fields of an `Entry`, by the replay's own app context, from before the callable runs until the context has been
torn down. A replay adds a plain tuple: making a named one takes 200 ns longer. The key is the context itself, because
its ``id()`` would take 20 ns longer."""

_of_the_parent_process: weakref.WeakSet[AppContext] = weakref.WeakSet()


def _after_fork() -> None:
    # Threads other than the forking one do not exist in the child, so their replays are hidden. Their entries are not
    # deleted, because gevent's greenlets do survive a fork and remove their own.
    ident = threading.get_ident()
    _of_the_parent_process.update(ctx for ctx, entry in replays.copy().items() if entry[0] != ident)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def entries() -> list[tuple[AppContext, Entry]]:
    """Return the registry as it is now, without what ran in other threads when this process was forked."""
    return [(ctx, Entry(*entry)) for ctx, entry in replays.copy().items() if ctx not in _of_the_parent_process]


@dataclasses.dataclass(frozen=True)
class Replay:
    """A replay at the time at which it was described: by `running`, or for a signal."""

    kind: Kind
    """``"thread"``, ``"greenlet"``, ``"callback"`` or ``"task"``: what a pool runs, what `copy_current_app_context`
    made, and what was carried from another process."""
    thread_name: str
    thread_ident: int
    callable: str
    """``module:qualname`` of the callable; for a thread, of its target or the ``run`` of its class."""
    app: str
    """The name of the app."""
    method: str | None
    """The method of the lent request, or of the carried one; None if there is none."""
    path: str | None
    """The path of the lent request, or of the carried one; None if there is none."""
    started: float
    """When the replay began, in seconds by `time.monotonic`. With the ident, it tells a replay from all others."""
    seconds: float
    """The time since the replay began."""
    parent_is_over: bool
    """Whether the app context that was inherited from has ended. True for what was carried from another process."""
    origin: str | None
    """The place where it was started, as ``shop/views.py:12 in checkout``; None if the option ``origins`` is not set.
    """
    inherited: tuple[str, ...]
    """The names of the entries of ``g`` that were inherited."""
    not_inherited: Mapping[str, str]
    """The entries of ``g`` that were not inherited: name and reason."""


def running() -> list[Replay]:
    """Return the replays that are running in this process, the oldest first. A nested replay is listed too."""
    before, names = entries(), thread_names()
    # A thread that has ended meanwhile may have left its ident to another one.
    current = sorted((entry for ctx, entry in before if ctx in replays), key=lambda entry: entry.started)
    return [describe(entry, names.get(entry.ident)) for entry in current]


def thread_names() -> dict[int | None, str]:
    """Return thread names by ident.

    Idents are reused, so a name is valid only for a replay that was registered both before and after this call.
    """
    return {thread.ident: thread.name for thread in threading.enumerate()}


def describe(entry: Entry, thread_name: str | None) -> Replay:
    """Describe *entry* as it is now. *thread_name* is None if it is unknown, as for a thread not started by Python."""
    snapshot = entry.snapshot
    method, path = snapshot.request_line()
    return Replay(
        kind=entry.kind,
        thread_name=thread_name or f"thread {entry.ident}",
        thread_ident=entry.ident,
        callable=path_of(entry.shown),
        app=snapshot.app.name,
        method=method,
        path=path,
        started=entry.started,
        seconds=time.monotonic() - entry.started,
        parent_is_over=parents.is_over(snapshot.parent),
        origin=None if snapshot.origin is None else printable(str(snapshot.origin)),
        inherited=snapshot.inherited,
        not_inherited=dict(snapshot.not_inherited),
    )


def dump(file: t.TextIO | None = None) -> None:
    """Write the table of `running` to *file*, by default to ``sys.stderr``."""
    out = sys.stderr if file is None else file
    if out is not None:  # Under pythonw there is no stderr.
        out.write(table())


def table() -> str:
    """Return the table that `dump` writes."""
    found = running()
    title = f"flaskthreads_autopatch: {len(found)} replay{'' if len(found) == 1 else 's'} in process {os.getpid()}\n"
    if not found:
        return title
    rows = [("kind", "thread", "callable", "app", "request", "seconds", "parent", "started at")]
    for replay in found:
        over = "over" if replay.parent_is_over else "active"
        place = request_of(replay) or "-"
        rows.append(
            (
                replay.kind,
                replay.thread_name,
                replay.callable,
                replay.app,
                place,
                f"{replay.seconds:.1f}",
                over,
                replay.origin or "",
            )
        )
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]  # type: ignore[misc]  # a column less, if no place was recorded
    # mypy cannot infer the length of a tuple made by tuple(map(...)).
    rows = [tuple(map(printable, row)) for row in rows]  # type: ignore[misc]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return title + "".join(f"  {line}\n" for line in lines)


def request_of(replay: Replay) -> str | None:
    """Return method and path of the lent request, ready to be printed; None if none was lent."""
    return None if replay.path is None else f"{printable(str(replay.method))} {printable(replay.path)}"
