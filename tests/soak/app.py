"""The app that is soaked: each request starts threads, timers and tasks, and each of these says whom it works for.

Served by gunicorn as ``tests.soak.app:create_app()``. Everything counted here is of this process, as `/figures` tells.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

from flask import Flask, g, request, session
from flask_sqlalchemy import SQLAlchemy

import flaskthreads_autopatch

from .counts import Counts

LIMIT = 30
"""Seconds after which what hangs is an error."""

db = SQLAlchemy()


class Row(db.Model):  # type: ignore[name-defined, misc]
    id = db.Column(db.Integer, primary_key=True)
    user = db.Column(db.String, nullable=False)


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
    executor = ThreadPoolExecutor(6)
    # Under gevent, without this library too, a ThreadPool stands still for ever after some 9,000 tasks: it writes a few
    # bytes into a pipe for each, which nobody reads.
    pool = None if "gevent.monkey" in sys.modules else ThreadPool(4)

    with app.app_context():
        db.create_all()
    flaskthreads_autopatch.install(app)
    counts = Counts(app)

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
        return counts.figures(db)

    return app
