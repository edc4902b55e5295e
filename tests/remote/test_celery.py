"""The contract on Celery: real workers, over Redis and over the file-system transport.

Celery is imported by the fixtures: what is deselected needs no Celery.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import sys
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
from flask import Flask, g

from flaskthreads_autopatch import NotPortableError

from ..helpers import LIMIT
from . import shop
from .overlapping import assert_no_mix_up
from .servers import program, redis_server

pytestmark = [pytest.mark.celery, pytest.mark.redis]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


def worker_command(*options: str) -> list[object]:
    return [
        sys.executable,
        "-m",
        "celery",
        "--app",
        "tests.remote.celery_shop",
        "worker",
        "--loglevel",
        "INFO",
        *options,
    ]


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A worker with one process, or one thread: one task can ask what the one before it has left. Its broker."""
    log = tmp_path_factory.mktemp("worker") / "log"
    command = worker_command("--pool", request.param, "--concurrency", "1")
    with program(command, log, TESTS_REMOTE_BROKER=redis_url):
        yield redis_url


@pytest.fixture
def tasks(app: Flask, worker: str) -> t.Any:
    """The tasks of the Celery app of this process."""
    return celery_app(app, worker).tasks


def celery_app(app: Flask, broker: str, **config: t.Any) -> t.Any:
    from . import celery_shop

    return celery_shop.create_celery(app, broker, **config)


def result(sent: t.Any) -> t.Any:
    return sent.get(timeout=LIMIT, interval=0.05)


SEEN_OF_ALICE = {"user_id": "alice", "request_id": "r-1"}


def assert_of_alice(seen: dict[str, t.Any]) -> None:
    assert seen["g"] == SEEN_OF_ALICE
    assert seen["headers"] == {"Host": "shop.example", "X-Request-Id": "r-1"}
    assert (seen["endpoint"], seen["root"], seen["session"]) == ("order", "/mounted", {})


def test_a_task_sees_what_is_named_and_nothing_else(app: Flask, tasks: t.Any) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        assert_of_alice(result(tasks["look"].delay()))
        assert_of_alice(result(tasks["look"].app.send_task("look")))
        assert result(tasks["user_in_thread"].delay()) == "alice"
    assert result(tasks["look"].delay()) == {"app": "shop", "g": {}}


def test_a_task_with_a_base_class_of_its_own(app: Flask, tasks: t.Any) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        assert result(tasks["own_base"].delay()) == ["own", "alice"]


def test_messages_of_other_programs_get_an_app_context(worker: str) -> None:
    from celery import Celery

    from .celery_shop import settings

    other = Celery("other", set_as_current=False)
    other.conf.update(settings(worker))
    assert result(other.send_task("look")) == {"app": "shop", "g": {}}
    assert result(other.send_task("look", headers={"theirs": 1})) == {"app": "shop", "g": {}}


def test_each_handler_runs_once(app: Flask, tasks: t.Any) -> None:
    with app.app_context():
        g.user_id = "alice"
        result(tasks["leave_torn_down"].delay())
        result(tasks["user"].delay())
        assert result(tasks["leave_torn_down"].delay()) == ["first", "last alice NoneType"] * 2
        failed = tasks["fail"].delay()
        with pytest.raises(KeyError, match="alice"):
            result(failed)
        assert result(tasks["leave_torn_down"].delay())[2:] == ["first", "last alice KeyError"]


def test_chains_groups_and_chords(app: Flask, tasks: t.Any) -> None:
    from celery import chain, chord, group

    collect, look = tasks["collect"], tasks["look"]
    with shop.in_request(app):
        shop.preprocess(app)
        sent = [
            chain(collect.s(), collect.s(), collect.s()).delay(),
            group(look.s(), look.s()).delay(),
            chord([look.s(), look.s()], collect.s()).delay(),
            look.apply_async(link=collect.s()),
        ]
    [[first, second], third] = result(sent[0])
    [headers, body] = result(sent[2])
    linked = sent[3]
    result(linked)
    [[_, seen_by_link]] = [result(child) for child in linked.children]
    for seen in [*first, second, third, *result(sent[1]), *headers, body, seen_by_link]:
        assert_of_alice(seen)


