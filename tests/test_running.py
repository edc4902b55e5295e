"""What runs can be seen: the register, the signals, the warning, the table."""

from __future__ import annotations

import contextvars
import dataclasses
import gc
import io
import logging
import logging.handlers
import os
import queue
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from flask import Flask, g, request

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    Policy,
    PolicyError,
    Replay,
    context_inherited,
    context_released,
    copy_current_app_context,
    flask_context,
    running,
    watch,
)
from flaskthreads_autopatch.policy import resolve

from . import processes
from .conftest import in_thread

LIMIT = 60
"""Seconds after which a test that hangs fails."""
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
    assert replay.stayed_home == {"token": "excluded by 'token'"}


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_does_not_have_the_other_threads_replays() -> None:
    code = """
import os, threading
from flask import Flask
import flaskthreads_autopatch
app = Flask("forks")
flaskthreads_autopatch.install(app)
entered, opened = threading.Event(), threading.Event()
with app.app_context():
    thread = threading.Thread(target=lambda: (entered.set(), opened.wait(60)))
    thread.start()
    entered.wait(60)
    child = os.fork()
    if not child:
        os._exit(len(flaskthreads_autopatch.running()))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(flaskthreads_autopatch.running()))
    opened.set()
    thread.join()
"""
    result = processes.run(sys.executable, "-W", "ignore", "-c", code)
    assert result.stdout == "0 1\n", result.stderr


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


@pytest.fixture
def no_watcher() -> Iterator[None]:
    """No thread watches before the test, and none is left after it."""
    assert watch._state.thread is None
    yield
    thread = watch._state.thread
    if thread is not None:
        thread.join(LIMIT)
    assert watch._state.thread is None


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
        f"Thread 'first' has ended {__name__}:Gate",
        f"Thread 'second' has ended {__name__}:Gate",
    ]
    ends = [text.split(" s after the end of ")[1] for text in texts]
    assert ends[1:3] == [r"its request, GET '/a\nb'."] * 2
    assert ends[::3] == ["its request, GET /second."] * 2
    assert {record.levelname for record in said} == {"WARNING"}
    assert watch.overdue == {}


def test_a_thread_that_does_not_outlive_its_context_never_warns(
    app: Flask, gate: Gate, caplog: pytest.LogCaptureFixture, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context():
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
        watcher = watch._state.thread
        assert watcher is not None and watcher.daemon
        gate.opened.set()
        thread.join(LIMIT)
    watcher.join(LIMIT)
    assert warnings_in(caplog) == []


def test_no_thread_of_ours_where_nobody_asked(installed: Flask, no_watcher: None) -> None:
    with installed.app_context():
        assert "flaskthreads_autopatch.watch" not in in_thread(lambda: [t.name for t in threading.enumerate()])


@pytest.mark.parametrize("value", [0, -1, True, "30", float("nan"), float("inf")])
def test_warn_after_is_a_number_of_seconds(value: object) -> None:
    with pytest.raises(PolicyError, match=r"^warn_after=.* \(keyword\): allowed is a number of seconds above 0, or"):
        Policy(warn_after=value)  # type: ignore[arg-type]


def test_warn_after_is_read_in_all_three_places() -> None:
    name = "FLASKTHREADS_AUTOPATCH_WARN_AFTER"
    assert Policy().warn_after is None
    assert resolve({}, {}, {name: "2.5"}).warn_after == 2.5
    assert resolve({}, {name: "3"}, {name: "2.5"}).warn_after == 3
    assert resolve({"warn_after": None}, {name: 3}, {}).warn_after is None
    assert resolve({}, {name: None}, {name: "2.5"}).warn_after is None
    with pytest.raises(PolicyError, match=r"WARN_AFTER='soon' \(environment\): allowed is a number of seconds above 0"):
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


@pytest.mark.parametrize("name", ["USR9", "KILL", "_IGN"])
def test_a_wrong_signal_is_one_line_on_stderr(
    app: Flask, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", name)
    flaskthreads_autopatch.install(app)
    assert flaskthreads_autopatch.is_enabled()
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"flaskthreads_autopatch: FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL={name!r} (environment): ")


def test_outside_of_the_main_thread_no_handler_is_set(
    app: Flask, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    old = signal.getsignal(signal.SIGUSR1)
    in_thread(flaskthreads_autopatch.install, app)
    assert flaskthreads_autopatch.is_enabled()
    assert signal.getsignal(signal.SIGUSR1) is old
    assert "outside of the main thread" in capfd.readouterr().err


def test_a_gunicorn_worker_dumps_on_a_signal(tmp_path: object) -> None:
    (tmp_path / "waits.py").write_text(GUNICORN_APP)  # type: ignore[operator]
    command = (sys.executable, "-m", "gunicorn", "--workers", "1", "--bind", "127.0.0.1:0", "waits:app")
    with processes.serving(*command, cwd=tmp_path, FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL="USR2") as site:  # type: ignore[arg-type]
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


@app.get("/start")
def start():
    if not entered.is_set():
        threading.Thread(target=work, name="forgotten", daemon=True).start()
        entered.wait()
    return {"pid": os.getpid()}
"""
