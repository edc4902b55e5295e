"""The explicit classes: with the patches and without, and what bad use gets."""

from __future__ import annotations

import contextlib
import sys
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from flask import Flask, g, request

from flaskthreads_autopatch import (
    AppContextThread,
    PolicyError,
    ThreadPoolWithAppContextExecutor,
    copy_current_app_context,
    enable,
    install,
    is_inherited,
    suppress_inheritance,
)

from .helpers import user, user_or_none


@pytest.fixture(params=["off", "on"])
def either(app: Flask, request: pytest.FixtureRequest) -> Flask:
    if request.param == "on":
        install(app)
    return app


@pytest.fixture
def replays(either: Flask) -> list[bool]:
    """One entry for each inherited context that was torn down."""
    torn_down: list[bool] = []
    either.teardown_appcontext(lambda exc: torn_down.append(True) if is_inherited() else None)
    return torn_down


class Thread(AppContextThread):
    seen: t.ClassVar[list[tuple[str, str]]]

    def run(self) -> None:
        self.seen.append((user(), request.path if flask.has_request_context() else ""))


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    Thread.seen = []


def test_app_context_thread(either: Flask, replays: list[bool]) -> None:
    seen: list[str] = []
    with either.test_request_context("/path"):
        g.user = "alice"
        for thread in (AppContextThread(target=lambda: seen.append(user()), name="named", daemon=True), Thread()):
            thread.start()
            thread.join(30)
    assert (seen, Thread.seen) == (["alice"], [("alice", "/path")])
    assert len(replays) == 2


def test_app_context_thread_started_outside_or_in_another_context(either: Flask, replays: list[bool]) -> None:
    with either.app_context():
        g.user = "where it was made"
        outside, other = Thread(), Thread()
    outside.start()
    outside.join(30)
    with either.app_context():
        g.user = "where it was started"
        with suppress_inheritance():  # not for what is explicit
            other.start()
        other.join(30)
    assert [user for user, _ in Thread.seen] == ["where it was made", "where it was started"]
    assert len(replays) == 2
    with either.app_context(), pytest.raises(RuntimeError, match="threads can only be started once"):
        other.start()
    assert "run" not in vars(other)


def test_app_context_thread_outside_a_context() -> None:
    with pytest.raises(RuntimeError, match=r"AppContextThread needs an app context.*with app\.app_context\(\)"):
        AppContextThread(target=print)


