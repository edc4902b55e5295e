"""Real servers, as processes, under sixteen concurrent users: gunicorn with its threads, and waitress."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gunicorn.config
import pytest

from .client import drive, expected, inspection

ROOT = Path(__file__).parent.parent.parent
SERVERS = {
    "gunicorn": [
        *("gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "60"),
        # Newer ones keep a socket in the user's home.
        *(["--no-control-socket"] if "control_socket_disable" in gunicorn.config.Config().settings else []),
    ],
    "waitress": ["waitress", "--listen", "127.0.0.1:0", "--threads", "8"],
}
KINDS = ["jobs", "jobs", "outlive", "jobs", "stream", "jobs", "upload", "jobs"]
ROUNDS = 8
POOL_WORKERS = 4


@contextmanager
def served_by(name: str, folder: Path, **environ: str) -> Iterator[tuple[int, list[str]]]:
    """A server in a process of its own, with its database in *folder*: its port, and its log, complete at the end."""
    command = [sys.executable, "-u", "-m", *SERVERS[name], "tests.servers.inspected:application"]
    environ = os.environ | environ | {"SERVED_DATABASE": str(folder / "database")}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipe) as server:
        log, port = [], None
        for line in server.stdout:
            log.append(line)
            if port := re.search(r"(?:Listening at|Serving on):? http://127\.0\.0\.1:(\d+)", line):
                break
        assert port, "".join(log)
        # A full pipe would stop the server.
        reader = threading.Thread(target=log.extend, args=(server.stdout,))
        reader.start()
        try:
            yield int(port[1]), log
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
            finally:
                reader.join()


@pytest.mark.parametrize("server", SERVERS)
def test_each_thread_timer_and_task_sees_its_own_request(server: str, tmp_path: Path) -> None:
    with served_by(server, tmp_path) as (port, log):
        report = drive(port, KINDS, ROUNDS)
        assert report.problems == [], "".join(log[-60:])
        found = inspection(port)

    assert len(report.asked) == 16 * (1 + len(KINDS) * ROUNDS)
    assert found.pop("late") == {path: [expected(path, user)] for path, user in report.paths("outlive").items()}
    # Written by the threads, each with its own user.
    assert sorted(found.pop("visits")) == sorted(map(list, report.paths("jobs").items()))
    assert found == {
        "looks": 2 * len(report.asked),
        "contexts on server threads": [],
        "contexts on pool workers": [None] * POOL_WORKERS,
        "contexts alive": 0,
        "connections out": 0,
    }
    assert not [line for line in log if re.search("Traceback|Error|Exception|ERROR|CRITICAL", line)], "".join(log)


@pytest.mark.parametrize("server", SERVERS)
def test_these_checks_notice_that_nothing_is_inherited(server: str, tmp_path: Path) -> None:
    # A wrong option in the environment: nothing is patched.
    with served_by(server, tmp_path, FLASKTHREADS_AUTOPATCH_SHARE="perhaps") as (port, log):
        report = drive(port, ["jobs"], 3)

    assert any("Nothing is patched." in line for line in log)
    # Where threads inherit all context variables by themselves, a pool's worker does too, and keeps those of the
    # request that made the pool grow for ever: that one is answered right.
    assert len(report.wrong) >= len(report.paths("jobs")) - POOL_WORKERS
