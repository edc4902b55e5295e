"""The app that the servers serve: threads, timers, a pool for the whole process, a database, sessions, uploads.

It needs the path of an SQLite file in the environment, as SERVED_DATABASE.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, current_app, g, request, session, stream_with_context
from flask_sqlalchemy import SQLAlchemy

import flaskthreads_autopatch

POOL_WORKERS = 4
pool = ThreadPoolExecutor(POOL_WORKERS)
db = SQLAlchemy()


class User(db.Model):
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String, unique=True)


class Visit(db.Model):
    id = sa.Column(sa.Integer, primary_key=True)
    user = sa.Column(sa.String)
    path = sa.Column(sa.String)


late: dict[str, tuple[threading.Thread, list[Any]]] = {}
"""By path of a request: a thread that outlived it, and what that thread saw."""


def create_app() -> Flask:
    app = Flask("served")
    app.secret_key = "served"
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///" + os.environ["SERVED_DATABASE"]
    # Enough for all threads at once: nobody ever waits for one, unless connections leak.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 60, "max_overflow": 0, "pool_timeout": 60}
    flaskthreads_autopatch.install(app)
    db.init_app(app)
    with app.app_context():
        sa.event.listen(db.engine, "connect", _prefer_speed)
        db.create_all()
    app.before_request(load_user)
    app.add_url_rule("/login/<token>", view_func=login)
    app.add_url_rule("/jobs/<token>", view_func=work)
    app.add_url_rule("/outlive/<token>", view_func=outlive)
    app.add_url_rule("/stream/<token>", view_func=stream)
    app.add_url_rule("/upload/<token>", view_func=upload, methods=["POST"])
    return app


def _prefer_speed(connection: Any, record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def load_user() -> None:
    g.user = request.headers["user"]
    g.served_by = threading.get_ident()


def who(*ignored: object) -> dict[str, object]:
    """What is seen from where this is called."""
    try:
        return {
            "app": current_app.name,
            "user": g.user,
            "path": request.path,
            "session": session["user"],
            "row": db.session.scalar(sa.select(User.name).filter_by(name=g.user)),
            "elsewhere": threading.get_ident() != g.served_by,
        }
    except RuntimeError as error:
        return {"outside": str(error).splitlines()[0]}


def login(token: str) -> dict[str, Any]:
    db.session.add(User(name=g.user))
    db.session.commit()
    session["user"] = g.user
    return {}


def work(token: str) -> dict[str, Any]:
    seen: dict[str, Any] = {"last": session.get("last"), "parent before": who()}
    parents = db.session()

    def in_a_thread() -> None:
        seen["thread"] = who()
        seen["own database session"] = db.session() is not parents
        db.session.add(Visit(user=g.user, path=request.path))
        db.session.commit()
        session["last"] = request.path

    started = [threading.Thread(target=in_a_thread), threading.Timer(0, lambda: seen.update(timer=who()))]
    for thread in started:
        thread.start()
    tasks = [pool.submit(who), pool.submit(who)]
    seen["map"] = list(pool.map(who, range(2)))
    seen["pool"] = [task.result() for task in tasks]
    seen["callback"] = _in_a_callback(who)
    for thread in started:
        thread.join()

    # The threads' teardown has closed their database sessions, and not this one.
    seen["same database session"] = db.session() is parents and parents.in_transaction()
    seen["parent after"] = who()
    return seen


def outlive(token: str) -> Response:
    response, gone, seen = Response("{}"), threading.Event(), []
    response.call_on_close(gone.set)

    def outliving() -> None:
        gone.wait()
        seen.append(who())

    thread = threading.Thread(target=outliving)
    late[request.path] = thread, seen
    thread.start()
    return response


def stream(token: str) -> Response:
    def lines() -> Iterator[str]:
        for _ in range(3):
            yield json.dumps({"parent": who(), "thread": _in_a_thread(who), "pool": pool.submit(who).result()}) + "\n"

    return Response(stream_with_context(lines()))


def upload(token: str) -> dict[str, Any]:
    # The body is read here: parent and thread share one.
    file = request.files["file"]

    def received() -> list[str]:
        return [request.form["token"], hashlib.sha256(request.files["file"].read()).hexdigest()]

    # Only the thread reads the session.
    seen = {"thread": _in_a_thread(who), "received by thread": _in_a_thread(received)}
    file.seek(0)
    seen["received by parent"] = received()
    return seen


def _in_a_thread(fn: Callable[[], Any]) -> Any:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(fn()))
    thread.start()
    thread.join()
    return seen[0]


def _in_a_callback(fn: Callable[[], Any]) -> Any:
    added, called, seen = threading.Event(), threading.Event(), []

    def callback(future: Future[bool]) -> None:
        try:
            seen.append(fn())
        finally:
            called.set()

    # Not done before the callback is added: it runs in the worker.
    pool.submit(added.wait).add_done_callback(callback)
    added.set()
    called.wait()
    return seen[0]
