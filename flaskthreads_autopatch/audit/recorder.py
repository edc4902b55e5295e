"""The recorder: counts each run of a thread or task for its place of origin, while the library observes.

It keeps counts, names and weak references: no value of ``g``, no request, no exception.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import typing as t
import weakref
from time import monotonic

from flask import Flask
from flask.ctx import AppContext
from flask.signals import appcontext_pushed, appcontext_tearing_down

from .. import flask_context
from ..flask_context import PARENT
from ..visibility import parents
from .counts import Counts, ProcessCounts
from .record import BY_A_RUN, Key, Record

_WANT_OF_CONTEXT = (
    "working outside of",  # Flask and Werkzeug
    "no application found",  # Flask-SQLAlchemy 2
    "outside of application context",
    "outside of request context",
)
"""What the message of a `RuntimeError` has that is raised because no context is active, in lower case."""
_MOST_CAUSES = 20


class Run:
    """One run of a thread or task, as long as it goes on."""

    __slots__ = ("__weakref__", "app", "began", "counts", "has_helped", "is_late", "outer", "parent", "recorder")

    recorder: Recorder
    """The one that counts its end, although the library may observe no longer."""
    app: weakref.ref[Flask] | None
    """The app of the parent's context; None if none was active."""

    counts: Counts
    parent: weakref.ref[AppContext]
    """The parent's context, `parents.NOWHERE` if none was active."""
    began: float
    is_late: bool
    """Whether the parent's context has ended meanwhile."""
    has_helped: bool
    """Whether it has pushed a context of its own."""
    outer: contextvars.Token[Run | None] | None
    """Restores the run that went on here before; None once this one has ended."""

    def leave(self) -> None:
        """Have this run go on here no longer."""
        # A copy of the context variables, such as a coroutine's, keeps this run. It must not keep the token as well,
        # which refers to all context variables of the thread.
        token, self.outer = self.outer, None
        if token is not None:
            try:
                _current.reset(token)
            except ValueError:
                _current.set(None)  # It ends in other context variables than those in which it began.


_current: contextvars.ContextVar[Run | None] = contextvars.ContextVar("flaskthreads_autopatch.run", default=None)
"""The run that goes on here. A greenlet has variables of its own, as a thread has."""


class Recorder:
    """Counts what runs in this process. *replays*: whether the runs inherit, or are observed only."""

    def __init__(self, folder: str, replays: bool) -> None:
        self.replays = replays
        self._folder = folder
        self._renew()
        self._counts.make_files()

    def _renew(self) -> None:
        # Reentrant, because a signal handler or a finalizer may start a thread while its own thread is in here (H32).
        self._lock = threading.RLock()
        # After a fork, the files are made when there is something to count: a program may fork for each job.
        self._counts = ProcessCounts(self._folder)
        self._running: dict[Run, None] = {}
        self._pid = os.getpid()

    def _renew_if_forked(self) -> None:
        # uWSGI forks its workers without Python's hooks for that.
        if os.getpid() != self._pid:
            self._renew()

    def begin(self, key: Key, app: Flask | None, parent: weakref.ref[AppContext], names: Names) -> Run:
        """Note that a run of what *key* describes begins in this thread. Pass the result to `end`, in this thread."""
        self._renew_if_forked()
        run = Run()
        run.recorder = self
        run.app = None if app is None else weakref.ref(app)
        run.parent, run.began, run.has_helped, run.is_late, run.outer = parent, monotonic(), False, False, None
        with self._lock:
            run.counts = counts = self._counts.of(key)
            record = counts.record
            record.starts += 1
            counts.running += 1
            record.most_at_once = max(record.most_at_once, counts.running)
            self._counts.note_names(counts, *names)
            self._running[run] = None
            if parent is not parents.NOWHERE and parents.is_over(parent):
                self._note_late(run)
            counts.write()
        run.outer = _current.set(run)
        return run

    def end(self, run: Run, error: BaseException | None) -> None:
        """Note that *run* has ended, with *error* if it raised."""
        self._renew_if_forked()
        record = run.counts.record
        lends_request = bool(record.key.reason) or "request" in record.inherited
        has_failed = error is not None and _is_want_of_context(error, lends_request)
        with self._lock:
            if self._running.pop(run, run) is run:
                return  # It was copied by a fork. The parent process counts it.
            run.counts.running -= 1
            record.failed += has_failed
            record.raised += error is not None and not has_failed
            if not run.is_late and run.parent is not parents.NOWHERE and parents.is_over(run.parent):
                self._note_late(run)
            if run.is_late:
                record.still_running -= 1
                self._note_time(run)
            run.counts.write()

    def note_help(self, run: Run) -> None:
        """Note that *run* has pushed a context of its own: at once, because a service thread may never end."""
        self._renew_if_forked()
        with self._lock:
            if run in self._running and not run.has_helped:
                run.has_helped = True
                run.counts.record.helped += 1
                run.counts.write()

    def _note_late(self, run: Run) -> None:
        run.is_late = True
        run.counts.record.outlived += 1
        run.counts.record.still_running += 1

    def _note_time(self, run: Run) -> None:
        record = run.counts.record
        record.longest = max(record.longest, parents.seconds_over(run.parent, run.began) or 0.0)

    def context_ends(self, parent: weakref.ref[AppContext]) -> None:
        """Note that the context *parent* ends: what still runs outlives it."""
        self._renew_if_forked()
        with self._lock:
            # A copy, because a finalizer that runs in here may begin a run (H32).
            for run in list(self._running):
                if run.parent is parent and not run.is_late:
                    self._note_late(run)
                    run.counts.write()

    def write(self) -> None:
        """Write how long the runs that still go on have outlived their parents."""
        self._renew_if_forked()
        with self._lock:
            for run in list(self._running):
                if run.is_late:
                    self._note_time(run)
                    run.counts.write()

    def records(self) -> list[Record]:
        """Return the records of this process."""
        self.write()
        with self._lock:
            return [Record.from_data(counts.record.as_data()) for counts in self._counts.counts.values()]


