"""H24, H33: what own code's hand in a thread is: its starter, what it runs, or its class."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import queue
import socketserver
import threading
import typing as t
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.dummy import Process as DummyProcess
from multiprocessing.pool import ThreadPool
from unittest import mock

import click
import pytest
import wrapt
from flask import Flask, g, has_app_context

import flaskthreads_autopatch
from flaskthreads_autopatch import AppContextThread, copy_current_app_context, install, status, suppress_inheritance

from ..helpers import collectable

LIMIT = 30
"""Seconds after which a test that hangs fails."""

Look = Callable[..., None]


def look() -> str | None:
    return t.cast("str | None", g.get("user")) if has_app_context() else None


class Seen(queue.SimpleQueue["str | None"]):
    """What threads have seen."""

    def note(self, *args: object) -> None:
        self.put(look())

    def next(self) -> str | None:
        return self.get(timeout=LIMIT)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def alice(installed: Flask) -> t.Iterator[Flask]:
    """An app context in which ``g.user`` is alice."""
    with installed.app_context():
        g.user = "alice"
        yield installed


# What runs


class Callable_:
    """An object that is called."""

    def __init__(self, fn: Look) -> None:
        self.fn = fn

    def __call__(self) -> None:
        self.fn()

    def method(self) -> None:
        self.fn()

    def with_argument(self, argument: object) -> None:
        self.fn()

    partial_method = functools.partialmethod(with_argument, None)


@wrapt.decorator
def by_wrapt(wrapped: t.Any, instance: object, args: t.Any, kwargs: t.Any) -> t.Any:
    return wrapped(*args, **kwargs)


def own_function(fn: Look) -> Look:
    def function() -> None:
        fn()

    return function


def own_class(fn: Look) -> Look:
    class Calls:
        def __init__(self) -> None:
            fn()

    return Calls


def compiled_by_exec(fn: Look) -> Look:
    namespace: dict[str, t.Any] = {"fn": fn}
    exec("def function():\n    fn()", namespace)
    return t.cast(Look, namespace["function"])


OWN_FUNCTIONS: dict[str, Callable[[Look], Look]] = {
    "function": own_function,
    "lambda": lambda fn: lambda: fn(),
    "method": lambda fn: Callable_(fn).method,
    "object": lambda fn: Callable_(fn),
    "class": own_class,
    "partial": lambda fn: functools.partial(functools.partial(own_function(fn))),
    "partialmethod": lambda fn: Callable_(fn).partial_method,
    "partialmethod of the class": lambda fn: functools.partial(Callable_.partial_method, Callable_(fn)),
    "wrapt": lambda fn: by_wrapt(own_function(fn)),
    "lru_cache": lambda fn: functools.lru_cache(own_function(fn)),
    "singledispatch": lambda fn: functools.partial(functools.singledispatch(lambda argument: fn()), 0),
    "staticmethod": lambda fn: staticmethod(own_function(fn)),
    "exec": compiled_by_exec,
}


@pytest.mark.parametrize("kind", OWN_FUNCTIONS)
def test_h24_an_own_function_inherits_whatever_starts_it(alice: Flask, thirdpool: t.Any, seen: Seen, kind: str) -> None:
    thirdpool.start(OWN_FUNCTIONS[kind](seen.note))
    assert seen.next() == "alice"


@pytest.mark.parametrize(
    "hide",
    [
        lambda fn, thirdpool: thirdpool.hidden(fn),
        lambda fn, thirdpool: mock.Mock(side_effect=fn),
        lambda fn, thirdpool: invoking(click.Command("do", callback=fn)),
    ],
    ids=["a closure", "a mock", "click"],
)
def test_h24_what_hides_an_own_function_inherits_only_from_an_own_starter(
    alice: Flask, thirdpool: t.Any, seen: Seen, hide: t.Any
) -> None:
    fn = hide(seen.note, thirdpool)
    thirdpool.start(fn)
    assert seen.next() is None
    start(fn)
    assert seen.next() == "alice"


def invoking(command: click.Command) -> Look:
    return functools.partial(command.invoke, click.Context(command))


def start(fn: t.Any, *args: object) -> threading.Thread:
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    return thread


def test_h24_asyncio_run_inherits_only_from_an_own_starter(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    async def main() -> None:
        seen.note()

    thirdpool.start(asyncio.run, main())
    assert seen.next() is None
    start(asyncio.run, main())
    assert seen.next() == "alice"


def test_h24_a_wrapper_that_says_what_it_wraps_is_looked_through(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    thirdpool.start(thirdpool.wrapping(seen.note))
    assert seen.next() == "alice"
    # The same code around their own function is theirs.
    thirdpool.start(thirdpool.wrapping(thirdpool.call), seen.note)
    assert seen.next() is None


def test_h24_an_own_subclass_of_their_pool_has_their_worker(alice: Flask, thirdpool: t.Any) -> None:
    class Mine(thirdpool.Pool):
        def call(self, fn: t.Any) -> t.Any:
            return super().call(fn)

    assert Mine().call(look) is None


# The class of the thread


def test_h24_the_class_that_defines_run_counts(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    class Mine(threading.Thread):
        def run(self) -> None:
            seen.note()

    class Named(thirdpool.Worker):
        """Own, but for what it runs."""

    thirdpool.start_thread(Mine())
    assert seen.next() == "alice"
    thirdpool.start_thread(Named(seen.note))
    assert seen.next() is None
    Named(seen.note).start()
    assert seen.next() == "alice"


def test_h24_timers(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    thirdpool.start_thread(threading.Timer(0, seen.note))
    assert seen.next() == "alice"
    thirdpool.start_timer(thirdpool.call, seen.note)
    assert seen.next() is None
    threading.Timer(0, thirdpool.call, [seen.note]).start()
    assert seen.next() == "alice"


# The starter


def test_h24_a_start_of_the_class_is_no_starter(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    thirdpool.StartsItself(seen.note).start()
    assert seen.next() == "alice"
    thirdpool.StartsWhenMade(seen.note)
    assert seen.next() == "alice"
    thirdpool.start_thread(thirdpool.StartsItself(seen.note))
    assert seen.next() is None
    thirdpool.make(thirdpool.StartsWhenMade, seen.note)
    assert seen.next() is None

    class Mine(thirdpool.StartsItself):
        def start(self) -> None:
            super().start()

    Mine(seen.note).start()
    assert seen.next() == "alice"
    thirdpool.start_thread(Mine(seen.note))
    assert seen.next() is None


def test_h24_a_thread_of_multiprocessings_threads(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    DummyProcess(target=thirdpool.call, args=[seen.note]).start()
    assert seen.next() == "alice"


# Made here, started there


def test_h24_made_by_a_third_party_in_a_context_and_started_outside(
    installed: Flask, thirdpool: t.Any, seen: Seen
) -> None:
    with installed.app_context():
        g.user = "alice"
        theirs = threading.Thread(target=thirdpool.call, args=[seen.note])
        own = threading.Thread(target=seen.note)
        timer = threading.Timer(0, seen.note)
    for start_it, thread, expected in (
        (thirdpool.start_thread, theirs, None),
        (thirdpool.start_thread, own, "alice"),
        (thirdpool.start_thread, timer, "alice"),
    ):
        start_it(thread)
        assert seen.next() == expected
    with installed.app_context():
        g.user = "alice"
        theirs = threading.Thread(target=thirdpool.call, args=[seen.note])
    theirs.start()
    assert seen.next() == "alice"


@pytest.mark.parametrize("kind", ["Timer", "subclass", "timer with a start of its own"])
def test_h33_ignore_holds_for_what_a_thread_gets_to_run_after_it_was_made(app: Flask, seen: Seen, kind: str) -> None:
    install(app, ignore=[f"{__name__}:ignored"])

    class Late(threading.Thread):
        def __init__(self, fn: Look) -> None:
            super().__init__()
            self._target = fn

    class Bypassing(threading.Timer):
        """As OpenTelemetry's: its start does not come through ours."""

        start = vars(threading.Thread)["start"].__wrapped__

    made = {"Timer": functools.partial(threading.Timer, 0), "subclass": Late}.get(kind, functools.partial(Bypassing, 0))
    with app.app_context():
        g.user = "alice"
        threads = [made(functools.partial(ignored, seen.note)), made(seen.note)]  # type: ignore[operator]
    for thread, expected in zip(threads, (None, "alice"), strict=True):
        thread.start()
        assert seen.next() == expected


