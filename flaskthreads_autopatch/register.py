"""The replays that are going on right now: a register, and what can be read from it.

The register is one dictionary. A replay puts its entry there and takes it out, each a single operation, which is atomic
on free-threaded builds too: no lock, 160 ns for both, of which 60 are the clock and the thread's ident. What an entry
means is found out when somebody asks, and told in plain strings and numbers, which keep no context, request or thread
alive.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import threading
import time
import typing as t
import weakref
from collections.abc import Mapping

from flask.ctx import AppContext

from . import flask_context, parents
from .names import printable

if t.TYPE_CHECKING:
    from .snapshot import Snapshot

Kind = t.Literal["thread", "task", "callback"]
Entry = tuple[int, float, "Snapshot", object, Kind]
"""The thread's ident, the start by `time.monotonic`, the snapshot, what was bound to it, as what."""

replays: dict[AppContext, Entry] = {}
"""By the replay's own app context, from before the callable runs until the context is torn down. (The context itself:
its ``id()`` would cost 20 ns more.)"""

_of_the_parent_process: weakref.WeakSet[AppContext] = weakref.WeakSet()


def _after_fork() -> None:
    # Their threads are not here. (gevent's greenlets are: each still takes its own entry out.)
    ident = threading.get_ident()
    _of_the_parent_process.update(ctx for ctx, entry in replays.items() if entry[0] != ident)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def going_on() -> list[tuple[AppContext, Entry]]:
    """The register, as it is now, without what ran in other threads when this process was forked."""
    return [(ctx, entry) for ctx, entry in replays.copy().items() if ctx not in _of_the_parent_process]


@dataclasses.dataclass(frozen=True)
class Replay:
    """One replay, as it was when it was asked for."""

    kind: Kind
    """``"thread"``, ``"task"`` (what a pool runs, and what `copy_current_app_context` made) or ``"callback"``."""
    thread_name: str
    thread_ident: int
    callable: str
    """``module:qualname``; of a thread its target, or the ``run`` of its class."""
    app: str
    method: str | None
    """Of the lent request; None if none was lent."""
    path: str | None
    started: float
    """When the replay began, by `time.monotonic`. With the ident, it tells a replay from all others."""
    seconds: float
    """Since then."""
    parent_is_over: bool
    """Whether the app context that was inherited from has ended."""
    inherited: tuple[str, ...]
    """The entries of ``g`` that were inherited."""
    stayed_home: Mapping[str, str]
    """Those that were not: name and reason."""


def running() -> list[Replay]:
    """The replays that are going on in this process, the oldest first; nested ones are each there."""
    before, names = going_on(), thread_names()
    # A thread that has ended meanwhile may have left its ident to another one.
    entries = sorted((entry for ctx, entry in before if ctx in replays), key=lambda entry: entry[1])
    return [describe(entry, names.get(entry[0])) for entry in entries]


def thread_names() -> dict[int | None, str]:
    """By ident; right for a replay that was in the register before, and is there still."""
    return {thread.ident: thread.name for thread in threading.enumerate()}


def describe(entry: Entry, thread_name: str | None) -> Replay:
    """What *entry* says now. *thread_name*: None if it is not known, as of a thread that Python did not start."""
    ident, start, snapshot, fn, kind = entry
    request = flask_context.lent_request(snapshot.lent)
    return Replay(
        kind=kind,
        thread_name=thread_name or f"thread {ident}",
        thread_ident=ident,
        callable=_path(fn),
        app=snapshot.app.name,
        method=None if request is None else str(request.method),
        path=None if request is None else str(request.path),
        started=start,
        seconds=time.monotonic() - start,
        parent_is_over=parents.is_over(snapshot.parent),
        inherited=snapshot.inherited,
        stayed_home=dict(snapshot.stayed_home),
    )


def dump(file: t.TextIO | None = None) -> None:
    """Write the table of `running` to *file*, by default to ``sys.stderr``."""
    out = sys.stderr if file is None else file
    if out is not None:  # as under pythonw
        out.write(table())


def table() -> str:
    """What `dump` writes."""
    found = running()
    title = f"flaskthreads_autopatch: {len(found)} replay{'' if len(found) == 1 else 's'} in process {os.getpid()}\n"
    if not found:
        return title
    rows = [("kind", "thread", "callable", "app", "request", "seconds", "parent")]
    for replay in found:
        over = "over" if replay.parent_is_over else "active"
        place = request_of(replay) or "-"
        rows.append(
            (replay.kind, replay.thread_name, replay.callable, replay.app, place, f"{replay.seconds:.1f}", over)
        )
    # As many texts as before, which mypy cannot count.
    rows = [tuple(map(printable, row)) for row in rows]  # type: ignore[misc]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return title + "".join(f"  {line}\n" for line in lines)


def request_of(replay: Replay) -> str | None:
    """The lent request's method and path; None if none was lent."""
    return None if replay.path is None else f"{printable(str(replay.method))} {printable(replay.path)}"


def _path(fn: t.Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        module, qualname = type(fn).__module__, type(fn).__qualname__
    return f"{module}:{qualname}"
