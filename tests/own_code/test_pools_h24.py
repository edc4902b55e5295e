"""H24: pools, schedulers and actors of other packages, as published. They are module-level, and first used by alice.

Bob's task, and a task outside of any request, see no context, as without the library. What runs its caller's function
once, in a thread that it starts for that, inherits.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import typing as t
from collections.abc import Callable, Iterator

import pytest
from flask import Flask, g, has_app_context

import flaskthreads_autopatch as autopatch

pytestmark = pytest.mark.pools

LIMIT = 60
"""Seconds after which a test that hangs fails."""

Call = Callable[[Callable[[], t.Any]], t.Any]
"""Has a function called by a pool, and returns its result."""


def look() -> str | None:
    return t.cast("str | None", g.get("user")) if has_app_context() else None


def pebble_pool() -> Iterator[Call]:
    import pebble

    with pebble.ThreadPool(max_workers=1) as pool:
        yield lambda fn: pool.schedule(fn).result(LIMIT)


def pebble_decorator_with_a_pool() -> Iterator[Call]:
    import pebble
    from pebble import concurrent

    with pebble.ThreadPool(max_workers=1) as pool:
        yield lambda fn: concurrent.thread(pool=pool)(fn)().result(LIMIT)


def futurist_pool() -> Iterator[Call]:
    import futurist

    with futurist.ThreadPoolExecutor(max_workers=1) as pool:
        yield lambda fn: pool.submit(fn).result(LIMIT)


def futurist_periodic() -> Iterator[Call]:
    """One scheduler, which own code starts itself, in a thread of its own."""
    from futurist import periodics

    worker = periodics.PeriodicWorker([])
    threads: list[threading.Thread] = []

    def call(fn: Callable[[], t.Any]) -> t.Any:
        results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()

        @periodics.periodic(0.01, run_immediately=True)
        def due() -> None:
            results.put(fn())
            raise periodics.NeverAgain("once")

        if not threads:
            threads.append(threading.Thread(target=worker.start, kwargs={"allow_empty": True}))
            threads[0].start()
        worker.add(due)
        return results.get(timeout=LIMIT)

    yield call
    worker.stop()
    threads[0].join(LIMIT)


def thread_pool_executor_plus() -> Iterator[Call]:
    import ThreadPoolExecutorPlus

    with ThreadPoolExecutorPlus.ThreadPoolExecutor(max_workers=1) as pool:
        yield lambda fn: pool.submit(fn).result(LIMIT)


def reactivex_event_loop() -> Iterator[Call]:
    from reactivex.scheduler import EventLoopScheduler

    scheduler = EventLoopScheduler()

    def call(fn: Callable[[], t.Any]) -> t.Any:
        results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
        scheduler.schedule(lambda *args: results.put(fn()))
        return results.get(timeout=LIMIT)

    yield call
    scheduler.dispose()


def mpire_threading() -> Iterator[Call]:
    import mpire

    with mpire.WorkerPool(n_jobs=1, start_method="threading", keep_alive=True) as pool:
        yield lambda fn: pool.map(called, [fn])[0]


def called(fn: Callable[[], t.Any]) -> t.Any:
    return fn()


def pykka_actor() -> Iterator[Call]:
    import pykka

    class Actor(pykka.ThreadingActor):
        def on_receive(self, message: t.Any) -> t.Any:
            return message()

    # An actor is started when it is first used.
    actors: list[t.Any] = []

    def call(fn: Callable[[], t.Any]) -> t.Any:
        if not actors:
            actors.append(Actor.start())
        return actors[0].ask(fn, timeout=LIMIT)

    yield call
    actors[0].stop()


def loky_callbacks() -> Iterator[Call]:
    """loky's tasks run in processes; the thread that manages them calls what waits for a result."""
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=1)

    def call(fn: Callable[[], t.Any]) -> t.Any:
        assert executor.submit(int).result(LIMIT) == 0
        # Nothing of the application's runs in these, so they are looked at from outside.
        names = [type(thread).__module__ for thread in threading.enumerate()]
        assert "loky.process_executor" in names
        return seen_by(lambda thread: type(thread).__module__.startswith("loky") or "Feeder" in thread.name)

    yield call
    executor.shutdown(wait=True)


def seen_by(which: Callable[[threading.Thread], bool]) -> str | None:
    """The user of the contexts that threads of other packages inherit; None if they inherit none."""
    running = [replay for replay in autopatch.running() if replay.thread_name in names(which)]
    return None if not running else "alice"


def names(which: Callable[[threading.Thread], bool]) -> list[str]:
    return [thread.name for thread in threading.enumerate() if which(thread)]


POOLS = (
    *(pebble_pool, pebble_decorator_with_a_pool, futurist_pool, futurist_periodic, thread_pool_executor_plus),
    *(reactivex_event_loop, mpire_threading, pykka_actor, loky_callbacks),
)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_h24_a_pool_of_another_package(app: Flask, pool: Callable[[], Iterator[Call]], on: bool) -> None:
    if on:
        autopatch.install(app)
    made = pool()
    call = next(made)
    try:
        seen = []
        for user in ("alice", "bob", "alice"):
            with app.test_request_context("/"):
                g.user = user
                seen.append(call(look))
        seen.append(call(look))
        assert seen == [None] * 4
    finally:
        next(made, None)


