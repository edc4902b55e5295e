"""What carrying costs beside an engine's own round trip: ``python -m tests.benchmarks.remote [engine ...]``.

One task at a time, the same function in three ways, in turns: bare (no context at all), by hand (the glue that people
write: the values as arguments, a context opened in the task), carried. What is printed are medians, and their ratios.
Needs the extra ``engines``, and a ``redis-server``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

from flask import Flask, g, request

import flaskthreads_autopatch
from flaskthreads_autopatch import RemoteAppContextExecutor

HERE = "tests.benchmarks.remote"
NAMED = ("user_id", "request_id")
BROKER = "TESTS_BENCHMARKS_BROKER"

Call = Callable[[], t.Any]


class Calls(t.NamedTuple):
    """One round trip each."""

    bare: Call
    by_hand: Call
    carried: Call


def create_app() -> Flask:
    app = Flask("benchmark")
    app.secret_key = "benchmark"
    app.add_url_rule("/orders/<int:number>", "order", str)
    flaskthreads_autopatch.install(app)
    return app


def bare() -> None: ...


def in_context() -> list[str]:
    return [g.user_id, g.request_id]


_app: list[Flask] = []


def by_hand(user_id: str, request_id: str, method: str | None = None, path: str = "", base: str = "") -> list[str]:
    if not _app:
        _app.append(create_app())
    app = _app[0]
    with app.test_request_context(path, base, method=method) if method else app.app_context():
        g.user_id, g.request_id = user_id, request_id
        return in_context()


def arguments() -> list[str]:
    """For `by_hand`."""
    url = [request.method, request.full_path, request.url_root] if request else []
    return [g.user_id, g.request_id, *url]


def of_executor(executor: Executor) -> Calls:
    # The functions are found by their importable names.
    here: t.Any = __import__(HERE, fromlist=["*"])
    remote = RemoteAppContextExecutor(executor, f"{HERE}:create_app", g=NAMED)
    return Calls(
        lambda: executor.submit(here.bare).result(),
        lambda: executor.submit(here.by_hand, *arguments()).result(),
        lambda: remote.submit(here.in_context).result(),
    )


@contextlib.contextmanager
def processes(method: str) -> Iterator[Calls]:
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        yield of_executor(pool)


@contextlib.contextmanager
def loky() -> Iterator[Calls]:
    from loky import ProcessPoolExecutor as Loky

    with Loky(1) as pool:
        yield of_executor(pool)


@contextlib.contextmanager
def dask() -> Iterator[Calls]:
    from distributed import Client, LocalCluster

    with LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield of_executor(client.get_executor(pure=False))


def create_celery(broker: str, name: str) -> t.Any:
    from celery import Celery

    celery_app = Celery("benchmark", broker=broker, backend=broker, set_as_current=False)
    celery_app.conf.update(task_default_queue=name, broker_connection_retry_on_startup=True)
    for fn in (bare, by_hand, in_context):
        celery_app.task(fn, name=fn.__name__)
    if name == "carried":
        from flaskthreads_autopatch.integrations.celery import init_celery

        init_celery(celery_app, create_app(), g=NAMED)
    return celery_app


@contextlib.contextmanager
def celery() -> Iterator[Calls]:
    from ..remote.servers import free_port, program, wait_until_it_listens

    port = free_port()
    broker = f"redis://127.0.0.1:{port}/0"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        wait_until_it_listens(stack.enter_context(program(server, folder / "redis")), port)
        # A worker for each: one that has less to do wakes up more slowly.
        for name in Calls._fields:
            command = [sys.executable, "-m", "celery", "--app", f"{HERE}:{name}_celery", "worker", "--pool", "solo"]
            command += ["--hostname", f"{name}@localhost", "--without-mingle", "--without-gossip"]
            stack.enter_context(program([*command], folder / name, **{BROKER: broker}))
        bare, hand, carried = (create_celery(broker, name).tasks for name in Calls._fields)
        yield Calls(
            lambda: bare["bare"].delay().get(timeout=60),
            lambda: hand["by_hand"].delay(*arguments()).get(timeout=60),
            lambda: carried["in_context"].delay().get(timeout=60),
        )


ENGINES: dict[str, Callable[[], contextlib.AbstractContextManager[Calls]]] = {
    "fork": lambda: processes("fork"),
    "spawn": lambda: processes("spawn"),
    "loky": loky,
    "dask": dask,
    "celery": celery,
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
    bare, hand, carried = (median * 1e6 for median in medians)
    print(
        f"{engine:6} {what:11}  bare {bare:6.0f} µs  by hand {hand:6.0f} µs  carried {carried:6.0f} µs"
        f"  carried/bare {carried / bare:.2f}  carried/by hand {carried / hand:.2f}",
        flush=True,
    )


def main(engines: list[str], seconds: float = 6) -> None:
    app = create_app()
    contexts = {"app context": app.app_context, "request": lambda: app.test_request_context("/orders/7?q=1")}
    for engine in engines or ENGINES:
        with ENGINES[engine]() as calls:
            for what, context in contexts.items():
                with context():
                    g.user_id, g.request_id = "user-1", "a3f0c9d2"
                    show(engine, what, measure(calls, seconds))


if BROKER in os.environ:
    bare_celery, by_hand_celery, carried_celery = (create_celery(os.environ[BROKER], name) for name in Calls._fields)

if __name__ == "__main__":
    main(sys.argv[1:])
