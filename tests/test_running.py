"""What runs can be seen: the register, the signals, the warning, the table."""

from __future__ import annotations

import _thread
import contextvars
import dataclasses
import functools
import gc
import io
import itertools
import logging
import logging.handlers
import os
import pickle
import queue
import signal
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, appcontext_tearing_down, g, request
from flask.ctx import AppContext

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    Policy,
    PolicyError,
    Replay,
    context_inherited,
    context_released,
    copy_current_app_context,
    flask_context,
    names,
    replay,
    running,
)
from flaskthreads_autopatch.flask_context import teardown
from flaskthreads_autopatch.policy import resolve
from flaskthreads_autopatch.visibility import overdue, parents, registry

from . import processes
from .helpers import LIMIT, in_thread

needs_blinker = pytest.mark.skipif(not hasattr(context_inherited, "receivers"), reason="signals need blinker")


class Gate:
    """A callable that says when it is entered, and returns when it is told to."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, *ignored: object) -> None:
        self.entered.set()
        assert self.opened.wait(LIMIT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture(autouse=True)
def empty_again() -> Iterator[None]:
    assert running() == []
    yield
    assert running() == []


def start(target: object, name: str = "worker") -> threading.Thread:
    thread = threading.Thread(target=target, name=name)  # type: ignore[arg-type]
    thread.start()
    return thread


# running() ----------------------------------------------------------------------------------------


def test_a_thread_is_there_while_it_runs(installed: Flask, gate: Gate) -> None:
    def work() -> None:
        gate()

    with installed.test_request_context("/orders", method="POST"):
        thread = start(work)
        assert gate.entered.wait(LIMIT)
        [replay] = running()
    [later] = running()
    gate.opened.set()
    thread.join(LIMIT)
    assert replay.kind == "thread"
    assert (replay.thread_name, replay.thread_ident) == ("worker", thread.ident)
    assert replay.callable == f"{__name__}:test_a_thread_is_there_while_it_runs.<locals>.work"
    assert (replay.app, replay.method, replay.path) == ("tests", "POST", "/orders")
    assert (replay.parent_is_over, later.parent_is_over) == (False, True)
    assert 0 <= replay.seconds <= later.seconds < LIMIT
    with pytest.raises(dataclasses.FrozenInstanceError):
        replay.app = ""  # type: ignore[misc]


def test_kinds_and_callables(installed: Flask) -> None:
    seen: dict[str, Replay] = {}

    def look(name: str) -> None:
        [seen[name]] = running()

    class Own(threading.Thread):
        def run(self) -> None:
            look("own run")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        for thread in (Own(), threading.Timer(0, look, ["timer"])):
            thread.start()
            thread.join(LIMIT)
        pool.submit(look, "task").result(LIMIT)
        in_thread(look, "thread")
        future: Future[None] = Future()
        future.add_done_callback(lambda future: look("callback"))
    in_thread(future.set_result, None)
    here = test_kinds_and_callables.__qualname__
    assert {name: (replay.kind, replay.callable.partition(":")[2]) for name, replay in seen.items()} == {
        "own run": ("thread", f"{here}.<locals>.Own.run"),
        "timer": ("thread", f"{here}.<locals>.look"),
        "task": ("task", f"{here}.<locals>.look"),
        "thread": ("thread", "in_thread.<locals>.work"),
        "callback": ("callback", f"{here}.<locals>.<lambda>"),
    }
    assert {replay.path for replay in seen.values()} == {None}


def labelled(fn: functools.partial[object]) -> functools.partial[object]:
    fn.label = "keeps it from being merged into another one"  # type: ignore[attr-defined]
    return fn


@pytest.mark.parametrize(
    ("fn", "path"),
    [
        (functools.partial(start, print), f"{__name__}:start"),
        (functools.partial(labelled(functools.partial(start)), print), f"{__name__}:start"),
        (queue.SimpleQueue().put, "builtins:builtin_function_or_method"),  # of no module
        (Gate(), f"{__name__}:Gate"),
    ],
)
def test_how_a_callable_is_named(fn: object, path: str) -> None:
    assert names.path_of(fn) == path


def test_what_is_reported_is_plain(installed: Flask) -> None:
    with installed.app_context():
        found = in_thread(running)
    assert pickle.loads(pickle.dumps(found)) == found
    assert found[0].not_inherited == {}


def test_the_oldest_is_first_even_if_it_came_into_the_register_last(installed: Flask) -> None:
    gates = [Gate(), Gate()]
    threads = []
    with installed.app_context():
        for gate in gates:
            threads.append(start(gate))
            assert gate.entered.wait(LIMIT)
    ctx, entry = next(iter(registry.replays.items()))
    del registry.replays[ctx]
    registry.replays[ctx] = entry
    found = running()
    for gate, thread in zip(gates, threads, strict=True):
        gate.opened.set()
        thread.join(LIMIT)
    assert [replay.thread_ident for replay in found] == [thread.ident for thread in threads]


def test_nested_replays_are_each_there(installed: Flask) -> None:
    def outer() -> list[Replay]:
        return copy_current_app_context(running)()

    with installed.app_context():
        found = in_thread(outer)
    assert [replay.kind for replay in found] == ["thread", "task"]
    assert len({replay.thread_ident for replay in found}) == 1


def test_the_parent_of_a_nested_replay_ends(installed: Flask, gate: Gate) -> None:
    with installed.app_context():
        in_thread(lambda: start(gate))
        assert gate.entered.wait(LIMIT)
        # The first thread's context is over, the one that it inherited from is not.
        assert [replay.parent_is_over for replay in running()] == [True]
        gate.opened.set()
    for thread in threading.enumerate():
        if thread.name == "worker":
            thread.join(LIMIT)


def test_a_replay_is_there_during_its_teardown_and_not_after_a_failure(installed: Flask) -> None:
    seen = []
    installed.teardown_appcontext(lambda error: seen.append(running()))

    def fail() -> None:
        raise ZeroDivisionError

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(fail).exception(LIMIT), ZeroDivisionError)
        assert [[replay.callable.rpartition(".")[2] for replay in found] for found in seen] == [["fail"]]


def test_what_is_inherited_and_what_stays_home(app: Flask) -> None:
    flaskthreads_autopatch.install(app, exclude=["token"])
    with app.app_context():
        g.user, g.token = "alice", "s3cret"
        [replay] = in_thread(running)
    assert replay.inherited == ("user",)
    assert replay.not_inherited == {"token": "excluded by 'token'"}


class Value:
    """An entry of ``g`` that can be watched."""


def test_nothing_that_is_reported_keeps_anything_alive(installed: Flask, gate: Gate) -> None:
    # A request that matches no route keeps its contexts, by the traceback of the routing exception.
    installed.add_url_rule("/watched", "watched")

    def serve() -> tuple[list[weakref.ref[object]], threading.Thread]:
        with installed.test_request_context("/watched"):
            g.value = Value()
            things = [g.value, request._get_current_object(), flask_context.active()]  # type: ignore[attr-defined]
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
            return [weakref.ref(thing) for thing in [*things, thread]], thread

    refs, thread = serve()
    gc.collect()
    # Of the parent's, the child has the value and the request; of the context there is the weak reference.
    assert [ref() is None for ref in refs] == [False, False, True, False]
    found = running()
    gate.opened.set()
    thread.join(LIMIT)
    del thread
    gc.collect()
    assert [(replay.path, replay.inherited) for replay in found] == [("/watched", ("value",))]
    assert [ref() for ref in refs] == [None] * 4


def test_ids_are_never_mixed_under_load(app: Flask) -> None:
    flaskthreads_autopatch.install(app)
    all_here = threading.Barrier(17, timeout=LIMIT)
    done, looked = threading.Event(), threading.Event()
    wrong: list[Replay] = []

    def submit(number: int) -> int:
        def task() -> bool:
            me = threading.get_ident()
            [own] = [replay for replay in running() if replay.thread_ident == me]
            return (own.path, own.thread_name) == (f"/{number}", threading.current_thread().name)

        right = 0
        with ThreadPoolExecutor(2, thread_name_prefix=f"of {number} ") as pool:
            all_here.wait()
            for turn in range(25):
                assert turn == 0 or looked.wait(LIMIT)
                with app.test_request_context(f"/{number}"):
                    right += sum(future.result(LIMIT) for future in [pool.submit(task) for _ in range(4)])
        return right

    def observe() -> None:
        all_here.wait()
        while not done.is_set():
            wrong.extend(r for r in running() if not r.thread_name.startswith(f"of {str(r.path)[1:]} _"))
            looked.set()

    with ThreadPoolExecutor(17) as pool:
        observer = pool.submit(observe)
        try:
            assert [future.result(LIMIT) for future in [pool.submit(submit, n) for n in range(16)]] == [100] * 16
        finally:
            done.set()
        observer.result(LIMIT)
    assert wrong == []


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
def test_a_forked_process_does_not_have_the_other_threads_replays() -> None:
    code = """
