"""The shop with Celery, as the worker's command line finds it: ``celery --app tests.remote.celery_shop worker``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import typing as t
from pathlib import Path

import celery
from celery import Celery, shared_task
from flask import Flask, current_app, g

from flaskthreads_autopatch.integrations.celery import init_celery

from . import shop

BROKER = "TESTS_REMOTE_BROKER"
SIGNED = "TESTS_REMOTE_SIGNED"
NAMED: dict[str, t.Any] = {name: shop.NAMED[name] for name in ("g", "headers")}


def settings(broker: str) -> dict[str, t.Any]:
    """For ``redis://...``, for ``amqp://... redis://...`` (for the results), or for a folder that is the queue."""
    if broker.startswith(("redis:", "amqp:")):
        url, _, results = broker.partition(" ")
        return {"broker_url": url, "result_backend": results or url}
    folder = Path(broker)
    for name in ("queue", "control", "results"):
        folder.joinpath(name).mkdir(exist_ok=True)
    queue = str(folder / "queue")
    transport = {"data_folder_in": queue, "data_folder_out": queue, "control_folder": str(folder / "control")}
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": transport,
        "result_backend": f"file://{folder / 'results'}",
    }


def create_celery(app: Flask, broker: str, **config: t.Any) -> Celery:
    celery_app = Celery("shop", set_as_current=False)
    celery_app.conf.update(settings(broker), broker_connection_retry_on_startup=True, **config)
    init_celery(celery_app, app, **NAMED, signed=SIGNED in os.environ)
    return celery_app


def sign(celery_app: Celery, folder: str) -> None:
    """Have *celery_app* take nothing but signed messages; for the whole process, says Celery."""
    celery_app.conf.update(
        security_key=f"{folder}/key.pem",
        security_certificate=f"{folder}/certificate.pem",
        security_cert_store=f"{folder}/certificate.pem",
        task_serializer="auth",
        event_serializer="auth",
        result_serializer="auth",
        accept_content=["auth"],
    )
    celery_app.setup_security()


class OwnBase(celery.Task):  # type: ignore[misc]
    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        return ["own", super().__call__(*args, **kwargs)]


look = shared_task(shop.look, name="look")
user = shared_task(shop.user, name="user")
user_and = shared_task(shop.user_and, name="user_and")
user_in_thread = shared_task(shop.user_in_thread, name="user_in_thread")
leave_torn_down = shared_task(shop.leave_torn_down, name="leave_torn_down")
fail = shared_task(shop.fail, name="fail")
fail_and_note = shared_task(shop.fail_and_note, name="fail_and_note")
end_process = shared_task(shop.end_process, name="end_process")
own_base = shared_task(shop.user, name="own_base", base=OwnBase)


@shared_task(name="collect")
def collect(*before: t.Any) -> list[t.Any]:
    return [*before, shop.look()]


@shared_task(name="repeat", bind=True, max_retries=2)
def repeat(self: t.Any) -> list[t.Any]:
    seen = dict(vars(g))
    g.user_id = "changed by the task"
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [self.request.retries, seen]


@shared_task(name="repeat_with_header", bind=True, max_retries=1)
def repeat_with_header(self: t.Any) -> list[t.Any]:
    seen = dict(vars(g))
    g.user_id = "changed by the task"
    if self.request.retries < 1:
        raise self.retry(countdown=0, headers={"mine": 1})
    return [self.request.headers["mine"], seen]


@shared_task(name="for_each", bind=True)
def for_each(self: t.Any, *users: str) -> list[str]:
    sent = []
    for user_id in users:
        # One of the app's own handlers raises at the end.
        with contextlib.suppress(ZeroDivisionError), current_app.app_context():
            g.user_id = user_id
            sent.append(self.app.tasks["user"].delay().id)
    return sent


@shared_task(name="walk")
def walk(steps: int) -> list[int]:
    g.visited = g.get("visited", 0) + 1
    return [g.visited, *(walk(steps - 1) if steps else [])]


@shared_task(name="note_error")
def note_error(request: t.Any, exc: BaseException, traceback: str) -> None:
    note_error.app.backend.client.rpush("errors", json.dumps(shop.look(), default=str))


@shared_task(name="pass_on", bind=True)
def pass_on(self: t.Any, user_id: str) -> str:
    g.user_id = user_id
    return t.cast(str, self.app.tasks["user"].delay().id)


@shared_task(name="call_directly", bind=True)
def call_directly(self: t.Any) -> list[str]:
    here = id(g._get_current_object())
    return [shop.user(), self.app.tasks["user"](), str(self.app.tasks["id_of_g"]() == here)]


@shared_task(name="apply_in_place", bind=True)
def apply_in_place(self: t.Any) -> list[t.Any]:
    here = id(g._get_current_object())
    shop.leave_torn_down()
    there = self.app.tasks["id_of_g"].apply().get(disable_sync_subtasks=False)
    return [here == there, shop.leave_torn_down()]


@shared_task(name="replace", bind=True)
def replace(self: t.Any) -> t.Any:
    g.user_id = "replaced"
    return self.replace(self.app.tasks["look"].s())


@shared_task(name="stop_worker")
def stop_worker(before: t.Any) -> t.Any:
    os.kill(os.getpid(), signal.SIGTERM)
    return before


@shared_task(name="id_of_g")
def id_of_g() -> int:
    return id(g._get_current_object())


@shared_task(name="tick", bind=True)
def tick(self: t.Any) -> None:
    self.app.backend.client.rpush("ticks", json.dumps(shop.look()))


if BROKER in os.environ:
    beat = {"tick": {"task": "tick", "schedule": 1}} if "TESTS_REMOTE_BEAT" in os.environ else {}
    flask_app = shop.create_app()
    celery_app = create_celery(flask_app, os.environ[BROKER], beat_schedule=beat)
    if "TESTS_REMOTE_PUSHED" in os.environ:
        flask_app.app_context().push()
        g.user_id = "whoever started the worker"
    if "TESTS_REMOTE_KEYS" in os.environ:
        sign(celery_app, os.environ["TESTS_REMOTE_KEYS"])