def ignored(fn: Look) -> None:
    fn()


# Pools of the standard library


def test_h24_the_worker_of_a_pool_that_grows_by_own_code(installed: Flask) -> None:
    local = threading.local()

    class Growing(ThreadPoolExecutor):
        """Brings a worker of its own."""

        def _adjust_thread_count(self) -> None:
            if not self._threads:
                thread = threading.Thread(target=self._work_for_ever)
                self._threads.add(thread)
                thread.start()

        def _work_for_ever(self) -> None:
            local.worker = look()
            # Since Python 3.14 an item is run in the context of a worker.
            create = getattr(self, "_create_worker_context", None)
            context = [] if create is None else [create()]
            while (item := self._work_queue.get(timeout=LIMIT)) is not None:
                item.run(*context)

    pool = Growing(1)
    with installed.app_context():
        g.user = "alice"
        assert pool.submit(look).result(LIMIT) == "alice"
    with installed.app_context():
        g.user = "bob"
        assert pool.submit(look).result(LIMIT) == "bob"
    assert pool.submit(look).result(LIMIT) is None
    assert pool.submit(lambda: local.worker).result(LIMIT) is None
    pool._work_queue.put(None)  # type: ignore[arg-type] - as the standard library ends its own workers
    pool._threads.clear()


def test_h24_a_pool_whose_way_to_grow_is_patched(alice: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []

    def adjust(pool: ThreadPoolExecutor) -> None:
        thread = threading.Thread(target=lambda: saw.put(look()))
        started.append(thread)
        thread.start()

    saw: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    monkeypatch.setattr(ThreadPoolExecutor, "_adjust_thread_count", adjust)
    ThreadPoolExecutor(1).submit(look)
    assert saw.get(timeout=LIMIT) is None


def test_h24_what_a_pool_submits_while_it_starts_its_workers_inherits(alice: Flask) -> None:
    """Only what is started is a worker: a task carries its context."""
    with ThreadPoolExecutor(1) as other:

        class Asking(ThreadPool):
            @staticmethod
            def Process(ctx: object, *args: t.Any, **kwargs: t.Any) -> DummyProcess:
                results.append(other.submit(look))
                return DummyProcess(*args, **kwargs)

        results: list[Future[str | None]] = []
        with Asking(1):
            assert results[0].result(LIMIT) == "alice"


@pytest.mark.parametrize("grow", [False, True])
def test_h24_the_worker_of_a_thread_pool_that_brings_its_own(installed: Flask, grow: bool) -> None:
    class Worker(DummyProcess):
        def run(self) -> None:
            saw.put(look())
            super().run()

    class Mine(ThreadPool):
        @staticmethod
        def Process(ctx: object, *args: t.Any, **kwargs: t.Any) -> Worker:
            return Worker(*args, **kwargs)

    saw: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    with installed.app_context():
        g.user = "alice"
        pool = Mine(1)
        assert saw.get(timeout=LIMIT) is None
        if grow:
            pool._processes = 2  # type: ignore[attr-defined]
            pool._repopulate_pool()  # type: ignore[attr-defined]
            assert saw.get(timeout=LIMIT) is None
        assert pool.apply(look) == "alice"
    assert pool.apply(look) is None
    pool.terminate()


def test_h24_own_code_that_runs_a_pools_worker(installed: Flask) -> None:
    """As a subclass does that starts its workers when it is made."""
    import concurrent.futures.thread as futures

    with installed.app_context():
        assert "pool's worker" in str(status().apps[0][1].why_thread_not_inherited(futures._worker, __name__))


# H33: calls into packages, which are no workers


@pytest.mark.usefixtures("alice")
class TestCallsIntoPackages:
    def test_h33_a_timer_that_submits(self) -> None:
        results: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as pool:
            timer = threading.Timer(0, pool.submit, [lambda: results.put(look())])
            timer.start()
            assert results.get(timeout=LIMIT) == "alice"
            timer.join()

    def test_h33_a_task_that_submits(self) -> None:
        with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
            assert pool.submit(other.submit, look).result(LIMIT).result(LIMIT) == "alice"

    def test_h33_a_task_that_runs_a_coroutine(self) -> None:
        async def main() -> str | None:
            return look()

        loop = asyncio.new_event_loop()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(loop.run_until_complete, main()).result(LIMIT) == "alice"
        loop.close()

    def test_h33_an_event_loop_does_not(self, seen: Seen) -> None:
        loop = asyncio.new_event_loop()
        contextvars.Context().run(loop.call_soon_threadsafe, seen.note)
        thread = start(loop.run_forever)
        assert seen.next() is None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT)
        with ThreadPoolExecutor(1) as pool:
            contextvars.Context().run(loop.call_soon_threadsafe, seen.note)
            pool.submit(loop.run_forever)
            assert seen.next() is None
            loop.call_soon_threadsafe(loop.stop)
        loop.close()

    def test_h33_async_to_sync_in_a_thread_does(self, seen: Seen) -> None:
        sync = pytest.importorskip("asgiref.sync")

        async def main() -> None:
            seen.note()

        start(sync.async_to_sync(main)).join(LIMIT)
        assert seen.next() == "alice"

    def test_h24_what_runs_everybodys_requests_does_not(self) -> None:
        policy = status().apps[0][1]
        for service in (socketserver.TCPServer.serve_forever, Flask.run):
            assert "everybody" in str(policy.why_thread_not_inherited(service, __name__))
            assert "everybody" in str(policy.why_task_not_inherited(service))


