"""The patch points, and the hazards of who inherits and who does not."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import http.server
import logging
import multiprocessing
import signal
import socketserver
import sys
import threading
import typing as t
import urllib.request
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from unittest import mock

import flask
import pytest
import werkzeug.serving
import wrapt
from flask import Flask, g, request
from flask.sessions import SecureCookieSessionInterface

from flaskthreads_autopatch import (
    disable,
    enable,
    install,
    is_inherited,
    suppress_inheritance,
)
from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch.entries import _log_once
from flaskthreads_autopatch.log import logger
from flaskthreads_autopatch.patching import bound_run, points, wrappers

from .helpers import collectable, in_thread


def user() -> str:
    """What a thread or task sees."""
    return t.cast(str, g.user) if flask.has_app_context() else "no context"


class Seen(list[str]):
    def note(self, *args: object) -> None:
        self.append(user())


def ended(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# Threads


class Subclass(threading.Thread):
    """A run() of its own, which does not call super()."""

    seen = ""

    def run(self) -> None:
        self.seen = user()


class NoSuperInit(threading.Thread):
    def __init__(self) -> None:
        pass


class OwnStart(threading.Thread):
    def start(self) -> None:
        super().start()


def test_h20_a_run_that_somebody_wrapped_between_init_and_start(installed: Flask) -> None:
    seen: list[str] = []

    class Wrapper:
        def __init__(self, run: t.Callable[[], object]) -> None:
            self.inner = run

        def run(self) -> None:
            seen.append("wrapped")
            self.inner()

    with installed.app_context():
        g.user = "made"
        thread = OwnStart(target=lambda: seen.append(g.user))
        thread.run = wrapped = Wrapper(thread.run).run  # type: ignore[method-assign]
    with installed.app_context():
        g.user = "started"
        thread.start()
        thread.join(30)
    assert seen == ["wrapped", "started"]
    # As somebody left it.
    assert thread.run is wrapped
    assert bound_run.KEY not in vars(thread)


def test_h20_subclass_with_a_run_of_its_own(installed: Flask) -> None:
    with installed.app_context():
        g.user = "alice"
        thread = Subclass()
        thread.start()
        ended(thread)
        assert thread.seen == "alice"


def test_h20_timer(installed: Flask) -> None:
    seen = Seen()
    with installed.app_context():
        g.user = "alice"
        timer = threading.Timer(0.001, seen.note)
        timer.start()
        ended(timer)
    assert seen == ["alice"]


def test_h20_an_assigned_run_inherits_and_is_put_back(installed: Flask) -> None:
    seen: list[object] = []

    def run() -> None:
        seen.append((user(), thread.run is run))

    with installed.app_context():
        g.user = "alice"
        thread = threading.Thread()
        thread.run = run  # type: ignore[method-assign]
        thread.start()
        ended(thread)
    assert seen == [("alice", True)]
    assert vars(thread)["run"] is run


def test_h20_the_binding_is_gone_when_the_users_run_is_entered(installed: Flask) -> None:
    class Thread(threading.Thread):
        state: t.ClassVar[set[str]] = set()

        def run(self) -> None:
            self.state.update(vars(self))

    with installed.app_context():
        thread = Thread()
        born_with = set(vars(threading.Thread())) - {"run", "_flaskthreads_autopatch"}
        thread.start()
        ended(thread)
    assert "run" not in thread.state
    assert {name for name in thread.state if "autopatch" in name} == set()
    assert set(vars(thread)) <= born_with


def test_h20_start_twice_raises_as_always(installed: Flask) -> None:
    with installed.app_context():
        thread = threading.Thread(target=lambda: None)
        thread.start()
        ended(thread)
        before = vars(thread).copy()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        assert vars(thread) == before
        with pytest.raises(RuntimeError, match="__init__"):
            NoSuperInit().start()


@pytest.mark.parametrize("cls", [threading.Thread, OwnStart])
def test_h20_run_without_start_runs_in_the_callers_own_context(installed: Flask, cls: type[threading.Thread]) -> None:
    def work() -> None:
        g.by_run = fc.active()

    with installed.app_context():
        cls(target=work).run()
        assert g.by_run is fc.active()
        in_thread(lambda: cls(target=work).run())


def test_a_thread_made_inside_and_started_outside_inherits_from_where_it_was_made(installed: Flask) -> None:
    seen = Seen()
    with installed.app_context():
        g.user = "alice"
        thread = threading.Thread(target=seen.note)
    thread.start()
    ended(thread)
    assert seen == ["alice"]


def test_the_context_at_start_is_the_one_that_counts(installed: Flask) -> None:
    seen = Seen()
    with installed.app_context():
        g.user = "where it was made"
        threads = [threading.Thread(target=seen.note), Subclass()]
    with installed.app_context():
        g.user = "where it was started"
        for thread in threads:
            thread.start()
            ended(thread)
    assert [*seen, t.cast(Subclass, threads[1]).seen] == ["where it was started"] * 2


def test_a_thread_made_while_on_and_started_when_off_does_not_inherit(installed: Flask) -> None:
    seen: list[bool] = []
    with installed.app_context():
        thread = threading.Thread(target=lambda: seen.append(is_inherited()))
        disable()
        thread.start()
        ended(thread)
    assert seen == [False]


def test_a_start_that_fails_leaves_the_thread_as_it_was(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    starter = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"

    def no_more_threads(*args: object, **kwargs: object) -> t.NoReturn:
        raise RuntimeError("can't start new thread")

    seen = Seen()
    with installed.app_context():
        g.user = "where it was made"
        made_inside = threading.Thread(target=seen.note)
    made_outside = threading.Thread(target=seen.note)
    with installed.app_context():
        g.user = "where it failed to start"
        for thread in (made_inside, made_outside):
            before = {name: value for name, value in vars(thread).items() if name != "_context"}
            with monkeypatch.context() as patch:
                patch.setattr(threading, starter, no_more_threads)
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    thread.start()
            assert {name: value for name, value in vars(thread).items() if name != "_context"} == before
    for thread in (made_inside, made_outside):
        thread.start()
        ended(thread)
    assert seen == ["where it was made", "no context"]


class RunIsAProperty(threading.Thread):
    seen = ""

    @property
    def run(self) -> t.Callable[[], None]:  # type: ignore[override]
        return self.note

    def note(self) -> None:
        self.seen = user()


class RunIsASlot(RunIsAProperty):
    __slots__ = ("run",)

    def __init__(self) -> None:
        super().__init__()
        self.run = self.note  # type: ignore[misc]


@pytest.mark.parametrize("cls", [RunIsAProperty, RunIsASlot])
@pytest.mark.parametrize("started_inside", [True, False])
def test_h20_a_run_that_nothing_can_be_bound_to_runs_without_and_leaves_nothing(
    installed: Flask, cls: type[RunIsAProperty], started_inside: bool
) -> None:
    with installed.app_context():
        g.user = "alice"
        thread = cls()
        if started_inside:
            thread.start()
    if not started_inside:
        thread.start()
    ended(thread)
    assert thread.seen == "no context"
    assert {name for name in vars(thread) if name == "run" or "autopatch" in name} == set()


def test_h20_a_run_that_nothing_can_be_bound_to_and_a_start_that_fails(installed: Flask) -> None:
    with installed.app_context():
        thread = RunIsAProperty()
        before = vars(thread).copy()
        size = threading.stack_size(1 << 60)
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                thread.start()
        finally:
            threading.stack_size(size)
        assert {**before, "_context": None} == {**vars(thread), "_context": None}


def test_h20_a_subclass_with_an_ident_of_its_own_inherits(installed: Flask) -> None:
    class Numbered(Subclass):
        @property
        def ident(self) -> int:
            return 7

    with installed.app_context():
        g.user = "alice"
        thread = Numbered()
        thread.start()
        ended(thread)
    assert thread.seen == "alice"
    assert {name for name in vars(thread) if name == "run" or "autopatch" in name} == set()


def test_h18_a_dummy_thread_is_not_bound(installed: Flask) -> None:
    import _thread

    seen: list[threading.Thread] = []
    done = threading.Event()

    def foreign() -> None:
        with installed.app_context():
            seen.append(threading.current_thread())
        done.set()

    _thread.start_new_thread(foreign, ())
    assert done.wait(30)
    (dummy,) = seen
    assert type(dummy).__name__ == "_DummyThread"
    assert "run" not in vars(dummy)
    assert "_flaskthreads_autopatch" not in vars(dummy)


def test_an_exception_reaches_the_excepthook(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: caught.append((args.exc_type, args.thread)))

    def fails() -> None:
        raise ValueError(g.user)

    with installed.app_context():
        g.user = "alice"
        thread = threading.Thread(target=fails)
        thread.start()
        ended(thread)
    assert caught == [(ValueError, thread)]


# Pools


def test_submit_and_map(installed: Flask) -> None:
    with installed.app_context(), ThreadPoolExecutor(2) as pool:
        g.user = "alice"
        assert pool.submit(user).result(30) == "alice"
        assert list(pool.map(lambda number: (number, user()), range(3))) == [(0, "alice"), (1, "alice"), (2, "alice")]


def test_a_users_keyword_named_fn_is_the_users(installed: Flask) -> None:
    def task(first: str, *, fn: str, self: str) -> tuple[str, str, str, str]:
        return first, fn, self, user()

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        assert pool.submit(task, "a", fn="b", self="c").result(30) == ("a", "b", "c", "alice")
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]


def test_the_wrapped_callable_looks_like_the_users(installed: Flask) -> None:
    class Pool(ThreadPoolExecutor):
        def submit(self, fn: t.Any, /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            return super().submit(fn, *args, **kwargs)

        def _adjust_thread_count(self) -> None:
            pass  # nothing runs: the work item stays in the queue, to be looked at

    def task(a: int, b: int = 2) -> None:
        """Its doc."""

    task.attribute = "its own"  # type: ignore[attr-defined]
    with installed.app_context():
        pool = Pool(1)
        pool.submit(task)
        item = pool._work_queue.get_nowait()
        fn = t.cast(t.Any, item).task[0] if hasattr(item, "task") else t.cast(t.Any, item).fn
    assert fn.__wrapped__ is task
    assert (fn.__name__, fn.__doc__, fn.attribute) == ("task", "Its doc.", "its own")
    assert fn.__module__ == __name__
    import inspect

    assert inspect.signature(fn) == inspect.signature(task)


def test_thread_pool_methods(installed: Flask) -> None:
    def pair(a: object, b: object) -> str:
        return user()

    def one(a: object) -> str:
        return user()

    with ThreadPool(2) as pool, installed.app_context():
        g.user = "alice"
        assert pool.apply(user) == "alice"
        assert pool.apply_async(user).get(30) == "alice"
        assert pool.apply_async(func=pair, args=(1,), kwds={"b": 2}).get(30) == "alice"
        for method in (pool.map, pool.imap, pool.imap_unordered):
            assert list(method(one, range(3))) == ["alice"] * 3
            assert list(method(one, range(5), chunksize=2)) == ["alice"] * 5
        assert pool.map_async(one, range(3)).get(30) == ["alice"] * 3
        assert pool.starmap(pair, [(1, 2), (3, 4)]) == ["alice"] * 2
        assert pool.starmap_async(pair, [(1, 2)]).get(30) == ["alice"]
    with ThreadPool(1) as pool:
        assert pool.apply(user) == "no context"


def test_thread_pool_callbacks(installed: Flask) -> None:
    def fails() -> None:
        raise ValueError(g.user)

    with ThreadPool(2) as pool, installed.app_context():
        g.user = "alice"
        results: list[Future[str]] = [Future() for _ in range(4)]
        pool.apply_async(user, callback=lambda _: results[0].set_result(user()))
        pool.apply_async(fails, (), {}, None, lambda _: results[1].set_result(user()))
        pool.map_async(len, ["a"], None, lambda _: results[2].set_result(user()))
        pool.starmap_async(pow, [(1, 2)], callback=lambda _: results[3].set_result(user()))
        assert [result.result(30) for result in results] == ["alice"] * 4


def test_a_kept_result_of_a_thread_pool_holds_nothing(installed: Flask) -> None:
    class Entry:
        pass

    with ThreadPool(1) as pool:
        done = threading.Event()
        with installed.app_context():
            g.entry = Entry()
            dead = weakref.ref(g.entry)
            kept = [
                pool.apply_async(user_or_none, callback=lambda _: None),
                pool.map_async(len, ["a"], callback=lambda _: done.set()),
            ]
            assert done.wait(30)
        pool.apply(len, ("",))
        assert collectable(dead)
        assert all(result.ready() for result in kept)


def user_or_none() -> object:
    return g.get("user")


def test_process_pools_are_left_alone(installed: Flask) -> None:
    with installed.app_context():
        g.user = lambda: "cannot be pickled"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(len, ["ab"]) == [2]
            assert pool.apply(len, ("abc",)) == 3


def test_h13_a_pools_worker_holds_nobodys_context(installed: Flask) -> None:
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            g.user = "alice"
            assert pool.submit(user).result(30) == "alice"  # starts the worker
        assert pool.submit(user).result(30) == "no context"
        with installed.app_context():
            g.user = "bob"
            assert pool.submit(user).result(30) == "bob"
            with suppress_inheritance():
                assert pool.submit(user).result(30) == "no context"
    with installed.app_context():
        g.user = "alice"
        thread_pool = ThreadPool(1)
    with thread_pool:
        assert thread_pool.apply(user) == "no context"


def test_h15_an_ignored_thread_starts_without_the_contexts(installed: Flask) -> None:
    """Whether or not threads inherit context variables by themselves, as on free-threaded 3.14 and by its flag."""
    other: contextvars.ContextVar[str] = contextvars.ContextVar("other")
    inherits = getattr(sys.flags, "thread_inherit_context", False)
    with installed.test_request_context("/"):
        other.set("kept")
        with suppress_inheritance():
            assert in_thread(lambda: (fc.active(), flask.has_request_context())) == (None, False)
            assert in_thread(lambda: other.get(None)) == ("kept" if inherits else None)


def test_h15_a_thread_started_under_suppression_is_not_itself_suppressed(installed: Flask) -> None:
    def work() -> bool:
        with installed.app_context():
            return in_thread(is_inherited)

    with installed.app_context(), suppress_inheritance():
        assert in_thread(work)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Thread(context=) came with Python 3.14")
def test_an_explicit_context_stays_the_threads(app: Flask) -> None:
    install(app, contextvars=True)
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")
    mine = contextvars.Context()
    mine.run(var.set, "in the thread's own context")
    seen: list[object] = []

    def work() -> None:
        seen.append((var.get(), user()))
        var.set("written by the thread")

    with app.app_context():
        var.set("in the parent")
        g.user = "alice"
        thread = threading.Thread(target=work, context=mine)  # type: ignore[call-arg,unused-ignore]
        thread.start()
        ended(thread)
    assert seen == [("in the thread's own context", "alice")]
    assert mine[var] == "written by the thread"


# Callbacks


def test_h21_a_callback_gets_the_context_of_whoever_added_it(installed: Flask) -> None:
    go_on = threading.Event()
    seen = Seen()
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            g.user = "alice"
            future = pool.submit(go_on.wait, 30)
        with installed.app_context():
            g.user = "bob"
            future.add_done_callback(seen.note)
            future.add_done_callback(fn=seen.note)
            with pytest.raises(TypeError):
                future.add_done_callback(callback=seen.note)  # type: ignore[call-arg]
        future.add_done_callback(seen.note)
        go_on.set()
    assert seen == ["bob", "bob", "no context"]


def test_h21_a_callback_of_a_finished_future_runs_in_the_adders_own_context(installed: Flask) -> None:
    future: Future[None] = Future()
    future.set_result(None)
    with installed.app_context():
        future.add_done_callback(lambda future: setattr(g, "by_callback", fc.active()))
        assert g.by_callback is fc.active()


def test_h27_a_callback_runs_in_the_app_context_that_is_active_unless_that_is_an_inherited_one(
    installed: Flask,
) -> None:
    torn_down: list[str] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(user()))

    def outcomes() -> list[object]:
        seen = Seen()
        for set_off in (lambda future: future.set_result(None), lambda future: future.cancel()):
            future: Future[None] = Future()
            with installed.app_context():
                g.user = "alice"
                future.add_done_callback(seen.note)
            torn_down.clear()
            with installed.app_context():
                g.user = "bob"
                set_off(future)
                assert torn_down == []
        return list(seen)

    assert outcomes() == ["bob", "bob"]
    disable()
    assert outcomes() == ["bob", "bob"]


def test_h21_a_callback_that_is_set_off_in_an_inherited_context_has_the_adders(installed: Flask) -> None:
    seen = Seen()
    future: Future[None] = Future()
    with installed.app_context():
        g.user = "alice"
        future.add_done_callback(seen.note)
    with installed.app_context():
        g.user = "bob"
        in_thread(future.set_result, None)
    assert seen == ["alice"]


def test_what_does_not_inherit_is_not_wrapped_either(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(*args: object) -> None: ...

    submitted: list[object] = []
    submit = ThreadPoolExecutor.submit

    def below(pool: ThreadPoolExecutor, fn: t.Callable[..., t.Any]) -> Future[t.Any]:
        submitted.append(fn)
        return submit(pool, fn)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", below)
    install(app)
    other = Flask("not installed")
    future: t.Any = Future()
    pool = ThreadPool(1)
    try:
        with other.app_context():
            future.add_done_callback(fn)
            result: t.Any = pool.apply_async(fn)
            with ThreadPoolExecutor(1) as executor:
                executor.submit(fn)
        result.get(30)
    finally:
        pool.terminate()
        disable()
    assert [type(given) for given in submitted] == [type(fn)]
    assert future._done_callbacks == [fn] and type(future._done_callbacks[0]) is type(fn)
    assert result._callback is None and result._error_callback is None


def test_a_callback_that_is_called_again_runs_without_a_context(installed: Flask) -> None:
    seen = Seen()
    future: t.Any = Future()
    with installed.app_context():
        g.user = "alice"
        future.add_done_callback(seen.note)
    [callback] = future._done_callbacks
    callback(future)
    callback(future)
    assert seen == ["alice", "no context"]


def test_a_callback_that_raises_is_logged_by_the_future(installed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    def fails(future: object) -> None:
        raise ValueError("in a callback")

    future: Future[None] = Future()
    with installed.app_context():
        future.add_done_callback(fails)
    future.set_result(None)
    assert "in a callback" in caplog.text


# Ignored


def test_ignored_by_the_policy(app: Flask) -> None:
    install(app, ignore=(f"{__name__}:Sub*", "tests.test_patches:Seen.note", "no.such.module"))
    seen = Seen()
    with app.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        thread = Subclass()
        by_target = threading.Thread(target=seen.note)
        by_function = threading.Timer(0.001, seen.note)
        for each in (thread, by_target, by_function):
            each.start()
            ended(each)
        pool.submit(seen.note).result(30)
        pool.submit(functools.partial(seen.note)).result(30)
        assert pool.submit(user).result(30) == "alice"
    assert [thread.seen, *seen] == ["no context"] * 5


def test_servers_and_event_loops_do_not_inherit(installed: Flask) -> None:
    contexts: list[object] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            contexts.append(fc.active())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    loop = asyncio.new_event_loop()
    with installed.app_context():
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=loop.run_forever)]
        for thread in threads:
            thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/") as response:
            assert response.status == 200

        async def look() -> object:
            return fc.active()

        # Without a context of its own: the loop's thread has none.
        contexts.append(contextvars.Context().run(asyncio.run_coroutine_threadsafe, look(), loop).result(30))
        server.shutdown()
        server.server_close()
        loop.call_soon_threadsafe(loop.stop)
        ended(*threads)
        loop.close()
    assert contexts == [None, None]


def test_a_callable_that_cannot_be_looked_at_runs_without_a_context(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    class Awkward:
        __call__ = functools.partial(user)

        def __getattr__(self, name: str) -> t.NoReturn:
            raise RuntimeError(f"no {name}")

        @property
        def __self__(self) -> t.NoReturn:
            raise RuntimeError("not here")

        @property
        def __class__(self) -> t.NoReturn:  # type: ignore[override]
            raise RuntimeError("of no class")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        assert pool.submit(Awkward()).result(30) == "no context"
        thread = threading.Thread(target=print)
        thread._target = Awkward()  # type: ignore[attr-defined]
        thread.start()
        ended(thread)
    assert caplog.text.count("No snapshot of the app context could be taken") == 2


# What may be odd about somebody's thread, callable or log


class OddRun(threading.Thread):
    """Its run, which each test puts there, is no function that takes the thread."""


@pytest.mark.parametrize("wrap", [staticmethod, lambda fn: mock.Mock(side_effect=fn)])
def test_h20_a_run_of_the_class_that_does_not_take_the_thread(
    installed: Flask, monkeypatch: pytest.MonkeyPatch, wrap: t.Callable[..., object]
) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(OddRun, "run", wrap(lambda *args: given.append((user(), *args))), raising=False)
    with installed.app_context():
        g.user = "alice"
        thread = OddRun()
        thread.start()
        ended(thread)
    assert given == [("alice",)]


def test_arguments_that_can_be_read_once_are_left_for_the_thread(installed: Flask) -> None:
    given: list[object] = []
    with installed.app_context():
        thread = threading.Thread(target=lambda *args: given.extend(args), args=iter("ab"))  # type: ignore[arg-type]
        thread.start()
        ended(thread)
    assert given == ["a", "b"]


class Falsy(list[str]):
    """A callable that is an empty list."""

    def __call__(self, *args: object) -> str:
        return user()


class Undecided:
    """A callable whose truth cannot be asked."""

    def __bool__(self) -> t.NoReturn:
        raise ValueError("neither true nor false")

    def __call__(self, *args: object) -> str:
        return user()


@pytest.mark.parametrize("kind", [Falsy, Undecided])
def test_the_truth_of_a_callable_is_not_asked(installed: Flask, kind: type[Falsy | Undecided]) -> None:
    seen: list[str] = []

    class Noting(kind):  # type: ignore[misc, valid-type]
        def __call__(self, *args: object) -> None:
            seen.append(user())

    with installed.app_context(), ThreadPool(1) as pool:
        g.user = "alice"
        assert pool.apply_async(kind(), (1,)).get(30) == "alice"
        thread = threading.Thread(target=Noting())
        thread.start()
        ended(thread)
    assert seen == ["alice"]


def test_an_ignored_function_of_a_pool_whose_callback_inherits(installed: Flask) -> None:
    seen = Seen()
    with installed.app_context(), ThreadPool(1) as pool:
        g.user = "alice"
        run = contextvars.Context().run
        assert pool.apply_async(run, (user,), callback=seen.note).get(30) == "no context"
    assert seen == ["alice"]


@pytest.mark.parametrize("failing", [False, True])
def test_a_logging_handler_that_submits_does_not_submit_for_ever(
    installed: Flask, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert len(messages) < 10
            messages.append(record.getMessage())
            pool.submit(int)

    def fail(*args: object, **kwargs: object) -> t.NoReturn:
        raise LookupError("no snapshot for you")

    handler = Handler()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.DEBUG)
    try:
        with installed.app_context(), ThreadPoolExecutor(1) as pool:
            if failing:
                monkeypatch.setattr(wrappers, "capture", fail)
            else:
                _log_once.cache_clear()
                g._login_user = object()
            pool.submit(int).result(30)
    finally:
        logger.setLevel(logging.NOTSET)
    # The first worker of a process may say beside this that its kind does not inherit.
    assert len([message for message in messages if not message.startswith("A thread that runs")]) == 1


# What carries its own context


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


# Serving


@pytest.fixture
def served(installed: Flask) -> Flask:
    @installed.get("/<name>")
    def view(name: str) -> str:
        before = g.get("user", "nobody")
        g.user = name
        return f"{before} {is_inherited()} {request.path}"

    @installed.get("/stream/<name>")
    def stream(name: str) -> flask.Response:
        g.user = name

        @flask.stream_with_context
        def generate() -> t.Iterator[str]:
            for _ in range(3):
                yield f"{g.user} {request.path} "

        return flask.Response(generate())

    return installed


@pytest.mark.parametrize("through", ["__call__", "wsgi_app", "a middleware"])
def test_h14_a_request_is_never_served_inside_an_inherited_context(served: Flask, through: str) -> None:
    def serve() -> list[str]:
        from werkzeug.test import Client

        application = served if through != "wsgi_app" else served.wsgi_app
        client = Client(application)
        seen = [client.get(path).text for path in ("/bob", "/carol", "/stream/dave")]
        return [*seen, f"{g.user} {request.path}"]

    if through == "a middleware":
        disable()
        wsgi_app = served.wsgi_app  # bound before the patches are on
        served.wsgi_app = lambda environ, start_response: wsgi_app(environ, start_response)  # type: ignore[method-assign]
        install(served)
    with served.test_request_context("/alices"):
        g.user = "alice"
        assert in_thread(serve) == [
            "nobody False /bob",
            "nobody False /carol",
            "dave /stream/dave " * 3,
            "alice /alices",
        ]


def test_h14_a_streaming_response_is_closed_in_its_own_context(served: Flask) -> None:
    seen: list[tuple[str, str]] = []
    closed: list[str] = []

    @served.get("/closing/<name>")
    def closing(name: str) -> flask.Response:
        g.user = name

        @flask.stream_with_context
        def generate() -> t.Iterator[str]:
            try:
                yield "first"
                yield "second"
            finally:
                seen.append((g.user, request.path))

        response = flask.Response(generate())
        response.call_on_close(lambda: closed.append("closed"))
        return response

    def serve() -> None:
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        response, status, _ = run_wsgi_app(served, EnvironBuilder("/closing/bob").get_environ())
        assert (next(iter(response)), status) == (b"first", "200 OK")
        response.close()
        assert closed == ["closed"]

    with served.app_context():
        g.user = "alice"
        in_thread(serve)
    assert seen == [("bob", "/closing/bob")]


def test_h14_a_context_that_nobody_inherited_is_reused_as_ever(served: Flask) -> None:
    """As by a test that puts something on g for the view."""
    with served.app_context():
        g.user = "alice"
        text = served.test_client().get("/bob").text
    assert text == ("alice False /bob" if fc.REUSES_APP_CONTEXT else "nobody False /bob")


def test_h14_a_server_started_from_a_thread_with_a_context(served: Flask) -> None:
    """As a live-server fixture does, with a target of its own that no catalogue can know."""
    server = werkzeug.serving.make_server("127.0.0.1", 0, served)
    with served.app_context():
        g.user = "alice"
        thread = threading.Thread(target=lambda: server.serve_forever())
        thread.start()
    for name in ("bob", "carol"):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{name}") as response:
            assert response.read().decode() == f"nobody False /{name}"
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/stream/dave") as response:
        assert response.read().decode() == "dave /stream/dave " * 3
    server.shutdown()
    ended(thread)


def test_h14_a_served_request_sees_nothing_of_the_lent_one(served: Flask) -> None:
    had_request: list[bool] = []
    served.teardown_appcontext(lambda exc: had_request.append(flask.has_request_context()))
    flask.appcontext_pushed.connect(pushed := lambda sender: had_request.append(flask.has_request_context()), served)
    with served.test_request_context("/alices"):

        def serve() -> None:
            had_request.clear()
            served.test_client().get("/bob")
            outside_of_the_request.extend(had_request)

        outside_of_the_request: list[bool] = []
        in_thread(serve)
    del pushed
    # Flask 3.2 pushes and tears down with the request active: then it is the served one.
    assert outside_of_the_request == [not fc.REUSES_APP_CONTEXT] * 2


@pytest.mark.parametrize("has_ended", [False, True])
def test_h14_nor_inside_one_that_is_active_in_copied_context_variables(served: Flask, has_ended: bool) -> None:
    """As by a server that a thread starts on an event loop: the loop copies the thread's context variables."""

    def serve() -> list[str]:
        return [served.test_client().get(path).text for path in ("/bob", "/carol")]

    def copy() -> t.Any:
        context = contextvars.copy_context()
        return context if has_ended else in_thread(context.run, serve)

    with served.test_request_context("/alices"):
        g.user = "alice"
        seen = in_thread(copy)
    if has_ended:
        seen = in_thread(seen.run, serve)
    assert seen == ["nobody False /bob", "nobody False /carol"]


