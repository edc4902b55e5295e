"""`warn_after`: the warnings about replays that outlive their parent, and the thread that watches for them."""

from __future__ import annotations

import contextvars
import gc
import io
import logging
import logging.handlers
import sys
import threading
from collections.abc import Callable

import pytest
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch import Policy, PolicyError, copy_current_app_context, replay
from flaskthreads_autopatch.policy import resolve
from flaskthreads_autopatch.visibility import overdue, parents

from .. import processes
from ..helpers import LIMIT, in_thread
from .helpers import TERMINAL, Asked, Gate, Warnings, needs_blinker, needs_fork, start, warnings_in


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
        f"Thread 'second' still runs {Gate.__module__}:Gate",
        f"Thread 'first' still runs {Gate.__module__}:Gate",
        f"Thread 'first' has finished {Gate.__module__}:Gate",
        f"Thread 'second' has finished {Gate.__module__}:Gate",
    ]
    ends = [text.split(" s after the end of ")[1].partition(" It was started at ")[0] for text in texts]
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
                patch.setattr(parents, "seconds_over", lambda parent, began: 61.0)
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
    assert " s after the end of the app context that it inherits. It" in heard.get(timeout=LIMIT).getMessage()
    with ctx:
        gate.opened.set()
        thread.join(LIMIT)
        text = heard.get(timeout=LIMIT).getMessage()
        assert ", a thread of app 'tests', 0.0 s after the end of the app context that it inherits. It" in text


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
        assert text.isprintable() and rf"its request, {TERMINAL!a} '/a\x1b'. It was" in text


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
