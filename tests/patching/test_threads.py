"""`Thread.start`: how a thread is bound to the context at its start, and what does not inherit."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import http.server
import logging
import socketserver
import sys
import threading
import typing as t
import urllib.request
import weakref
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import flask
import pytest
from flask import Flask, g

from flaskthreads_autopatch import AppContextThread, disable, enable, install, is_inherited, suppress_inheritance
from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch.entries import _log_once
from flaskthreads_autopatch.log import logger
from flaskthreads_autopatch.patching import bound_run

from ..helpers import LIMIT, Seen, ended, in_thread, user


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
        thread.join(LIMIT)
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


@pytest.mark.parametrize("explicit", [False, True])
def test_h20_a_second_start_while_the_thread_is_about_to_run_takes_nothing_from_it(
    installed: Flask, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    seen = Seen()
    may_run, fails, may_fail = threading.Event(), threading.Event(), threading.Event()
    wrapper = threading.Thread.__dict__["start"]
    start = wrapper.__wrapped__

    def start_slowly(thread: threading.Thread) -> None:
        if thread.ident is not None:
            fails.set()
            may_fail.wait(LIMIT)
        start(thread)

    def start_again() -> None:
        with installed.app_context(), pytest.raises(RuntimeError):
            thread.start()
        seen.append("raised")

    with installed.app_context():
        g.user = "alice"
        thread = (AppContextThread if explicit else threading.Thread)(target=seen.note)
        # A trace function is called before run(), as under coverage.
        before = threading.gettrace()
        threading.settrace(lambda *_: may_run.wait(LIMIT) and None)
        try:
            thread.start()
        finally:
            threading.settrace(before)  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(wrapper, "__wrapped__", start_slowly)
        other = threading.Thread(target=start_again)
        other.start()
        assert fails.wait(LIMIT)
        may_run.set()
        thread.join(LIMIT)
        may_fail.set()
        ended(thread, other)
    assert seen == ["alice", "raised"]
    assert not {"run", bound_run.KEY} & thread.__dict__.keys()


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
    assert done.wait(LIMIT)
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


def test_ignored_by_the_policy(app: Flask) -> None:
    install(app, ignore=(f"{__name__}:Sub*", "tests.helpers:Seen.note", "no.such.module"))
    seen = Seen()
    with app.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        thread = Subclass()
        by_target = threading.Thread(target=seen.note)
        by_function = threading.Timer(0.001, seen.note)
        for each in (thread, by_target, by_function):
            each.start()
            ended(each)
        pool.submit(seen.note).result(LIMIT)
        pool.submit(functools.partial(seen.note)).result(LIMIT)
        assert pool.submit(user).result(LIMIT) == "alice"
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
        contexts.append(contextvars.Context().run(asyncio.run_coroutine_threadsafe, look(), loop).result(LIMIT))
        server.shutdown()
        server.server_close()
        loop.call_soon_threadsafe(loop.stop)
        ended(*threads)
        loop.close()
    assert contexts == [None, None]


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
