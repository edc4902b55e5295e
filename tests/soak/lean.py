"""The app of ``--requests``: a view that does little besides starting tasks and threads, which look whom they work for.

Each request has a number of its own, and says the same of itself in its path, its query, a header and a cookie.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import sqlalchemy as sa
from flask import Flask, Response, g, request
from flask_sqlalchemy import SQLAlchemy

import flaskthreads_autopatch

from .counts import Counts
from .numbers import LATE, LIMIT, THREAD, TIMER, answers

db = SQLAlchemy()
executor = ThreadPoolExecutor(6)
application = Flask("lean")
# Few, and none beyond them: a connection that is not given back is soon missed.
application.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 24, "max_overflow": 0, "pool_timeout": LIMIT}
application.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///" + os.environ["SERVED_DATABASE"]
db.init_app(application)
flaskthreads_autopatch.install(application)
counts = Counts(application)


def look(kind: str, number: int) -> int:
    """Return whether something here belongs to another request than that of *number*: 0 or 1."""
    counts.add(**{kind: 1})
    seen = {g.number, request.view_args["number"], int(request.args["number"]), int(request.cookies["number"])}
    seen |= {int(request.headers["Authorization"]), int(request.environ["PATH_INFO"].rpartition("/")[2])}
    if seen == {number}:
        return 0
    counts.add(mix_ups=1)
    return 1


def look_and_query(kind: str, number: int) -> int:
    """The same, with a connection to the database, in a session of this thread's own."""
    seen = db.session.scalar(sa.select(sa.literal(g.number)))
    is_own = db.session() is not g.sessions[0]
    if seen == number and is_own:
        return look(kind, number)
    counts.add(mix_ups=1)
    return 1


class Late(NamedTuple):
    """A thread that reads its request after the response, while another request is served."""

    thread: threading.Thread
    may_go: threading.Event


waiting: deque[Late] = deque()
released: deque[Late] = deque()
MOST_RELEASED = 8


def start_late(number: int, closed: threading.Event) -> None:
    """Start a late thread, and release the one before it, whose response has been sent for long."""
    may_go = threading.Event()

    def work() -> None:
        if closed.wait(LIMIT) and may_go.wait(LIMIT):
            look_and_query("late", number)

    thread = threading.Thread(target=work)
    thread.start()
    waiting.append(Late(thread, may_go))
    if len(waiting) > 1:
        release_one()


def release_one() -> None:
    """Release the late thread that waits for longest, and forget those that have ended since."""
    try:
        late = waiting.popleft()
    except IndexError:
        return  # Another request was faster.
    late.may_go.set()
    released.append(late)
    if len(released) > MOST_RELEASED:
        join_one()


def join_one() -> None:
    try:
        late = released.popleft()
    except IndexError:
        return
    late.thread.join(LIMIT)


@application.get("/lean/<int:number>")
def lean(number: int) -> Response:
    counts.add(requests=1)
    g.number = number
    wrong: list[int] = []
    task = executor.submit(look, "tasks", number)
    threads = []
    if number % THREAD == 0 or number % LATE == LATE // 2:
        g.sessions = (db.session(),)
        db.session.scalar(sa.select(sa.literal(number)))
    if number % THREAD == 0:
        threads.append(threading.Thread(target=lambda: wrong.append(look_and_query("threads", number))))
    if number % TIMER == 0:
        threads.append(threading.Timer(0, lambda: wrong.append(look_and_query("timers", number))))
    for thread in threads:
        thread.start()
    closed = threading.Event()
    if number % LATE == LATE // 2:
        start_late(number, closed)
    wrong.append(task.result(LIMIT))
    for thread in threads:
        thread.join(LIMIT)
    g_is_unchanged = g.number == number
    response = Response(answers(number, len(wrong), sum(wrong) + (not g_is_unchanged)), mimetype="text/plain")
    response.call_on_close(closed.set)
    return response


@application.get("/figures")
def figures() -> dict[str, int]:
    while waiting:
        release_one()
    while released:
        join_one()
    return counts.figures(db)
