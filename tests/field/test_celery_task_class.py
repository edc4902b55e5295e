"""The Celery integration of Flask's documentation: a task class that pushes an app context around each call.

Tasks that a view, or a thread of a view, runs in place (``task_always_eager``, ``apply()``) have the context that
the class pushes, outside of a request where they were outside of one.
"""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, current_app, g, has_request_context

from .helpers import Compare, Start, in_view

pytestmark = pytest.mark.celery


def celery_of(app: Flask) -> t.Any:
    """As in the documentation of Flask, "Background Tasks with Celery"."""
    from celery import Celery, Task

    class FlaskTask(Task):  # type: ignore[misc]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=FlaskTask, set_as_current=False)
    celery.conf.update(task_always_eager=True, task_eager_propagates=True, task_ignore_result=True)
    return celery


def scenario_of(app: Flask, start: Start[object], call: str) -> object:
    ends: list[object] = []
    app.teardown_appcontext(lambda exc: ends.append(g.get("of_the_task")))

    @celery_of(app).task(name="tests.field.look")
    def look() -> object:
        seen = current_app.name, sorted(g), has_request_context()
        g.of_the_task = True
        return seen

    def work() -> object:
        result = getattr(look, call)()
        return (result if call == "__call__" else result.get()), ends.count(True)

    def view() -> object:
        g.user = "alice"
        return start(work), sorted(g)

    return in_view(app, view)


@pytest.mark.parametrize("call", ["delay", "apply", "__call__"])
def test_a_task_that_a_thread_runs_in_place_is_outside_of_a_request(
    unchanged: Compare, start: Start[object], call: str
) -> None:
    """Found in apps without a broker in development, and in tests."""
    seen = unchanged(lambda app: scenario_of(app, start, call))
    assert seen == ((("tests.field.app", [], False), 1), ["user"])


@pytest.mark.parametrize("call", ["delay", "apply", "__call__"])
def test_a_task_that_a_view_runs_in_place_is_what_it_was(unchanged: Compare, call: str) -> None:
    """Found in the same apps: before Flask 3.2 the view's request is seen in the task, from 3.2 on it is not."""
    (outcome, left) = t.cast(t.Any, unchanged(lambda app: scenario_of(app, lambda work: work(), call)))
    assert (outcome[0][:2], outcome[1], left) == (("tests.field.app", []), 1, ["user"])
