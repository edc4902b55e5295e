"""Sends signed messages, and forged ones, as a program of its own: Celery signs for a whole process."""

from __future__ import annotations

import base64
import json
import os
import typing as t

from flask import g
from redis import Redis

from flaskthreads_autopatch.integrations.celery import HEADER, init_celery

from . import shop
from .celery_shop import BROKER, NAMED, celery_app

queue = Redis.from_url(os.environ[BROKER])


def waiting(task: str) -> tuple[str, dict[str, t.Any]]:
    """A message of *task*, taken from the queue: its id, and what an attacker has in hand."""
    sent = celery_app.tasks[task].apply_async(queue="on-its-way")
    return sent.id, json.loads(t.cast(bytes, queue.lpop("on-its-way")))


def outcome(task_id: str, message: dict[str, t.Any], timeout: float = 60) -> t.Any:
    queue.lpush("celery", json.dumps(message))
    return celery_app.AsyncResult(task_id).get(timeout=timeout, interval=0.05)


if __name__ == "__main__":
    app = shop.create_app(install=False)
    app.teardown_appcontext_funcs.clear()
    init_celery(celery_app, app, **NAMED)
    with app.app_context():
        g.user_id = "alice"
        report = {"sent": celery_app.tasks["user"].delay().get(timeout=60)}

        task_id, message = waiting("user")
        message["headers"][HEADER] = message["headers"][HEADER].replace("alice", "mallory")
        report["forged header"] = outcome(task_id, message)

        task_id, message = waiting("user")
        message["headers"]["task"] = "look"
        report["forged task"] = outcome(task_id, message)

        task_id, message = waiting("user")
        body = base64.b64decode(base64.b64decode(message["body"]))
        assert b"[[], {}, " in body
        forged = base64.b64encode(body.replace(b"[[], {}, ", b"[[1],{}, "))
        message["body"] = base64.b64encode(forged).decode()
        queue.lpush("celery", json.dumps(message))
        # The worker takes them in turn, and drops what is forged.
        report["after a forged body"] = celery_app.tasks["user"].delay().get(timeout=60)
        report["forged body"] = celery_app.AsyncResult(task_id).state
    print(json.dumps(report))
