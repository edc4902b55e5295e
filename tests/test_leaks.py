"""What has run holds nothing of its parent. The collector is off: what is gone has gone by itself."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any, NoReturn

import pytest
from flask import Flask, g, has_app_context, request

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    AppContextThread,
    ThreadPoolWithAppContextExecutor,
    copy_current_app_context,
    flask_context,
)

from .helpers import LIMIT


class Value:
    """An entry of ``g`` that can be watched."""


class Broken(Exception):
    pass


class Own(threading.Thread):
    def run(self) -> None:
        look()


class Pools:
    """Two pools of one worker each, which live on, and the list of the children's contexts that were seen."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.pool = ThreadPool(1)

    def settle(self) -> None:
        """Return when the workers have let go of the frames and arguments of the tasks before."""
        self.executor.submit(int).result(LIMIT)
        self.pool.apply_async(int).get(LIMIT)

    def close(self) -> None:
        self.executor.shutdown()
        self.pool.close()
        self.pool.join()


children: list[weakref.ref[Any]] = []


def look(*ignored: object) -> None:
    """The task: it notes the context it finds, and that all of the parent's is there."""
    assert isinstance(g.value, Value)
    assert request.path == "/watched"
    children.append(weakref.ref(flask_context.active()))


def look_and_fail(*ignored: object) -> NoReturn:
    look()
    raise Broken


def look_and_forget(app: Flask) -> None:
    look()
    app.app_context().push()
    app.test_request_context("/watched").push()


def joined(thread: threading.Thread) -> threading.Thread:
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    return thread


def done(future: Future[Any]) -> Future[Any]:
    future.exception(LIMIT)
    return future


def with_callbacks(executor: ThreadPoolExecutor) -> Future[None]:
    go, called = threading.Event(), threading.Event()
    future = executor.submit(lambda: (look(), go.wait(LIMIT)))
    future.add_done_callback(look)
    future.add_done_callback(lambda future: called.set())
    go.set()
    assert called.wait(LIMIT)
    future.add_done_callback(look)
    return future


