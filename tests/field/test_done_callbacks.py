"""A done-callback that is set off in a view, a command or a context that a thread has pushed runs in that one (H27).

``cancel()``, ``set_result()``, ``set_exception()`` and ``shutdown(cancel_futures=True)`` call it in the thread of their
caller. Without us it ran there and then, and nothing was torn down.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
from flask import Flask, g, has_app_context, has_request_context, request

from ..helpers import LIMIT, in_thread
from .helpers import Compare, in_view

Promise = Future[t.Any]
Callback = Callable[[Promise], object]
SetOff = Callable[[Callback], object]
Event = t.Any


@contextlib.contextmanager
def busy_pool() -> Iterator[ThreadPoolExecutor]:
    """A pool whose one worker is busy, so that what is submitted waits and can be cancelled."""
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(LIMIT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        assert started.wait(LIMIT)
        try:
            yield pool
        finally:
            go_on.set()


# Each sets a callback off in the thread of its caller.


def cancelled(callback: Callback) -> None:
    """Found in search views that ask several suppliers and cancel the rest."""
    with busy_pool() as pool:
        future = pool.submit(int)
        future.add_done_callback(callback)
        assert future.cancel()


def shut_down(callback: Callback) -> None:
    """Found in views that give up: ``executor.shutdown(wait=False, cancel_futures=True)``."""
    with busy_pool() as pool:
        pool.submit(int).add_done_callback(callback)
        pool.shutdown(wait=False, cancel_futures=True)


def resolved(callback: Callback) -> None:
    """Found in in-process event buses, whose promises are resolved by the code that has the answer."""
    promise = Promise()
    promise.add_done_callback(callback)
    promise.set_result("answer")


def failed(callback: Callback) -> None:
    """The same with ``set_exception``."""
    promise = Promise()
    promise.add_done_callback(callback)
    promise.set_exception(ValueError("no answer"))


def chained(callback: Callback) -> None:
    """Found in promise helpers: one future's callback resolves another one, whose callback does the work."""
    first, second = Promise(), Promise()
    second.add_done_callback(callback)
    first.add_done_callback(lambda _: second.set_result("answer"))
    first.set_result("answer")


def done_already(callback: Callback) -> None:
    """Found after every ``wait()``: the future is done, and the callback is called at once."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(int)
        wait([future], LIMIT)
    future.add_done_callback(callback)


SET_OFF: list[SetOff] = [cancelled, shut_down, resolved, failed, chained, done_already]


@pytest.fixture(params=SET_OFF, ids=lambda set_off: set_off.__name__)
def set_off(request: pytest.FixtureRequest) -> SetOff:
    """Set a callback off in this thread, in one of several ways."""
    return t.cast(SetOff, request.param)


class Database:
    """A thread-scoped session, removed by the app's teardown, as the documentation of SQLAlchemy has it for Flask."""

    def __init__(self, app: Flask) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.orm import scoped_session, sessionmaker
        from sqlalchemy.pool import QueuePool

        path = f"{app.instance_path}.sqlite"
        self.text = text
        self.engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool)
        self.session = scoped_session(sessionmaker(self.engine))
        self.removed: list[int] = []
        with self.engine.begin() as connection:
            connection.execute(text("create table item (name text)"))

        @app.teardown_appcontext
        def remove(exc: BaseException | None) -> None:
            self.removed.append(threading.get_ident())
            self.session.remove()

    def add(self, name: str) -> None:
        self.session.execute(self.text("insert into item values (:name)"), {"name": name})

    def names(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.scalars(self.text("select name from item")))

    def close(self) -> None:
        self.session.remove()
        self.engine.dispose()


def observed(database: Database, set_off: SetOff) -> dict[str, Event]:
    """What is left of a transaction in the midst of which a callback is set off in the same thread."""
    session = database.session()
    order: list[str] = []
    before = database.removed.count(threading.get_ident())

    def callback(future: Promise) -> None:
        order.append("callback")
        database.add("by the callback")
        g.called = g.get("called", 0) + 1

    g.user = "alice"
    database.add("before")
    order.append("before")
    set_off(callback)
    order.append("after")
    outcome = {
        "order": order,
        "torn down": database.removed.count(threading.get_ident()) - before,
        "same session": database.session() is session,
        "g": sorted(g),
    }
    database.session.commit()
    return {**outcome, "names": database.names()}


WITHOUT_US = {
    "order": ["before", "callback", "after"],
    "torn down": 0,
    "same session": True,
    "g": ["called", "user"],
    "names": ["before", "by the callback"],
}


def test_h27_a_callback_set_off_by_a_view_runs_in_the_view(unchanged: Compare, set_off: SetOff) -> None:
    """Found as each of the functions says, in apps with SQLAlchemy's thread-scoped ``scoped_session``."""

    def scenario(app: Flask) -> object:
        with contextlib.closing(Database(app)) as database:
            return in_view(app, lambda: observed(database, set_off))

    assert unchanged(scenario) == WITHOUT_US


def test_h27_one_set_off_by_a_command_runs_in_the_command(unchanged: Compare, set_off: SetOff) -> None:
    """Found in commands and scripts: ``with app.app_context():`` around a pool."""

    def scenario(app: Flask) -> object:
        with contextlib.closing(Database(app)) as database, app.app_context():
            return observed(database, set_off)

    assert unchanged(scenario) == WITHOUT_US


