"""The library is switched while it observes: by a signal handler or another thread, at any point; and in a run."""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import FrameType

import flask
import pytest
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch.audit.files import collect
from flaskthreads_autopatch.audit.record import BY_A_RUN

from ..helpers import LIMIT, ended, in_thread
from .test_observe import without_context

PACKAGE = os.path.dirname(flaskthreads_autopatch.__file__)


def nothing(*args: object) -> None:
    """Do nothing."""


def start_one() -> None:
    thread = threading.Thread(target=nothing)
    thread.start()
    ended(thread)


def switched(operation: Callable[[], object], switch: Callable[[], object]) -> int:
    """Call *operation* while the library observes, once for each instruction that may follow its look at the recorder.

    *switch* is called there. Returns the number of calls.
    """
    at, before = 0, sys.gettrace()
    while True:
        at += 1
        left, was_switched = at, False

        def trace(frame: FrameType, event: str, arg: object) -> t.Any:
            nonlocal left, was_switched
            code = frame.f_code
            if not code.co_filename.startswith(PACKAGE) or not {"recorders", "recording"} & {*code.co_names}:
                return None
            frame.f_trace_opcodes = True
            left -= event == "opcode"
            if not left and not was_switched:
                was_switched = True
                sys.settrace(None)
                switch()
                sys.settrace(before)
            return trace

        flaskthreads_autopatch.enable(observe=True)
        sys.settrace(trace)
        try:
            operation()
        finally:
            sys.settrace(before)
        flaskthreads_autopatch.disable()
        if not was_switched:
            return at


@pytest.mark.parametrize("switch", [flaskthreads_autopatch.disable, flaskthreads_autopatch.enable])
def test_it_is_switched_at_any_point_of_a_start_and_of_a_run(
    app: Flask, caplog: pytest.LogCaptureFixture, switch: Callable[[], object]
) -> None:
    errors: list[Exception] = []

    def run(future: object) -> None:
        try:
            start_one()
            with app.app_context():
                pass
        except Exception as error:  # A future would only log it.
            errors.append(error)

    def start_and_run() -> None:
        future: Future[None] = Future()
        with app.app_context():
            future.add_done_callback(run)
        future.set_result(None)  # It runs here.

    with caplog.at_level(logging.INFO):
        assert switched(start_and_run, switch) > 100
    assert errors == []
    assert caplog.records == []


def reasons_of(name: str) -> list[str]:
    return [each.key.reason for each in flaskthreads_autopatch.observed() if each.key.callable.endswith(name)]


NO_CONTEXT = "no app context is active where it is started"


@without_context
def test_a_run_that_ends_while_the_library_is_off_leaves_nothing_in_its_thread(app: Flask) -> None:
    """What the thread starts later on is not started by that run."""
    started, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        go_on.wait(LIMIT)

    def called_in_the_worker(future: object) -> None:
        flaskthreads_autopatch.enable(observe=True)
        start_one()
        done.set()

    with ThreadPoolExecutor(1) as pool:
        flaskthreads_autopatch.enable(observe=True)
        with app.app_context():
            future = pool.submit(wait)
        assert started.wait(LIMIT)
        flaskthreads_autopatch.disable()
        future.add_done_callback(called_in_the_worker)
        go_on.set()
        assert done.wait(LIMIT)
    assert reasons_of(":nothing") == [NO_CONTEXT]


def test_a_process_that_switches_the_library_is_one_process_and_counts_all_ends(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_AUDIT", str(tmp_path))
    started, go_on = threading.Event(), threading.Event()

    def fails_late() -> None:
        started.set()
        go_on.wait(LIMIT)
        raise ValueError

    with ThreadPoolExecutor(1) as pool:
        with flaskthreads_autopatch.enable(observe=True), app.app_context():
            pool.submit(fails_late)
            assert started.wait(LIMIT)
        go_on.set()
    for _ in range(3):
        with flaskthreads_autopatch.enable(observe=True), app.app_context():
            start_one()
    found = collect(str(tmp_path))
    counted = {each.key.callable.rpartition(".")[2]: each for each in found.records}
    late = counted["fails_late"]
    assert found.processes == 1
    assert (late.starts, late.raised, late.still_running) == (1, 1, 0)
    assert counted[f"{start_one.__module__.rpartition('.')[2]}:nothing"].starts == 3


@without_context
def test_a_copy_of_the_context_variables_does_not_keep_a_run_going(app: Flask) -> None:
    """With inheritance on, the copy has a context that was torn down, and nothing is inherited from that."""
    copies: list[contextvars.Context] = []

    def run() -> None:
        copies.append(contextvars.copy_context())
        copies[0].run(start_one)

    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        in_thread(run)
    assert reasons_of(":nothing") == [BY_A_RUN]
    contextvars.Context().run(copies[0].run, start_one)
    assert reasons_of(":nothing") == [BY_A_RUN, NO_CONTEXT]


def test_the_workers_of_a_pool_keep_no_suppression(app: Flask) -> None:
    """Where threads inherit context variables by themselves, a worker has those of the code that has made its pool."""
    flaskthreads_autopatch.enable(observe=True)
    with ThreadPool(1) as pool, app.app_context():
        pool.apply(start_one)
        (reason,) = reasons_of(":nothing")
        assert reason == BY_A_RUN
        flaskthreads_autopatch.enable()
        assert pool.apply(in_thread, (flask.has_app_context,))
