"""What the servers load: the app, and around it a middleware that looks for what is left behind."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from flask import Flask, has_app_context, has_request_context
from flask.ctx import AppContext
from werkzeug.wsgi import ClosingIterator

from .app import POOL_WORKERS, Visit, create_app, db, late, pool


class Inspected:
    """Looks for contexts on the server's thread before each request and once its response is closed.

    Answers /inspection by itself, where no context of the app has been.
    """

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.looks: list[str | None] = []
        self.under_way = 0
        self.changed = threading.Condition()

    def look(self, found: str | None, change: int) -> None:
        with self.changed:
            self.looks.append(found)
            self.under_way += change
            self.changed.notify_all()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/inspection":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self.inspect()).encode()]
        self.look(found_before(path), +1)
        response = self.app(environ, start_response)
        return ClosingIterator(response, lambda: self.look(found_after(path), -1))

    def inspect(self) -> dict[str, Any]:
        """What the app and its threads have left. No other request may begin."""
        with self.changed:
            # The last clients have their whole responses a moment before the server closes them.
            self.changed.wait_for(lambda: self.under_way == 0, timeout=60)
        for thread, _ in late.values():
            thread.join()
        # Each worker has to take one to get past the barrier.
        all_here = threading.Barrier(POOL_WORKERS, timeout=60)
        workers = [pool.submit(lambda: (all_here.wait(), context_here())[1]) for _ in range(POOL_WORKERS)]
        found: dict[str, Any] = {
            "looks": len(self.looks),
            "contexts on server threads": [look for look in self.looks if look],
            "contexts on pool workers": [worker.result() for worker in workers],
            "late": {path: seen for path, (_, seen) in late.items()},
        }
        gc.collect()
        found["contexts alive"] = sum(isinstance(thing, AppContext) for thing in gc.get_objects())
        with self.app.app_context():
            engine = db.engine
            found["connections out"] = engine.pool.checkedout()
            found["visits"] = [list(row) for row in db.session.execute(sa.select(Visit.path, Visit.user))]
        return found


def context_here() -> str | None:
    if has_app_context() or has_request_context():
        return f"app context: {has_app_context()}, request context: {has_request_context()}"
    return None


def found_before(path: str) -> str | None:
    return (context := context_here()) and f"before {path}: {context}"


def found_after(path: str) -> str | None:
    return (context := context_here()) and f"after {path}: {context}"


application = Inspected(create_app())
