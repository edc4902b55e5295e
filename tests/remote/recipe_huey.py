"""More tasks for the recipe for Huey: ``huey_consumer tests.remote.recipe_huey.huey``. They note what they see."""

from __future__ import annotations

import json
import typing as t

import flask
import huey_tasks  # type: ignore[import-not-found]
from flask import Flask, g

from flaskthreads_autopatch import running

huey = huey_tasks.huey


def note(*seen: t.Any) -> None:
    huey.storage.conn.rpush("notes", json.dumps(seen))


def task(**options: t.Any) -> t.Callable[[t.Callable[..., t.Any]], t.Any]:
    return lambda fn: huey.task(context=True, **options)(huey_tasks.in_context(fn))


@task()
def look() -> None:
    [replay] = running()
    note(vars(g), flask.has_request_context() and flask.request.path, replay.callable)


@task(retries=2)
def retry() -> None:
    note(g.user_id)
    g.user_id = "changed by the task"
    raise LookupError


@task()
def first(user_id: str) -> str:
    seen, g.user_id = g.user_id, user_id
    return t.cast(str, seen)


@task()
def second(before: t.Any) -> None:
    note(before, g.user_id)


def create_app() -> Flask:
    return t.cast(Flask, huey_tasks.shop.create_app())
