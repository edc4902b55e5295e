"""asyncio in Flask: async views and handlers, and the ways from a coroutine into a thread."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, g, has_app_context, request
from flask.signals import appcontext_pushed, appcontext_tearing_down

import flaskthreads_autopatch as autopatch
from flaskthreads_autopatch import flask_context, install, is_inherited
from flaskthreads_autopatch import flask_context as fc

from .helpers import user


@pytest.fixture
def contexts(installed: Flask) -> list[int]:
    """How many app contexts were pushed and torn down."""
    counts, lock = [0, 0], threading.Lock()

    def pushed(sender: Flask, **extra: t.Any) -> None:
        with lock:
            counts[0] += 1

    def torn_down(sender: Flask, **extra: t.Any) -> None:
        with lock:
            counts[1] += 1

    appcontext_pushed.connect(pushed, installed, weak=False)
    appcontext_tearing_down.connect(torn_down, installed, weak=False)
    return counts


def look() -> list[t.Any]:
    """What is seen here."""
    if not has_app_context():
        return [None, None, False]
    return [g.get("user"), request.path if request else None, autopatch.is_inherited()]


THE_VIEWS_OWN, INHERITED = ["alice", "/", False], ["alice", "/", True]


async def by_run_in_executor() -> list[t.Any]:
    return await asyncio.get_running_loop().run_in_executor(None, look)


async def by_to_thread() -> list[t.Any]:
    return await asyncio.to_thread(look)


async def by_own_executor() -> list[t.Any]:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, look)


async def by_default_executor() -> list[t.Any]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    return await asyncio.get_running_loop().run_in_executor(None, look)


async def by_wrapped_future() -> list[t.Any]:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(look))


async def by_thread() -> list[t.Any]:
    seen: list[t.Any] = []
    thread = threading.Thread(target=lambda: seen.extend(look()))
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    return seen


async def by_thread_that_runs_a_loop() -> list[t.Any]:
    seen: list[t.Any] = []

    async def main() -> None:
        await asyncio.sleep(0)
        seen.extend(look())

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    return seen


async def by_task() -> list[t.Any]:
    async def task() -> list[t.Any]:
        await asyncio.sleep(0)
        return look()

    return await asyncio.create_task(task())


@pytest.mark.parametrize(
    ("way", "expected", "replays"),
    [
        (by_run_in_executor, INHERITED, 1),
        (by_own_executor, INHERITED, 1),
        (by_default_executor, INHERITED, 1),
        (by_wrapped_future, INHERITED, 1),
        (by_thread, INHERITED, 2),
        (by_thread_that_runs_a_loop, INHERITED, 1),
        # These carry the view's own context over (H12).
        (by_to_thread, THE_VIEWS_OWN, 0),
        (by_task, THE_VIEWS_OWN, 0),
    ],
)
def test_async_view_h12(installed: Flask, contexts: list[int], way: t.Any, expected: list[t.Any], replays: int) -> None:
    @installed.get("/")
    async def view() -> dict[str, t.Any]:
        g.user = "alice"
        seen = await way()
        return {"seen": seen, "afterwards": look()}

    answer = installed.test_client().get("/").get_json()
    assert answer == {"seen": expected, "afterwards": THE_VIEWS_OWN}
    assert contexts == [1 + replays, 1 + replays]
    assert flask_context.active() is None


def test_two_tasks_in_threads_at_once_are_not_mixed_up(installed: Flask) -> None:
    together = threading.Barrier(2)

    @installed.get("/<user>")
    async def view(user: str) -> list[t.Any]:
        g.user = user

        def work() -> t.Any:
            together.wait(30)
            g.own = user
            together.wait(30)
            return g.user, g.own, request.path

        loop = asyncio.get_running_loop()
        return list(await loop.run_in_executor(POOL, work))

    with ThreadPoolExecutor(2) as POOL, ThreadPoolExecutor(2) as clients:
        answers = clients.map(lambda user: installed.test_client().get(f"/{user}").get_json(), ["alice", "bob"])
        assert list(answers) == [["alice", "alice", "/alice"], ["bob", "bob", "/bob"]]


@pytest.mark.parametrize("start", [threading.Thread, threading.Timer], ids=["Thread", "Timer"])
def test_async_teardown_handler_ends_h11(
    installed: Flask, contexts: list[int], start: Callable[..., threading.Thread]
) -> None:
    torn_down = []

    @installed.teardown_appcontext
    async def teardown(exc: BaseException | None) -> None:
        await asyncio.sleep(0)
        torn_down.append((g.get("user"), g.get("own"), autopatch.is_inherited()))

    def work() -> None:
        g.own = object

    with installed.app_context():
        g.user = "alice"
        thread = start(target=work) if start is threading.Thread else start(0, work)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    assert torn_down == [("alice", object, True), ("alice", None, False)]
    assert contexts == [2, 2]


def test_async_teardown_handler_that_starts_threads_ends_h11(installed: Flask, contexts: list[int]) -> None:
    seen = []

    @installed.teardown_appcontext
    async def teardown(exc: BaseException | None) -> None:
        thread = threading.Thread(target=lambda: seen.append(look()[0]))
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        pool.submit(look).result(60)
    # The handler runs twice, for the task's context and for the parent's. The threads that it starts inherit nothing.
    assert seen == [None, None]
    assert contexts == [2, 2]


def test_async_handlers_around_an_async_view(installed: Flask, contexts: list[int]) -> None:
    @installed.before_request
    async def before() -> None:
        g.user = await asyncio.get_running_loop().run_in_executor(None, lambda: "alice")

    @installed.teardown_request
    async def after(exc: BaseException | None) -> None:
        await asyncio.to_thread(look)

    @installed.get("/")
    async def view() -> list[t.Any]:
        return list(await asyncio.gather(*(by_run_in_executor() for _ in range(5))))

    assert installed.test_client().get("/").get_json() == [INHERITED] * 5
    assert contexts == [7, 7]


def test_copied_async_function_runs_in_a_thread(installed: Flask) -> None:
    async def work() -> list[t.Any]:
        await asyncio.sleep(0)
        return look()

    with installed.test_request_context("/"), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        copied = autopatch.copy_current_app_context(work)
        with autopatch.suppress_inheritance():
            assert pool.submit(copied).result() == INHERITED


def test_worker_of_the_default_executor_stays_clean_h13(installed: Flask) -> None:
    async def main() -> list[t.Any]:
        with installed.test_request_context("/"):
            g.user = "alice"
            first = await by_run_in_executor()
        return [first, await by_run_in_executor()]

    assert asyncio.run(main()) == [INHERITED, [None, None, False]]


def test_h12_to_thread_and_context_run_are_left_alone(installed: Flask) -> None:
    torn_down: list[int] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(threading.get_ident()))

    async def main() -> object:
        return await asyncio.to_thread(fc.active)

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        assert asyncio.run(main()) is fc.active()
        assert pool.submit(contextvars.copy_context().run, fc.active).result(30) is fc.active()
        partial = functools.partial(contextvars.copy_context().run, fc.active)
        assert in_thread_pool(pool, partial) is fc.active()
        assert torn_down == []


def in_thread_pool(pool: ThreadPoolExecutor, fn: t.Callable[[], object]) -> object:
    return pool.submit(fn).result(30)


def test_h12_async_views(installed: Flask) -> None:
    pytest.importorskip("asgiref")
    contexts: list[object] = []

    @installed.get("/<name>")
    async def view(name: str) -> str:
        g.user = name
        contexts.append(fc.active())
        await asyncio.to_thread(lambda: contexts.append(fc.active()))
        loop = asyncio.get_running_loop()
        inherited = await loop.run_in_executor(None, lambda: (user(), request.path, is_inherited()))
        return repr(inherited)

    torn_down: list[bool] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(is_inherited()))
    assert installed.test_client().get("/alice").text == repr(("alice", "/alice", True))
    assert contexts[0] is contexts[1]
    assert torn_down == [True, False]


def test_asyncio_run_in_a_thread_inherits(installed: Flask) -> None:
    seen: list[str] = []

    async def main() -> str:
        seen.append(user())
        return user()

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        assert pool.submit(asyncio.run, main()).result(30) == "alice"
        for args in ((main(),), [main()]):
            thread = threading.Thread(target=asyncio.run, args=args)
            thread.start()
            thread.join(30)
    assert seen == ["alice"] * 3


def test_a_coroutine_that_is_ignored_does_not_inherit_in_a_thread_either(app: Flask) -> None:
    seen: list[bool] = []

    async def ignored() -> None:
        seen.append(is_inherited())

    install(app, ignore=[f"{__name__}:test_a_coroutine_that_is_ignored*"])
    with app.app_context():
        thread = threading.Thread(target=asyncio.run, args=(ignored(),))
        thread.start()
        thread.join(30)
    assert seen == [False]