@pytest.mark.parametrize("inside", [True, False])
def test_app_context_thread_that_fails_to_start_can_be_started_later(
    either: Flask, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    starter = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"

    def no_more_threads(*args: object, **kwargs: object) -> t.NoReturn:
        raise RuntimeError("can't start new thread")

    with either.app_context():
        g.user = "where it was made"
        thread = Thread()
    with contextlib.ExitStack() as stack:
        if inside:
            stack.enter_context(either.app_context())
            g.user = "where it failed"
        patch = stack.enter_context(monkeypatch.context())
        patch.setattr(threading, starter, no_more_threads)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
    thread.start()
    thread.join(30)
    assert Thread.seen == [("where it was made", "")]


def test_executor(either: Flask, replays: list[bool]) -> None:
    with either.test_request_context("/path"), ThreadPoolWithAppContextExecutor(2, "named") as pool:
        g.user = "alice"
        assert pool.submit(lambda: (user(), request.path)).result(30) == ("alice", "/path")
        assert list(pool.map(lambda _: user(), range(3))) == ["alice"] * 3
        with suppress_inheritance():
            assert pool.submit(user).result(30) == "alice"
    assert len(replays) == 5


def test_executor_falls_back_to_the_context_it_was_made_in(either: Flask) -> None:
    with either.app_context():
        g.user = "where it was made"
        pool = ThreadPoolWithAppContextExecutor(1)
    with pool:
        assert pool.submit(user).result(30) == "where it was made"
        with either.app_context():
            g.user = "where it was submitted"
            assert pool.submit(user).result(30) == "where it was submitted"


def test_h15_the_executors_worker_holds_nobodys_context(either: Flask) -> None:
    with either.app_context():
        pool = ThreadPoolWithAppContextExecutor(1)
        pool.submit(user_or_none).result(30)  # starts the worker
    with pool:
        assert ThreadPoolExecutor.submit(pool, flask.has_app_context).result(30) is False


def test_executor_outside_a_context() -> None:
    with ThreadPoolWithAppContextExecutor(max_workers=1, initializer=int, initargs=()) as pool:
        with pytest.raises(RuntimeError, match="needs an app context to inherit"):
            pool.submit(user)
        with pytest.raises(RuntimeError, match="needs an app context to inherit"):
            pool.map(len, ["a"])


@pytest.mark.skipif(sys.version_info < (3, 14), reason="worker contexts came with Python 3.14")
def test_executor_takes_what_the_standard_librarys_takes() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        ThreadPoolWithAppContextExecutor(1, unknown=True)


def test_executor_transfers_exceptions(either: Flask) -> None:
    def fails() -> None:
        raise ValueError(g.user)

    with either.app_context(), ThreadPoolWithAppContextExecutor(1) as pool:
        g.user = "alice"
        with pytest.raises(ValueError, match="alice"):
            pool.submit(fails).result(30)
        assert pool.submit(user).result(30) == "alice"


def test_copy_current_app_context(either: Flask, replays: list[bool]) -> None:
    def work(*args: int, key: str) -> tuple[object, ...]:
        """Its doc."""
        return args, key, g.user

    with either.app_context():
        g.user = "alice"
        copied = copy_current_app_context(work)
    assert (copied.__name__, copied.__doc__) == ("work", "Its doc.")
    assert [copied(1, 2, key="x") for _ in range(2)] == [((1, 2), "x", "alice")] * 2
    with either.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "bob"
        assert copied(key="y") == ((), "y", "alice")
        assert pool.submit(copied, key="z").result(30) == ((), "z", "alice")
    assert len(replays) == 4


def test_copy_current_app_context_runs_a_coroutine_function(either: Flask) -> None:
    pytest.importorskip("asgiref")

    async def work() -> str:
        return user()

    with either.app_context():
        g.user = "alice"
        copied = copy_current_app_context(work)
    assert t.cast(str, copied()) == "alice"


def test_copy_current_app_context_outside_a_context() -> None:
    with pytest.raises(RuntimeError, match=r"copy_current_app_context\(\) needs an app context"):
        copy_current_app_context(print)


def test_nothing_explicit_inherits_from_a_context_that_is_torn_down(
    either: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    @either.teardown_appcontext
    def start_one(exc: BaseException | None) -> None:
        if is_inherited():
            AppContextThread(target=print).start()

    with either.app_context(), ThreadPoolWithAppContextExecutor(1) as pool:
        pool.submit(print).result(30)
    assert caplog.text.count("RuntimeError: AppContextThread needs an app context") == 1


def test_a_thread_started_in_a_teardown_runs_in_the_context_it_was_made_in(either: Flask) -> None:
    with either.app_context():
        g.user = "where it was made"
        thread = Thread()

    @either.teardown_appcontext
    def start(exc: BaseException | None) -> None:
        if is_inherited() and thread.ident is None:
            thread.start()

    with either.app_context(), ThreadPoolWithAppContextExecutor(1) as pool:
        pool.submit(print).result(30)
    thread.join(30)
    assert Thread.seen == [("where it was made", "")]


def test_the_policy_is_that_of_the_app(app: Flask) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = False
    with app.test_request_context("/"):
        assert copy_current_app_context(flask.has_request_context)() is False
        install(app, request=True)
        assert copy_current_app_context(flask.has_request_context)() is True
    with enable(share=True), Flask("other").app_context():
        assert copy_current_app_context(g._get_current_object)() is g._get_current_object()


def test_a_changed_config_counts_at_once_in_an_app_that_is_not_installed(app: Flask) -> None:
    def inherited() -> list[str]:
        with app.app_context():
            g.user, g.token, g.key = "alice", "s3cret", "k"
            return copy_current_app_context(lambda: sorted(g))()

    key = "FLASKTHREADS_AUTOPATCH_EXCLUDE"
    assert inherited() == inherited() == ["key", "token", "user"]
    app.config[key] = ["token"]
    assert inherited() == ["key", "user"]
    app.config[key].append("key")
    assert inherited() == ["user"]
    app.config["FLASKTHREADS_AUTOPATCH_SHAIR"] = True
    with pytest.raises(PolicyError, match="SHAIR"):
        inherited()
    del app.config["FLASKTHREADS_AUTOPATCH_SHAIR"], app.config[key]
    assert inherited() == ["key", "token", "user"]
