"""The contract on RQ, with real workers. RQ is imported by the fixtures: what is deselected needs no RQ."""

from __future__ import annotations

import datetime
import json
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
from flask import Flask, g

from flaskthreads_autopatch import CarrierError, NotPortableError

from ..helpers import LIMIT
from . import shop
from .overlapping import assert_no_mix_up
from .servers import program, redis_server

pytestmark = pytest.mark.rq

SEEN_OF_ALICE = {"user_id": "alice", "request_id": "r-1"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def redis(url: str) -> Iterator[t.Any]:
    from redis import Redis

    with Redis.from_url(url, socket_timeout=None) as connection:
        yield connection


def worker_command(url: str, *queues: str, job: str = "ShopJob", worker: str = "Worker") -> list[object]:
    classes = ["--job-class", f"tests.remote.rq_shop.{job}", "--worker-class", f"rq.worker.{worker}"]
    return [sys.executable, "-m", "rq.cli", "worker", "--url", url, *classes, *queues]


@pytest.fixture(scope="module", params=["Worker", "SimpleWorker"])
def worker(request: pytest.FixtureRequest, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A worker that forks for each job, or runs jobs itself. Its log."""
    log = tmp_path_factory.mktemp("worker") / "log"
    command = worker_command(url, request.param, worker=request.param)
    with program([*command, "--with-scheduler"], log):
        yield log


@pytest.fixture
def queue(redis: t.Any, worker: Path, request: pytest.FixtureRequest) -> t.Any:
    return queue_of(redis, request.node.callspec.params["worker"])


def queue_of(redis: t.Any, name: str, job: str = "ShopJob", **options: t.Any) -> t.Any:
    from rq import Queue

    from . import rq_shop

    redis.delete("notes")
    return Queue(name, connection=redis, job_class=getattr(rq_shop, job), **options)


def result(job: t.Any) -> t.Any:
    found = job.latest_result(timeout=LIMIT)
    assert found is not None
    assert found.type == found.Type.SUCCESSFUL, found.exc_string
    return found.return_value


def failure(job: t.Any) -> str:
    found = job.latest_result(timeout=LIMIT)
    assert found is not None
    assert found.type == found.Type.FAILED
    return t.cast(str, found.exc_string)


def noted(redis: t.Any, number: int = 1) -> list[t.Any]:
    """The next notes that jobs have made."""
    return [json.loads(redis.blpop(["notes"], timeout=LIMIT)[1]) for _ in range(number)]


def assert_of_alice(seen: dict[str, t.Any]) -> None:
    assert seen["g"] == SEEN_OF_ALICE
    assert seen["headers"] == {"Host": "shop.example", "X-Request-Id": "r-1"}
    assert (seen["endpoint"], seen["root"], seen["session"]) == ("order", "/mounted", {})


def test_a_job_sees_what_is_named_and_nothing_else(app: Flask, queue: t.Any) -> None:
    from . import rq_shop

    with shop.in_request(app):
        shop.preprocess(app)
        jobs = [queue.enqueue(fn) for fn in (shop.look, "tests.remote.shop.look", shop.Orders.of_user)]
        jobs += [queue.enqueue(fn) for fn in (rq_shop.look_async, shop.user_in_thread)]
        jobs += queue.enqueue_many([queue.prepare_data(shop.user_and, [7])])
        assert_of_alice(result(jobs[0]))
        assert_of_alice(result(jobs[1]))
        assert list(map(result, jobs[2:])) == ["Orders of alice", SEEN_OF_ALICE, "alice", ("alice", 7)]
    assert result(queue.enqueue(shop.look)) == {"app": "shop", "g": {}}


def test_logs_and_dashboards_show_the_function(app: Flask, queue: t.Any, worker: Path) -> None:
    from rq.job import Job

    with shop.in_request(app):
        shop.preprocess(app)
        meta = {"mine": 1}
        job = queue.enqueue(shop.user_and, 7, meta=meta)
        assert list(result(job)) == ["alice", 7]
    # As any other program reads it, with RQ's own class.
    plain = Job.fetch(job.id, connection=queue.connection)
    assert (plain.func_name, plain.description) == ("tests.remote.shop.user_and", "tests.remote.shop.user_and(7)")
    assert plain.meta == meta == {"mine": 1}
    log = worker.read_text()
    assert f"tests.remote.shop.user_and(7) ({job.id})" in log
    assert "alice" not in log


def test_a_dependent_job_has_the_context_in_which_it_was_enqueued(app: Flask, queue: t.Any, redis: t.Any) -> None:
    from . import rq_shop

    with app.app_context():
        g.user_id = "alice"
        first = queue.enqueue(rq_shop.attempt, 1)
        g.user_id = "bob"
        second = queue.enqueue(shop.user, depends_on=first)
        assert result(second) == "bob"
    assert noted(redis) == ["alice"]


def test_a_scheduled_job_has_the_context_in_which_it_was_scheduled(app: Flask, queue: t.Any) -> None:
    soon = datetime.timedelta(milliseconds=1)
    with shop.in_request(app):
        shop.preprocess(app)
        jobs = queue.enqueue_in(soon, shop.look), queue.enqueue_at(datetime.datetime.now() + soon, shop.look)
    for job in jobs:
        assert_of_alice(result(job))


def test_each_attempt_starts_from_what_was_enqueued(app: Flask, queue: t.Any, redis: t.Any) -> None:
    from rq import Repeat, Retry, requeue_job

    from . import rq_shop

    with app.app_context():
        g.user_id = "alice"
        queue.enqueue(rq_shop.attempt, 3, retry=Retry(max=2))
        assert noted(redis, 3) == ["alice"] * 3
        queue.enqueue(rq_shop.attempt, 2, retry=Retry(max=1, interval=1))
        assert noted(redis, 2) == ["alice"] * 2
        queue.enqueue(rq_shop.attempt_by_value, 3)
        assert noted(redis, 3) == ["alice"] * 3
        queue.enqueue(rq_shop.attempt, 1, repeat=Repeat(times=2))
        assert noted(redis, 3) == ["alice"] * 3
        failed = queue.enqueue(rq_shop.attempt, 2)
        failure(failed)
    # By a dashboard, which knows nothing of us.
    requeue_job(failed.id, connection=redis)
    assert noted(redis, 2) == ["alice"] * 2


def test_callbacks_run_in_a_context_like_the_jobs(app: Flask, queue: t.Any, redis: t.Any) -> None:
    from rq import Callback

    from . import rq_shop

    callbacks = {"on_success": Callback(rq_shop.succeeded), "on_failure": Callback(rq_shop.failed)}
    with shop.in_request(app):
        shop.preprocess(app)
        queue.enqueue(shop.user, **callbacks)
        assert noted(redis) == [["succeeded", "alice", "shop", SEEN_OF_ALICE]]
        job = queue.enqueue(shop.fail, **callbacks)
        assert noted(redis) == [["failed", "KeyError", "shop", SEEN_OF_ALICE]]
    assert "KeyError: 'alice'" in failure(job)
    refused = queue.enqueue(shop.look, on_success=Callback(rq_shop.never_called))
    assert "Coroutine" in failure(refused)


def test_a_job_that_runs_too_long_is_torn_down_and_the_next_one_is_served(app: Flask, queue: t.Any) -> None:
    from . import rq_shop

    with app.app_context():
        g.user_id = "alice"
        assert "JobTimeoutException" in failure(queue.enqueue(rq_shop.loop, job_timeout=1))
        assert result(queue.enqueue(shop.user)) == "alice"
    assert result(queue.enqueue(shop.look)) == {"app": "shop", "g": {}}


def test_what_another_program_enqueues_gets_an_app_context(queue: t.Any) -> None:
    from rq import Queue

    assert result(Queue(queue.name, connection=queue.connection).enqueue(shop.look)) == {"app": "shop", "g": {}}


def test_a_callback_of_a_stopped_job_has_the_context_of_the_job(
    app: Flask, url: str, redis: t.Any, tmp_path: Path
) -> None:
    from rq import Callback
    from rq.command import send_stop_job_command

    from . import rq_shop

    queue = queue_of(redis, "stopped")
    with program(worker_command(url, "stopped"), tmp_path / "log"), app.app_context():
        g.user_id = "alice"
        job = queue.enqueue(rq_shop.note_and_loop, on_stopped=Callback(rq_shop.stopped))
        assert noted(redis) == ["started"]
        send_stop_job_command(redis, job.id)
        assert noted(redis) == [["stopped", "shop", {"user_id": "alice"}]]
        assert result(queue.enqueue(shop.user)) == "alice"


def test_a_worker_that_starts_a_new_python_for_each_job(app: Flask, url: str, redis: t.Any, tmp_path: Path) -> None:
    from rq import Retry

    from . import rq_shop

    queue = queue_of(redis, "spawned")
    with program(worker_command(url, "spawned", worker="SpawnWorker"), tmp_path / "log"):
        with shop.in_request(app):
            shop.preprocess(app)
            assert_of_alice(result(queue.enqueue(shop.look)))
            queue.enqueue(rq_shop.attempt, 2, retry=Retry(max=1))
        assert noted(redis, 2) == ["alice"] * 2
        assert result(queue.enqueue(shop.look)) == {"app": "shop", "g": {}}


def test_each_handler_runs_once_with_the_error_of_the_job(app: Flask, url: str, redis: t.Any, tmp_path: Path) -> None:
    queue = queue_of(redis, "one-process")
    with program(worker_command(url, "one-process", worker="SimpleWorker"), tmp_path / "log"), app.app_context():
        g.user_id = "alice"
        result(queue.enqueue(shop.leave_torn_down))
        result(queue.enqueue(shop.user))
        assert result(queue.enqueue(shop.leave_torn_down)) == ["first", "last alice NoneType"] * 2
        failure(queue.enqueue(shop.fail))
        assert result(queue.enqueue(shop.leave_torn_down))[2:] == ["first", "last alice KeyError"]


def test_the_app_of_a_path_is_loaded_where_the_job_runs(app: Flask, url: str, redis: t.Any, tmp_path: Path) -> None:
    queue = queue_of(redis, "loading", "LoadingJob")
    with program(worker_command(url, "loading", job="LoadingJob"), tmp_path / "log"), app.app_context():
        g.user_id = "alice"
        assert result(queue.enqueue(shop.user)) == "alice"
        loaded_in, pid = result(queue.enqueue(shop.loaded_in))
        assert loaded_in == pid


@pytest.mark.parametrize(("worker_class", "each"), [("Worker", 10), ("SimpleWorker", 40)])
def test_jobs_of_fifty_overlapping_requests_are_not_mixed_up(
    app: Flask, url: str, redis: t.Any, tmp_path: Path, worker_class: str, each: int
) -> None:
    name = f"many-{worker_class}"
    queue = queue_of(redis, name)
    command = worker_command(url, name, worker=worker_class)
    with program(command, tmp_path / "one"), program(command, tmp_path / "two"):

        def run(count: int) -> list[t.Any]:
            return [result(job) for job in [queue.enqueue(shop.look) for _ in range(count)]]

        assert_no_mix_up(app, run, each)


def test_beside_flask_rq(url: str, redis: t.Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from . import rq_shop

    monkeypatch.setenv("TESTS_REMOTE_BROKER", url)
    app = rq_shop.create_flask_rq_app()
    app.teardown_appcontext_funcs.clear()
    command = [sys.executable, "-m", "flask", "--app", "tests.remote.rq_shop:create_flask_rq_app", "rq", "worker"]
    with program([*command], tmp_path / "log", TESTS_REMOTE_BROKER=url):
        with shop.in_request(app):
            shop.preprocess(app)
            first = rq_shop.flask_rq.queue.enqueue(shop.look)
            second = rq_shop.flask_rq.job(shop.user_and).enqueue(7)
            third = rq_shop.flask_rq.queue.enqueue(rq_shop.look_async, depends_on=second)
            assert_of_alice(result(first))
            assert [list(result(second)), result(third)] == [["alice", 7], SEEN_OF_ALICE]
        with app.app_context():
            assert result(rq_shop.flask_rq.queue.enqueue(shop.look)) == {"app": "shop", "g": {}}
    assert "tests.remote.shop.user_and(7)" in (tmp_path / "log").read_text()


def test_a_worker_process_that_dies_is_named_and_later_jobs_are_served(
    app: Flask, url: str, redis: t.Any, tmp_path: Path
) -> None:
    queue = queue_of(redis, "dies")
    with program(worker_command(url, "dies"), tmp_path / "log"), app.app_context():
        g.user_id = "alice"
        assert "Work-horse terminated unexpectedly" in failure(queue.enqueue(shop.end_process))
        assert result(queue.enqueue(shop.user)) == "alice"


def test_what_a_job_enqueues_carries_what_is_there_by_then(app: Flask, url: str, redis: t.Any, tmp_path: Path) -> None:
    from . import rq_shop

    queue = queue_of(redis, "more")
    with program(worker_command(url, "more"), tmp_path / "log"), app.app_context():
        g.user_id = "alice"
        job = queue.enqueue(rq_shop.enqueue_more, "bob")
        assert result(queue.fetch_job(result(job))) == "bob"


Stored = dict[bytes, bytes]
FIELD = b"flaskthreads_autopatch"


def forge_value(stored: Stored, other: Stored) -> None:
    stored[FIELD] = stored[FIELD].replace(b"alice", b"mallory")


def forge_everything(stored: Stored, other: Stored) -> None:
    stored[FIELD] = b'{"v":1,"g":{"user_id":"mallory"}}'


def take_the_one_of_another_job(stored: Stored, other: Stored) -> None:
    stored[FIELD] = other[FIELD]


def write_what_is_no_text(stored: Stored, other: Stored) -> None:
    stored[FIELD] = b"\xff\x00"


FORGERIES = [forge_value, forge_everything, take_the_one_of_another_job, write_what_is_no_text]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_message_of_a_signed_job_does_not_run(
    app: Flask, redis: t.Any, forge: t.Callable[[Stored, Stored], None]
) -> None:
    from rq import Callback, SimpleWorker

    from . import rq_shop

    queue = queue_of(redis, "signed", "SignedJob")
    jobs = []
    with app.app_context():
        for user in ("alice", "bob"):
            g.user_id = user
            jobs.append(queue.enqueue(rq_shop.attempt, 1, on_failure=Callback(rq_shop.failed)))
    stored = [redis.hgetall(job.key) for job in jobs]
    forge(*stored)
    redis.hset(jobs[0].key, mapping=stored[0])
    SimpleWorker([queue], connection=redis, job_class=rq_shop.SignedJob).work(burst=True, logging_level="ERROR")
    assert CarrierError.__name__ in failure(jobs[0])
    # The callback runs without what was forged, and the other job as it should.
    assert noted(redis, 2) == [["failed", "CarrierError", "shop", {}], "bob"]
    assert redis.llen("notes") == 0


def test_another_serializer_carries_it_too(app: Flask, redis: t.Any) -> None:
    from rq import SimpleWorker
    from rq.serializers import JSONSerializer

    from . import rq_shop

    queue = queue_of(redis, "json", serializer=JSONSerializer)
    with app.app_context():
        g.user_id = "alice"
        job = queue.enqueue(shop.user)
    classes = {"job_class": rq_shop.ShopJob, "serializer": JSONSerializer}
    SimpleWorker([queue], connection=redis, **classes).work(burst=True, logging_level="ERROR")
    assert result(job) == "alice"


def test_a_shared_meta_is_not_written_to(app: Flask, redis: t.Any) -> None:
    queue, meta = queue_of(redis, "meta"), {}
    with app.app_context():
        for user in ("alice", "bob"):
            g.user_id = user
            assert user in queue.enqueue(shop.user, meta=meta).to_dict()[FIELD.decode()]
    assert meta == {}


def test_in_place_a_job_runs_in_the_callers_context(app: Flask, redis: t.Any) -> None:
    from rq import Callback

    from . import rq_shop

    queue = queue_of(redis, "in-place", is_async=False)
    callbacks = {"on_success": Callback(rq_shop.succeeded), "on_failure": Callback(rq_shop.failed)}
    with shop.in_request(app):
        shop.preprocess(app)
        here = id(g._get_current_object())  # type: ignore[attr-defined]
        assert queue.enqueue(shop.context_outside, **callbacks).return_value() == (True, here)
        assert noted(redis)[0][3]["secret"] == "not named"
        queue.enqueue(shop.fail, **callbacks)
        assert noted(redis)[0][3]["secret"] == "not named"
    shop.leave_torn_down()
    assert queue.enqueue(shop.look, **callbacks).return_value() == {"app": "shop", "g": {}}
    assert shop.leave_torn_down() == ["first", "last None NoneType"] * 2
    assert noted(redis)[0][2:] == ["shop", {}]
    with Flask("another").test_request_context("/"):
        g.user_id = "mallory"
        assert queue.enqueue(shop.look).return_value() == {"app": "shop", "g": {}}
    assert not flask.has_app_context()


def test_what_is_not_portable_is_refused_by_enqueue(app: Flask, redis: t.Any) -> None:
    queue = queue_of(redis, "refused")
    with app.app_context():
        g.user_id = {1: "alice"}
        with pytest.raises(NotPortableError, match=r"g.user_id \(dict\)"):
            queue.enqueue(shop.user)
    assert queue.count == 0


@pytest.mark.parametrize("wrong", [{}, {"carrier": None}, {"carrier": "tests.remote.shop:create_app"}])
def test_a_class_without_a_carrier_says_so(redis: t.Any, wrong: dict[str, t.Any]) -> None:
    from flaskthreads_autopatch.integrations.rq import AppContextJob

    queue = queue_of(redis, "wrong")
    queue.job_class = type("OrderJob", (AppContextJob,), wrong)
    with pytest.raises(TypeError, match=r"^OrderJob.carrier is .*: allowed is a Carrier. Derive a class"):
        queue.enqueue(shop.user)
    assert queue.count == 0