Names = tuple[t.Mapping[str, str], t.Mapping[str, str]]
"""What is inherited, and what is not, as in a `Record`."""

recorders: list[Recorder] = []
"""The recorder, if the library observes. Nearly always empty, so that a start need not ask further."""


def recording() -> Recorder | None:
    """Return the recorder; None if the library does not observe.

    A single operation, because another thread or a signal handler may switch the library meanwhile: where the list has
    just been found not to be empty, ``recorders[0]`` may raise.
    """
    return next(iter(recorders), None)


def start(folder: str, replays: bool) -> None:
    """Record what runs in this process from now on, in *folder* or, if that is empty, in memory."""
    if (before := recording()) is not None and (before._folder, before.replays) == (folder, replays):
        return
    # What goes to a folder goes on there, in the same files: a program may switch the library as often as it likes.
    recorders[:] = [_of_folder.get((folder, replays)) or Recorder(folder, replays)]
    if folder:
        _of_folder[folder, replays] = recorders[0]
    if hasattr(appcontext_pushed, "receivers"):  # Flask 2.2 does not require blinker.
        appcontext_pushed.connect(_note_push)
        appcontext_tearing_down.connect(_note_end)
    atexit.register(_write)


_of_folder: dict[tuple[str, bool], Recorder] = {}
"""The recorders that record in a folder, or have done so."""


def stop() -> None:
    """Record nothing from now on. What has been recorded is forgotten, unless it is in a folder."""
    if not recorders:
        return
    _write()
    recorders.clear()
    atexit.unregister(_write)
    if hasattr(appcontext_pushed, "receivers"):
        appcontext_pushed.disconnect(_note_push)
        appcontext_tearing_down.disconnect(_note_end)


def observed() -> list[Record]:
    """Return what has been observed in this process: a record for each place that starts threads or tasks.

    An empty list if the library does not observe.
    """
    return [] if (recorder := recording()) is None else recorder.records()


def outer_run() -> tuple[Key, Flask] | None:
    """Return the key and the app of the run that goes on here, if the library only observes and it would inherit."""
    run, recorder = _current.get(), recording()
    if run is None or run.outer is None or run.app is None or recorder is None or recorder.replays:
        return None
    key, app = run.counts.record.key, run.app()
    return None if app is None or key.reason not in ("", BY_A_RUN) else (key, app)


def _note_push(sender: object, **extra: t.Any) -> None:
    run, ctx = _current.get(), flask_context.active()
    if run is None or run.has_helped or ctx is None or flask_context.is_inherited(ctx):
        return
    if (recorder := recording()) is not None:
        recorder.note_help(run)


def _note_end(sender: object, **extra: t.Any) -> None:
    parent = getattr(flask_context.active(), PARENT, None)
    if parent is not None and (recorder := recording()) is not None:
        recorder.context_ends(parent)


def _write() -> None:
    if (recorder := recording()) is not None:
        recorder.write()


def _after_fork() -> None:
    # The counts of the parent process are the parent's, and another thread may have held the lock.
    if (recorder := recording()) is not None:
        recorder._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _is_want_of_context(error: BaseException, lends_request: bool) -> bool:
    """Return whether *error*, or what caused it, says that no context is active.

    Where something is inherited, but no request is lent, the want of a request is an error as any other: inheritance
    does not help, and no verdict may promise that.
    """
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            break
        if isinstance(seen, RuntimeError):
            text = _text(seen)
            if any(part in text for part in _WANT_OF_CONTEXT) and (lends_request or "request context" not in text):
                return True
        seen = seen.__cause__ or seen.__context__
    return False


def _text(error: BaseException) -> str:
    try:
        return str(error).lower()
    except Exception:
        return ""
