"""Celery over RabbitMQ, on real workers, and what the broker does with a header that is too large for it."""

from __future__ import annotations

import contextlib
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g

from flaskthreads_autopatch import NotPortableError

from . import shop
from .overlapping import assert_no_mix_up
from .servers import program, rabbitmq_server, redis_server
from .test_celery import SEEN_OF_ALICE, assert_of_alice, celery_app, one_at_a_time, result, worker_command

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """RabbitMQ, and Redis for the results, as `settings` of the shop takes them."""
    folder = tmp_path_factory.mktemp("servers")
    with rabbitmq_server(folder) as broker, redis_server(folder) as results:
        yield f"{broker} {results}"


@pytest.fixture
def connect(app: Flask, broker: str) -> Iterator[t.Callable[..., t.Any]]:
    """A function that makes the Celery app of this process. Its connections are closed at the end."""
    from kombu import pools

    with contextlib.ExitStack() as made:
        made.callback(pools.reset)
        yield lambda **config: made.enter_context(celery_app(app, broker, **config))


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A worker with four processes, or four threads. Its broker."""
    command = worker_command("--pool", request.param, "--concurrency", "4")
    with program(command, tmp_path_factory.mktemp("worker") / "log", TESTS_REMOTE_BROKER=broker):
        yield broker


@pytest.fixture
def tasks(worker: str, connect: t.Callable[..., t.Any]) -> t.Any:
    return connect().tasks


def test_a_task_sees_what_is_named_and_nothing_else(app: Flask, tasks: t.Any) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        assert_of_alice(result(tasks["look"].delay()))
        failed = tasks["fail"].delay()
        with pytest.raises(KeyError, match="alice"):
            result(failed)
        assert result(tasks["user_in_thread"].delay()) == "alice"
    assert result(tasks["look"].delay()) == {"app": "shop", "g": {}}


def test_tasks_are_not_mixed_up(app: Flask, tasks: t.Any) -> None:
    assert_no_mix_up(app, one_at_a_time(tasks["look"]))


def sent_now(celery: t.Any, queue: str, user_id: str) -> str | None:
    """The id of a task that is sent with *user_id* on ``g``; None if the connection is lost."""
    from amqp.exceptions import AMQPError

    g.user_id = user_id
    with contextlib.suppress(AMQPError, OSError):
        return t.cast(str, celery.tasks["user"].apply_async(queue=queue).id)
    return None


def waiting(celery: t.Any, queue: str) -> list[str]:
    """The ids of the tasks in *queue*, which is emptied."""
    with celery.connection_for_read() as connection:
        channel = connection.channel()
        messages = iter(lambda: channel.basic_get(queue, no_ack=True), None)
        return [message.headers["id"] for message in messages]


def declare(celery: t.Any, queue: str) -> None:
    with celery.connection_for_write() as connection:
        celery.amqp.queues.select_add(queue).bind(connection.channel()).declare()


def test_a_header_above_one_frame_loses_its_task_and_the_next_one(app: Flask, connect: t.Callable[..., t.Any]) -> None:
    """What RabbitMQ does, and the reason for *max_size*."""
    from flaskthreads_autopatch.integrations.celery import init_celery

    celery = connect()
    declare(celery, "too-large")
    init_celery(celery, app, g=("user_id",), max_size=1024 * 1024)
    with app.app_context():
        before = sent_now(celery, "too-large", "alice")
        large = sent_now(celery, "too-large", "a" * 128 * 1024)
        after = sent_now(celery, "too-large", "alice")
    assert large  # Sending it has raised nothing.
    arrived = waiting(celery, "too-large")
    assert (before in arrived, large in arrived, after in arrived) == (True, False, False)


def test_max_size_refuses_the_header_and_the_next_task_arrives(app: Flask, connect: t.Callable[..., t.Any]) -> None:
    celery = connect()
    declare(celery, "small-enough")
    with app.app_context():
        largest = sent_now(celery, "small-enough", "a" * (64 * 1024 - 100))
        with pytest.raises(NotPortableError, match=r"^g\.user_id \(str\) cannot be carried.* max_size=65536"):
            sent_now(celery, "small-enough", "a" * 128 * 1024)
        after = sent_now(celery, "small-enough", "alice")
    assert waiting(celery, "small-enough") == [largest, after]


def test_retries_chains_and_groups(app: Flask, tasks: t.Any) -> None:
    from celery import chain, group

    collect, look = tasks["collect"], tasks["look"]
    with shop.in_request(app):
        shop.preprocess(app)
        assert result(tasks["repeat"].delay()) == [2, SEEN_OF_ALICE]
        sent = chain(collect.s(), collect.s(), collect.s()).delay(), group(look.s(), look.s()).delay()
    [[[first], second], third] = result(sent[0])
    for seen in (first, second, third, *result(sent[1])):
        assert_of_alice(seen)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_documented_task_class(
    app: Flask, broker: str, connect: t.Callable[..., t.Any], tmp_path: Path, pool: str
) -> None:
    queue = f"documented-{pool}"
    command = [sys.executable, "-m", "celery", "--app", "tests.remote.documented", "worker", "--pool", pool]
    environ = {"TESTS_REMOTE_BROKER": broker, "TESTS_REMOTE_PATTERN": "documented", "TESTS_REMOTE_PUSHED": "1"}
    celery = connect(task_default_queue=queue)
    command += ["--hostname", f"{queue}@localhost", "--queues", queue]
    with program([*command], tmp_path / "log", **environ):
        with shop.in_request(app):
            shop.preprocess(app)
            assert_of_alice(result(celery.send_task("own.look")))
        assert result(celery.send_task("own.look")) == {"app": "shop", "g": {}}
