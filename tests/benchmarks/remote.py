"""What carrying costs beside an engine's own round trip: ``python -m tests.benchmarks.remote [engine ...]``.

One task at a time, the same function in three ways, in turns: bare (no context at all), by hand (the glue that people
write: an app context and the values as arguments), carried. What is printed are medians, and their ratios.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import sys
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from time import perf_counter

from flask import Flask, g

import flaskthreads_autopatch
from flaskthreads_autopatch import RemoteAppContextExecutor

APP = f"{__name__ if __name__ != '__main__' else __spec__.name}:create_app"
NAMED = ("user_id", "request_id")


def create_app() -> Flask:
    app = Flask("benchmark")
    app.secret_key = "benchmark"
    app.add_url_rule("/orders/<int:number>", "order", str)
    flaskthreads_autopatch.install(app)
    return app


def bare() -> None: ...


def in_context() -> tuple[str, str]:
    return g.user_id, g.request_id


_app: list[Flask] = []


def by_hand(user_id: str, request_id: str) -> tuple[str, str]:
    if not _app:
        _app.append(create_app())
    with _app[0].app_context():
        g.user_id, g.request_id = user_id, request_id
        return in_context()


@contextlib.contextmanager
def processes(method: str) -> Iterator[Executor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        yield pool


@contextlib.contextmanager
def loky() -> Iterator[Executor]:
    from loky import ProcessPoolExecutor as Loky

    with Loky(1) as pool:
        yield pool


@contextlib.contextmanager
def dask() -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client.get_executor(pure=False)


ENGINES: dict[str, Callable[[], contextlib.AbstractContextManager[Executor]]] = {
    "fork": lambda: processes("fork"),
    "spawn": lambda: processes("spawn"),
    "loky": loky,
    "dask": dask,
}


def measure(calls: list[Callable[[], t.Any]], seconds: float) -> list[float]:
    """The median round trip of each, in seconds; in turns, so that what disturbs the machine disturbs them all."""
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


def report(name: str, executor: Executor, app: Flask, seconds: float) -> None:
    remote = RemoteAppContextExecutor(executor, APP, g=NAMED)
    # The functions are asked for by their importable name.
    here = sys.modules[APP.partition(":")[0]]
    glue: list[Callable[[], t.Any]] = [
        lambda: executor.submit(here.bare).result(),
        lambda: executor.submit(here.by_hand, g.user_id, g.request_id).result(),
        lambda: remote.submit(here.in_context).result(),
    ]
    with app.app_context():
        g.user_id, g.request_id = "user-1", "a3f0c9d2-request"
        show(name, "app context", measure(glue, seconds))
    with app.test_request_context("/orders/7?q=1"):
        g.user_id, g.request_id = "user-1", "a3f0c9d2-request"
        show(name, "request", measure(glue, seconds))


def show(name: str, what: str, medians: list[float]) -> None:
    bare, hand, carried = (median * 1e6 for median in medians)
    print(
        f"{name:6} {what:12} bare {bare:6.0f} µs  by hand {hand:6.0f} µs  carried {carried:6.0f} µs"
        f"  carried/bare {carried / bare:.3f}  carried/by hand {carried / hand:.3f}",
        flush=True,
    )


def main(engines: list[str], seconds: float = 6) -> None:
    app = create_app()
    for name in engines or ENGINES:
        with ENGINES[name]() as executor:
            report(name, executor, app, seconds)


if __name__ == "__main__":
    __import__(APP.partition(":")[0])
    main(sys.argv[1:])