import os, threading
from flask import Flask
import flaskthreads_autopatch
app = Flask("forks")
flaskthreads_autopatch.install(app)
entered, opened = threading.Event(), threading.Event()
def fork():
    child = os.fork()
    if not child:
        os._exit(len(flaskthreads_autopatch.running()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with app.app_context():
    thread = threading.Thread(target=lambda: (entered.set(), opened.wait(60)))
    thread.start()
    entered.wait(60)
    # Its own one is there, in the child too.
    print(fork(), flaskthreads_autopatch.copy_current_app_context(fork)(), len(flaskthreads_autopatch.running()))
    opened.set()
    thread.join()
"""
    result = processes.run(sys.executable, "-W", "ignore", "-c", code)
    assert result.stdout == "0 1 1\n", result.stderr


class Asked(threading.Thread):
    """A thread that does something when it is asked for its name, and ends when it is told to."""

    def __init__(self, when_asked: Callable[[], object]) -> None:
        self.when_asked, self.told = when_asked, threading.Event()
        super().__init__(target=self.told.wait, args=[LIMIT], daemon=True)

    @property
    def name(self) -> str:
        self.when_asked()
        return "asked"

    @name.setter
    def name(self, name: str) -> None:
        raise AttributeError


def test_a_replay_that_ends_while_names_are_looked_up_is_not_there(installed: Flask, gate: Gate) -> None:
    # Its thread's ident may by then be somebody else's.
    with installed.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    asked = Asked(lambda: (gate.opened.set(), thread.join(LIMIT)))
    asked.start()
    assert running() == []
    asked.told.set()
    asked.join(LIMIT)


def test_a_thread_that_python_did_not_start_has_its_ident_for_a_name(installed: Flask, gate: Gate) -> None:
    ended = threading.Event()

    def work() -> None:
        gate()

    with installed.app_context():
        replay = copy_current_app_context(work)
    ident = _thread.start_new_thread(lambda: (replay(), ended.set()), ())
    assert gate.entered.wait(LIMIT)
    [found] = running()
    gate.opened.set()
    assert ended.wait(LIMIT)
    assert found.thread_name == f"thread {ident}"


# Signals ------------------------------------------------------------------------------------------


@needs_blinker
def test_signals_tell_of_begin_and_end(installed: Flask) -> None:
    begun: list[tuple[Replay, bool, str]] = []
    ended: list[tuple[Replay, str | None, float | None]] = []

    def on_begin(sender: Flask, replay: Replay) -> None:
        begun.append((replay, flaskthreads_autopatch.is_inherited(), g.user))

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> None:
        ended.append((replay, error, outlived))

    def fail() -> None:
        raise ZeroDivisionError

    with (
        context_inherited.connected_to(on_begin, installed),
        context_released.connected_to(on_end, installed),
        installed.app_context(),
        ThreadPoolExecutor(1) as pool,
    ):
        g.user = "alice"
        pool.submit(int).result(LIMIT)
        pool.submit(fail).exception(LIMIT)
    assert [(replay.callable.rpartition(":")[2].rpartition(".")[2], own, user) for replay, own, user in begun] == [
        ("int", True, "alice"),
        ("fail", True, "alice"),
    ]
    assert [(error, outlived) for _, error, outlived in ended] == [(None, None), ("builtins:ZeroDivisionError", None)]
    for (first, *_), (last, *_) in zip(begun, ended, strict=True):
        assert first.seconds <= last.seconds
        assert first == dataclasses.replace(last, seconds=first.seconds)


@needs_blinker
def test_released_says_by_how_much_the_parent_was_outlived(installed: Flask, gate: Gate) -> None:
    ended: list[tuple[Replay, float]] = []
    released = threading.Event()

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float) -> None:
        ended.append((replay, outlived))
        released.set()

    with context_released.connected_to(on_end):
        with installed.app_context():
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
        assert not threading.Event().wait(0.05)  # the least that it outlives
        gate.opened.set()
        thread.join(LIMIT)
        assert released.wait(LIMIT)
    [(replay, outlived)] = ended
    assert 0.05 <= outlived <= replay.seconds
    assert replay.parent_is_over


@needs_blinker
def test_outlived_is_read_before_the_seconds(installed: Flask, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes a second on each time that it is read.
    clock = itertools.count(time.monotonic() + 1000)
    for module in (registry, parents):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=clock.__next__))
    ended: list[tuple[float, float]] = []

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float) -> None:
        ended.append((outlived, replay.seconds - 1000))

    with context_released.connected_to(on_end):
        with installed.app_context():
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
        gate.opened.set()
        thread.join(LIMIT)
    [(outlived, seconds)] = ended
    assert outlived == 1 < seconds


@needs_blinker
@pytest.mark.parametrize("which", [context_inherited, context_released], ids=lambda which: which.name)
def test_what_a_receiver_raises_is_logged(installed: Flask, caplog: pytest.LogCaptureFixture, which: object) -> None:
    def broken(sender: Flask, **values: object) -> None:
        raise ZeroDivisionError

    with which.connected_to(broken), installed.app_context():  # type: ignore[attr-defined]
        assert in_thread(lambda: 17) == 17
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(LIMIT)
    [record] = caplog.records
    assert record.name == installed.logger.name
    assert record.getMessage().startswith(f"Error in a receiver of the signal {which.name!r}")  # type: ignore[attr-defined]


@needs_blinker
def test_h11_what_a_receiver_starts_does_not_inherit(installed: Flask) -> None:
    seen: list[bool] = []

    def on_begin(sender: Flask, replay: Replay) -> None:
        seen.append(in_thread(flaskthreads_autopatch.is_inherited))

    with context_inherited.connected_to(on_begin), installed.app_context():
        in_thread(int)
    assert seen == [False]


# The parent's end ---------------------------------------------------------------------------------


class Quiet(Flask):
    """Its own teardown sends no signal."""

    # Until Flask 3.1 the first argument is the exception; 3.2 looks at the name.
    def do_teardown_appcontext(self, ctx: AppContext, *args: object) -> None:  # type: ignore[override]
        pass


@needs_blinker
def test_the_end_is_noted_once_and_the_contexts_death_is_none(app: Flask) -> None:
    with app.app_context() as ctx:
        parent = parents.watched(ctx)
        assert parents.watched(ctx) is parent
        assert (parent.ended, parents.seconds_over(parent)) == (None, None)
    ended = parent.ended
    assert ended is not None
    del ctx
    gc.collect()
    assert (parent(), parent.ended) == (None, ended)
    parents.stop_watching()


def test_where_no_signal_is_sent_the_death_is_the_end() -> None:
    with Quiet("tests").app_context() as ctx:
        parent = parents.watched(ctx)
    assert parent.ended is None
    del ctx
    gc.collect()
    assert parent() is None and parent.ended is not None
    parents.stop_watching()


def test_where_no_signal_is_sent_a_living_context_is_over_since_somebody_asked(
    gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    app = Quiet("tests")
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context() as ctx:
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    assert "still runs" in heard.get(timeout=LIMIT).getMessage()
    gate.opened.set()
    thread.join(LIMIT)
    assert "has finished" in heard.get(timeout=LIMIT).getMessage()
    del ctx


@needs_blinker
def test_outlived_is_zero_where_nobody_listened_when_it_was_captured(installed: Flask) -> None:
    seen: list[float | None] = []
    with installed.app_context():
        replay = copy_current_app_context(int)

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> None:
        seen.append(outlived)

    with context_released.connected_to(on_end):
        replay()
    assert seen == [0.0]


@needs_blinker
def test_nobody_watches_where_nobody_asks(installed: Flask, no_watcher: None) -> None:
    before = len(appcontext_tearing_down.receivers)
    with installed.app_context():
        copy_current_app_context(int)
    assert len(appcontext_tearing_down.receivers) == before
    with installed.app_context(), context_released.connected_to(lambda sender, **values: None):
        copy_current_app_context(int)
    assert len(appcontext_tearing_down.receivers) == before + 1
    assert not is_watched()


@needs_blinker
def test_after_disable_nobody_notes_the_end_of_a_context(app: Flask, no_watcher: None) -> None:
    before = len(appcontext_tearing_down.receivers)
    flaskthreads_autopatch.install(app, warn_after=60)
    with app.app_context():
        copy_current_app_context(int)
    assert len(appcontext_tearing_down.receivers) == before + 1
    flaskthreads_autopatch.disable()
    assert len(appcontext_tearing_down.receivers) == before


@needs_blinker
def test_what_a_task_starts_inherits_though_somebody_listens(installed: Flask) -> None:
    with installed.app_context(), context_inherited.connected_to(lambda sender, **values: None):
        g.user = "alice"
        assert in_thread(lambda: in_thread(lambda: g.user)) == "alice"


@needs_blinker
def test_a_receiver_may_be_async(installed: Flask) -> None:
    pytest.importorskip("asgiref")
    seen: list[str] = []

    async def receive(sender: Flask, replay: Replay, **values: object) -> None:
        seen.append(replay.kind)

    with context_inherited.connected_to(receive), context_released.connected_to(receive), installed.app_context():
        copy_current_app_context(int)()
    assert seen == ["task"] * (2 if teardown._takes_async_wrapper else 0)


# warn_after ---------------------------------------------------------------------------------------


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "flaskthreads_autopatch"]


Warnings = queue.SimpleQueue[logging.LogRecord]


@pytest.fixture
def heard() -> Iterator[Warnings]:
    """The library's warnings, to be waited for."""
    records: Warnings = queue.SimpleQueue()
    handler, logger = logging.handlers.QueueHandler(records), logging.getLogger("flaskthreads_autopatch")
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def is_watched() -> bool:
    """Whether the thread that watches is there."""
    thread = overdue._state.watcher
    return thread is not None and thread.is_alive()


@pytest.fixture
def no_watcher() -> Iterator[None]:
    """No thread watches before the test, and none is left after it."""
    assert not is_watched()
    yield
    gc.collect()  # an error that has ended a thread may hold a snapshot
    thread = overdue._state.watcher
    if thread is not None:
        thread.join(LIMIT)
    assert not is_watched()


def test_a_thread_that_outlives_its_request_warns_twice(app: Flask, heard: Warnings, no_watcher: None) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.02)
    gates = {"first": Gate(), "second": Gate()}
    threads = []

    def serve_second() -> None:
        with app.test_request_context("/second"):
            threads.append(start(gates["second"], "second"))
            assert gates["second"].entered.wait(LIMIT)

    try:
        with app.test_request_context("/a%0Ab"):
            threads.append(start(gates["first"], "first"))
            assert gates["first"].entered.wait(LIMIT)
            contextvars.Context().run(serve_second)
            # Who watches has seen the first one too, whose request goes on.
            said = [heard.get(timeout=LIMIT)]
        # And has now seen the second one again.
        said.append(heard.get(timeout=LIMIT))
        for thread in threads:
            gates[thread.name].opened.set()
            said.append(heard.get(timeout=LIMIT))
            thread.join(LIMIT)
    finally:
        for gate in gates.values():
            gate.opened.set()
    assert heard.empty()
    texts = [record.getMessage() for record in said]
    assert [text.split(", a thread of app 'tests', ")[0] for text in texts] == [
        f"Thread 'second' still runs {__name__}:Gate",
        f"Thread 'first' still runs {__name__}:Gate",
        f"Thread 'first' has finished {__name__}:Gate",
        f"Thread 'second' has finished {__name__}:Gate",
    ]
    ends = [text.split(" s after the end of ")[1] for text in texts]
    assert ends[1:3] == [r"its request, GET '/a\nb'."] * 2
    assert ends[::3] == ["its request, GET /second."] * 2
    assert {record.levelname for record in said} == {"WARNING"}
    assert overdue.overdue == {}


def test_a_thread_that_does_not_outlive_its_context_never_warns(
    app: Flask, gate: Gate, caplog: pytest.LogCaptureFixture, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
        watcher = overdue._state.watcher
        assert watcher is not None and watcher.daemon
        gate.opened.set()
        thread.join(LIMIT)
    watcher.join(LIMIT)
    assert warnings_in(caplog) == []


def test_a_replay_that_ends_while_it_is_warned_of_says_its_end(
    app: Flask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, no_watcher: None
) -> None:
    class Window:
        """Has the watching thread look right after the replay has asked whether anything is overdue."""

        def __bool__(self) -> bool:
            found = bool(overdue.overdue)
            with monkeypatch.context() as patch:
                patch.setattr(parents, "seconds_over", lambda parent: 61.0)
                overdue._check()
            return found

    monkeypatch.setattr(replay, "overdue", Window())
    flaskthreads_autopatch.install(app, warn_after=60)
    with app.app_context():
        assert copy_current_app_context(int)() == 0
    assert warnings_in(caplog) == []
    assert overdue.overdue == {}


def test_one_thread_watches_for_all(app: Flask, gate: Gate, no_watcher: None) -> None:
    flaskthreads_autopatch.install(app, warn_after=60)
    with app.app_context():
        kept = [copy_current_app_context(int) for _ in range(2)]
        assert [t.name for t in threading.enumerate()].count("flaskthreads_autopatch.overdue") == 1
        assert kept.pop()() == 0
        gc.collect()
        # Looks again until there is nothing to watch, and keeps no count of what is gone.
        assert overdue._check() == 1
        assert len(overdue._state.snapshots) == 1


@pytest.mark.parametrize(("warn_after", "seconds"), [(0.001, 0.01), (5, 0.5), (60, 1)])
def test_how_often_it_looks(app: Flask, no_watcher: None, warn_after: float, seconds: float) -> None:
    flaskthreads_autopatch.install(app, warn_after=warn_after)
    with app.app_context():
        kept = copy_current_app_context(int)
        assert overdue._check() == seconds
        del kept


def test_before_its_time_there_is_no_warning(app: Flask, gate: Gate, heard: Warnings, no_watcher: None) -> None:
    flaskthreads_autopatch.install(app, warn_after=60)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    overdue._check()
    gate.opened.set()
    thread.join(LIMIT)
    assert heard.empty()


def test_another_apps_thread_without_the_option_is_not_warned_of(
    app: Flask, gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app)
    other = Flask("other")
    flaskthreads_autopatch.install(other, warn_after=0.01)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    with other.app_context():
        kept = copy_current_app_context(int)
        overdue._check()
        del kept
    gate.opened.set()
    thread.join(LIMIT)
    assert heard.empty()


class Late(logging.Handler):
    """Does something when it hears of what still runs."""

    def __init__(self, when_heard: Callable[[], object]) -> None:
        super().__init__()
        self.when_heard = when_heard

    def emit(self, record: logging.LogRecord) -> None:
        if "still runs" in record.getMessage():
            self.when_heard()


def test_what_ends_while_it_is_warned_of_is_told_to_have_ended(
    app: Flask, gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    logger, handler = logging.getLogger("flaskthreads_autopatch"), Late(lambda: (gate.opened.set(), thread.join(LIMIT)))
    logger.addHandler(handler)
    try:
        with app.app_context():
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
        said = [heard.get(timeout=LIMIT).getMessage() for _ in range(2)]
    finally:
        logger.removeHandler(handler)
    assert [text.split()[2] for text in said] == ["still", "has"]
    if (watcher := overdue._state.watcher) is not None:
        watcher.join(LIMIT)
    assert overdue.overdue == {} and heard.empty()


def test_what_ends_while_names_are_looked_up_is_not_warned_of(
    app: Flask, gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
        asked = Asked(lambda: (gate.opened.set(), thread.join(LIMIT)))
        with flaskthreads_autopatch.suppress_inheritance():
            asked.start()
    thread.join(LIMIT)
    asked.told.set()
    asked.join(LIMIT)
    assert heard.empty() and overdue.overdue == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_another_thread_watches_where_an_exit_in_a_logging_handler_has_ended_the_first(
    app: Flask, gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    logger, handler = logging.getLogger("flaskthreads_autopatch"), Late(sys.exit)
    logger.addHandler(handler)
    try:
        with app.app_context():
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
            first = overdue._state.watcher
        assert first is not None
        first.join(LIMIT)
    finally:
        logger.removeHandler(handler)
    assert "still runs" in heard.get(timeout=LIMIT).getMessage()
    with app.app_context():
        kept = copy_current_app_context(int)
    assert "still runs" in heard.get(timeout=LIMIT).getMessage()
    gate.opened.set()
    thread.join(LIMIT)
    del kept
    assert "has finished" in heard.get(timeout=LIMIT).getMessage()


def test_a_parent_that_is_pushed_again_is_not_over(app: Flask, gate: Gate, heard: Warnings, no_watcher: None) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    ctx = app.app_context()
    with ctx:
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    assert heard.get(timeout=LIMIT).getMessage().endswith(" s after the end of the app context that it inherits.")
    with ctx:
        gate.opened.set()
        thread.join(LIMIT)
        assert (
            heard.get(timeout=LIMIT)
            .getMessage()
            .endswith(", a thread of app 'tests', 0.0 s after the end of the app context that it inherits.")
        )


@needs_blinker
def test_where_nobody_listens_nothing_is_described(gate: Gate, heard: Warnings, no_watcher: None) -> None:
    asked: list[str] = []

    class Named(Flask):
        name = property(lambda self: asked.append("name") or "named")  # type: ignore[assignment]

    app = Named("tests")
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    heard.get(timeout=LIMIT)
    asked.clear()
    gate.opened.set()
    thread.join(LIMIT)
    assert "of app 'named'" in heard.get(timeout=LIMIT).getMessage()
    assert asked == []


@pytest.mark.python314
@pytest.mark.skipif(sys.version_info < (3, 14), reason="threads do not inherit context variables before Python 3.14")
def test_h15_who_watches_keeps_nobodys_context_variables() -> None:
    code = """
import contextvars, gc, weakref
from flask import Flask
import flaskthreads_autopatch
from flaskthreads_autopatch.visibility import overdue
class Value:
    pass
app = Flask("variables")
flaskthreads_autopatch.install(app, warn_after=60)
variable = contextvars.ContextVar("variable")
def capture():
    value = Value()
    variable.set(value)
    with app.app_context():
        return weakref.ref(value), flaskthreads_autopatch.copy_current_app_context(int)
value, kept = contextvars.Context().run(capture)
gc.collect()
print(overdue._state.watcher.is_alive(), value())
"""
    result = processes.run(sys.executable, "-X", "thread_inherit_context=1", "-c", code)
    assert result.stdout == "True None\n", result.stderr


@needs_fork
def test_a_forked_process_watches_for_itself() -> None:
    code = """
import logging, os, signal, sys, threading
from flask import Flask
import flaskthreads_autopatch
from flaskthreads_autopatch.visibility import overdue
heard, warned, opened = [], threading.Semaphore(0), threading.Event()
class Tell(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage().split(", a thread")[0])
        warned.release()
logger = logging.getLogger("flaskthreads_autopatch")
logger.addHandler(Tell())
logger.propagate = False
app = Flask("forks")
flaskthreads_autopatch.install(app, warn_after=0.1)
def start(name):
    entered = threading.Event()
    with app.app_context():
        thread = threading.Thread(target=lambda: (entered.set(), opened.wait(60)), name=name)
        thread.start()
        entered.wait(60)
    return thread
threads = [start("parents")]
warned.acquire()
child = os.fork()
if not child:
    # Neither the thread that watches is here, nor the one that was warned of.
    signal.alarm(30)
    heard.clear()
    overdue.overdue.clear()
    thread = start("childs")
    warned.acquire()
    opened.set()
    thread.join()
    warned.acquire()
    said = [f"Thread 'childs' {what} __main__:start.<locals>.<lambda>" for what in ("still runs", "has finished")]
    os._exit(heard != said)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
opened.set()
for thread in threads:
    thread.join()
"""
    result = processes.run(sys.executable, "-W", "ignore", "-c", code)
    assert result.stdout == "0\n", result.stderr


def test_no_thread_of_ours_where_nobody_asked(installed: Flask, no_watcher: None) -> None:
    with installed.app_context():
        assert "flaskthreads_autopatch.overdue" not in in_thread(lambda: [t.name for t in threading.enumerate()])


@pytest.mark.parametrize("value", [0, -1, True, "30", float("nan"), float("inf")])
def test_warn_after_is_a_number_of_seconds(value: object) -> None:
    with pytest.raises(PolicyError, match=r"^warn_after must be a number of seconds above 0 or None, not "):
        Policy(warn_after=value)  # type: ignore[arg-type]


def test_warn_after_is_read_in_all_three_places() -> None:
    name = "FLASKTHREADS_AUTOPATCH_WARN_AFTER"
    assert Policy().warn_after is None
    assert resolve({}, {}, {name: "2.5"}).warn_after == 2.5
    assert resolve({}, {name: "3"}, {name: "2.5"}).warn_after == 3
    assert resolve({"warn_after": None}, {name: 3}, {}).warn_after is None
    assert resolve({}, {name: None}, {name: "2.5"}).warn_after is None
    with pytest.raises(PolicyError, match="WARN_AFTER must be a number of seconds above 0, not 'soon' "):
        resolve({}, {}, {name: "soon"})


# dump() -------------------------------------------------------------------------------------------


def test_dump_writes_a_table(installed: Flask, gate: Gate) -> None:
    out = io.StringIO()
    flaskthreads_autopatch.dump(out)
    assert out.getvalue() == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"
    with installed.test_request_context("/a%0Ab"):
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
        flaskthreads_autopatch.dump(out := io.StringIO())
        gate.opened.set()
        thread.join(LIMIT)
    title, head, row = out.getvalue().splitlines()
    assert title == f"flaskthreads_autopatch: 1 replay in process {os.getpid()}"
    assert head.split() == ["kind", "thread", "callable", "app", "request", "seconds", "parent"]
    cells = row.split()
    assert [*cells[:6], cells[7]] == ["thread", "worker", f"{__name__}:Gate", "tests", "GET", r"'/a\nb'", "active"]


def test_dump_keeps_each_row_on_a_line(installed: Flask, gate: Gate) -> None:
    with installed.app_context():
        thread = start(gate, "a\nb\udcff")
        assert gate.entered.wait(LIMIT)
        flaskthreads_autopatch.dump(out := io.StringIO())
        gate.opened.set()
        thread.join(LIMIT)
    *_, row = out.getvalue().splitlines()
    assert row.split()[:5] == ["thread", r"'a\nb\udcff'", f"{__name__}:Gate", "tests", "-"]


TERMINAL = "GE\x1b]0;OWNED\x07\x1b[2J\nT\u202e\x9b31M"
"""A method, as a client may send one: a terminal would obey it."""


def test_h39_the_method_of_a_request_is_printable_in_the_table(installed: Flask, gate: Gate) -> None:
    with installed.test_request_context("/a b", environ_overrides={"REQUEST_METHOD": TERMINAL}):
        thread = start(gate, f"export of {TERMINAL}")
        assert gate.entered.wait(LIMIT)
        flaskthreads_autopatch.dump(out := io.StringIO())
        [replay] = running()
        gate.opened.set()
        thread.join(LIMIT)
    *_, row = out.getvalue().splitlines()
    assert row.isprintable() and ascii(TERMINAL) in row
    # The fields themselves are what they are: for a program, not for a terminal.
    assert (replay.method, replay.path) == (TERMINAL, "/a b")


def test_h39_the_method_of_a_request_is_printable_in_the_warnings(
    app: Flask, gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.test_request_context("/a\x1b", environ_overrides={"REQUEST_METHOD": TERMINAL}):
        thread = start(gate, TERMINAL)
        assert gate.entered.wait(LIMIT)
    texts = [heard.get(timeout=LIMIT).getMessage()]
    gate.opened.set()
    thread.join(LIMIT)
    texts.append(heard.get(timeout=LIMIT).getMessage())
    for text in texts:
        assert text.isprintable() and text.endswith(rf"its request, {TERMINAL!a} '/a\x1b'.")


def test_h39_a_request_whose_body_cannot_be_read_is_printable(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    class Gone(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError("the client has gone")

    flaskthreads_autopatch.install(app, preload=True)
    environ = {"REQUEST_METHOD": TERMINAL, "wsgi.input": Gone(), "CONTENT_LENGTH": "5"}
    with app.test_request_context("/a\x1b", environ_overrides=environ):
        in_thread(int)
    texts = warnings_in(caplog)
    assert texts and all(text.startswith("preload: ") and text.isprintable() for text in texts)


def test_dump_writes_nothing_where_there_is_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    flaskthreads_autopatch.dump()


@pytest.fixture
def usr1(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers that a handler was called with which was there before ours."""
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", "USR1")
    yield got
    flaskthreads_autopatch.disable()
    signal.signal(signal.SIGUSR1, before)


def test_the_signal_is_handed_on_and_the_old_handler_put_back(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    old = signal.getsignal(signal.SIGUSR1)
    flaskthreads_autopatch.install(app)
    flaskthreads_autopatch.enable()
    signal.raise_signal(signal.SIGUSR1)
    assert usr1 == [signal.SIGUSR1]
    assert capfd.readouterr().err == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"
    flaskthreads_autopatch.disable()
    assert signal.getsignal(signal.SIGUSR1) is old


def test_below_somebody_elses_handler_ours_is_inert_after_disable(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    flaskthreads_autopatch.install(app)
    ours = signal.getsignal(signal.SIGUSR1)
    above = lambda number, frame: ours(number, frame)  # type: ignore[operator]  # noqa: E731
    signal.signal(signal.SIGUSR1, above)
    flaskthreads_autopatch.disable()
    assert signal.getsignal(signal.SIGUSR1) is above
    signal.raise_signal(signal.SIGUSR1)
    assert usr1 == [signal.SIGUSR1]
    assert capfd.readouterr().err == ""


def test_above_somebody_elses_handler_once_more_and_one_table(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    flaskthreads_autopatch.install(app)
    ours = signal.getsignal(signal.SIGUSR1)
    above = lambda number, frame: ours(number, frame)  # type: ignore[operator]  # noqa: E731
    signal.signal(signal.SIGUSR1, above)
    flaskthreads_autopatch.install(app)
    assert signal.getsignal(signal.SIGUSR1) is not above
    signal.raise_signal(signal.SIGUSR1)
    assert usr1 == [signal.SIGUSR1]
    assert capfd.readouterr().err == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"
    flaskthreads_autopatch.disable()
    assert signal.getsignal(signal.SIGUSR1) is above


def test_disabled_in_another_thread_the_handler_only_calls_the_one_before(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    flaskthreads_autopatch.install(app)
    in_thread(flaskthreads_autopatch.disable)
    signal.raise_signal(signal.SIGUSR1)
    assert usr1 == [signal.SIGUSR1]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["sigusr1", " USR1 "])
def test_the_signals_name_in_other_spellings(
    app: Flask, usr1: list[int], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", name)
    flaskthreads_autopatch.install(app)
    signal.raise_signal(signal.SIGUSR1)
    assert capfd.readouterr().err == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"


def test_an_empty_name_is_none(
    app: Flask, usr1: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    old = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", " ")
    flaskthreads_autopatch.install(app)
    assert (signal.getsignal(signal.SIGUSR1), capfd.readouterr().err) == (old, "")


def test_a_table_that_cannot_be_written_harms_nobody(app: Flask, usr1: list[int]) -> None:
    flaskthreads_autopatch.install(app)
    stderr = os.dup(2)
    os.close(2)
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    assert usr1 == [signal.SIGUSR1]


def test_where_nobody_was_before_nobody_is_called(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    flaskthreads_autopatch.install(app)
    signal.raise_signal(signal.SIGUSR1)
    assert capfd.readouterr().err == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"


NO_SIGNAL = " must be the name of a signal of this system, such as USR1, not {!r} (set in the environment)."
NO_HANDLER = (
    "={!r} (set in the environment) has no effect, because its handler cannot be set: [Errno 22] Invalid argument."
)


@pytest.mark.parametrize(("name", "sentence"), [("USR9", NO_SIGNAL), ("_IGN", NO_SIGNAL), ("KILL", NO_HANDLER)])
def test_a_wrong_signal_is_one_line_on_stderr(
    app: Flask, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", name)
    flaskthreads_autopatch.install(app)
    assert flaskthreads_autopatch.is_enabled()
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"flaskthreads_autopatch: FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL{sentence.format(name)} No")


FATAL = ["INT", "TERM", "HUP", "QUIT", "ABRT", "SEGV"]
ENDS = """
import os, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from flask import Flask
import flaskthreads_autopatch
signal.signal(signal.SIGINT, signal.SIG_DFL)  # also where a shell has ignored it
flaskthreads_autopatch.install(Flask("ends"))
os.kill(os.getpid(), signal.SIG{name})
print("still here")
"""


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("name", FATAL)
def test_a_process_ends_on_a_signal_that_ends_processes(name: str, on: bool) -> None:
    variables = {"FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL": name} if on else {}
    done = processes.run(sys.executable, "-c", ENDS.format(name=name), **variables)
    assert (done.returncode, done.stdout) == (-getattr(signal, f"SIG{name}"), "")
    lines = [line for line in done.stderr.splitlines() if line.startswith("flaskthreads_autopatch: ")]
    assert len(lines) == on
    for line in lines:
        assert f"DUMP_SIGNAL must not be {name!r} (set in the environment), because " in line


@pytest.mark.parametrize("name", [*FATAL, "CHLD", "sigterm", " Hup", "CLD", "IOT", "BUS", "FPE", "ILL"])
def test_a_refused_signal_is_one_line_on_stderr_and_keeps_its_handler(
    app: Flask, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    number = getattr(signal, f"SIG{name.strip().upper().removeprefix('SIG')}")
    before = signal.getsignal(number)
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", name)
    flaskthreads_autopatch.install(app)
    assert flaskthreads_autopatch.is_enabled()
    assert signal.getsignal(number) is before
    [line] = capfd.readouterr().err.splitlines()
    assert f"DUMP_SIGNAL must not be {name!r} (set in the environment), because " in line


@pytest.mark.parametrize("name", ["USR1", "USR2", "WINCH", "CONT", "URG", "ALRM", "PROF", "TSTP", "IO"])
def test_every_other_signal_is_handed_on_to_the_handler_before(
    app: Flask, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    number, got = getattr(signal, f"SIG{name}"), []
    before = signal.signal(number, lambda number, frame: got.append((number, frame is not None)))
    try:
        monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", name)
        flaskthreads_autopatch.install(app)
        signal.raise_signal(number)
        assert got == [(number, True)]
        assert capfd.readouterr().err == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"
        flaskthreads_autopatch.disable()
        signal.raise_signal(number)
        assert len(got) == 2 and capfd.readouterr().err == ""
    finally:
        flaskthreads_autopatch.disable()
        signal.signal(number, before)


def test_a_handler_that_python_did_not_set_is_left_alone(
    app: Flask, usr1: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # As where a server that embeds Python has set it before: signal.signal() then returns None, and does not take it.
    old = signal.getsignal(signal.SIGUSR1)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        flaskthreads_autopatch.install(app)
    assert signal.getsignal(signal.SIGUSR1) is old
    assert "its handler was not set by Python" in capfd.readouterr().err
    flaskthreads_autopatch.disable()


def test_a_table_that_cannot_be_made_is_not_raised_where_the_signal_comes(
    usr1: list[int], gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    class Nameless(Flask):
        broken = False

        @property
        def name(self) -> str:  # type: ignore[override]
            return "nameless" if not self.broken else str(1 / 0)

    app = Nameless("nameless")
    flaskthreads_autopatch.install(app)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
        app.broken = True
        signal.raise_signal(signal.SIGUSR1)
        app.broken = False
        gate.opened.set()
        thread.join(LIMIT)
    assert usr1 == [signal.SIGUSR1]
    line = "flaskthreads_autopatch: the table cannot be written: ZeroDivisionError: division by zero\n"
    assert capfd.readouterr().err == line


def test_the_table_is_written_past_sys_stderr(
    app: Flask, usr1: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # The signal may come while somebody is writing there, who must not be entered twice.
    flaskthreads_autopatch.install(app)
    monkeypatch.setattr(sys, "stderr", None)
    signal.raise_signal(signal.SIGUSR1)
    assert capfd.readouterr().err == f"flaskthreads_autopatch: 0 replays in process {os.getpid()}\n"


@pytest.mark.python314
@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters is new in Python 3.14")
def test_in_a_subinterpreter_no_handler_is_set() -> None:
    code = """
import concurrent.interpreters
concurrent.interpreters.create().exec('''
from flask import Flask
import flaskthreads_autopatch
flaskthreads_autopatch.install(Flask("inside"))
print(flaskthreads_autopatch.is_enabled())
''')
"""
    result = processes.run(sys.executable, "-c", code, FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL="USR1")
    assert result.stdout == "True\n", result.stderr
    assert "a handler cannot be set: signal only works in main thread" in result.stderr


def test_outside_of_the_main_thread_no_handler_is_set(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    old = signal.getsignal(signal.SIGUSR1)
    in_thread(flaskthreads_autopatch.install, app)
    assert flaskthreads_autopatch.is_enabled()
    assert signal.getsignal(signal.SIGUSR1) is old
    assert "outside of the main thread" in capfd.readouterr().err


def test_a_gunicorn_worker_dumps_on_a_signal(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(GUNICORN_APP)
    command = (sys.executable, "-m", "gunicorn", "--workers", "1", "--bind", "127.0.0.1:0", "waits:app")
    with processes.serving(*command, cwd=tmp_path, FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL="USR2") as site:
        pid = int(site.get("/start")["pid"])
        os.kill(pid, signal.SIGUSR2)
        site.wait_for(rf"flaskthreads_autopatch: 1 replay in process {pid}$")
        site.wait_for(r"thread +forgotten +waits:work +waits +GET /start +\d+\.\d +over$")
        # It serves on.
        assert site.get("/start")["pid"] == pid


GUNICORN_APP = """
import os
import threading

from flask import Flask

import flaskthreads_autopatch

app = Flask(__name__)
flaskthreads_autopatch.install(app)
entered = threading.Event()


def work():
    entered.set()
    threading.Event().wait()


@app.get("/")
def index():
    return {"pid": os.getpid()}


@app.get("/start")
def start():
    if not entered.is_set():
        threading.Thread(target=work, name="forgotten", daemon=True).start()
        entered.wait()
    return {"pid": os.getpid()}
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["load in the workers", "preload"])
@pytest.mark.parametrize("name", ["USR1", "USR2"])
def test_each_worker_of_gunicorn_dumps_and_does_what_it_did(
    tmp_path: Path, name: str, preload: tuple[str, ...]
) -> None:
    (tmp_path / "waits.py").write_text(GUNICORN_APP)
    (tmp_path / "hooks.py").write_text(GUNICORN_HOOKS)
    log = tmp_path / "access.log"
    options = ("--workers", "2", "--config", "hooks.py", "--access-logfile", str(log), *preload)
    command = (sys.executable, "-m", "gunicorn", *options, "--bind", "127.0.0.1:0", "waits:app")
    with processes.serving(*command, cwd=tmp_path, FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL=name) as site:
        ready = [site.wait_for(r"ready (\d+) of (\d+)") for _ in range(2)]
        workers, master = {int(found[1]) for found in ready}, int(ready[0][2])
        log.rename(tmp_path / "access.log.1")
        if name == "USR1":
            # The master hands it to its workers, which open their logs anew.
            os.kill(master, signal.SIGUSR1)
        else:
            # To the master it would mean to start another one.
            for pid in workers:
                os.kill(pid, signal.SIGUSR2)
        dumped = [site.wait_for(r"flaskthreads_autopatch: 0 replays in process (\d+)$") for _ in range(2)]
        assert {int(found[1]) for found in dumped} == workers
        # A worker that answers has left its handler.
        assert int(site.get("/")["pid"]) in workers
        assert log.exists() == (name == "USR1")


GUNICORN_HOOKS = """
import os

import flaskthreads_autopatch


def post_worker_init(worker):
    # A worker sets handlers of its own before it calls this, and with --preload after it has got the app.
    flaskthreads_autopatch.install(worker.wsgi)
    os.write(2, f"ready {worker.pid} of {worker.ppid}\\n".encode())
"""
