"""The shop with RQ, as the worker's command line finds it: ``rq worker --job-class tests.remote.rq_shop.ShopJob``."""

from __future__ import annotations

import json
import os
import typing as t

import flask
from flask import Flask, current_app, g
from redis import Redis
from rq import Retry, get_current_job

from flaskthreads_autopatch import Carrier
from flaskthreads_autopatch.integrations.rq import AppContextJob

from . import shop

app = shop.create_app()
"""Made where the worker imports this module, and so before it forks."""


class ShopJob(AppContextJob):
    carrier = Carrier(app, shop.NAMED["g"], shop.NAMED["headers"])


class SignedJob(AppContextJob):
    carrier = Carrier(app, shop.NAMED["g"], shop.NAMED["headers"], signed=True)


class LoadingJob(AppContextJob):
    """A job whose app is loaded in each process that runs one."""

    carrier = Carrier(shop.APP, shop.NAMED["g"], shop.NAMED["headers"])


def note(connection: Redis, seen: t.Any) -> None:
    connection.rpush("notes", json.dumps(seen))


def attempt(until: int) -> None:
    """Fails until it has run that many times, and notes what it sees each time."""
    job = get_current_job()
    assert job
    note(job.connection, g.user_id)
    g.user_id = "changed by the task"
    if job.connection.incr(f"attempts of {job.id}") < until:
        raise LookupError


def attempt_by_value(until: int) -> t.Any:
    try:
        attempt(until)
    except LookupError:
        return Retry(max=until)
    return "done"


async def look_async() -> t.Any:
    return shop.look()["g"]


def loop() -> None:
    while True:
        pass


def succeeded(job: t.Any, connection: Redis, result: t.Any) -> None:
    note(connection, ["succeeded", result, flask.has_app_context() and current_app.name, dict(vars(g)) if g else None])


def failed(job: t.Any, connection: Redis, *exc_info: t.Any) -> None:
    here = flask.has_app_context() and current_app.name
    note(connection, ["failed", exc_info[0].__name__, here, dict(vars(g)) if g else None])


def note_and_loop() -> None:
    job = get_current_job()
    assert job
    note(job.connection, "started")
    loop()


def stopped(job: t.Any, connection: Redis) -> None:
    note(connection, ["stopped", current_app.name, dict(vars(g))])


async def never_called(job: t.Any, connection: Redis, result: t.Any) -> None: ...


def enqueue_more(user_id: str) -> str:
    """Enqueues as another user, by the queue of this job."""
    job = get_current_job()
    assert job
    from rq import Queue

    g.user_id = user_id
    return Queue("more", connection=job.connection, job_class=ShopJob).enqueue(shop.user).id


flask_rq: t.Any = None


def create_flask_rq_app() -> Flask:
    """The shop with Flask-RQ: ``flask --app tests.remote.rq_shop:create_flask_rq_app rq worker``."""
    from flask_rq import RQ

    global flask_rq
    app = shop.create_app()
    # The handler that raises would end the commands of Flask-RQ with its error.
    app.teardown_appcontext_funcs.pop()
    app.config["RQ_CONNECTION"] = os.environ["TESTS_REMOTE_BROKER"]
    flask_rq = RQ(app)
    with app.app_context():

        class FlaskRQJob(AppContextJob, flask_rq.queue.job_class):  # type: ignore[misc, name-defined]
            carrier = Carrier(app, shop.NAMED["g"], shop.NAMED["headers"])

        for queue in flask_rq.queues.values():
            queue.job_class = FlaskRQJob
    return app
