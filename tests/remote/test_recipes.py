"""The recipes for other engines, as they stand in ``examples/other_engines``, on the engines' own workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers import LIMIT
from .servers import ROOT, program, redis_server

FOLDER = ROOT / "examples" / "other_engines"
PATHS = f"{FOLDER}{os.pathsep}{ROOT}"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis(url: str) -> Iterator[t.Any]:
    from redis import Redis

    with Redis.from_url(url, socket_timeout=None) as connection:
        connection.flushall()
        yield connection


def noted(redis: t.Any, number: int = 1) -> list[t.Any]:
    """The next notes that tasks have made."""
    return [json.loads(redis.blpop(["notes"], timeout=LIMIT)[1]) for _ in range(number)]


def run(code: str, cwd: Path = ROOT, **environ: str) -> str:
    """What *code*, run by a Python of its own, prints."""
    env = {**os.environ, "PYTHONPATH": PATHS, **environ}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_A_REQUEST = """
from flask import g
with {module}.create_app().test_request_context("/orders"):
    g.user_id, g.secret = "alice", "not named"
"""


def send(engine: str, what: str, url: str) -> None:
    module = f"tests.remote.recipe_{engine}"
    code = f"import {module}\nfrom {module} import *\n" + IN_A_REQUEST.format(module=module) + f"    {what}\n"
    run(code, REDIS=url)


SEEN_IN_A_REQUEST = [{"user_id": "alice"}, "/orders"]


@pytest.mark.recipes
def test_dramatiq(url: str, redis: t.Any, tmp_path: Path) -> None:
    worker = [sys.executable, "-m", "dramatiq", "tests.remote.recipe_dramatiq", "--processes", 1, "--threads", 2]
    with program(worker, tmp_path / "log", REDIS=url, PYTHONPATH=PATHS):
        send("dramatiq", "look.send()", url)
        [*seen, name] = noted(redis)[0]
        assert (seen, name.rpartition(":")[2]) == (SEEN_IN_A_REQUEST, "look")
        run("from tests.remote.recipe_dramatiq import *; look.send()", REDIS=url)
        assert noted(redis)[0][:2] == [{}, False]
        send("dramatiq", "retry.send()", url)
        assert noted(redis, 3) == [["alice"]] * 3
        # Each task of a pipeline has what the one before it has left.
        send("dramatiq", "dramatiq.pipeline([first.message('bob'), second.message()]).run()", url)
        assert noted(redis) == [["alice", "bob"]]
        # A forged message does not run; the next one does.
        forge = "message = look.message(); message.options['flaskthreads_autopatch'] = '{}'; broker.enqueue(message)"
        send("dramatiq", forge, url)
        send("dramatiq", "first.send_with_options(args=('bob',), pipe_target=second.message().asdict())", url)
        assert noted(redis) == [["alice", "bob"]]
        assert redis.llen("notes") == 0
    assert "The carried context cannot be used" in (tmp_path / "log").read_text()


@pytest.mark.recipes
def test_huey(url: str, redis: t.Any, tmp_path: Path) -> None:
    worker = [sys.executable, "-m", "huey.bin.huey_consumer", "tests.remote.recipe_huey.huey", "--workers", 2]
    with program(worker, tmp_path / "log", REDIS=url, PYTHONPATH=PATHS):
        send("huey", "look()", url)
        [*seen, name] = noted(redis)[0]
        assert (seen, name.rpartition(":")[2]) == (SEEN_IN_A_REQUEST, "look")
        run("from tests.remote.recipe_huey import *; look()", REDIS=url)
        assert noted(redis)[0][:2] == [{}, False]
        send("huey", "retry()", url)
        assert noted(redis, 3) == [["alice"]] * 3
        # Each task of a pipeline has what the first one was sent with, as with Celery.
        send("huey", "huey.enqueue(first.s('bob').then(second))", url)
        assert noted(redis) == [["alice", "alice"]]
        send("huey", "from huey import chord; huey.enqueue(chord([first.s('bob'), first.s('carol')], second.s()))", url)
        assert noted(redis) == [[["alice", "alice"], "alice"]]
        send(
            "huey", "look(flaskthreads_autopatch='{}'); first.s('bob').then(second) and huey.enqueue(second.s(1))", url
        )
        assert noted(redis) == [[1, "alice"]]
        assert redis.llen("notes") == 0
    assert "The carried context cannot be used" in (tmp_path / "log").read_text()


ADD_JOB = """
import apscheduler_jobs, shop
from flask import g
with shop.create_app().test_request_context("/orders"):
    g.user_id = "alice"
    apscheduler_jobs.greet_later("bob", misfire_grace_time=None)
"""

RUN_JOBS = """
import queue
import apscheduler_jobs
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
scheduler = apscheduler_jobs.BackgroundScheduler(timezone="UTC")
scheduler.add_jobstore("sqlalchemy", **apscheduler_jobs.STORE)
ended = queue.Queue()
scheduler.add_listener(ended.put, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
scheduler.start()
event = ended.get(timeout=60)
print(event.retval, event.exception)
scheduler.shutdown()
"""


@pytest.mark.recipes
def test_apscheduler(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.sqlite"
    run(ADD_JOB, JOBS=store)
    assert run(RUN_JOBS, JOBS=store) == "Hello bob, says alice at /orders None\n"


@pytest.mark.recipes
def test_a_job_store_refuses_the_callable_that_it_would_lose() -> None:
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    from flaskthreads_autopatch import carry

    from . import shop

    for store in (SQLAlchemyJobStore("sqlite://"), "memory"):
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.add_jobstore(store)
        scheduler.start(paused=True)
        try:
            if store == "memory":
                # It keeps the object itself.
                assert callable(scheduler.add_job(carry(shop.look, shop.APP)).func)
                continue
            with pytest.raises(
                ValueError, match=r"<tests.remote.shop:look carried .* \(a job store takes its \.run\)>"
            ):
                scheduler.add_job(carry(shop.look, shop.APP))
            assert scheduler.get_jobs() == []
        finally:
            scheduler.shutdown()
            if store != "memory":
                store.engine.dispose()


GREET_ALL = """
import {module}, shop
from flask import g
if __name__ == "__main__":
    with shop.create_app().test_request_context("/orders"):
        g.user_id = "alice"
        print(*{module}.greet_all(["bob", "carol"]), sep="\\n")
"""
GREETED = "Hello bob, says alice at /orders\nHello carol, says alice at /orders\n"


@pytest.mark.recipes
def test_joblib() -> None:
    assert run(GREET_ALL.format(module="joblib_pool")) == GREETED


@pytest.mark.python314
@pytest.mark.skipif(sys.version_info < (3, 14), reason="needs Python 3.14: tox -e py314-flask31")
def test_interpreters() -> None:
    assert run(GREET_ALL.format(module="interpreter_pool")) == GREETED
