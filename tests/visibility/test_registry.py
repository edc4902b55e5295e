"""`running()` and `dump()`: what is in the registry of replays, and how it is shown."""

from __future__ import annotations

import _thread
import dataclasses
import functools
import gc
import io
import os
import pickle
import queue
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from flask import Flask, g, request

import flaskthreads_autopatch
from flaskthreads_autopatch import Replay, copy_current_app_context, flask_context, names, running
from flaskthreads_autopatch.visibility import registry

from .. import processes
from ..helpers import LIMIT, in_thread
from .helpers import TERMINAL, Asked, Gate, needs_fork, start

HELPERS = Gate.__module__


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
        (functools.partial(start, print), f"{HELPERS}:start"),
        (functools.partial(labelled(functools.partial(start)), print), f"{HELPERS}:start"),
        (queue.SimpleQueue().put, "builtins:builtin_function_or_method"),  # of no module
        (Gate(), f"{HELPERS}:Gate"),
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
    assert [*cells[:6], cells[7]] == [
        "thread",
        "worker",
        f"{HELPERS}:Gate",
        "tests",
        "GET",
        r"'/a\nb'",
        "active",
    ]


def test_dump_keeps_each_row_on_a_line(installed: Flask, gate: Gate) -> None:
    with installed.app_context():
        thread = start(gate, "a\nb\udcff")
        assert gate.entered.wait(LIMIT)
        flaskthreads_autopatch.dump(out := io.StringIO())
        gate.opened.set()
        thread.join(LIMIT)
    *_, row = out.getvalue().splitlines()
    assert row.split()[:5] == ["thread", r"'a\nb\udcff'", f"{HELPERS}:Gate", "tests", "-"]


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


def test_dump_writes_nothing_where_there_is_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    flaskthreads_autopatch.dump()
