"""A panel for Flask-DebugToolbar that shows the threads, tasks and callbacks of a request on its time axis.

Add ``"flaskthreads_autopatch.integrations.debugtoolbar.ThreadsPanel"`` to ``DEBUG_TB_PANELS``.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t
from pathlib import Path

from flask import Flask, g
from flask_debugtoolbar.panels import DebugPanel

from ..policy import PREFIX
from ..visibility.registry import Replay
from ..visibility.signals import context_inherited, context_released

if t.TYPE_CHECKING:
    from jinja2 import Environment
    from werkzeug import Request, Response

_ENTRY = "_flaskthreads_autopatch_timeline"
"""The entry of ``g`` that holds the timeline. Threads inherit it, and so do threads that they start."""

_TEMPLATE = Path(__file__).with_name("debugtoolbar.html").read_text(encoding="utf-8")


@dataclasses.dataclass
class Row:
    """A row of the panel: one replay."""

    replay: Replay
    start: float
    """When the replay began, in seconds after the start of the request."""
    seconds: float | None = None
    """How long the replay took; None while it runs."""
    error: str | None = None
    """The type of the exception that ended the replay, as ``module:qualname``."""

    @property
    def inherited(self) -> list[str]:
        """The names of the inherited entries of ``g``, without the entry of the panel."""
        return [name for name in self.replay.inherited if name != _ENTRY]


class Timeline:
    """The replays that one request has started."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.rows: list[Row] = []


_unfinished: dict[tuple[int, float], Row] = {}
"""The rows of the replays that are running, by the ident of the thread and the time at which the replay began."""


class ThreadsPanel(DebugPanel):
    """The panel. It shows the threads, tasks and callbacks that have begun by the time the response is made.

    A task that still waits for a free worker is not shown.
    """

    name = "Threads"
    has_content = True

    @classmethod
    def init_app(cls, app: Flask) -> None:
        """Connect the receivers to the signals of *app*, and have it record where its threads are started."""
        app.config.setdefault(f"{PREFIX}ORIGINS", True)
        context_inherited.connect(_begin, app)
        context_released.connect(_end, app)

    def __init__(self, jinja_env: Environment, context: dict[str, t.Any] | None = None) -> None:
        super().__init__(jinja_env, context)
        self._timeline = Timeline()
        self._rows: list[Row] = []
        self._seconds = 0.0

    def process_request(self, request: Request) -> None:
        """Put a timeline on ``g``, to which every replay from now on adds its row."""
        self._timeline = Timeline()
        setattr(g, _ENTRY, self._timeline)

    def process_response(self, request: Request, response: Response) -> None:
        """Copy the rows as they are now, for the page."""
        self._seconds = time.monotonic() - self._timeline.start
        rows = [dataclasses.replace(row) for row in self._timeline.rows.copy()]
        self._rows = sorted(rows, key=lambda row: row.start)

    def nav_title(self) -> str:
        """Return the title in the toolbar."""
        return "Threads"

    def nav_subtitle(self) -> str:
        """Return the line below the title in the toolbar."""
        running = sum(row.seconds is None for row in self._rows)
        return f"{len(self._rows)} started, {running} running"

    def title(self) -> str:
        """Return the title above the content."""
        return "Threads, tasks and callbacks"

    def url(self) -> str:
        """Return no URL, because the panel opens in the page."""
        return ""

    def content(self) -> str:
        """Return the table of the rows as HTML."""
        span = max(self._seconds, 1e-6)
        return str(self.jinja_env.from_string(_TEMPLATE).render(rows=self._rows, span=span))


def _begin(sender: Flask, replay: Replay) -> None:
    timeline = g.get(_ENTRY)
    if timeline is not None:
        row = _unfinished[replay.thread_ident, replay.started] = Row(replay, replay.started - timeline.start)
        timeline.rows.append(row)


def _end(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> None:
    row = _unfinished.pop((replay.thread_ident, replay.started), None)
    if row is not None:
        row.error, row.seconds = error, replay.seconds
