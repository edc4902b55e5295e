"""What the system refuses or changes: threads, room on the disk, the time of day; and a fork at any moment.

Each process runs with the patches off and on. What it prints differs only in what its threads inherit.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path

import pytest
from flask import Flask, g

import flaskthreads_autopatch

from . import processes
from .helpers import LIMIT, ended

HEAD = """
import logging, os, resource, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, g, has_app_context
import flaskthreads_autopatch

LIMIT = 60  # less than the limit of the test, so that the process can tell where it hangs
app = Flask("app")


def user():
    return g.user if has_app_context() else "no context"


def in_thread(fn):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(fn()))
    thread.start()
    thread.join(LIMIT)
    return seen[0]
"""


@pytest.fixture(params=["off", "on"])
def switch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def lines_of(switch: str, body: str) -> list[str]:
    """What a process prints, in which a thread of alice sees "alice" if *switch* is "on", else "no context"."""
    variables = {"FLASKTHREADS_AUTOPATCH": "0"} if switch == "off" else {}
    done = processes.run(sys.executable, "-W", "ignore", "-c", HEAD + body, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace("alice" if switch == "on" else "no context", "<user>").splitlines()


def test_a_thread_that_the_system_refuses(switch: str) -> None:
    assert lines_of(
        switch,
        """
flaskthreads_autopatch.install(app)
with app.app_context():
    g.user = "alice"
    print(in_thread(user))
    if os.getuid() == 0:  # whom nothing is refused
        os.setuid(65533)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    thread = threading.Thread(target=lambda: print(user()))
    with ThreadPoolExecutor(1) as pool:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        before = dict(vars(g))
        thread_of_print, timer = threading.Thread(target=print), threading.Timer(0, print)
        for start in (thread_of_print.start, timer.start, lambda: pool.submit(print)):
            try:
                start()
            except RuntimeError as error:
                print(error)
        assert vars(g) == before
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        thread.start()
        thread.join(LIMIT)
        print(pool.submit(user).result(LIMIT))
""",
        # The standard library has queued the task of the pool all the same: it prints an empty line.
    ) == ["<user>", *["can't start new thread"] * 3, "<user>", "", "<user>"]


@pytest.mark.parametrize("on_error", ["report", "raise"])
def test_a_full_disk_for_logs(switch: str, on_error: str) -> None:
    assert lines_of(
        switch,
        f"ON_ERROR = {on_error!r}"
        + """
emitted = []


class Full(logging.StreamHandler):
    def emit(self, record):
        emitted.append(record)
        super().emit(record)

    def handleError(self, record):
        if ON_ERROR == "raise":
            raise
        super().handleError(record)  # prints to sys.stderr


sys.stderr = full = open("/dev/full", "w", buffering=1)
for name in ("app", "flaskthreads_autopatch"):
    logging.getLogger(name).addHandler(Full(full))
    logging.getLogger(name).setLevel(logging.DEBUG)
flaskthreads_autopatch.install(app, warn_after=0.01)


@app.teardown_appcontext
def handler(exc):
    if threading.current_thread() is not threading.main_thread():
        raise ZeroDivisionError


class Unreadable(type):
    def __hash__(cls):
        raise ZeroDivisionError


with app.app_context(), ThreadPoolExecutor(1) as pool:
    g.user = "alice"
    g.connection = threading.local()
    print(in_thread(user))
    print(pool.submit(user).result(LIMIT))
    print(pool.submit(user).result(LIMIT))
    g.unreadable = Unreadable("Unreadable", (), {})()
    print(in_thread(int))
assert bool(emitted) is flaskthreads_autopatch.is_enabled()
sys.stdout.flush()
os._exit(0)  # without flushing the others
""",
    ) == ["<user>", "<user>", "<user>", "0"]


def test_the_time_of_day_is_not_asked() -> None:
    package = Path(flaskthreads_autopatch.__file__).parent
    asked = [
        f"{file.name}: {line.strip()}"
        for file in package.rglob("*.py")
        for line in file.read_text().splitlines()
        if re.search(r"\btime\.time\b|from time import.*\btime\b|localtime|gmtime|datetime\.(now|today|utcnow)", line)
    ]
    assert asked == []


def test_a_clock_that_jumps_changes_no_warning(
    app: Flask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, hour = time.time, iter(range(0, 10**9, 3600))
    monkeypatch.setattr(time, "time", lambda: now() - next(hour))  # an hour back at each call
    flaskthreads_autopatch.install(app, warn_after=0.01)
    may_end, warned = threading.Event(), threading.Event()
    caplog.handler.addFilter(lambda record: warned.set() or True)
    with app.app_context():
        g.user = "alice"
        thread = threading.Thread(target=may_end.wait, args=[LIMIT])
        thread.start()
    assert warned.wait(LIMIT)
    may_end.set()
    ended(thread)
    still, over = [record.getMessage() for record in caplog.records]
    assert "still runs" in still
    assert "has finished" in over
    for message in (still, over):
        found = re.search(r"([\d.-]+) s after", message)
        assert found is not None
        assert 0 <= float(found[1]) < LIMIT


def test_a_fork_at_any_moment(switch: str) -> None:
    assert lines_of(
        switch,
        """
flaskthreads_autopatch.install(app, warn_after=60, origins=True)
stop = threading.Event()


def start_without_end(name):
    with ThreadPoolExecutor(2) as pool:
        while not stop.is_set():
            with app.app_context():
                g.user = name
                expected = name if ON else "no context"
                assert in_thread(user) == expected
                assert pool.submit(user).result(LIMIT) == expected
            flaskthreads_autopatch.running()


ON = flaskthreads_autopatch.is_enabled()
threads = [threading.Thread(target=start_without_end, args=[f"user{number}"]) for number in range(4)]
for thread in threads:
    thread.start()
failed = 0
for number in range(60):
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        right = False
        try:
            assert flaskthreads_autopatch.running() == []
            with app.app_context(), ThreadPoolExecutor(1) as pool:
                g.user = "alice"
                right = {in_thread(user), pool.submit(user).result(LIMIT)} == {"alice" if ON else "no context"}
        finally:
            os._exit(0 if right else 1)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads:
    thread.join(LIMIT)
with app.app_context():
    g.user = "alice"
    print(failed, in_thread(user))
""",
    ) == ["0 <user>"]