# The explicit API


def test_h24_the_explicit_api_inherits_whatever_starts_it(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    thirdpool.start_thread(AppContextThread(target=thirdpool.call, args=[seen.note]))
    assert seen.next() == "alice"
    thirdpool.start(thirdpool.hidden(copy_current_app_context(seen.note)))
    assert seen.next() == "alice"
    with suppress_inheritance():
        AppContextThread(target=seen.note).start()
    assert seen.next() == "alice"


# Shown


def test_one_line_for_each_kind_of_thread(
    alice: Flask, thirdpool: t.Any, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flaskthreads_autopatch")
    for _ in range(2):
        thirdpool.start(thirdpool.hidden(seen.note))
        thirdpool.Pool().call(int)
        start(seen.note)
        assert [seen.next(), seen.next()].count("alice") == 1
    lines = [record.getMessage() for record in caplog.records if "does not inherit" in record.getMessage()]
    assert lines == [
        f"A thread that runs thirdpool:{what} does not inherit: neither thirdpool:{what} nor thirdpool, which starts"
        " it, is own code."
        for what in ("hidden.<locals>.<lambda>", "Pool.work")
    ]
    assert {record.threadName for record in caplog.records} - {"MainThread"}


def test_the_line_is_logged_where_no_lock_is_held(alice: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A handler may submit to the very pool that is starting a worker, and holds its lock."""
    from flaskthreads_autopatch.patching import starting

    class Submits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            pool.submit(int)

    messages: list[str] = []
    starting._kind.cache_clear()
    logger, handler = logging.getLogger("flaskthreads_autopatch"), Submits()
    logger.addHandler(handler)
    caplog.set_level(logging.DEBUG, "flaskthreads_autopatch")
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(look).result(LIMIT) == "alice"
    finally:
        logger.removeHandler(handler)
    assert ["concurrent.futures.thread:_worker" in message for message in messages] == [True]


def test_the_question_with_and_without_a_starter(installed: Flask, thirdpool: t.Any) -> None:
    policy = status().apps[0][1]
    why = policy.why_thread_not_inherited
    assert why(look) is why(look, "thirdpool") is why(thirdpool.call, __name__) is None
    assert "thirdpool:call is not own code" in str(why(thirdpool.call))
    assert "neither thirdpool:call nor thirdpool" in str(why(thirdpool.call, "thirdpool"))
    assert "neither thirdpool:Worker nor thirdpool" in str(why(thirdpool.Worker, "thirdpool"))
    assert "context variables of its own" in str(why(contextvars.copy_context().run, __name__))
    install(installed, own=["thirdpool"])
    policy = status().apps[0][1]
    assert policy.why_thread_not_inherited(thirdpool.call) is None
    assert policy.why_thread_not_inherited(thirdpool.Worker) is None


def test_status_lists_what_was_adopted(app: Flask) -> None:
    install(app)
    assert status().own == ("tests",)


# Kept alive


def test_a_verdict_keeps_nothing_alive(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    class Local:
        """A variable of the code that starts a thread, which it has deleted meanwhile."""

    def start_one() -> list[weakref.ref[t.Any]]:
        local = Local()
        refs = [weakref.ref(local)]

        class Mine(threading.Thread):
            def __init__(self) -> None:
                super().__init__()  # whose closure refers to the class

            def start(self) -> None:
                super().start()

            def run(self) -> None:
                seen.note()

        class Theirs(thirdpool.StartsItself):
            def start(self) -> None:
                super().start()

        def function() -> None:
            seen.note()

        compiled = compiled_by_exec(seen.note)
        del local
        for start_it, what in (
            (thirdpool.start_thread, Mine()),
            (thirdpool.start_thread, Theirs(function)),
            (thirdpool.start_thread, Theirs(seen.note)),
            (thirdpool.start, function),
            (thirdpool.start, compiled),
            (thirdpool.start, thirdpool.hidden(function)),
            (start, functools.partial(function)),
        ):
            start_it(what)
            seen.next()
        return [*refs, *map(weakref.ref, (Mine, Theirs, function, compiled, compiled.__code__))]

    refs = start_one()
    assert collectable(*refs)


def test_two_equal_functions_of_different_files_are_told_apart(alice: Flask, thirdpool: t.Any, seen: Seen) -> None:
    source = "def work(fn):\n    fn()\n"
    own: dict[str, t.Any] = {"__name__": __name__, "__file__": __file__}
    theirs: dict[str, t.Any] = {"__name__": "thirdpool", "__file__": thirdpool.__file__}
    exec(compile(source, "work.py", "exec"), own)
    exec(compile(source, "work.py", "exec"), theirs)
    assert own["work"].__code__ == theirs["work"].__code__
    for work, expected in ((own["work"], "alice"), (theirs["work"], None), (own["work"], "alice")):
        thirdpool.start(work, seen.note)
        assert seen.next() == expected


def test_a_verdict_changes_when_a_module_is_adopted(app: Flask, thirdpool: t.Any, seen: Seen) -> None:
    install(app)
    with app.app_context():
        g.user = "alice"
        thirdpool.start(thirdpool.call, seen.note)
        assert seen.next() is None
        thirdpool.install(app)  # the module that calls install()
        assert status().own == ("tests", "thirdpool")
        thirdpool.start(thirdpool.call, seen.note)
        assert seen.next() == "alice"
        flaskthreads_autopatch.disable()
        install(app)
        thirdpool.start(thirdpool.call, seen.note)
        assert seen.next() is None