@pytest.mark.parametrize("kind", ["app", "request"])
def test_h27_one_set_off_in_a_context_that_a_thread_has_pushed_runs_there(
    unchanged: Compare, set_off: SetOff, kind: str
) -> None:
    """Found in import jobs of a thread with ``with app.app_context():`` or ``with app.test_request_context():``."""

    def scenario(app: Flask) -> object:
        def work() -> object:
            with app.app_context() if kind == "app" else app.test_request_context("/own"):
                return observed(database, set_off)

        with contextlib.closing(Database(app)) as database:
            return in_view(app, lambda: in_thread(work))

    assert unchanged(scenario) == WITHOUT_US


def test_h27_one_set_off_by_another_view_runs_there(unchanged: Compare) -> None:
    """Found in long-polling: a waiting view has added a callback, and the view of the one who posts resolves it."""

    def scenario(app: Flask) -> object:
        promises: list[Promise] = []
        seen: list[Event] = []

        @app.get("/wait")
        def wait_for_it() -> str:
            g.user = "alice"
            promises.append(Promise())
            promises[0].add_done_callback(lambda _: seen.append((g.get("user"), request.path)))
            return "waits"

        @app.get("/post")
        def post() -> str:
            g.user = "bob"
            seen.append("before")
            promises[0].set_result("news")
            seen.append("after")
            return "posted"

        client = app.test_client()
        client.get("/wait")
        client.get("/post")
        return seen

    assert unchanged(scenario) == ["before", ("bob", "/post"), "after"]


def test_h27_one_that_raises_is_logged_and_the_view_goes_on(
    unchanged: Compare, caplog: pytest.LogCaptureFixture
) -> None:
    """Found everywhere: `concurrent.futures` logs what a callback raises."""

    def scenario(app: Flask) -> object:
        def view() -> object:
            caplog.clear()
            cancelled(lambda _: 1 // 0)
            return [(record.name, record.exc_info and record.exc_info[0]) for record in caplog.records]

        return in_view(app, view)

    assert unchanged(scenario) == [("concurrent.futures", ZeroDivisionError)]


def test_h27_in_a_thread_without_a_context_of_its_own_nothing_is_removed_either(
    unchanged: Compare, set_off: SetOff
) -> None:
    """Found in threads that use a thread-scoped session and no context at all, and set their own callbacks off."""

    def scenario(app: Flask) -> object:
        database = Database(app)

        def work() -> object:
            session = database.session()
            database.add("before")
            order = ["before"]

            def callback(future: Promise) -> None:
                order.append("callback")
                database.add("by the callback")

            set_off(callback)
            order.append("after")
            same = database.session() is session
            database.session.commit()
            return order, same

        with contextlib.closing(database):
            outcome = in_view(app, lambda: in_thread(work))
            return outcome, database.names()

    expected = (["before", "callback", "after"], True)
    assert unchanged(scenario) == (expected, ["before", "by the callback"])


# With us on only: where no context of the user's is active, the callback has the one of the code that has added it.


def test_h27_one_set_off_by_a_worker_has_the_context_of_the_view(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in every use of ``submit(...).add_done_callback``; without us no context is active in the worker."""

    def scenario(app: Flask) -> object:
        ends: list[int] = []
        app.teardown_appcontext(lambda exc: ends.append(threading.get_ident()))

        def view() -> object:
            g.user = "alice"
            outcome = Promise()

            def look(future: Promise) -> None:
                outcome.set_result(has_app_context() and (g.user, request.path))

            go_on = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                worker = pool.submit(threading.get_ident).result(LIMIT)
                ends.clear()
                future = pool.submit(go_on.wait, LIMIT)
                future.add_done_callback(look)
                go_on.set()
                seen = outcome.result(LIMIT)
            return seen, [end == worker for end in ends]

        return in_view(app, view)

    off, on = off_and_on(scenario)
    assert off == (False, [])
    assert on == (("alice", "/view"), [True, True])  # the task's, and the callback's


def test_h27_one_set_off_in_somebody_elses_thread_has_the_context_of_the_adder(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in long-polling, resolved by a thread of the one who posts; without us no context is active there."""

    def scenario(app: Flask) -> object:
        promise = Promise()
        seen: list[Event] = []

        @app.get("/wait")
        def wait_for_it() -> str:
            g.user = "alice"
            promise.add_done_callback(lambda _: seen.append(has_app_context() and (g.user, request.path)))
            return "waits"

        @app.get("/post")
        def post() -> str:
            g.user = "bob"

            def resolve() -> None:
                seen.append(has_app_context() and g.user)
                promise.set_result("news")
                seen.append(has_app_context() and g.user)

            in_thread(resolve)
            return "posted"

        client = app.test_client()
        client.get("/wait")
        client.get("/post")
        return seen

    off, on = off_and_on(scenario)
    assert off == [False] * 3
    assert on == ["bob", ("alice", "/wait"), "bob"]


def test_h27_after_it_the_worker_is_clean(unchanged: Compare) -> None:
    """Found in no code, but in what every pool must be: without a context between its tasks."""

    def scenario(app: Flask) -> object:
        with ThreadPoolExecutor(1) as pool:

            def view() -> None:
                go_on = threading.Event()
                future = pool.submit(go_on.wait, LIMIT)
                future.add_done_callback(lambda _: None)
                go_on.set()

            in_view(app, view)
            return pool.submit(lambda: (has_app_context(), has_request_context())).result(LIMIT)

    assert unchanged(scenario) == (False, False)