def test_what_a_task_sends_carries_what_is_there_by_then(app: Flask, tasks: t.Any) -> None:
    with app.app_context():
        g.user_id = "alice"
        first = tasks["pass_on"].delay("bob")
    assert result(tasks["user"].AsyncResult(result(first))) == "bob"


def test_what_a_task_sends_in_a_context_of_its_own_carries_that(app: Flask, tasks: t.Any) -> None:
    with app.app_context():
        g.user_id = "alice"
        in_context = tasks["for_each"].delay("bob", "carol")
    for sent in (in_context, tasks["for_each"].delay("bob", "carol")):
        seen = [result(tasks["user"].AsyncResult(each)) for each in result(sent)]
        assert seen == ["bob", "carol"]


def test_a_retry_starts_from_what_was_sent(app: Flask, tasks: t.Any) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        assert result(tasks["repeat"].delay()) == [2, SEEN_OF_ALICE]
        assert result(tasks["repeat_with_header"].delay()) == [1, SEEN_OF_ALICE]
    # That nothing was sent counts too.
    assert result(tasks["repeat"].delay()) == [2, {}]
    assert result(tasks["repeat_with_header"].delay()) == [1, {}]


def test_a_task_that_is_replaced_carries_what_is_there_by_then(app: Flask, tasks: t.Any) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert result(tasks["replace"].delay()) == {"app": "shop", "g": {"user_id": "replaced"}}


def test_a_task_that_calls_itself_does_so_in_its_own_context(app: Flask, tasks: t.Any) -> None:
    assert result(tasks["walk"].delay(2)) == [1, 2, 3]


def test_an_errback_has_what_the_task_was_sent_with(app: Flask, tasks: t.Any, worker: str) -> None:
    from redis import Redis

    with shop.in_request(app):
        shop.preprocess(app)
        tasks["fail"].apply_async(link_error=tasks["note_error"].s())
    with Redis.from_url(worker, socket_timeout=None) as redis:
        _, seen = t.cast(t.Any, redis.blpop(["errors"], timeout=LIMIT))
    assert_of_alice(json.loads(seen))


def test_a_task_called_or_applied_in_a_task_is_part_of_it(app: Flask, tasks: t.Any) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert result(tasks["call_directly"].delay()) == ["alice", "alice", "True"]
        assert result(tasks["apply_in_place"].delay()) == [True, []]


def one_at_a_time(task: t.Any) -> t.Callable[[int], list[t.Any]]:
    """A function for `assert_no_mix_up` that sends *task*."""
    # Neither Celery's result store nor its transports promise to be read by fifty threads at once.
    reading = threading.Lock()

    def send(count: int) -> list[t.Any]:
        with reading:
            sent = [task.delay() for _ in range(count)]
        with reading:
            return [result(each) for each in sent]

    return send


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_two_thousand_tasks_of_fifty_overlapping_requests_are_not_mixed_up(
    app: Flask, redis_url: str, tmp_path: Path, pool: str
) -> None:
    look = celery_app(app, redis_url, task_default_queue="many").tasks["look"]
    command = worker_command("--pool", pool, "--concurrency", "4", "--queues", "many")
    with program(command, tmp_path / "log", TESTS_REMOTE_BROKER=redis_url):
        assert_no_mix_up(app, one_at_a_time(look), 40)


def test_a_folder_for_a_queue(app: Flask, tmp_path: Path) -> None:
    # A reader can meet a message that is still being written, and lose it: all is written first, and then a worker
    # with one thread reads it, and writes.
    sender = celery_app(app, str(tmp_path))
    tasks, collect = sender.tasks, sender.tasks["collect"]
    with shop.in_request(app):
        shop.preprocess(app)
        last = (tasks["repeat"].s() | collect.s() | collect.s() | tasks["stop_worker"].s()).delay()
    without = tasks["look"].delay()
    with program(worker_command("--pool", "solo"), tmp_path / "log", TESTS_REMOTE_BROKER=str(tmp_path)) as worker:
        worker.wait(LIMIT)
    [[retried, second], third] = result(last)
    assert retried == [2, SEEN_OF_ALICE]
    assert_of_alice(second)
    assert_of_alice(third)
    assert result(without) == {"app": "shop", "g": {}}


