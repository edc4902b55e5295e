"""Celery's tasks whose class has a ``__call__`` of its own, as Flask's documentation shows: on a real worker."""

from __future__ import annotations

import contextlib
import gc
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
from flask import Flask, g

import flaskthreads_autopatch

from . import shop
from .servers import program
from .test_celery import SEEN_OF_ALICE, assert_of_alice, celery_app, redis_url, result, run_as_a_worker_does

pytestmark = [pytest.mark.celery, pytest.mark.redis]

__all__ = ["redis_url"]

FILLED = ["documented", "documented before", "base", "helper"]
"""The patterns that push an app context of their own."""

PATTERNS = [*FILLED, "request", "noticing", "none"]

SIGNALS = ["appcontext-pushed", "appcontext-tearing-down", "appcontext-popped"]


class Worker(t.NamedTuple):
    pattern: str
    broker: str

    def run(self, app: Flask, name: str, *args: t.Any) -> t.Any:
        return result(celery_app(app, self.broker).send_task(f"own.{name}", args))


@pytest.fixture(scope="module", params=PATTERNS)
def worker(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    # A database for each: they have the same queues.
    broker = redis_url.replace("/0", f"/{3 + PATTERNS.index(request.param)}")
    command = [sys.executable, "-m", "celery", "--app", "tests.remote.documented", "worker", "--loglevel", "INFO"]
    environ = {"TESTS_REMOTE_BROKER": broker, "TESTS_REMOTE_PATTERN": request.param, "TESTS_REMOTE_PUSHED": "1"}
    with program([*command], tmp_path_factory.mktemp("worker") / "log", **environ):
        yield Worker(request.param, broker)


def without_task_id(entries: dict[str, t.Any]) -> dict[str, t.Any]:
    return {name: value for name, value in entries.items() if name != "task_id"}


def test_g_and_the_request_are_there(app: Flask, worker: Worker) -> None:
    for name in ("look", "shared"):
        with shop.in_request(app):
            shop.preprocess(app)
            seen = worker.run(app, name)
        assert ("task_id" in seen["g"]) is (worker.pattern in ("base", "helper", "noticing"))
        seen["g"] = without_task_id(seen["g"])
        if worker.pattern == "request":
            # The class has made a request of its own.
            assert (seen["g"], seen["url"], seen["headers"]) == (
                SEEN_OF_ALICE,
                "http://localhost/of-the-class",
                {"Host": "localhost"},
            )
        else:
            assert_of_alice(seen)
        # What is left over of whatever the worker was forked in is not there.
        alone = worker.run(app, name)
        assert (without_task_id(alone["g"]), "url" in alone) == ({}, worker.pattern == "request")


def test_the_teardown_runs_once(app: Flask, worker: Worker) -> None:
    with app.app_context():
        g.user_id = "alice"
        worker.run(app, "user")  # What a class does in a function of its own is seen when it does so.
        worker.run(app, "leave_torn_down")
        assert worker.run(app, "user") == "alice"
        of_one = [*["request"] * (worker.pattern == "request"), "last alice NoneType"]
        assert worker.run(app, "leave_torn_down") == of_one * 2
        worker.run(app, "leave_events")
        worker.run(app, "user")
        assert worker.run(app, "leave_events") == SIGNALS[1:] + SIGNALS


def test_a_retry_has_what_was_sent(app: Flask, worker: Worker) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        retries, seen = worker.run(app, "repeat")
        assert (retries, without_task_id(seen)) == (2, SEEN_OF_ALICE)


def test_what_a_task_calls_is_part_of_it(app: Flask, worker: Worker) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert worker.run(app, "walk", 2) == ["alice"] * 3
        user, seen, name = worker.run(app, "call_directly")
        assert (user, name) == ("alice", "shop")
        # As without us: such a class pushes another context, with nothing on g. (A request context would have the
        # same app context, before Flask 3.2.)
        if worker.pattern != "request":
            assert seen.get("user_id") == (None if worker.pattern in FILLED else "alice")


@pytest.fixture(params=[True, False], ids=["made before", "made after"])
def eager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Flask, t.Any]]:
    """The documented app in this process, its tasks made before or after `init_celery`."""
    from celery import _state

    from . import documented

    before = _state.default_app, _state._tls.current_app
    try:
        yield documented.create_app("documented", str(tmp_path), early=request.param, task_always_eager=True)
    finally:
        _state.default_app, _state._tls.current_app = before


