"""A replay has an app context of its own, and leaves nothing behind."""

from __future__ import annotations

import contextvars
import threading
import typing as t
import weakref
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from flask import Flask, appcontext_pushed, appcontext_tearing_down, g, request
from flask.globals import app_ctx

from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch import install, suppress_inheritance
from flaskthreads_autopatch.replay import replay

from .helpers import LIMIT, collectable, in_thread, snapshot_here


def test_child_has_an_app_context_of_its_own(installed: Flask) -> None:
    with installed.app_context() as parent:
        g.user = "alice"
        child, user, app = in_thread(lambda: (app_ctx._get_current_object(), g.user, flask.current_app.name))
        assert (user, app) == ("alice", installed.name)
        assert child is not parent
        assert app_ctx._get_current_object() is parent


def test_h1_overlapping_threads_each_pop_their_own_context(installed: Flask) -> None:
    all_in = threading.Barrier(4)

    def work(number: int) -> tuple[int, str]:
        g.number = number
        all_in.wait(LIMIT)  # every context is pushed before the first is popped
        return g.number, g.user

    with installed.app_context(), ThreadPoolExecutor(4) as pool:
        g.user = "alice"
        futures = [pool.submit(work, number) for number in range(4)]
        assert [future.result(LIMIT) for future in futures] == [(number, "alice") for number in range(4)]
        assert "number" not in g


def test_h2_the_next_request_on_the_same_thread_starts_clean(installed: Flask) -> None:
    @installed.get("/<user>")
    def view(user: str) -> str:
        seen = g.get("user", "nobody")
        g.user = user
        in_thread(lambda: g.user)
        return t.cast(str, seen)

    client = installed.test_client()
    assert [client.get(f"/{user}").text for user in ("alice", "bob")] == ["nobody", "nobody"]
    assert fc.active() is None


def test_h16_a_context_the_task_forgot_to_pop_does_not_stay(installed: Flask) -> None:
    other = Flask("other")
    torn_down: list[str] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(g.get("user", "nobody")))

    def forget(push: t.Callable[[], object]) -> None:
        g.user = "child"
        push()

    def left() -> tuple[bool, bool]:
        return flask.has_app_context(), flask.has_request_context()

    forgotten = [
        lambda: other.app_context().push(),
        lambda: other.test_request_context("/").push(),
        lambda: installed.test_request_context("/").push(),
        lambda: app_ctx.push(),
    ]
    with ThreadPoolExecutor(1) as pool:
        for context in (installed.app_context(), installed.test_request_context("/")):
            for push in forgotten:
                with context:
                    torn_down.clear()
                    pool.submit(forget, push).result(LIMIT)
                    assert torn_down[-1] == "child"
                assert pool.submit(left).result(LIMIT) == (False, False)


def test_h16_a_context_that_the_task_popped_itself_is_not_popped_twice(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    torn_down: list[bool] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(True))
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            pool.submit(lambda: app_ctx.pop()).result(LIMIT)
            assert torn_down == [True]
        assert pool.submit(flask.has_app_context).result(LIMIT) is False
    assert caplog.records == []


def test_h16_a_context_that_the_task_popped_in_copied_context_variables_is_torn_down_once(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    torn_down: list[bool] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(True))

    def task() -> None:
        ctx: t.Any = app_ctx._get_current_object()  # type: ignore[attr-defined]
        # Flask tears it down first, and then finds that its token belongs to other context variables.
        with pytest.raises(ValueError, match="was created in a different Context"):
            contextvars.copy_context().run(ctx.pop)

    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            pool.submit(task).result(LIMIT)
            assert torn_down == [True]
        assert pool.submit(flask.has_app_context).result(LIMIT) is False
    assert caplog.records == []


class Weak:
    """Can be referred to weakly, and is not plain."""


def fails() -> None:
    raise ValueError(g.entry)


