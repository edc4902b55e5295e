"""The app that is soaked: each request starts threads, timers and tasks, and each of these says whom it works for.

Served by gunicorn as ``tests.soak.app:create_app()``. Everything counted here is of this process, as `/figures` tells.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import psutil
from flask import Flask, appcontext_popped, appcontext_pushed, g, request, session
from flask_sqlalchemy import SQLAlchemy

import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context

LIMIT = 30
"""Seconds after which what hangs is an error."""

db = SQLAlchemy()


class Row(db.Model):  # type: ignore[name-defined, misc]
    id = db.Column(db.Integer, primary_key=True)
    user = db.Column(db.String, nullable=False)


class Counts:
    """What has been started, and what went wrong."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values = dict.fromkeys(("requests", "threads", "timers", "tasks", "mix_ups", "pushed", "popped"), 0)

    def add(self, **numbers: int) -> None:
        with self.lock:
            for name, number in numbers.items():
                self.values[name] += number


def work(counts: Counts, user: str, kind: str) -> int:
    """In a thread, a timer or a task: everything seen must be this user's, and the session to the database its own."""
    counts.add(**{kind: 1})
    seen = {g.user, request.args["user"], session.get("user", user)}
    rows = db.session.execute(db.select(Row.user).where(Row.user == user).limit(1)).scalars().all()
    session_is_own = db.session() is not g.sessions[0]
    if seen != {user} or set(rows) - {user} or not session_is_own:
        counts.add(mix_ups=1)
        return 1
    return 0


def create_app() -> Flask:
    """The app, installed; its two pools live as long as the process."""
    app = Flask("soak")
    app.secret_key = "soak"
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///" + os.environ["SOAK_DATABASE"]
    # Few, and none beyond them: a connection that is not given back is soon missed.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 24, "max_overflow": 0, "pool_timeout": LIMIT}
    db.init_app(app)
    counts, executor = Counts(), ThreadPoolExecutor(6)
    # Under gevent, without this library too, a ThreadPool stands still for ever after some 9,000 tasks: it writes a few
    # bytes into a pipe for each, which nobody reads.
    pool = None if "gevent.monkey" in sys.modules else ThreadPool(4)
    contexts: weakref.WeakSet[object] = weakref.WeakSet()

    @appcontext_pushed.connect_via(app)
    def pushed(sender: Flask) -> None:
        counts.add(pushed=1)
        contexts.add(flask_context.active())

    @appcontext_popped.connect_via(app)
    def popped(sender: Flask) -> None:
        counts.add(popped=1)

    with app.app_context():
        db.create_all()
    flaskthreads_autopatch.install(app)

    @app.get("/jobs")
    def view() -> dict[str, int]:
        counts.add(requests=1)
        g.user = user = session["user"] = request.args["user"]
        g.sessions = (db.session(),)
        db.session.add(Row(user=user))
        db.session.commit()
        wrong: list[int] = []

        def thread() -> None:
            wrong.append(work(counts, user, "threads"))

        def timer() -> None:
            wrong.append(work(counts, user, "timers"))

        threads = [threading.Thread(target=thread), threading.Thread(target=thread), threading.Timer(0, timer)]
        for each in threads:
            each.start()
        futures = [executor.submit(work, counts, user, "tasks") for _ in range(2 if pool else 3)]
        results = [pool.apply_async(work, (counts, user, "tasks"))] if pool else []
        for each in threads:
            each.join(LIMIT)
        wrong += [future.result(LIMIT) for future in futures] + [result.get(LIMIT) for result in results]
        # The table stays small: SQLite keeps what each connection has read of it, and memory would grow with that.
        db.session.execute(db.delete(Row).where(Row.user == user))
        db.session.commit()
        return {"answers": len(wrong), "wrong": sum(wrong)}

    @app.get("/figures")
    def figures() -> dict[str, int]:
        gc.collect()
        process = psutil.Process()
        return counts.values | {
            # This request's own context is pushed and not popped.
            "leaked_contexts": max(len(contexts), counts.values["pushed"] - counts.values["popped"]) - 1,
            "leaked_connections": db.engine.pool.checkedout(),  # type: ignore[attr-defined]
            "kilobytes": process.memory_info().rss // 1024,
            "system_threads": process.num_threads(),
        }

    return app