def test_run_in_place_the_context_of_the_class_is_filled_from_the_callers(eager: tuple[Flask, t.Any]) -> None:
    app, celery_app = eager
    shop.leave_torn_down()
    with shop.in_request(app):
        shop.preprocess(app)
        seen = celery_app.tasks["own.look"].delay().get()
        assert seen["g"] == SEEN_OF_ALICE
        assert celery_app.tasks["own.user"].apply().get() == "alice"
        assert shop.leave_torn_down() == ["last alice NoneType"] * 2
        assert g.secret == "not named"
    shop.leave_torn_down()
    assert celery_app.tasks["own.look"].delay().get() == {"app": "shop", "g": {}}
    assert shop.leave_torn_down() == ["last None NoneType"]


def test_an_error_is_seen_by_the_handlers(eager: tuple[Flask, t.Any]) -> None:
    app, celery_app = eager
    shop.leave_torn_down()
    with app.app_context():
        g.user_id = "alice"
        with pytest.raises(KeyError):
            celery_app.tasks["own.fail"].apply().get()
        assert shop.leave_torn_down() == ["last alice KeyError"]


def test_it_appears_in_running_and_threads_inherit(eager: tuple[Flask, t.Any]) -> None:
    app, celery_app = eager

    @celery_app.task(name="own.running", shared=False)  # type: ignore[untyped-decorator]
    def running() -> list[t.Any]:
        return flaskthreads_autopatch.running()

    with app.app_context():
        g.user_id = "alice"
        [replay] = running.delay().get()
        assert (replay.inherited, replay.callable.rpartition(".")[2]) == (("user_id",), "running")
        assert celery_app.tasks["own.user_in_thread"].delay().get() == "alice"
    assert flaskthreads_autopatch.running() == []


def test_called_as_a_function_it_is_as_without_us(eager: tuple[Flask, t.Any]) -> None:
    app, celery_app = eager
    with app.app_context():
        g.user_id = "alice"
        assert celery_app.tasks["own.look"]()["g"] == {}
        assert celery_app.tasks["own.look"].run() == {"app": "shop", "g": {"user_id": "alice"}}


def test_a_kept_result_holds_no_context(eager: tuple[Flask, t.Any]) -> None:
    app, celery_app = eager
    app.teardown_appcontext_funcs.clear()
    fail = celery_app.task(shop.fail_and_note, name="own.fail_and_note", shared=False)
    for around in (app.app_context, contextlib.nullcontext):
        with around():
            g and vars(g).update(user_id="alice")
            gc.collect()
            gc.disable()
            try:
                kept = fail.apply()
            finally:
                gc.enable()
        assert kept.failed()
        assert shop.noted.pop()() is None


def test_contexts_that_a_task_forgets_are_torn_down_before_the_one_of_its_class(eager: tuple[Flask, t.Any]) -> None:
    app, celery_app = eager

    @celery_app.task(name="own.forget", shared=False)  # type: ignore[untyped-decorator]
    def forget() -> None:
        app.app_context().push()
        g.user_id = "forgotten"

    shop.leave_torn_down()
    with shop.in_request(app):
        shop.preprocess(app)
        forget.delay().get()
        assert shop.leave_torn_down() == ["last forgotten NoneType", "last alice NoneType"]
        assert g.user_id == "alice"
    run_as_a_worker_does(forget, '{"v":1,"g":{"user_id":"bob"}}')
    assert shop.leave_torn_down()[-2:] == ["last forgotten NoneType", "last bob NoneType"]
    assert not flask.has_app_context()
