"""What carrying costs beside an engine's own round trip: ``python -m tests.benchmarks.remote [engine ...]``.

One task at a time, the same function in four ways, in turns: bare (no context at all), Flask alone (the task opens the
context that it would have, with nothing on ``g``: the floor), by hand (the glue that people write: the values as
arguments, a context opened in the task, and filled), carried. Each returns the same. What is printed are medians, and
their ratios. ``--task N`` has each task compute for about N µs. Needs the engines, and a ``redis-server``.

What is ours by itself, without an engine, is counted by ``python -m tests.benchmarks.instructions --only inject``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from time import perf_counter

from flask import Flask, g, request

import flaskthreads_autopatch
from flaskthreads_autopatch import Carrier, RemoteAppContextExecutor

HERE = "tests.benchmarks.remote"
NAMED = ("user_id", "request_id")
CARRIED_OF_URL = (
    *("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"),
    *("SERVER_PROTOCOL", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
)
BROKER = "TESTS_BENCHMARKS_BROKER"
RQ = "TESTS_BENCHMARKS_RQ"

Call = Callable[[], t.Any]


class Calls(t.NamedTuple):
    """One round trip each."""

    bare: Call
    flask: Call
    by_hand: Call
    carried: Call


def create_app() -> Flask:
    app = Flask("benchmark")
    app.secret_key = "benchmark"
    app.add_url_rule("/orders/<int:number>", "order", str)
    flaskthreads_autopatch.install(app)
    return app


def compute(turns: int) -> None:
    for _ in range(turns):
        pass


def turns_of(microseconds: float) -> int:
    turns, start = 1_000_000, perf_counter()
    compute(turns)
    return round(microseconds * turns / (perf_counter() - start) / 1e6)


def bare(turns: int) -> list[str]:
    compute(turns)
    return ["user-1", "a3f0c9d2"]


def in_context(turns: int) -> list[str]:
    compute(turns)
    return [g.user_id, g.request_id]


_app: list[Flask] = []


def loaded() -> Flask:
    if not _app:
        _app.append(create_app())
    return _app[0]


def flask_alone(turns: int, environ: dict[str, t.Any] | None = None) -> list[str]:
    app = loaded()
    with app.app_context() if environ is None else app.request_context(environ | {"wsgi.input": BytesIO()}):
        return bare(turns)


def by_hand(
    turns: int, user_id: str, request_id: str, method: str | None = None, path: str = "", base: str = ""
) -> list[str]:
    app = loaded()
    with app.test_request_context(path, base, method=method) if method else app.app_context():
        g.user_id, g.request_id = user_id, request_id
        return in_context(turns)


def arguments() -> list[str]:
    """For `by_hand`."""
    url = [request.method, request.full_path, request.url_root] if request else []
    return [g.user_id, g.request_id, *url]


def carried_url() -> list[dict[str, t.Any]]:
    """For `flask_alone`: what is carried of a request."""
    return [{name: request.environ[name] for name in CARRIED_OF_URL}] if request else []


def of_executor(executor: Executor, turns: int) -> Calls:
    # The functions are found by their importable names.
    here: t.Any = __import__(HERE, fromlist=["*"])
    remote = RemoteAppContextExecutor(executor, f"{HERE}:create_app", g=NAMED)
    return Calls(
        lambda: executor.submit(here.bare, turns).result(),
        lambda: executor.submit(here.flask_alone, turns, *carried_url()).result(),
        lambda: executor.submit(here.by_hand, turns, *arguments()).result(),
        lambda: remote.submit(here.in_context, turns).result(),
    )


@contextlib.contextmanager
def processes(method: str, turns: int) -> Iterator[Calls]:
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        yield of_executor(pool, turns)


@contextlib.contextmanager
def loky(turns: int) -> Iterator[Calls]:
    from loky import ProcessPoolExecutor as Loky

    with Loky(1) as pool:
        yield of_executor(pool, turns)


@contextlib.contextmanager
def dask(turns: int) -> Iterator[Calls]:
    from distributed import Client, LocalCluster

    with LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield of_executor(client.get_executor(pure=False), turns)


def create_celery(broker: str, name: str) -> t.Any:
    from celery import Celery

    celery_app = Celery("benchmark", broker=broker, backend=broker, set_as_current=False)
    celery_app.conf.update(task_default_queue=name, broker_connection_retry_on_startup=True)
    for fn in (bare, flask_alone, by_hand, in_context):
        celery_app.task(fn, name=fn.__name__)
    if name == "carried":
        from flaskthreads_autopatch.integrations.celery import init_celery

        init_celery(celery_app, create_app(), g=NAMED)
    return celery_app


@contextlib.contextmanager
def celery(turns: int) -> Iterator[Calls]:
    from ..remote.servers import program, redis_server

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(redis_server(folder))
        # A worker for each: one that has less to do wakes up more slowly.
        for name in Calls._fields:
            command = [sys.executable, "-m", "celery", "--app", f"{HERE}:{name}_celery", "worker", "--pool", "solo"]
            command += ["--hostname", f"{name}@localhost", "--without-mingle", "--without-gossip"]
            stack.enter_context(program([*command], folder / name, **{BROKER: broker}))
        bare, flask, hand, carried = (create_celery(broker, name).tasks for name in Calls._fields)
        yield Calls(
            lambda: bare["bare"].delay(turns).get(timeout=60),
            lambda: flask["flask_alone"].delay(turns, *carried_url()).get(timeout=60),
            lambda: hand["by_hand"].delay(turns, *arguments()).get(timeout=60),
            lambda: carried["in_context"].delay(turns).get(timeout=60),
        )


def create_job_class() -> t.Any:
    from flaskthreads_autopatch.integrations.rq import AppContextJob

    return type("CarriedJob", (AppContextJob,), {"carrier": Carrier(create_app(), g=NAMED)})


@contextlib.contextmanager
def rq(turns: int) -> Iterator[Calls]:
    from redis import Redis
    from rq import Queue

    from ..remote.servers import program, redis_server

    here: t.Any = __import__(HERE, fromlist=["*"])
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(redis_server(folder))
        connection = stack.enter_context(Redis.from_url(url, socket_timeout=None))
        queues = {}
        # A worker for each, which runs the jobs itself: a fork for each job takes longer than all else.
        for name in Calls._fields:
            job = [] if name != "carried" else ["--job-class", f"{HERE}.CarriedJob"]
            command = [sys.executable, "-m", "rq.cli", "worker", "--url", url, *job, "--quiet"]
            command += ["--worker-class", "rq.worker.SimpleWorker", name]
            stack.enter_context(program([*command], folder / name, **{RQ: "1"}))
            job_class = {"job_class": create_job_class()} if name == "carried" else {}
            queues[name] = Queue(name, connection=connection, **job_class)

        def result(name: str, fn: t.Any, *args: t.Any) -> t.Any:
            return queues[name].enqueue(fn, turns, *args).latest_result(timeout=60).return_value

        yield Calls(
            lambda: result("bare", here.bare),
            lambda: result("flask", here.flask_alone, *carried_url()),
            lambda: result("by_hand", here.by_hand, *arguments()),
            lambda: result("carried", here.in_context),
        )


ENGINES: dict[str, Callable[[int], contextlib.AbstractContextManager[Calls]]] = {
    "fork": lambda turns: processes("fork", turns),
    "spawn": lambda turns: processes("spawn", turns),
    "loky": loky,
    "dask": dask,
    "celery": celery,
    "rq": rq,
}


def measure(calls: Calls, seconds: float) -> list[float]:
    """The median of each, in seconds; in turns, so that what disturbs the machine disturbs them all."""
    samples: list[list[float]] = [[] for _ in calls]
    for call in calls * 5:
        call()
    end = perf_counter() + seconds
    while perf_counter() < end:
        for call, mine in zip(calls, samples, strict=True):
            start = perf_counter()
            call()
            mine.append(perf_counter() - start)
    return [statistics.median(mine) for mine in samples]


def show(engine: str, what: str, medians: list[float]) -> None:
    bare, flask, hand, carried = (median * 1e6 for median in medians)
    print(
        f"{engine:6} {what:11}  bare {bare:5.0f} µs  Flask alone {flask:5.0f} µs  by hand {hand:5.0f} µs"
        f"  carried {carried:5.0f} µs  / bare: {flask / bare:.2f} {hand / bare:.2f} {carried / bare:.2f}"
        f"  carried/by hand {carried / hand:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.remote")
    parser.add_argument("engines", nargs="*", choices=[*ENGINES, []], help="all, if none is named")
    parser.add_argument("--task", type=float, default=0, metavar="N", help="microseconds that each task computes for")
    parser.add_argument("--seconds", type=float, default=6, help="for each engine with each context")
    options = parser.parse_args()
    app, turns = create_app(), turns_of(options.task)
    contexts = {"app context": app.app_context, "request": lambda: app.test_request_context("/orders/7?q=1")}
    for engine in options.engines or ENGINES:
        with ENGINES[engine](turns) as calls:
            for what, context in contexts.items():
                with context():
                    g.user_id, g.request_id = "user-1", "a3f0c9d2"
                    show(engine, what, measure(calls, options.seconds))


if BROKER in os.environ:
    bare_celery, flask_celery, by_hand_celery, carried_celery = (
        create_celery(os.environ[BROKER], name) for name in Calls._fields
    )

if RQ in os.environ:
    CarriedJob = create_job_class()

if __name__ == "__main__":
    main()
