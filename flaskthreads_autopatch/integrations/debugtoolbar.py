"""A panel for Flask-DebugToolbar: what the request just served has started, as a waterfall on its own time axis.

Add ``"flaskthreads_autopatch.integrations.debugtoolbar.ThreadsPanel"`` to ``DEBUG_TB_PANELS``.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t
from pathlib import Path

from flask import Flask, g
from flask_debugtoolbar.panels import DebugPanel

from ..visibility.registry import Replay
from ..visibility.signals import context_inherited, context_released

if t.TYPE_CHECKING:
    from jinja2 import Environment
    from werkzeug import Request, Response

_ENTRY = "_flaskthreads_autopatch_timeline"
"""Of ``g``: children inherit it as any other entry, and so do theirs."""

_TEMPLATE = Path(__file__).with_name("debugtoolbar.html").read_text(encoding="utf-8")


@dataclasses.dataclass
class Row:
    """One replay."""

    replay: Replay
    start: float
    """Seconds after the start of the request."""
    seconds: float | None = None
    """None while it runs."""
    error: str | None = None

    @property
    def inherited(self) -> list[str]:
        return [name for name in self.replay.inherited if name != _ENTRY]


class Timeline:
    """What one request has started."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.rows: list[Row] = []


_open: dict[tuple[int, float], Row] = {}


class ThreadsPanel(DebugPanel):
    """The threads, tasks and callbacks of the request that have begun when its response is made.

    What has not begun by then, such as a task that waits for a free worker, is not on the page.
    """

    name = "Threads"
    has_content = True

    @classmethod
    def init_app(cls, app: Flask) -> None:
        """Listen to the signals of *app*."""
        context_inherited.connect(_begin, app)
        context_released.connect(_end, app)

    def __init__(self, jinja_env: Environment, context: dict[str, t.Any] | None = None) -> None:
        super().__init__(jinja_env, context)
        self._timeline = Timeline()
        self._rows: list[Row] = []
        self._seconds = 0.0

    def process_request(self, request: Request) -> None:
        """Have children note themselves from now on."""
        self._timeline = Timeline()
        setattr(g, _ENTRY, self._timeline)

    def process_response(self, request: Request, response: Response) -> None:
        """Take what there is now: it is what the page shows."""
        self._seconds = time.monotonic() - self._timeline.start
        rows = [dataclasses.replace(row) for row in self._timeline.rows.copy()]
        self._rows = sorted(rows, key=lambda row: row.start)

    def nav_title(self) -> str:
        """In the toolbar."""
        return "Threads"

    def nav_subtitle(self) -> str:
        """In the toolbar, below the title."""
        running = sum(row.seconds is None for row in self._rows)
        return f"{len(self._rows)} started, {running} running"

    def title(self) -> str:
        """Above the content."""
        return "Threads, tasks and callbacks"

    def url(self) -> str:
        """There is none: the panel opens in the page."""
        return ""

    def content(self) -> str:
        """The waterfall."""
        span = max(self._seconds, 1e-6)
        return str(self.jinja_env.from_string(_TEMPLATE).render(rows=self._rows, span=span))


def _begin(sender: Flask, replay: Replay) -> None:
    timeline = g.get(_ENTRY)
    if timeline is not None:
        row = _open[replay.thread_ident, replay.started] = Row(replay, replay.started - timeline.start)
        timeline.rows.append(row)


def _end(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> None:
    row = _open.pop((replay.thread_ident, replay.started), None)
    if row is not None:
        row.error, row.seconds = error, replay.seconds
