"""Celery as documentation and legacy code has it: ``celery --app tests.remote.documented worker``.

The classes are in Flask's documentation since 2.3, in the one of Flask 0.7 to 2.2, and in packages of companies, which
give their tasks a base class.
"""

from __future__ import annotations

import os
import typing as t

import celery
from celery import Celery, Task, shared_task
from flask import Flask, appcontext_popped, appcontext_pushed, appcontext_tearing_down, current_app, g

from flaskthreads_autopatch.integrations.celery import init_celery

from . import shop
from .celery_shop import BROKER, NAMED, settings

PATTERN = "TESTS_REMOTE_PATTERN"


def celery_init_app(app: Flask) -> Celery:
    class FlaskTask(Task):  # type: ignore[misc]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def make_celery(app: Flask) -> Celery:
    celery_app = Celery(app.import_name)
    celery_app.conf.update(app.config["CELERY"])
    TaskBase = celery_app.Task

    class ContextTask(TaskBase):  # type: ignore[misc, valid-type]
        abstract = True

        def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
            with app.app_context():
                return TaskBase.__call__(self, *args, **kwargs)

    celery_app.Task = ContextTask
    celery_app.set_default()
    return celery_app


class BaseTask(Task):  # type: ignore[misc]
    """The app's extension has the Flask app; who derives from it writes ``run``, or gives it as ``base=``."""

    abstract = True
    seen: t.ClassVar[list[str]] = []

    def context(self) -> t.Any:
        return t.cast(Flask, self.app.flask_app).app_context()

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        with self.app.flask_app.app_context():
            g.task_id = self.request.id
            return super().__call__(*args, **kwargs)


class HelperTask(BaseTask):
    """It is not seen in its code what it does."""

    abstract = True

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        with self.context():
            g.task_id = self.request.id
            return self.run(*args, **kwargs)


class RequestTask(BaseTask):
    abstract = True

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        with self.app.flask_app.test_request_context("/of-the-class"):
            return self.run(*args, **kwargs)


class NoticingTask(BaseTask):
    """It pushes nothing, and finds a context."""

    abstract = True

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        g.task_id = self.request.id
        return self.run(*args, **kwargs)


def plain(app: Flask, base: t.Any = None) -> Celery:
    celery_app = Celery("shop")
    celery_app.conf.update(app.config["CELERY"])
    celery_app.flask_app = app  # type: ignore[attr-defined]
    if base is not None:
        celery_app.Task = base
    celery_app.set_default()
    return celery_app


PATTERNS: dict[str, t.Callable[[Flask], Celery]] = {
    "documented": celery_init_app,
    "documented before": make_celery,
    "base": lambda app: plain(app, BaseTask),
    "helper": lambda app: plain(app, HelperTask),
    "request": lambda app: plain(app, RequestTask),
    "noticing": lambda app: plain(app, NoticingTask),
    "none": plain,
}

events: list[str] = []
"""The signals of the app contexts of this process."""


def create_app(pattern: str, broker: str, early: bool = False, **config: t.Any) -> tuple[Flask, Celery]:
    app = shop.create_app()
    # The handler that raises, and so becomes the outcome of a task whose class tears down itself.
    app.teardown_appcontext_funcs.pop()
    app.config["CELERY"] = {**settings(broker), "broker_connection_retry_on_startup": True, **config}
    celery_app = PATTERNS[pattern](app)
    if early:
        make_tasks(celery_app)
        celery_app.finalize()
    init_celery(celery_app, app, **NAMED)
    if not early:
        make_tasks(celery_app)
    for signal in (appcontext_pushed, appcontext_tearing_down, appcontext_popped):
        signal.connect(lambda sender, name=signal.name, **_: events.append(name), app, weak=False)
    return app, celery_app


def leave_events() -> list[str]:
    """Of the contexts before this one."""
    left, events[:] = list(events), []
    return left[:-1]


def make_tasks(celery_app: Celery) -> None:
    for fn in (shop.look, shop.user, shop.user_and, shop.leave_torn_down, shop.fail, shop.user_in_thread, leave_events):
        celery_app.task(fn, name=f"own.{fn.__name__}", shared=False)

    @celery_app.task(
        name="own.repeat",
        shared=False,
        bind=True,
        autoretry_for=(LookupError,),
        max_retries=2,
        retry_kwargs={"countdown": 0},
    )  # type: ignore[untyped-decorator]
    def repeat(self: t.Any) -> list[t.Any]:
        seen = dict(vars(g))
        g.user_id = "changed by the task"
        if self.request.retries < 2:
            raise LookupError
        return [self.request.retries, seen]

    @celery_app.task(name="own.walk", shared=False)  # type: ignore[untyped-decorator]
    def walk(steps: int) -> list[t.Any]:
        inner = walk.run(steps - 1) if steps else []
        return [g.get("user_id"), *inner]

    @celery_app.task(name="own.call_directly", shared=False)  # type: ignore[untyped-decorator]
    def call_directly() -> list[t.Any]:
        return [g.get("user_id"), celery_app.tasks["own.look"]()["g"], current_app.name]


@shared_task(name="own.shared")
def shared() -> t.Any:
    return shop.look()


if BROKER in os.environ and PATTERN in os.environ:
    flask_app, celery_app = create_app(os.environ[PATTERN], os.environ[BROKER], worker_concurrency=1)
    if "TESTS_REMOTE_PUSHED" in os.environ:
        context: t.Any = flask_app.test_request_context("/of-the-worker")
        context.push()
        g.user_id = g.left_over = "whoever started the worker"

assert celery
