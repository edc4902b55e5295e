"""A thread that pushes a context and fills it by hand has exactly what it has put there.

With ``g`` copied by hand, with the parent's own ``g`` or context object, and in a pool whose workers each push a
context for good.
"""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from flask import Flask, current_app, g, has_app_context, has_request_context
from flask.globals import app_ctx

import flaskthreads_autopatch
from flaskthreads_autopatch import suppress_inheritance

from ..helpers import LIMIT, in_thread
from .helpers import FLASK_3_2, Compare, NewApp, Start, Work, in_view

Make = Callable[[Flask, Work[object]], Work[object]]


# Each is called in the view, and returns what calls *work* in a thread, in a context that it fills.


def copied_by_name(app: Flask, work: Work[object]) -> Work[object]:
    """Found in views that know what their job needs: ``user = g.user``, and ``g.user = user`` in the thread."""
    user = g.user

    def call() -> object:
        with app.app_context():
            g.user = user
            return work()

    return call


def copied_by_a_loop(app: Flask, work: Work[object]) -> Work[object]:
    """Found in helpers of many projects: ``for name in g: setattr(...)``."""
    values = {name: g.get(name) for name in g}

    def call() -> object:
        with app.app_context():
            for name, value in values.items():
                setattr(g, name, value)
            return work()

    return call


def copied_dictionary(app: Flask, work: Work[object]) -> Work[object]:
    """Found in the same helpers: ``g.__dict__.update(values)``."""
    values = vars(g._get_current_object()).copy()  # type: ignore[attr-defined]

    def call() -> object:
        with app.app_context():
            vars(g._get_current_object()).update(values)  # type: ignore[attr-defined]
            return work()

    return call


def copied_in_part(app: Flask, work: Work[object]) -> Work[object]:
    """Found where only some of it may cross: what is left out must be missing in the thread."""

    def call() -> object:
        with app.app_context():
            g.tenant = "acme"
            return work()

    return call


def the_parents_g(app: Flask, work: Work[object]) -> Work[object]:
    """Found in Flask-Executor and in helpers that were copied from it: ``ctx.g = g._get_current_object()``."""
    parents = g._get_current_object()  # type: ignore[attr-defined]

    def call() -> object:
        with app.app_context() as ctx:
            ctx.g = parents
            return work()

    return call


def the_parents_context(app: Flask, work: Work[object]) -> Work[object]:
    """Found in Flask-Threads and in answers that predate it: the view's own context object is pushed in the thread."""
    ctx = app_ctx._get_current_object()  # type: ignore[attr-defined]

    def call() -> object:
        with ctx:
            return work()

    return call


def the_parents_request_context(app: Flask, work: Work[object]) -> Work[object]:
    """Found in answers from before ``copy_current_request_context``: the request context's object is pushed."""
    ctx = flask.globals.request_ctx._get_current_object()  # type: ignore[attr-defined]

    def call() -> object:
        with ctx:
            return work()

    return call


MAKES = [
    copied_by_name,
    copied_by_a_loop,
    copied_dictionary,
    copied_in_part,
    the_parents_g,
    # Flask 3.2 refuses to pop a context in another thread than the one in which it was pushed first.
    *(() if FLASK_3_2 else (the_parents_context, the_parents_request_context)),
]


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_what_is_put_into_a_context_by_hand_is_what_is_there(unchanged: Compare, make: Make) -> None:
    """Found as each of the functions says."""

    def scenario(app: Flask) -> object:
        ends: list[object] = []
        app.teardown_appcontext(lambda exc: ends.append((threading.get_ident(), sorted(g))))

        def work() -> object:
            seen = sorted(g), current_app.name, has_request_context()
            g.of_the_thread = True
            return seen

        def view() -> object:
            g.user, g.items = "alice", ["book"]
            call = make(app, work)

            def run() -> object:
                seen = call()
                # With us on the thread has a teardown of its own later.
                return seen, [names for ident, names in ends if ident == threading.get_ident()]

            return in_thread(run), sorted(g)

        return in_view(app, view)

    (seen, ends), left = unchanged(scenario)
    shared = make in (the_parents_g, the_parents_context)
    expected = {copied_by_name: ["user"], copied_in_part: ["tenant"], the_parents_request_context: []}
    assert seen == (expected.get(make, ["items", "user"]), "tests.field.app", make is the_parents_request_context)
    assert left == (["items", "of_the_thread", "user"] if shared else ["items", "user"])
    assert len(ends) == (0 if make is the_parents_context else 1)