def test_a_worker_process_that_dies_is_named_and_later_tasks_are_served(
    app: Flask, redis_url: str, tmp_path: Path
) -> None:
    from billiard.exceptions import WorkerLostError

    tasks = celery_app(app, redis_url, task_default_queue="dies").tasks
    command = worker_command("--concurrency", "1", "--queues", "dies")
    with program(command, tmp_path / "log", TESTS_REMOTE_BROKER=redis_url), app.app_context():
        g.user_id = "alice"
        assert result(tasks["user"].delay()) == "alice"
        died = tasks["end_process"].delay()
        with pytest.raises(WorkerLostError):
            result(died)
        assert result(tasks["user"].delay()) == "alice"


def test_in_a_worker_with_a_pushed_context_a_task_has_its_own(app: Flask, redis_url: str, tmp_path: Path) -> None:
    from celery import chain

    # A database of its own: what the worker sends waits in a queue of the usual name.
    broker = redis_url.replace("/0", "/2")
    tasks = celery_app(app, broker).tasks
    environ = {"TESTS_REMOTE_BROKER": broker, "TESTS_REMOTE_PUSHED": "1"}
    with program(worker_command("--pool", "solo"), tmp_path / "log", **environ):
        assert result(tasks["look"].delay()) == {"app": "shop", "g": {}}
        with shop.in_request(app):
            shop.preprocess(app)
            sent = chain(tasks["collect"].s(), tasks["collect"].s()).delay()
        [[first], second] = result(sent)
    assert_of_alice(first)
    assert_of_alice(second)


def test_what_beat_sends_gets_an_app_context(app: Flask, redis_url: str, tmp_path: Path) -> None:
    from redis import Redis

    command = worker_command("--beat", "--schedule", str(tmp_path / "schedule"))
    worker = program(command, tmp_path / "log", TESTS_REMOTE_BROKER=redis_url, TESTS_REMOTE_BEAT="1")
    with worker, Redis.from_url(redis_url, socket_timeout=None) as redis:
        _, seen = t.cast(t.Any, redis.blpop(["ticks"], timeout=LIMIT))
    assert json.loads(seen) == {"app": "shop", "g": {}}


def on_the_wire(broker: str, queue: str) -> bytes:
    """Everything that waits in *queue*, with what is base64 in it read."""
    if broker.startswith("redis:"):
        from redis import Redis

        with Redis.from_url(broker) as redis:
            messages = t.cast("list[bytes]", redis.lrange(queue, 0, -1))
    else:
        messages = [path.read_bytes() for path in Path(broker, "queue").glob(f"*{queue}*")]
    assert messages
    return b"\n".join(messages + [base64.b64decode(json.loads(message)["body"]) for message in messages])


