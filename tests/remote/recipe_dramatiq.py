"""More tasks for the recipe for Dramatiq: ``dramatiq tests.remote.recipe_dramatiq``. They note what they see."""

from __future__ import annotations

import json
import typing as t

import dramatiq
import dramatiq_tasks  # type: ignore[import-not-found]
import flask
from dramatiq.middleware import CurrentMessage
from flask import Flask, g

from flaskthreads_autopatch import running

broker = dramatiq_tasks.broker
broker.add_middleware(CurrentMessage())


def note(*seen: t.Any) -> None:
    broker.client.rpush("notes", json.dumps(seen))


@dramatiq.actor
def look() -> None:
    [replay] = running()
    note(vars(g), flask.has_request_context() and flask.request.path, replay.callable)


@dramatiq.actor(min_backoff=1, max_backoff=1, max_retries=2)
def retry() -> None:
    message = CurrentMessage.get_current_message()
    assert message
    note(g.user_id)
    g.user_id = "changed by the task"
    if message.options.get("retries", 0) < 2:
        raise LookupError


@dramatiq.actor
def first(user_id: str) -> str:
    seen, g.user_id = g.user_id, user_id
    return t.cast(str, seen)


@dramatiq.actor
def second(before: str) -> None:
    note(before, g.user_id)


def create_app() -> Flask:
    return t.cast(Flask, dramatiq_tasks.shop.create_app())
