"""The signal that has the table written: its handler, and those that were there before it."""

from __future__ import annotations

import os
import signal
import sys
import types
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

import flaskthreads_autopatch

from .. import processes
from ..helpers import LIMIT, in_thread
from .helpers import Gate, start


@pytest.fixture
def usr1(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers that a handler was called with which was there before ours."""
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL", "USR1")
    yield got
    flaskthreads_autopatch.disable()
    signal.signal(signal.SIGUSR1, before)


Handler = Callable[[int, types.FrameType | None], None]


@pytest.fixture
def above(app: Flask, usr1: list[int]) -> Handler:
    """Another package's handler, which was set after ours and calls it."""
    flaskthreads_autopatch.install(app)
    ours = t.cast(Handler, signal.getsignal(signal.SIGUSR1))

    def above(number: int, frame: types.FrameType | None) -> None:
        ours(number, frame)

    signal.signal(signal.SIGUSR1, above)
    return above


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
    above: Handler, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    flaskthreads_autopatch.disable()
    assert signal.getsignal(signal.SIGUSR1) is above
    signal.raise_signal(signal.SIGUSR1)
    assert usr1 == [signal.SIGUSR1]
    assert capfd.readouterr().err == ""


def test_above_somebody_elses_handler_once_more_and_one_table(
    app: Flask, above: Handler, usr1: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
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
signal.signal(signal.SIG{name}, signal.SIG_DFL)  # A shell ignores some signals for a command in the background.
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
    assert "handler cannot be set: signal only works in main thread" in result.stderr


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
