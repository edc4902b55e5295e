"""Processes that are killed or told to end in the middle of replays: nothing is lost that is not lost without us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import gunicorn.config
import pytest

from . import processes
from .helpers import LIMIT

APP = '''
import os, sys, threading
from flask import Flask, g, has_app_context
import flaskthreads_autopatch

app = Flask("killed")
flaskthreads_autopatch.install(app)
GO_ON = os.environ["GO_ON"]


@app.teardown_appcontext
def teardown(exc):
    if threading.current_thread().name == "late":
        print("torn down", flush=True)


@app.get("/start/<user>")
def start(user):
    """Start a thread that ends once the file GO_ON is there, and answer once it runs."""
    g.user = user
    began, seen = threading.Event(), []

    def work():
        seen.append(g.user if has_app_context() else "no context")
        began.set()
        while not os.path.exists(GO_ON):
            threading.Event().wait(0.01)
        print("finished by", seen[0], flush=True)

    threading.Thread(target=work, name="late").start()
    began.wait(60)
    return {"process": str(os.getpid()), "user": seen[0]}
'''

NO_SOCKET = ["--no-control-socket"] if "control_socket_disable" in gunicorn.config.Config().settings else []
GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "4"]


@pytest.fixture(params=["off", "on"])
def switch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "killed.py").write_text(APP)
    return tmp_path


def variables(switch: str, folder: Path) -> dict[str, str]:
    names = {"GO_ON": str(folder / "go on"), "PYTHONPATH": str(processes.ROOT)}
    return names | ({"FLASKTHREADS_AUTOPATCH": "0"} if switch == "off" else {})


def seen_by(switch: str, user: str) -> str:
    return user if switch == "on" else "no context"


def test_after_a_worker_is_killed_in_the_middle_of_replays_the_next_one_serves(switch: str, folder: Path) -> None:
    command = [*GUNICORN, *NO_SOCKET, "killed:app"]
    with processes.serving(*command, cwd=folder, **variables(switch, folder)) as site:
        first = [site.get(f"/start/user{number}") for number in range(3)]
        assert [each["user"] for each in first] == [seen_by(switch, f"user{number}") for number in range(3)]
        os.kill(int(first[0]["process"]), signal.SIGKILL)
        # The parent process says so, and starts another worker.
        site.wait_for("Booting worker with pid: (?!{})".format(first[0]["process"]))
        after = site.get("/start/bob")
        assert after["process"] != first[0]["process"]
        assert after["user"] == seen_by(switch, "bob")
        (folder / "go on").touch()
        site.wait_for(f"finished by {seen_by(switch, 'bob')}")


def test_a_graceful_end_waits_for_the_threads_of_requests_that_are_over(switch: str, folder: Path) -> None:
    command = [*GUNICORN, *NO_SOCKET, "--graceful-timeout", str(LIMIT), "killed:app"]
    with processes.serving(*command, cwd=folder, **variables(switch, folder)) as site:
        worker = int(site.get("/start/alice")["process"])
        os.kill(worker, signal.SIGTERM)
        site.wait_for("Worker exiting")
        (folder / "go on").touch()
        site.wait_for(f"finished by {seen_by(switch, 'alice')}")
        if switch == "on":
            site.wait_for("torn down")


SCRIPT = """
import signal, sys, time
import killed

HOW = sys.argv[1]
if HOW == "exits":
    signal.signal(signal.SIGTERM, lambda number, frame: (open(killed.GO_ON, "w").close(), sys.exit(3)))
print(killed.app.test_client().get("/start/alice").json["user"], flush=True)
while True:
    time.sleep(0.01)  # pause() would miss a signal that comes just before it
"""


@pytest.mark.parametrize("how, status", [("exits", 3), ("dies", -signal.SIGTERM)])
def test_a_process_that_is_told_to_end_in_the_middle_of_a_replay(
    how: str, status: int, switch: str, folder: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        cwd=folder,
        env=processes.environment(**variables(switch, folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        user = process.stdout.readline().strip()
        assert user == seen_by(switch, "alice")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    # The thread is waited for, and torn down, where the process ends by itself.
    finished = [f"finished by {user}", *(["torn down"] if switch == "on" else [])]
    assert (output.splitlines(), process.returncode) == (finished if how == "exits" else [], status)