def with_a_failing_callback(executor: ThreadPoolExecutor) -> list[logging.LogRecord]:
    """What is logged of it, as an agent keeps it for a while."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    go, called = threading.Event(), threading.Event()
    future = executor.submit(go.wait, LIMIT)
    future.add_done_callback(look_and_fail)
    future.add_done_callback(lambda future: called.set())
    logger = logging.getLogger("concurrent.futures")
    logger.addHandler(handler)
    try:
        go.set()
        assert called.wait(LIMIT)
    finally:
        logger.removeHandler(handler)
    assert [record.exc_info and record.exc_info[0] for record in records] == [Broken]
    return records


def cancelled(executor: ThreadPoolExecutor) -> Future[None]:
    go = threading.Event()
    executor.submit(lambda: (look(), go.wait(LIMIT)))
    future = executor.submit(look)
    future.add_done_callback(look)
    assert future.cancel()
    go.set()
    return future


def waited(result: Any) -> Any:
    result.wait(LIMIT)
    return result


def cancelled_timer() -> threading.Timer:
    timer = threading.Timer(LIMIT, look)
    timer.start()
    timer.cancel()
    timer.join(LIMIT)
    assert not timer.is_alive()
    look()
    return timer


def in_a_pool_of_its_own() -> Future[None]:
    with ThreadPoolWithAppContextExecutor(1) as pool:
        return done(pool.submit(look_and_fail))


def kept_copy(call: Callable[[], object]) -> None:
    call()


def run_wrapped_by_somebody() -> threading.Thread:
    thread = threading.Thread(target=look)
    covered = thread.run
    thread.run = lambda: covered()  # type: ignore[method-assign]
    return joined(thread)


def failed(call: Callable[[], object]) -> Broken:
    with pytest.raises(Broken) as caught:
        call()
    return caught.value


WAYS: dict[str, Callable[[Flask, Pools], object]] = {
    "thread": lambda app, pools: joined(threading.Thread(target=look)),
    "daemon": lambda app, pools: joined(threading.Thread(target=look, daemon=True)),
    "own run()": lambda app, pools: joined(Own()),
    "run wrapped by somebody": lambda app, pools: run_wrapped_by_somebody(),
    "thread that forgets a context": lambda app, pools: joined(threading.Thread(target=look_and_forget, args=(app,))),
    "thread in a thread": lambda app, pools: joined(
        threading.Thread(target=lambda: joined(threading.Thread(target=look)))
    ),
    "timer": lambda app, pools: joined(threading.Timer(0, look)),
    "cancelled timer": lambda app, pools: cancelled_timer(),
    "explicit thread": lambda app, pools: joined(AppContextThread(target=look)),
    "explicit pool": lambda app, pools: in_a_pool_of_its_own(),
    "copied callable": lambda app, pools: kept_copy(copy_current_app_context(look)),
    "future with result": lambda app, pools: done(pools.executor.submit(look)),
    "future with exception": lambda app, pools: done(pools.executor.submit(look_and_fail)),
    "future with callbacks": lambda app, pools: with_callbacks(pools.executor),
    "failing callback": lambda app, pools: with_a_failing_callback(pools.executor),
    "cancelled future": lambda app, pools: cancelled(pools.executor),
    "map of an executor": lambda app, pools: list(pools.executor.map(look, range(3))),
    "apply_async": lambda app, pools: waited(pools.pool.apply_async(look)),
    "apply_async that fails": lambda app, pools: waited(pools.pool.apply_async(look_and_fail)),
    "apply_async with callbacks": lambda app, pools: waited(
        pools.pool.apply_async(look, callback=look, error_callback=look)
    ),
    "apply_async that fails with callbacks": lambda app, pools: waited(
        pools.pool.apply_async(look_and_fail, callback=look, error_callback=look)
    ),
    "map": lambda app, pools: pools.pool.map(look, range(3)),
    "map that fails": lambda app, pools: failed(lambda: pools.pool.map(look_and_fail, range(3))),
    "starmap that fails": lambda app, pools: failed(lambda: pools.pool.starmap(look_and_fail, [(1,), (2,)])),
    "map_async of nothing": lambda app, pools: (pools.pool.map_async(look, []), pools.pool.map(look, [1])),
    "map_async with callbacks": lambda app, pools: waited(
        pools.pool.map_async(look, range(3), callback=look, error_callback=look)
    ),
    "starmap_async that fails with callbacks": lambda app, pools: waited(
        pools.pool.starmap_async(look_and_fail, [(1,), (2,)], callback=look, error_callback=look)
    ),
    "apply_async with the callback that is not called": lambda app, pools: waited(
        pools.pool.apply_async(look, error_callback=look)
    ),
    "apply_async with the callback by position": lambda app, pools: waited(
        pools.pool.apply_async(look_and_fail, (), {}, look)
    ),
    "starmap_async that fails": lambda app, pools: waited(pools.pool.starmap_async(look_and_fail, [(1,), (2,)])),
    "imap": lambda app, pools: list(pools.pool.imap(look, range(3))),
    "imap_unordered": lambda app, pools: list(pools.pool.imap_unordered(look, range(3))),
}


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    children.clear()
    yield
    gc.enable()


def watch(app: Flask, start: Callable[[], object]) -> tuple[object, list[weakref.ref[Any]]]:
    """What *start* returns, called in a request of *app*, and weak references to the parts of that request."""
    # Without a rule, werkzeug's NotFound and its traceback keep the request.
    app.add_url_rule("/watched", "watched")
    with app.test_request_context("/watched"):
        if not flask_context.REUSES_APP_CONTEXT:
            # Flask 3.2 leaves the cycle of the request and its environ to the collector: see the test of it below.
            request.environ.pop("werkzeug.request")
        g.value = Value()
        # Not in a variable: a kept exception keeps this frame, below its own.
        refs = [
            weakref.ref(part)
            for part in (flask_context.active(), g._get_current_object(), g.value, request._get_current_object())
        ]
        return start(), refs


@pytest.mark.usefixtures("no_collector")
@pytest.mark.skipif(flask_context.REUSES_APP_CONTEXT, reason="Flask breaks the cycle itself before 3.2")
def test_flask_3_2_keeps_a_request_until_it_is_collected(app: Flask) -> None:
    with app.test_request_context("/watched"):
        ref = weakref.ref(request._get_current_object())
    assert alive([ref]) != []
    gc.collect()
    assert alive([ref]) == []


def alive(refs: list[weakref.ref[Any]]) -> list[object]:
    return [ref() for ref in refs if ref() is not None]


POLICIES: list[dict[str, Any]] = [{}, {"contextvars": True}, {"share": True}, {"preload": True}]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: next(iter(policy), "default"))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("no_collector")
def test_what_has_run_holds_nothing_though_it_is_kept(
    app: Flask, pools: Pools, way: str, policy: dict[str, Any]
) -> None:
    flaskthreads_autopatch.install(app, **policy)
    kept, refs = watch(app, lambda: WAYS[way](app, pools))
    pools.settle()
    assert children, "the task did not run"
    assert alive(refs) == []
    assert alive(children) == []
    del kept


@pytest.mark.usefixtures("no_collector")
def test_a_thread_made_inside_and_started_outside_holds_the_parent_until_it_has_run(installed: Flask) -> None:
    thread, refs = watch(installed, lambda: threading.Thread(target=look))
    assert isinstance(thread, threading.Thread)
    assert [type(part) for part in alive(refs)] == [Value, installed.request_class]
    joined(thread)
    assert children
    assert alive(refs) == []


@pytest.mark.usefixtures("no_collector")
def test_a_start_that_fails_holds_nothing(installed: Flask) -> None:
    def start() -> threading.Thread:
        before = threading.stack_size(1 << 60)
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                thread.start()
        finally:
            threading.stack_size(before)
        return thread

    thread = threading.Thread(target=look)
    _, refs = watch(installed, start)
    assert alive(refs) == []


class Mixin:
    pass


class Mixed(threading.Thread, Mixin):
    pass


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("cls", [threading.Thread, Mixed])
def test_a_thread_made_and_never_started_holds_nothing_once_it_is_gone(
    installed: Flask, cls: type[threading.Thread]
) -> None:
    thread, refs = watch(installed, lambda: cls(target=look))
    assert alive(refs)
    del thread
    assert alive(refs) == []


@pytest.mark.parametrize("way", WAYS)
def test_an_app_dies_though_what_ran_in_its_contexts_is_kept(pools: Pools, way: str) -> None:
    def use() -> tuple[object, weakref.ref[Flask]]:
        app = Flask(__name__)
        flaskthreads_autopatch.install(app)
        kept, _ = watch(app, lambda: WAYS[way](app, pools))
        return kept, weakref.ref(app)

    kept, ref = use()
    pools.settle()
    gc.collect()  # an app refers to itself, from its blueprints to its command line
    # What a task was given as an argument, it keeps; what a map raises keeps the frame of use().
    assert ref() is None or way in ("thread that forgets a context", "map that fails", "starmap that fails")
    del kept


@pytest.mark.parametrize("switch", [flaskthreads_autopatch.install, None], ids=["install", "enable"])
def test_a_thousand_apps_leave_none_behind(switch: Callable[[Flask], None] | None) -> None:
    def use(executor: ThreadPoolExecutor, number: int) -> weakref.ref[Flask]:
        app = Flask(f"app{number}")
        if switch is None:
            flaskthreads_autopatch.enable()
        else:
            switch(app)
        with app.app_context():
            assert executor.submit(has_app_context).result(LIMIT)
        return weakref.ref(app)

    with ThreadPoolExecutor(1) as executor:
        refs = [use(executor, number) for number in range(1000)]
        executor.submit(int).result(LIMIT)
        gc.collect()
        assert alive(refs) == []
        assert flaskthreads_autopatch.status().apps == ()
