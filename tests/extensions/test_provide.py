"""The option ``provide`` with published packages: jobs, consumers and timers that run where no context is active.

Each is done twice: without the option it fails, or has no context, as without us.
"""

from __future__ import annotations

import importlib
import itertools
import queue
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from flask import Flask, current_app, g, has_app_context, has_request_context, url_for

import flaskthreads_autopatch as autopatch
from flaskthreads_autopatch import is_inherited, running

from ..helpers import LIMIT, ended
from .helpers import Counts

pytestmark = pytest.mark.extensions

RUN_JOB = "apscheduler.executors.base:run_job"
WORKERS = "huey.consumer:Consumer._create_process"

numbers = itertools.count()
"""Each job takes one, and leaves it on its ``g``: a number that a job finds there is another job's."""


def job() -> list[object]:
    """Return what a job of an app sees: its config, and that it has a ``g`` of its own."""
    name, found = current_app.config["SHOP"], sorted(g)
    g.number = next(numbers)
    return [name, found, has_request_context(), is_inherited()]


SEEN: list[object] = ["corner", [], False, True]


@pytest.fixture
def shop(app: Flask) -> Flask:
    app.config["SHOP"] = "corner"
    app.config["SERVER_NAME"] = "shop.example"
    app.add_url_rule("/orders", "orders", str)
    return app


Outcomes = Callable[[Callable[[], object]], list[object]]


@pytest.fixture(params=["APScheduler", "Flask-APScheduler"])
def outcomes(request: pytest.FixtureRequest, shop: Flask) -> Iterator[Outcomes]:
    """Run a function three times as a job, one after the other in the threads of a real scheduler."""
    from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
    from apscheduler.schedulers.background import BackgroundScheduler
    from flask_apscheduler import APScheduler

    if request.param == "APScheduler":
        scheduler: t.Any = BackgroundScheduler(timezone="UTC")
    else:
        scheduler = APScheduler(BackgroundScheduler(timezone="UTC"))
        scheduler.init_app(shop)
    ends: queue.Queue[t.Any] = queue.Queue()
    scheduler.add_listener(ends.put, EVENT_JOB_ERROR | EVENT_JOB_EXECUTED)
    scheduler.start()

    def run(work: Callable[[], object]) -> list[object]:
        found = []
        for _ in range(3):
            scheduler.add_job(id="job", func=work, next_run_time=datetime.now(timezone.utc))
            end = ends.get(timeout=LIMIT)
            found.append(end.retval if end.exception is None else end.exception)
        return found

    yield run
    scheduler.shutdown()


def test_the_jobs_of_a_scheduler(shop: Flask, outcomes: Outcomes, counts: Counts) -> None:
    assert [type(outcome) for outcome in outcomes(job)] == [RuntimeError] * 3
    autopatch.install(shop, provide=[RUN_JOB])
    assert outcomes(job) == [SEEN] * 3
    assert (counts.pushed, counts.torn_down, counts.inherited) == (3, 3, 3)
    autopatch.disable()
    assert [type(outcome) for outcome in outcomes(job)] == [RuntimeError] * 3


def test_a_job_that_is_added_in_a_request_has_no_part_of_it(shop: Flask, outcomes: Outcomes) -> None:
    autopatch.install(shop, provide=[RUN_JOB])
    with shop.test_request_context("/orders"):
        g.user = "alice"
        assert outcomes(job) == [SEEN] * 3


def test_a_job_that_pushes_its_own_context_is_as_it_was(shop: Flask, outcomes: Outcomes) -> None:
    def push() -> list[object]:
        with shop.app_context():
            return [sorted(g), has_request_context(), is_inherited(), url_for("orders")]

    without = outcomes(push)
    autopatch.install(shop, provide=[RUN_JOB])
    assert outcomes(push) == without == [[[], False, False, "http://shop.example/orders"]] * 3


def test_a_job_that_fails_is_reported_to_the_scheduler(shop: Flask, outcomes: Outcomes, counts: Counts) -> None:
    def fail() -> t.NoReturn:
        raise ZeroDivisionError(current_app.config["SHOP"])

    autopatch.install(shop, provide=[RUN_JOB])
    assert [repr(outcome) for outcome in outcomes(fail)] == ["ZeroDivisionError('corner')"] * 3
    assert counts.torn_down == 3


def test_the_worker_of_a_huey_consumer(shop: Flask, counts: Counts) -> None:
    from huey import MemoryHuey
    from huey.consumer import Consumer
    from huey.exceptions import TaskException

    class InThread(Consumer):  # type: ignore[misc]
        def _set_signal_handlers(self) -> None:
            """Leave the process its signals: only the main thread may set them."""

    def outcome() -> object:
        huey = MemoryHuey(immediate=False)
        task = huey.task()(job)
        consumer = InThread(huey, workers=1, periodic=False, initial_delay=0.01, max_delay=0.01)
        thread = threading.Thread(target=consumer.run)
        thread.start()
        try:
            return [task().get(blocking=True, timeout=LIMIT) for _ in range(2)]
        except TaskException as error:
            return error.metadata["error"]
        finally:
            consumer.stop(graceful=True)
            ended(thread, *(worker for _, worker in consumer.worker_threads), consumer.scheduler)

    assert "Working outside of application context" in str(outcome())
    autopatch.install(shop, provide=[WORKERS])
    # One context for the life of the worker: the second task sees what the first one has left.
    assert outcome() == [SEEN, ["corner", ["number"], False, True]]
    # The worker's, and the scheduler's.
    assert (counts.pushed, counts.inherited) == (2, 2)


SHOP = """
import queue
import threading

from flask import Flask, current_app, g, has_app_context

import flaskthreads_autopatch

orders = queue.Queue()
seen = queue.Queue()


def consume():
    for order in iter(orders.get, None):
        seen.put((order, current_app.name if has_app_context() else None))
    if has_app_context():
        g.consumed = True


def greet():
    seen.put(("timer", current_app.name if has_app_context() else None))


def create_app(**options):
    app = Flask("shop")
    flaskthreads_autopatch.install(app, **options)
    app.teardown_appcontext(lambda error: seen.put(("end", "consumed" in g)))
    app.timer = threading.Timer(0, greet)
    app.timer.start()
    return app


app = create_app({options})
consumer = threading.Thread(target=consume)
consumer.start()
"""


@pytest.mark.parametrize("provided", [False, True])
def test_a_consumer_that_is_started_at_import_and_a_timer_at_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provided: bool
) -> None:
    name = "provided_shop" if provided else "bare_shop"
    options = f"provide=['{name}']" if provided else ""
    (tmp_path / f"{name}.py").write_text(SHOP.replace("{options}", options))
    monkeypatch.syspath_prepend(tmp_path)
    shop = importlib.import_module(name)
    try:
        ended(shop.app.timer)
        timer = shop.seen.get(timeout=LIMIT)
        ends = [shop.seen.get(timeout=LIMIT)] if provided else []
        shop.orders.put("lamp")
        order = shop.seen.get(timeout=LIMIT)
        assert [replay.callable for replay in running()] == ([f"{name}:consume"] if provided else [])
    finally:
        shop.orders.put(None)
        ended(shop.consumer)
        sys.modules.pop(name)
    if provided:
        assert (timer, order, ends) == (("timer", "shop"), ("lamp", "shop"), [("end", False)])
        assert shop.seen.get(timeout=LIMIT) == ("end", True)
    else:
        assert (timer, order) == (("timer", None), ("lamp", None))
    assert shop.seen.empty()
    assert not has_app_context()