@pytest.fixture(params=["redis", "folder"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else t.cast(str, request.getfixturevalue("redis_url"))


def test_no_cookie_and_no_authorization_is_on_the_wire(app: Flask, broker: str) -> None:
    from flaskthreads_autopatch.integrations.celery import init_celery

    sender = celery_app(app, broker)
    with shop.in_request(app):
        shop.preprocess(app)
        sender.tasks["look"].apply_async(queue="nobody-reads-this")
        wire = on_the_wire(broker, "nobody-reads-this")
        assert b"r-1" in wire
        for secret in (b"c00kie-jar", b"t0ken-ring", b"not named"):
            assert secret not in wire

        init_celery(sender, app, headers=tuple(shop.SECRETS))
        sender.tasks["look"].apply_async(queue="nor-that")
        wire = on_the_wire(broker, "nor-that")
        for secret in (b"c00kie-jar", b"t0ken-ring"):
            assert secret in wire


def run_as_a_worker_does(task: t.Any, message: str) -> None:
    from celery.app.trace import build_tracer

    from flaskthreads_autopatch.integrations.celery import HEADER

    request = {"headers": {HEADER: message}, "is_eager": False, "delivery_info": {}}
    outcome = build_tracer(task.name, task, app=task.app)("id", (), {}, request)
    assert outcome.info is None


def test_what_another_celery_app_carries_is_not_passed_on(app: Flask, tmp_path: Path) -> None:
    from celery import Celery

    look = celery_app(app, str(tmp_path)).tasks["look"]
    other = Celery("other", set_as_current=False)

    @other.task(name="send")  # type: ignore[untyped-decorator]
    def send() -> None:
        look.apply_async(queue="sent-by-another")

    run_as_a_worker_does(send, '{"v": 1, "g": {"user_id": "mallory"}}')
    assert b"mallory" not in on_the_wire(str(tmp_path), "sent-by-another")


def test_h40_nothing_is_carried_from_another_app(app: Flask, tmp_path: Path) -> None:
    user = celery_app(app, str(tmp_path)).tasks["user"]
    with Flask("another").test_request_context("/", headers=shop.HEADERS):
        g.user_id = ("mallory", "not portable")
        user.apply_async(queue="sent-in-another")
    wire = on_the_wire(str(tmp_path), "sent-in-another")
    for value in (b"mallory", b"r-1", b"flaskthreads_autopatch"):
        assert value not in wire
    # A factory may make one app for WSGI and another one for Celery.
    with Flask("shop").app_context():
        g.user_id = "alice"
        user.apply_async(queue="sent-in-its-twin")
    assert b"alice" in on_the_wire(str(tmp_path), "sent-in-its-twin")


def test_h40_run_in_place_in_a_context_of_its_twin_a_task_is_part_of_it(eager: t.Any) -> None:
    with Flask("shop").app_context():
        g.user_id = "alice"
        assert eager[0].tasks["id_of_g"].delay().get() == id(g._get_current_object())
        assert eager[0].tasks["user"].apply().get() == "alice"


def test_what_a_task_run_in_place_sends_carries_the_callers_context(app: Flask, tmp_path: Path) -> None:
    tasks = celery_app(app, str(tmp_path)).tasks
    with app.app_context():
        tasks["pass_on"].apply(["bob"]).get()
    assert b"bob" in on_the_wire(str(tmp_path), "celery")


def test_what_a_handler_sends_carries_the_callers_context_or_what_its_task_was_sent_with(
    app: Flask, tmp_path: Path
) -> None:
    import celery

    sender = celery_app(app, str(tmp_path))

    class Telling(celery.Task):  # type: ignore[misc]
        name = "telling"

        def run(self) -> None: ...

        def on_success(self, retval: t.Any, task_id: str, args: t.Any, kwargs: t.Any) -> None:
            sender.tasks["user"].apply_async(queue="told")

    telling = sender.register_task(Telling())
    with app.app_context():
        g.user_id = "alice"
        telling.apply().get()
    assert b"alice" in on_the_wire(str(tmp_path), "told")

    run_as_a_worker_does(telling, '{"v": 1, "g": {"user_id": "bob"}}')
    assert b"bob" in on_the_wire(str(tmp_path), "told")


def test_what_is_not_portable_is_refused_by_delay(app: Flask, tmp_path: Path) -> None:
    tasks = celery_app(app, str(tmp_path)).tasks
    with app.app_context():
        g.user_id = {1: "alice"}
        with pytest.raises(NotPortableError, match=r"g.user_id \(dict\)"):
            tasks["look"].delay()
    assert list(tmp_path.glob("queue/*")) == []


def test_keyword_arguments_arrive(app: Flask, tasks: t.Any, tmp_path: Path) -> None:
    with app.app_context():
        g.user_id = "alice"
        user_and = tasks["user_and"]
        in_place = celery_app(app, str(tmp_path)).tasks["user_and"]
        seen = [result(user_and.delay(number=1)), in_place.apply(kwargs={"number": 1}).get(), in_place(number=1)]
    assert [list(each) for each in seen] == [["alice", 1]] * 3


@pytest.fixture
def eager(tmp_path: Path) -> t.Any:
    app = shop.create_app()
    return celery_app(app, str(tmp_path), task_always_eager=True), app


def test_run_in_place_a_task_is_part_of_the_callers_request(eager: t.Any) -> None:
    celery_app, app = eager
    app.teardown_appcontext_funcs.pop()
    shop.leave_torn_down()
    tasks = celery_app.tasks
    with shop.in_request(app):
        shop.preprocess(app)
        here = id(g._get_current_object())
        for run in (tasks["id_of_g"].delay, tasks["id_of_g"].apply):
            assert run().get() == here
        assert tasks["id_of_g"]() == here
        tasks["repeat"].delay()
        assert g.user_id == "changed by the task"
        assert shop.leave_torn_down() == []
    assert shop.leave_torn_down() == ["request", "last changed by the task NoneType"]


def test_run_in_place_without_a_context_a_task_gets_its_own(eager: t.Any) -> None:
    celery_app, _ = eager
    shop.leave_torn_down()
    for run in (celery_app.tasks["look"].delay, celery_app.tasks["look"].apply):
        assert run().get() == {"app": "shop", "g": {}}
        assert shop.leave_torn_down() == ["first", "last None NoneType"]


def test_run_in_place_by_a_task_in_a_context_of_another_app_a_task_gets_its_own(eager: t.Any) -> None:
    celery_app, app = eager

    @celery_app.task(name="elsewhere")  # type: ignore[untyped-decorator]
    def elsewhere() -> t.Any:
        with Flask("another").app_context():
            return celery_app.tasks["look"].apply().get(disable_sync_subtasks=False)

    with app.app_context():
        app.teardown_appcontext_funcs.clear()
        assert elsewhere.apply().get() == {"app": "shop", "g": {}}


def test_a_signature_made_from_a_request_carries_what_that_did(eager: t.Any) -> None:
    from celery.app.task import Context

    from flaskthreads_autopatch.integrations.celery import HEADER

    task = eager[0].tasks["user"]
    for options in ({}, {"headers": None}):
        assert task.signature_from_request(**options).options["headers"] == {HEADER: ""}
    assert task.signature_from_request(queue="other").options["queue"] == "other"
    for headers in ({"theirs": 1}, {"theirs": 1, HEADER: "{}"}):
        made = task.signature_from_request(Context(headers=headers))
        assert made.options["headers"] == {HEADER: "", **headers}


def test_run_in_place_in_a_request_of_another_app_a_task_does_not_see_that_request(eager: t.Any) -> None:
    celery_app, _ = eager
    with Flask("another").test_request_context("/"):
        assert celery_app.tasks["look"].apply().get() == {"app": "shop", "g": {}}


def test_other_celery_apps_are_left_alone(app: Flask, eager: t.Any) -> None:
    from celery import Celery

    other = Celery("other", set_as_current=False)
    other.conf.task_always_eager = True
    assert other.task(flask.has_app_context, name="has").delay().get() is False
    # Called by their tasks, ours are functions.
    ours = eager[0].task(flask.has_app_context, name="has")

    @other.task(name="calls ours")  # type: ignore[untyped-decorator]
    def call_ours() -> bool:
        return t.cast(bool, ours())

    assert call_ours.delay().get() is False
    assert "send_task" not in vars(other)


@pytest.mark.parametrize("finalized", [True, False])
def test_tasks_may_be_made_at_any_time_and_in_any_way(app: Flask, finalized: bool) -> None:
    import celery

    from flaskthreads_autopatch.integrations.celery import init_celery

    celery_app = celery.Celery("shop", set_as_current=False)

    class Own(celery.Task):  # type: ignore[misc]
        def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
            return [flask.has_app_context(), self.run(*args, **kwargs)]

    class OfThisApp(celery_app.Task):  # type: ignore[misc, name-defined]
        """Made before `init_celery`."""

    def made(when: str) -> list[t.Any]:
        class ByClass(celery.Task):  # type: ignore[misc]
            name = f"by class, {when}"

            def run(self) -> t.Any:
                return shop.look()

        bases = {"task": None, "own": Own, "of this app": OfThisApp, "late": celery_app.Task}
        tasks = [celery_app.task(shop.look, name=f"{name}, {when}", base=base) for name, base in bases.items()]
        return [*tasks, celery_app.register_task(ByClass())]

    before = made("before")
    if finalized:
        celery_app.finalize()
    init_celery(celery_app, app)
    after = made("after")
    celery_app.finalize()
    celery_app.register_task(after[-1])  # once more
    for task in (*before, *after, *made("at last")):
        seen = {"app": "shop", "g": {}}
        assert task.apply().get() == ([True, seen] if task.name.startswith("own") else seen), task.name


def test_an_errback_run_in_place_is_part_of_the_callers_request(eager: t.Any) -> None:
    celery_app, app = eager
    app.teardown_appcontext_funcs.pop()
    seen: list[t.Any] = []

    @celery_app.task(name="note")  # type: ignore[untyped-decorator]
    def note(request: t.Any, exc: BaseException, traceback: str) -> None:
        seen.append(id(g._get_current_object()))

    with app.app_context():
        g.user_id = "alice"
        celery_app.tasks["fail"].apply(link_error=note.s())
        assert seen == [id(g._get_current_object())]
    celery_app.tasks["fail"].apply(link_error=note.s())
    assert len(seen) == 2


def test_a_kept_result_of_a_task_run_in_place_holds_no_context(eager: t.Any) -> None:
    celery_app, app = eager
    app.teardown_appcontext_funcs.clear()
    for around in (app.app_context, contextlib.nullcontext):
        with around():
            gc.collect()
            gc.disable()
            try:
                kept = celery_app.tasks["fail_and_note"].apply()
            finally:
                gc.enable()
        assert kept.failed()
        assert shop.noted.pop()() is None


def test_wrong_arguments_of_init_celery_are_named_and_change_nothing(app: Flask) -> None:
    from celery import Celery

    from flaskthreads_autopatch.integrations.celery import init_celery

    celery: t.Any = Celery("shop", set_as_current=False)
    before = dict(vars(celery)), dict(vars(app))
    for args, complaint in (
        ((app, celery), r"^celery_app=<Flask .*: allowed is a Celery app\. It comes first"),
        ((celery, shop.APP), rf"^app='{shop.APP}': allowed is the Flask app itself"),
    ):
        with pytest.raises(TypeError, match=complaint):
            init_celery(*args)
    with pytest.raises(TypeError, match=r"^g='user_id': allowed is a tuple of names"):
        init_celery(celery, app, g="user_id")
    assert (dict(vars(celery)), dict(vars(app))) == before


def test_the_app_may_be_given_as_current_app(app: Flask, tmp_path: Path) -> None:
    from celery import Celery

    from flaskthreads_autopatch.integrations.celery import init_celery

    celery = Celery("shop", set_as_current=False)
    with app.app_context():
        init_celery(celery, flask.current_app)  # type: ignore[arg-type]
    assert celery.task(shop.look, name="look").apply().get() == {"app": "shop", "g": {}}


def test_called_again_the_last_app_counts(app: Flask, tmp_path: Path) -> None:
    from flaskthreads_autopatch.integrations.celery import init_celery

    celery = celery_app(app, str(tmp_path), task_always_eager=True)
    init_celery(celery, Flask("second"))
    assert celery.tasks["look"].delay().get() == {"app": "second", "g": {}}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with a key, and the certificate for it."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(
        key, hashes.SHA256()
    )
    formats = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    tmp_path.joinpath("key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *formats))
    tmp_path.joinpath("certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return tmp_path


def test_signed_messages_carry_and_the_signature_covers_the_body_alone(
    redis_url: str, tmp_path: Path, keys: Path
) -> None:
    # A database of its own: what is signed waits in queues of the usual names.
    environ = {"TESTS_REMOTE_BROKER": redis_url.replace("/0", "/1"), "TESTS_REMOTE_KEYS": str(keys)}
    with program(worker_command("--pool", "solo"), tmp_path / "log", **environ):
        sender = program([sys.executable, "-m", f"{__package__}.send_signed"], tmp_path / "sender", **environ)
        with sender as process:
            assert process.wait(LIMIT) == 0
    report = json.loads(tmp_path.joinpath("sender").read_text().splitlines()[-1])
    assert report == {
        "sent": "alice",
        "forged header": "mallory",
        "forged task": {"app": "shop", "g": {"user_id": "alice"}},
        "forged body": "PENDING",
        "after a forged body": "alice",
    }
