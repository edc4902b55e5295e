"""Under gevent: monkey-patched before us, after us, or not at all; and behind gunicorn's gevent worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

pytestmark = pytest.mark.gevent

TASKS = {"map": 3, "ThreadPool": 4, "native pool": 4}
"""How many threads or tasks a way makes, where it is not one."""


def contexts_of(way: str) -> tuple[int, int]:
    """How often a context is seen on a *way*, and how many are entered and left for that."""
    if "callback" in way and way != "callback":
        return (3, 3) if "map" in way else (1, 2)
    if "generator" in way:
        return 4, 3  # All items are read in one context.
    if "imap" in way:
        return 2, 3  # Reading the items might run code.
    if way == "greenlet in a greenlet":
        return 1, 2
    seen = 2 if " map" in way else TASKS.get(way, 1)
    return seen, seen


@pytest.fixture(scope="module", params=["never", "before", "after"])
def report(request: pytest.FixtureRequest) -> dict[str, t.Any]:
    """What a process saw in which gevent patched the standard library ``before`` or ``after`` we did, or ``never``."""
    command = [sys.executable, "-W", "error", "-m", "tests.gevent_app", request.param]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    return {"when": request.param, **json.loads(result.stdout)}


def test_gevent_is_in_place_of_the_threads(report: dict[str, t.Any]) -> None:
    assert report["class of threads"] == ("threading" if report["when"] == "never" else "gevent.threading")


@pytest.mark.parametrize("state", ["on", "all is own code"])
def test_every_way_into_a_thread_inherits_once(report: dict[str, t.Any], state: str) -> None:
    alice = {"user": "alice", "path": "/report", "inherited": True, "own thread": True}
    expected = {}
    for way in report[state]:
        seen, contexts = contexts_of(way)
        expected[way] = {"seen": [alice] * seen, "pushed": contexts, "torn down": contexts}
    assert report[state] == expected
    assert len(report[state]) == 9 + 11 + 30


@pytest.mark.parametrize("state", ["suppressed", "off"])
def test_nothing_inherits(report: dict[str, t.Any], state: str) -> None:
    nobody = {"user": None, "path": None, "inherited": False, "own thread": True}
    if state == "off" and THREADS_INHERIT_CONTEXT:
        # Python itself shows the parent's context in a thread (H15), and a worker shows its creator's.
        for way in report[state].values():
            way["seen"] = [{**seen, "user": None, "path": None} for seen in way["seen"]]
    assert report[state] == {
        way: {"seen": [nobody] * contexts_of(way)[0], "pushed": 0, "torn down": 0} for way in report["on"]
    }


def test_explicit_task_inherits_and_leaves_its_worker_clean_h13(report: dict[str, t.Any]) -> None:
    assert report["explicit"]["user"] == "alice"
    assert report["explicit worker"]["user"] is report["worker after its tasks"]["user"] is None
    assert not report["explicit worker"]["inherited"]


def test_each_greenlet_keeps_its_own_context(report: dict[str, t.Any]) -> None:
    assert report["greenlets apart"] == [["alice"] * 3, ["bob"] * 3] * 3


def test_classes_are_as_they_were_born_h22(report: dict[str, t.Any]) -> None:
    assert report["changed"] == []
    assert report["changed in gevent"] == []


@pytest.fixture(params=[(), ("--preload",)], ids=["load in the worker", "preload"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """gunicorn with one gevent worker; the app is installed after gevent has patched, or before."""
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0", "--graceful-timeout", "5"]
    process = subprocess.Popen(
        [*command, *request.param, "tests.gevent_app:app"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},  # where it puts its control socket
    )
    try:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"Listening at: (http://\S+)", line):
                break
        else:
            pytest.fail("gunicorn did not start:\n" + "".join(log))
        yield found[1]
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0
    # gevent itself may say something here, about locks that logging made before it patched.
    assert "flaskthreads_autopatch" not in rest, rest


def test_gunicorn_gevent_worker_never_mixes_requests_up(server: str) -> None:
    def get(path: str) -> t.Any:
        with urlopen(server + path, timeout=60) as response:
            return json.load(response)

    users = [f"user{i}" for i in range(40)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda user: get(f"/{user}/5"), users))
    assert {answer["thread class"] for answer in answers} == {"<class 'gevent.threading.Thread'>"}
    assert [(answer["seen"], answer["n"]) for answer in answers] == [([user], 10) for user in users]
    # One context for each request, five threads and five tasks of it.
    assert get("/counts") == {"pushed": 40 * 11, "torn down": 40 * 11}


RUNNING = """
from gevent import monkey
monkey.patch_all()
import json, threading
from concurrent.futures import ThreadPoolExecutor
import gevent
from flask import Flask
import flaskthreads_autopatch as autopatch
app = Flask("greenlets")
autopatch.install(app)
here, opened = threading.Semaphore(0), threading.Event()
idents = {}
def work(name):
    idents[name] = threading.get_ident()
    here.release()
    opened.wait()
with app.test_request_context("/order"):
    thread = threading.Thread(target=work, args=["thread"], name="thread")
    thread.start()
    pool = ThreadPoolExecutor(1, thread_name_prefix="pool")
    task = pool.submit(work, "pool_0")
    greenlet = gevent.spawn(autopatch.copy_current_app_context(work), "greenlet")
    for _ in range(3):
        here.acquire()
found = {r.thread_ident: [r.kind, r.thread_name, r.path] for r in autopatch.running()}
opened.set()
thread.join()
task.result()
greenlet.join()
print(json.dumps([{name: found.pop(ident) for name, ident in idents.items()}, found, len(autopatch.running())]))
"""


def test_running_tells_greenlets_apart() -> None:
    result = subprocess.run([sys.executable, "-c", RUNNING], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    by_name, others, left = json.loads(result.stdout)
    # A greenlet that is not a thread's has no name that threading knows.
    assert by_name.pop("greenlet")[1].startswith("thread ")
    assert by_name == {"thread": ["thread", "thread", "/order"], "pool_0": ["task", "pool_0", "/order"]}
    assert (others, left) == ({}, 0)