@pytest.mark.skipif(not fc.REUSES_APP_CONTEXT, reason="Flask 3.2 has no request context to pop")
def test_h16_a_lent_request_that_the_task_popped_itself(installed: Flask) -> None:
    def task() -> str:
        flask.globals.request_ctx.pop()
        return "popped"

    with installed.test_request_context(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(task).result(LIMIT) == "popped"
        with suppress_inheritance():
            assert not pool.submit(flask.has_app_context).result(LIMIT)


def test_a_kept_exception_of_a_thread_holds_nothing(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: kept.append(args.exc_value))

    def start() -> list[weakref.ref[t.Any]]:
        with installed.test_request_context("/"):
            g.entry = Weak()
            thread = threading.Thread(target=raises)
            thread.start()
            thread.join(LIMIT)
            return [weakref.ref(g.entry), weakref.ref(request._get_current_object())]

    def raises() -> None:
        raise ValueError("kept")

    refs = start()
    assert collectable(*refs)
    assert [str(error) for error in kept] == ["kept"]


@pytest.mark.parametrize("work", [lambda: None, fails], ids=["returns", "raises"])
@pytest.mark.parametrize("share", [False, True])
def test_a_finished_thread_a_kept_future_and_a_living_worker_hold_nothing(
    app: Flask, work: t.Callable[[], None], share: bool
) -> None:
    install(app, share=share)
    with ThreadPoolExecutor(1) as pool:
        thread = threading.Thread(target=lambda: pool.submit(lambda: None).result(LIMIT))
        future, refs = start_in_a_request(app, pool, thread, work)
        assert future.done()
        assert not thread.is_alive()
        assert collectable(*refs)


def start_in_a_request(
    app: Flask, pool: ThreadPoolExecutor, thread: threading.Thread, work: t.Callable[[], None]
) -> tuple[t.Any, list[weakref.ref[t.Any]]]:
    with app.test_request_context("/"):
        g.entry = Weak()
        g.name = "plain"
        refs: list[weakref.ref[t.Any]] = [weakref.ref(g.entry), weakref.ref(app_ctx._get_current_object())]
        refs.append(weakref.ref(request._get_current_object()))
        thread.start()
        thread.join(LIMIT)
        future = pool.submit(work)
        future.add_done_callback(lambda future: g.get("entry"))
        if error := future.exception(30):
            error.args = ()
        pool.submit(lambda: None).result(LIMIT)
    return future, refs


@pytest.mark.parametrize("contextvars", [False, True])
def test_a_snapshot_is_replayed_any_number_of_times_at_once(installed: Flask, contextvars: bool) -> None:
    all_in = threading.Barrier(8)

    def work() -> str:
        all_in.wait(LIMIT)
        g.mine = threading.get_ident()
        all_in.wait(LIMIT)
        assert g.mine == threading.get_ident()
        return f"{g.user} {request.path}"

    with installed.test_request_context("/path"):
        g.user = "alice"
        snapshot = snapshot_here(contextvars=contextvars)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(replay, snapshot, work, (), {}) for _ in range(8)]
        assert {future.result(LIMIT) for future in futures} == {"alice /path"}


@pytest.mark.parametrize("lent", [False, True])
def test_a_replay_inside_somebody_elses_request_does_not_show_it(installed: Flask, lent: bool) -> None:
    seen: list[str] = []

    def note(*args: object, **kwargs: object) -> None:
        if flask.has_request_context():
            seen.append(request.path)

    with installed.test_request_context("/alices") if lent else installed.app_context():
        g.user = "alice"
        snapshot = snapshot_here()
    with installed.test_request_context("/bobs"):
        g.user = "bob"
        installed.teardown_appcontext(note)
        with appcontext_pushed.connected_to(note, installed), appcontext_tearing_down.connected_to(note, installed):
            user, path = replay(snapshot, lambda: (g.user, flask.has_request_context() and request.path), (), {})
        assert (user, path) == ("alice", "/alices" if lent else False)
        # From Flask 3.2 on, a teardown handler may read the request: that is alice's.
        assert seen == (["/alices", "/alices"] if lent and not fc.REUSES_APP_CONTEXT else [])
        assert (g.user, request.path) == ("bob", "/bobs")
