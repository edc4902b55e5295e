"""What the soaked apps count in their own process, as `/figures` tells."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import psutil
from flask import Flask, appcontext_popped, appcontext_pushed
from flask_sqlalchemy import SQLAlchemy

from flaskthreads_autopatch import flask_context


class Counts:
    """What has been started, and what went wrong."""

    def __init__(self, app: Flask) -> None:
        """Count the contexts of *app* from now on."""
        self.lock = threading.Lock()
        self.values = dict.fromkeys(
            ("requests", "threads", "timers", "tasks", "late", "mix_ups", "pushed", "popped"), 0
        )
        self._contexts: weakref.WeakSet[object] = weakref.WeakSet()
        appcontext_pushed.connect(self._pushed, app)
        appcontext_popped.connect(self._popped, app)

    def add(self, **numbers: int) -> None:
        with self.lock:
            for name, number in numbers.items():
                self.values[name] += number

    def _pushed(self, sender: Flask) -> None:
        with self.lock:
            self.values["pushed"] += 1
            self._contexts.add(flask_context.active())

    def _popped(self, sender: Flask) -> None:
        self.add(popped=1)

    def figures(self, db: SQLAlchemy) -> dict[str, int]:
        """Return all counts, and what this process holds. For a request, with nothing else under way."""
        gc.collect()
        process = psutil.Process()
        return self.values | {
            # This request's own context is pushed and not popped.
            "leaked_contexts": max(len(self._contexts), self.values["pushed"] - self.values["popped"]) - 1,
            "leaked_connections": db.engine.pool.checkedout(),  # type: ignore[attr-defined]  # a QueuePool
            "blocks": sys.getallocatedblocks(),
            "kilobytes": process.memory_info().rss // 1024,
            "system_threads": process.num_threads(),
        }