def test_a_test_client_kept_open_in_a_thread(served: Flask) -> None:
    def work() -> tuple[str, str, str]:
        with served.test_client() as client:
            client.get("/bob")
            inside = t.cast(str, g.user), request.path
        return (*inside, t.cast(str, g.user))

    with served.app_context():
        g.user = "alice"
        assert in_thread(work) == ("bob", "/bob", "alice")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no setitimer here")
def test_a_map_that_a_signal_interrupts_goes_on_with_its_context(installed: Flask) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*args: object) -> None:
        if started.is_set() and not interrupted.is_set():
            interrupted.set()
            raise Interrupted

    def work(number: int) -> None:
        started.set()
        assert interrupted.wait(30)
        seen.note()
        done.release()

    seen, started, interrupted, done = Seen(), threading.Event(), threading.Event(), threading.Semaphore(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    # Again and again: one that comes just before the wait does not end it.
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with ThreadPool(1) as pool, installed.app_context():
            g.user = "alice"
            with pytest.raises(Interrupted):
                pool.map(work, range(2))
            assert done.acquire(timeout=30)
            assert done.acquire(timeout=30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen == ["alice", "alice"]


# What is no thread, no pool


class Duck:
    pass


@pytest.mark.parametrize("point", points.POINTS, ids=lambda point: point.attribute)
def test_a_call_without_an_instance_does_what_it_does_without_the_patches(app: Flask, point: points.PatchPoint) -> None:
    owner, attribute, _ = wrapt.resolve_path(point.module, point.attribute)

    def outcomes() -> list[str]:
        found = []
        for args in ((), (None,), (object(),), (Duck(),), (Duck(), 1), (Duck(), 1, [])):
            try:
                getattr(owner, attribute)(*args)
                found.append("")
            except Exception as error:
                found.append(repr(error))
        return found

    def on_and_off() -> None:
        install(app)
        on = outcomes()
        disable()
        assert on == outcomes()

    on_and_off()
    with app.app_context():
        on_and_off()
        install(app)
        in_thread(on_and_off)


# A request context of the thread's own

before_flask_3_2 = pytest.mark.skipif(not fc.REUSES_APP_CONTEXT, reason="Flask leaves such a context pushed")


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("lent", [False, True])
def test_a_request_context_of_the_threads_own_has_a_g_and_a_teardown_of_its_own(
    installed: Flask, by_hand: bool, lent: bool
) -> None:
    torn_down: list[tuple[str, object]] = []
    installed.teardown_appcontext(lambda exc: torn_down.append((g.pop("user", "nothing"), exc)))

    def work() -> None:
        for name in ("bob", "carol"):
            own = installed.test_request_context(f"/{name}")
            if by_hand:
                own.push()
            else:
                own.__enter__()
            assert (g.get("user"), request.path, is_inherited()) == (None, f"/{name}", False)
            g.user = name
            with own:  # as stream_with_context does
                assert (user(), request.path) == (name, f"/{name}")
            assert torn_down[1:] == []
            assert in_thread(lambda: (user(), request.path)) == (name, f"/{name}")
            torn_down.clear()
            own.pop()
            assert torn_down == [(name, None)]
            assert (user(), is_inherited(), flask.has_request_context()) == ("alice", True, lent)
        torn_down.clear()

    with installed.test_request_context("/alices") if lent else installed.app_context():
        g.user = "alice"
        in_thread(work)
        assert torn_down == [("alice", None)]  # text is not hidden from teardown


@before_flask_3_2
def test_a_request_context_of_the_threads_own_whose_push_fails_leaves_no_app_context(installed: Flask) -> None:
    torn_down: list[object] = []
    failure = OSError("no session")

    class NoSession(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: flask.Request) -> t.NoReturn:
            g.opened = True
            raise failure

    def open_one() -> None:
        own = installed.test_request_context("/bobs")
        try:
            own.push()
            _ = flask.session.accessed  # Flask 3.2 opens it when it is used
        finally:
            seen.append(g.get("user"))
            own.pop()

    def work() -> None:
        with pytest.raises(OSError, match="no session"):
            open_one()
        assert torn_down == [True]
        assert (user(), request.path) == ("alice", "/alices")

    seen: list[str | None] = []
    with installed.test_request_context("/alices"):
        g.user = "alice"
        installed.session_interface = NoSession()
        installed.teardown_appcontext(lambda exc: torn_down.append(g.get("opened")))
        in_thread(work)
    assert torn_down == [True, None, None]
    assert seen == [None]


@before_flask_3_2
def test_a_request_context_of_the_threads_own_whose_app_context_cannot_be_pushed(installed: Flask) -> None:
    torn_down: list[object] = []
    installed.teardown_appcontext(torn_down.append)
    failure = OSError("a receiver")

    def fail(sender: object) -> None:
        raise failure

    def work() -> None:
        with flask.appcontext_pushed.connected_to(fail), pytest.raises(OSError, match="a receiver"):
            installed.test_request_context("/bobs").push()
        # Flask leaves such an app context pushed. It is popped at the end of the thread.
        assert (g.get("user"), is_inherited(), torn_down) == (None, False, [])

    with installed.test_request_context("/alices"):
        g.user = "alice"
        in_thread(work)
        assert torn_down == [None, None]


@before_flask_3_2
def test_a_request_context_of_another_app_is_left_to_flask(installed: Flask) -> None:
    other = Flask("other")

    class NoSession(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: flask.Request) -> t.NoReturn:
            raise OSError("no session")

    def work() -> None:
        theirs = other.test_request_context("/bobs")
        with pytest.raises(OSError, match="no session"):
            theirs.push()
        assert flask.current_app == other
        theirs.pop()
        assert flask.current_app == installed

    other.session_interface = NoSession()
    with installed.app_context():
        in_thread(work)


def test_h11_a_request_context_pushed_by_a_teardown_handler_does_not_tear_down_for_ever(installed: Flask) -> None:
    calls: list[str] = []

    @installed.teardown_appcontext
    def note(exc: BaseException | None) -> None:
        calls.append(threading.current_thread().name)
        if len(calls) < 9 and is_inherited() and fc.REUSES_APP_CONTEXT:
            with installed.test_request_context("/teardown"):
                pass

    with installed.app_context():
        in_thread(int)
        assert len(calls) == 1


def test_h29_a_copied_request_context_has_an_app_context_of_its_own(installed: Flask) -> None:
    """A thread that calls such a function for each item has a ``g`` and a teardown for each item without us, too."""
    torn_down: list[object] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(g.get("item")))

    def look(item: str) -> tuple[object, ...]:
        seen = g.get("user"), g.get("item"), request.path, is_inherited()
        g.item = item
        return seen

    def work(copied: t.Callable[[str], object]) -> None:
        for item in ("one", "two"):
            # Flask 3.2 pushes the one copy each time, and so with the same g.
            before = None if fc.REUSES_APP_CONTEXT or item == "one" else "one"
            assert copied(item) == (None, before, "/alices", False)
        assert torn_down == ["one", "two"]
        if flask.has_request_context():
            assert flask.copy_current_request_context(look)("three") == (None, None, "/alices", False)
            assert torn_down == ["one", "two", "three"]
        torn_down.clear()

    for options in (None, {}, {"request": False}):
        disable()
        if options is not None:
            install(installed, **options)
        with installed.test_request_context("/alices"):
            g.user = "alice"
            in_thread(work, flask.copy_current_request_context(look))
        torn_down.clear()


def test_a_request_context_of_the_threads_own_once_all_is_off(installed: Flask) -> None:
    def work() -> bool:
        disable()
        with installed.test_request_context("/bobs"):
            return is_inherited()

    with installed.app_context():
        assert in_thread(work) is fc.REUSES_APP_CONTEXT


# On for all apps


def test_enable_covers_every_app(app: Flask) -> None:
    with enable():
        for each in (app, Flask("other")):
            with each.app_context():
                g.user = each.name
                assert in_thread(user) == each.name
    with app.app_context():
        assert in_thread(is_inherited) is False


def test_a_thread_that_is_never_started_goes_with_its_last_reference(installed: Flask) -> None:
    class Resource:
        pass

    gc.collect()
    gc.disable()
    try:
        with installed.app_context():
            g.resource = Resource()
            resource = weakref.ref(g.resource)
            thread = threading.Thread(target=print)
            gone = weakref.ref(thread)
            del thread
        assert gone() is None
        assert resource() is None
    finally:
        gc.enable()


def test_what_is_not_inherited_is_logged_by_the_child(installed: Flask) -> None:
    """The code that starts a thread may hold a lock that a logging handler waits for, as one does that feeds a pool."""
    logged_in: list[threading.Thread] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged_in.append(threading.current_thread())

    handler = Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    _log_once.cache_clear()
    try:
        with installed.app_context():
            g._login_user = object()
            thread = threading.Thread(target=user)
            g.user = "alice"
            thread.start()
            ended(thread)
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
    assert logged_in == [thread]
