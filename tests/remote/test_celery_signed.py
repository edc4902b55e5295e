"""`init_celery(..., signed=True)`: what somebody can do who may write to the broker, on a real worker."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator

import pytest
from flask import Flask, g

from flaskthreads_autopatch import CarrierError

from . import shop
from .servers import program
from .test_celery import assert_of_alice, celery_app, redis_url, result, worker_command

pytestmark = [pytest.mark.celery, pytest.mark.redis]

__all__ = ["redis_url"]


@pytest.fixture(scope="module")
def broker(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = redis_url.replace("/0", "/2")
    log = tmp_path_factory.mktemp("worker") / "log"
    with (
        program(worker_command("--concurrency", "1"), log, TESTS_REMOTE_BROKER=url, TESTS_REMOTE_SIGNED="1"),
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        monkeypatch.setenv("TESTS_REMOTE_SIGNED", "1")
        yield url


@pytest.fixture
def sender(app: Flask, broker: str, monkeypatch: pytest.MonkeyPatch) -> t.Any:
    return celery_app(app, broker)


def test_what_is_signed_arrives_by_all_ways(app: Flask, sender: t.Any) -> None:
    from celery import chain, chord, group

    tasks = sender.tasks
    collect, look = tasks["collect"], tasks["look"]
    with shop.in_request(app):
        shop.preprocess(app)
        assert_of_alice(result(look.delay()))
        assert_of_alice(result(sender.send_task("look", (), {}, None, None, "an-id-of-its-own")))
        assert result(tasks["repeat"].delay()) == [2, {"user_id": "alice", "request_id": "r-1"}]
        assert result(tasks["repeat_with_header"].delay())[1] == {"user_id": "alice", "request_id": "r-1"}
        sent = [
            chain(collect.s(), collect.s()).delay(),
            group(look.s(), look.s()).delay(),
            chord([look.s(), look.s()], collect.s()).delay(),
            look.apply_async(link=collect.s()),
        ]
        replaced = tasks["replace"].delay()
    [[first], second] = result(sent[0])
    [headers, body] = result(sent[2])
    result(sent[3])
    [[_, linked]] = [result(child) for child in sent[3].children]
    for seen in (first, second, *result(sent[1]), *headers, body, linked):
        assert_of_alice(seen)
    assert result(replaced)["g"]["user_id"] == "replaced"
    # Without a context nothing is signed, and nothing is filled in.
    assert result(look.delay()) == {"app": "shop", "g": {}}


def test_an_errback_has_what_its_task_was_sent_with(app: Flask, sender: t.Any, broker: str) -> None:
    from redis import Redis

    with shop.in_request(app):
        shop.preprocess(app)
        sender.tasks["fail"].apply_async(link_error=sender.tasks["note_error"].s())
    with Redis.from_url(broker, socket_timeout=None) as redis:
        _, seen = t.cast(t.Any, redis.blpop(["errors"], timeout=120))
    assert_of_alice(json.loads(seen))


Message = dict[str, t.Any]


def forge_value(message: Message, other: Message) -> None:
    from flaskthreads_autopatch.integrations.celery import HEADER

    message["headers"][HEADER] = message["headers"][HEADER].replace("alice", "mallory")


def forge_everything(message: Message, other: Message) -> None:
    from flaskthreads_autopatch.integrations.celery import HEADER

    message["headers"][HEADER] = '{"v":1,"g":{"user_id":"mallory"}}'


def take_the_one_of_another_message(message: Message, other: Message) -> None:
    from flaskthreads_autopatch.integrations.celery import HEADER

    message["headers"][HEADER] = other["headers"][HEADER]


def name_another_task(message: Message, other: Message) -> None:
    message["headers"]["task"] = "look"


def name_another_id(message: Message, other: Message) -> None:
    message["headers"]["id"] = message["properties"]["correlation_id"] = other["headers"]["id"]


@pytest.mark.parametrize(
    "forge",
    [forge_value, forge_everything, take_the_one_of_another_message, name_another_task, name_another_id],
    ids=lambda forge: forge.__name__,
)
def test_a_forged_message_does_not_run(
    app: Flask, sender: t.Any, broker: str, forge: t.Callable[[Message, Message], None]
) -> None:
    from redis import Redis

    with app.app_context(), Redis.from_url(broker) as redis:
        messages = []
        for user in ("alice", "bob"):
            g.user_id = user
            sender.tasks["user"].apply_async(queue="on-its-way")
            messages.append(json.loads(t.cast(bytes, redis.lpop("on-its-way"))))
        forge(*messages)
        redis.lpush("celery", json.dumps(messages[0]))
        with pytest.raises(CarrierError, match="signature"):
            result(sender.AsyncResult(messages[0]["headers"]["id"]))
        assert result(sender.tasks["user"].delay()) == "bob"


def test_what_has_no_message_gets_nothing(app: Flask, sender: t.Any, broker: str) -> None:
    from celery import Celery

    from .celery_shop import settings

    other = Celery("other", set_as_current=False)
    other.conf.update(settings(broker))
    assert result(other.send_task("look")) == {"app": "shop", "g": {}}


def test_without_a_secret_key_delay_says_so(app: Flask, sender: t.Any) -> None:
    from flaskthreads_autopatch import NotPortableError

    app.secret_key = None
    with app.app_context(), pytest.raises(NotPortableError, match="needs a secret key"):
        g.user_id = "alice"
        sender.tasks["user"].delay()