def test_two_threads_with_copies_of_their_own_do_not_see_each_other(unchanged: Compare, start: Start[object]) -> None:
    """Found in views that start a job per item, however the jobs are started."""

    def scenario(app: Flask) -> list[object]:
        def view() -> list[object]:
            g.user = "alice"

            def job(number: int) -> list[object]:
                with app.app_context():
                    g.number = number
                    return [sorted(g), g.number, has_request_context()]

            return [start(lambda number=number: job(number)) for number in (1, 2)]

        return in_view(app, view)

    assert unchanged(scenario) == [[["number"], 1, False], [["number"], 2, False]]


# A pool whose workers push a context for good


def tasks_of_a_pool_with_an_initializer(
    app: Flask, submit: Callable[[ThreadPoolExecutor, Work[object]], object]
) -> list[object]:
    """What two tasks see that a view submits to a pool whose initializer pushes an app context."""

    def initializer() -> None:
        app.app_context().push()
        g.worker = "worker"

    def task() -> object:
        g.tasks = g.get("tasks", 0) + 1
        return sorted(g), g.tasks, has_request_context()

    with ThreadPoolExecutor(1, initializer=initializer) as pool:
        pool.submit(int).result(LIMIT)

        def view() -> list[object]:
            g.user = "alice"
            return [submit(pool, task), submit(pool, task)]

        return in_view(app, view)


def submit_and_wait(pool: ThreadPoolExecutor, task: Work[object]) -> object:
    return pool.submit(task).result(LIMIT)


def test_a_task_inherits_also_where_the_worker_has_a_context(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in ``ThreadPoolExecutor(initializer=app.app_context().push)``; a task has the view's context instead."""
    off, on = off_and_on(lambda app: tasks_of_a_pool_with_an_initializer(app, submit_and_wait))
    assert off == [(["tasks", "worker"], 1, False), (["tasks", "worker"], 2, False)]
    assert on == [(["tasks", "user"], 1, True)] * 2


def test_way_out_tasks_that_are_to_have_the_workers_context(new_app: NewApp) -> None:
    """The way out in docs/inheritance.md: submit in ``suppress_inheritance()``."""
    app = new_app()
    flaskthreads_autopatch.install(app)

    def submit(pool: ThreadPoolExecutor, task: Work[object]) -> object:
        with suppress_inheritance():
            return submit_and_wait(pool, task)

    seen = tasks_of_a_pool_with_an_initializer(app, submit)
    assert seen == [(["tasks", "worker"], 1, False), (["tasks", "worker"], 2, False)]


def test_a_thread_that_runs_the_workers_own_loop_keeps_its_context(unchanged: Compare) -> None:
    """Found in hand-written pools, started at start-up: a thread that pushes once, and works for all requests."""

    def scenario(app: Flask) -> list[object]:
        import queue

        jobs: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
        results: queue.SimpleQueue[object] = queue.SimpleQueue()

        def loop() -> None:
            with app.app_context():
                for job in iter(jobs.get, None):
                    results.put(job())

        def job() -> object:
            g.jobs = g.get("jobs", 0) + 1
            return g.jobs, has_app_context(), has_request_context()

        thread = threading.Thread(target=loop)
        thread.start()

        def view() -> list[object]:
            g.user = "alice"
            jobs.put(job)
            jobs.put(job)
            return [results.get(timeout=LIMIT), results.get(timeout=LIMIT)]

        try:
            return in_view(app, view)
        finally:
            jobs.put(None)
            thread.join(LIMIT)

    assert unchanged(scenario) == [(1, True, False), (2, True, False)]