# What runs its caller's function once


def func_timeout(fn: Callable[[], t.Any]) -> t.Any:
    import func_timeout

    return func_timeout.func_timeout(LIMIT, fn)


def func_set_timeout(fn: Callable[[], t.Any]) -> t.Any:
    import func_timeout

    return func_timeout.func_set_timeout(LIMIT)(fn)()


def pebble_decorator(fn: Callable[[], t.Any]) -> t.Any:
    from pebble import concurrent

    return concurrent.thread(fn)().result(LIMIT)


def pebble_asynchronous(fn: Callable[[], t.Any]) -> t.Any:
    import asyncio

    from pebble import asynchronous

    async def main() -> t.Any:
        return await asynchronous.thread(fn)()

    return asyncio.run(main())


def graphql_core_2(fn: Callable[[], t.Any]) -> t.Any:
    from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema, GraphQLString, graphql
    from graphql.execution.executors.thread import ThreadExecutor

    query = GraphQLObjectType("Query", {"user": GraphQLField(GraphQLString, resolver=lambda *args: fn())})
    result = graphql(GraphQLSchema(query), "{ user }", executor=ThreadExecutor())
    assert not result.errors
    return result.data["user"]


def promise_thread_scheduler(fn: Callable[[], t.Any]) -> t.Any:
    from promise import Promise
    from promise.schedulers.thread import ThreadScheduler

    results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    Promise.resolve(None)
    ThreadScheduler().call(lambda: results.put(fn()))
    return results.get(timeout=LIMIT)


def reactivex_timeout(fn: Callable[[], t.Any]) -> t.Any:
    from reactivex.scheduler import TimeoutScheduler

    results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    TimeoutScheduler.singleton().schedule_relative(0.001, lambda *args: results.put(fn()))
    return results.get(timeout=LIMIT)


def stopit(fn: Callable[[], t.Any]) -> t.Any:
    """Calls the function in its caller's thread: another one only looks at the clock."""
    import stopit

    with stopit.ThreadingTimeout(LIMIT):
        return fn()


def timeout_decorator(fn: Callable[[], t.Any]) -> t.Any:
    """By a signal. (Its other way is another process.)"""
    import timeout_decorator

    return timeout_decorator.timeout(LIMIT)(fn)()


def executor_of_reactivex(fn: Callable[[], t.Any]) -> t.Any:
    """Submits to a pool of the standard library, which makes it a task."""
    from reactivex.scheduler import ThreadPoolScheduler

    results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    scheduler = ThreadPoolScheduler(1)
    scheduler.schedule(lambda *args: results.put(fn()))
    try:
        return results.get(timeout=LIMIT)
    finally:
        scheduler.executor.shutdown()


ONCE = (
    *(func_timeout, func_set_timeout, pebble_decorator, pebble_asynchronous, graphql_core_2),
    *(promise_thread_scheduler, reactivex_timeout, stopit, timeout_decorator, executor_of_reactivex),
)


@pytest.mark.parametrize("call", ONCE)
def test_h24_what_runs_its_callers_function_once(app: Flask, call: Call) -> None:
    autopatch.install(app)
    for user in ("alice", "bob"):
        with app.test_request_context("/"):
            g.user = user
            assert call(look) == user
    assert call(look) is None


# H33: calls into packages


def test_h33_socketio_starts_a_background_task(app: Flask) -> None:
    from flask_socketio import SocketIO

    autopatch.install(app)
    socketio = SocketIO(app, async_mode="threading")
    results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    with app.test_request_context("/"):
        g.user = "alice"
        socketio.start_background_task(lambda: results.put(look())).join(LIMIT)
    assert results.get(timeout=LIMIT) == "alice"


def test_h33_a_thread_that_calls_a_grpc_stub(app: Flask) -> None:
    import grpc

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc] - where grpc has no types
        def service(self, details: t.Any) -> t.Any:
            assert not autopatch.is_inherited()
            return grpc.unary_unary_rpc_method_handler(lambda message, context: message)

    class Interceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] - as above
        def intercept_unary_unary(self, call: t.Any, details: t.Any, message: t.Any) -> t.Any:
            results.put(look())
            return call(details, message)

    autopatch.install(app)
    results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, app.test_request_context("/"):
        g.user = "alice"
        stub = grpc.intercept_channel(channel, Interceptor()).unary_unary("/shop/Echo")
        thread = threading.Thread(target=stub, args=[b"hello"], kwargs={"timeout": LIMIT})
        thread.start()
        thread.join(LIMIT)
    assert results.get(timeout=LIMIT) == "alice"
    server.stop(None).wait(LIMIT)


def test_h33_a_thread_that_sends_a_celery_task(app: Flask) -> None:
    import celery

    autopatch.install(app)
    results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    worker = celery.Celery("shop", broker="memory://", task_always_eager=True)

    @worker.task
    def task() -> None:
        results.put(look())

    with app.test_request_context("/"):
        g.user = "alice"
        thread = threading.Thread(target=task.delay)
        thread.start()
        thread.join(LIMIT)
    assert results.get(timeout=LIMIT) == "alice"
