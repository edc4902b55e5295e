"""Flask-Executor and Flask-Threads beside us: their tasks and threads have what they had."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable

import pytest
from flask import Flask, current_app, g, has_request_context, request, session

from ..helpers import LIMIT
from .helpers import FLASK_3_2, Compare, in_view

pytestmark = pytest.mark.extensions

Run = Callable[[t.Any, Callable[[int], object]], list[object]]


def look(number: int) -> object:
    """What a task sees, and what it leaves behind."""
    seen = number, current_app.name, sorted(g), has_request_context() and (request.path, session["cart"])
    g.of_the_task = number
    return seen


def as_alice(app: Flask, view: Callable[[], t.Any]) -> t.Any:
    def call() -> t.Any:
        g.user, session["cart"] = "alice", "1 book"
        return view(), sorted(g)

    return in_view(app, call)


# Flask-Executor


def submitted(executor: t.Any, task: Callable[[int], object]) -> list[object]:
    """Found in its documentation: ``executor.submit(fn)``."""
    return [executor.submit(task, number).result(LIMIT) for number in range(2)]


def mapped(executor: t.Any, task: Callable[[int], object]) -> list[object]:
    """Found in its documentation: ``executor.map(fn, items)``, which has one ``g`` for all items."""
    return list(executor.map(task, range(2)))


def stored(executor: t.Any, task: Callable[[int], object]) -> list[object]:
    """Found in its documentation: ``executor.submit_stored("key", fn)``, asked for later."""
    executor.submit_stored("key", task, 7)
    return [executor.futures.pop("key").result(LIMIT)]


def decorated(executor: t.Any, task: Callable[[int], object]) -> list[object]:
    """Found in its documentation: ``@executor.job``."""
    job = executor.job(task)
    return [job.submit(1).result(LIMIT)]


def called_back(executor: t.Any, task: Callable[[int], object]) -> list[object]:
    """Found in its documentation: ``future.add_done_callback(fn)``, which it gives the context as well."""
    seen: list[object] = []
    added, done = threading.Event(), threading.Event()

    def wait_and_run(number: int) -> object:
        added.wait(LIMIT)
        return task(number)

    def callback(future: t.Any) -> None:
        seen.append(look(2))
        done.set()

    executor.submit(wait_and_run, 1).add_done_callback(callback)
    added.set()
    assert done.wait(LIMIT)
    return seen


@pytest.mark.parametrize("run", [submitted, mapped, stored, decorated, called_back], ids=lambda run: run.__name__)
@pytest.mark.parametrize("push_app_context", [True, False], ids=["with g", "without g"])
def test_tasks_of_flask_executor_have_what_they_had(unchanged: Compare, run: Run, push_app_context: bool) -> None:
    """Found as each of the functions says, with EXECUTOR_PUSH_APP_CONTEXT on and off."""

    def scenario(app: Flask) -> object:
        from flask_executor import Executor

        app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_PUSH_APP_CONTEXT=push_app_context)
        executor = Executor(app)
        try:
            return as_alice(app, lambda: run(executor, look))
        finally:
            executor.shutdown()

    seen, left = unchanged(scenario)
    assert left == ["user"]
    # From Flask 3.2 on the copied request context comes with a g of its own.
    assert seen[0][2] == (["user"] if push_app_context and not FLASK_3_2 else [])
    assert seen[0][3] == ("/view", "1 book")


def test_errors_of_flask_executor_are_what_they_were(unchanged: Compare) -> None:
    """Found in its documentation: a task outside of a request fails, and a task's error is raised by its result."""

    def scenario(app: Flask) -> object:
        from flask_executor import Executor

        executor = Executor(app)
        errors: list[str] = []
        with app.app_context():
            try:
                executor.submit(int)
            except RuntimeError as error:
                errors.append(type(error).__name__)

        def view() -> None:
            errors.append(type(executor.submit(lambda: 1 / 0).exception(LIMIT)).__name__)

        in_view(app, view)
        executor.shutdown()
        return errors

    assert unchanged(scenario)[-1] == "ZeroDivisionError"


def test_flask_executor_closes_what_a_task_opens_where_it_did(unchanged: Compare) -> None:
    """Found in apps with ``get_db()``: a task's own teardown closes what is on the task's ``g``."""

    def scenario(app: Flask) -> object:
        from flask_executor import Executor

        app.config["EXECUTOR_MAX_WORKERS"] = 1
        executor = Executor(app)
        closed: list[object] = []

        @app.teardown_appcontext
        def close(exc: BaseException | None) -> None:
            if (db := g.pop("db", None)) is not None:
                closed.append((db.name, threading.current_thread() is threading.main_thread()))

        class Database:
            def __init__(self, name: str) -> None:
                self.name = name

        def task(number: int) -> object:
            g.db = Database(f"of task {number}")
            return closed.copy()

        def view() -> object:
            g.db = Database("of the view")
            seen = [executor.submit(task, number).result(LIMIT) for number in range(2)]
            return seen, g.db.name

        try:
            return in_view(app, view), closed
        finally:
            executor.shutdown()

    (seen, kept), closed = unchanged(scenario)
    assert kept == "of the view"
    if not FLASK_3_2:  # There a task's two contexts are torn down, and one of them has the view's g.
        assert seen == [[], [("of task 0", False)]]
        assert closed == [("of task 0", False), ("of task 1", False), ("of the view", True)]


# Flask-Threads

FLASK_THREADS = pytest.mark.skipif(FLASK_3_2, reason="Flask 3.2 refuses to pop a context in another thread")


@FLASK_THREADS
@pytest.mark.filterwarnings("default:'_app_ctx_stack' is deprecated")  # Flask 2.2 and 2.3 warn
def test_threads_of_flask_threads_have_the_context_object_of_the_view(unchanged: Compare) -> None:
    """Found in its documentation: ``AppContextThread``, joined by the view; it works on the view's own ``g``."""

    def scenario(app: Flask) -> object:
        from flaskthreads import AppContextThread

        def view() -> object:
            seen: list[object] = []
            for number in range(2):
                thread = AppContextThread(target=lambda number=number: seen.append((number, sorted(g))))
                thread.start()
                thread.join(LIMIT)
                g.between = number
            return seen

        return as_alice(app, view)

    assert unchanged(scenario) == ([(0, ["user"]), (1, ["between", "user"])], ["between", "user"])


@FLASK_THREADS
@pytest.mark.filterwarnings("default:'_app_ctx_stack' is deprecated")  # Flask 2.2 and 2.3 warn
def test_tasks_of_flask_threads_have_the_context_object_of_the_view(unchanged: Compare) -> None:
    """Found in its documentation: ``ThreadPoolWithAppContextExecutor``, whose tasks are waited for in the view."""

    def scenario(app: Flask) -> object:
        from flaskthreads import ThreadPoolWithAppContextExecutor

        def task(number: int) -> object:
            seen = number, current_app.name, sorted(g)
            g.of_the_task = number
            return seen

        def view() -> object:
            with ThreadPoolWithAppContextExecutor(max_workers=1) as pool:
                return [pool.submit(task, number).result(LIMIT) for number in range(2)]

        return as_alice(app, view)

    names = [["user"], ["of_the_task", "user"]]
    expected = [(number, "tests.field.app", names[number]) for number in range(2)]
    assert unchanged(scenario) == (expected, ["of_the_task", "user"])
