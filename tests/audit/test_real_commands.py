"""The audit of test suites, servers and process pools: over all processes, however they end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import typing as t
from http.client import RemoteDisconnected
from pathlib import Path

import pytest

from ..processes import Service, Site, run, script, started
from .test_command import AUDIT

HERE = Path(__file__).parent


class Places:
    """What an audit has written with ``--json``."""

    def __init__(self, file: Path) -> None:
        data = json.loads(file.read_text())
        self.mode, self.processes = data["mode"], data["processes"]
        self._places = data["places"]

    def one(self, callable: str) -> dict[str, t.Any]:
        """The only place that runs *callable*."""
        [place] = [place for place in self._places if place["callable"] == callable]
        return t.cast("dict[str, t.Any]", place)

    def verdict(self, callable: str) -> tuple[str, int, int]:
        place = self.one(callable)
        return place["verdict"], place["starts"], place["failed"]


class Audited(Site):
    """A server under the audit, until the end of the block; then what the audit has found."""

    found: Places


@contextlib.contextmanager
def serving(tmp_path: Path, *command: str, **variables: object) -> t.Iterator[Audited]:
    file = tmp_path / "audit.json"
    with started(*AUDIT, "--json", file, "--", *command, cwd=HERE, **variables) as service:
        site = Audited(t.cast(Service, service))
        yield site
    site.found = Places(file)


SUITE = """
import threading
import pytest
from flask import Flask, g

app = Flask("shop")

def name_user():
    seen.append(g.user)

seen = []

@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_user(user):
    with app.app_context():
        g.user = user
        thread = threading.Thread(target=name_user)
        thread.start()
        thread.join()
    assert seen == [user]
"""


def test_a_test_suite(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(SUITE)
    file = tmp_path / "audit.json"
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"]
    done = run(*AUDIT, "--json", file, "--", *suite, cwd=tmp_path)
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert Places(file).verdict("test_shop:name_user") == ("fixed by the library", 2, 2)
    assert Places(file).one("test_shop:name_user")["place"] == "test_shop.py:19 in test_user"

    done = run(*AUDIT, "--on", "--compare", file, "--", *suite, "-k", "alice", cwd=tmp_path)
    assert done.returncode == 0
    assert "1 passed" in done.stdout
    assert "since the earlier audit (observe): failed 2 -> 0, started 2 -> 1" in done.stderr


def test_flask_run_with_its_reloader(tmp_path: Path) -> None:
    (tmp_path / "legacy.py").write_text((HERE / "legacy.py").read_text())
    command = ["--app", str(tmp_path / "legacy.py"), "--debug", "run", "--port", "0"]
    with serving(tmp_path, script("flask"), *command) as site:
        site.wait_for("Debugger is active")
        first = site.get("/")
        later = (tmp_path / "legacy.py").stat().st_mtime + 60
        os.utime(tmp_path / "legacy.py", (later, later))
        site.wait_for("Detected change")
        site.wait_for("Debugger is active")
        assert site.get("/")["pid"] != first["pid"]
    assert site.found.verdict("legacy:name_user") == ("fixed by the library", 2, 2)
    assert site.found.verdict("legacy:count") == ("inherits", 2, 0)
    assert site.found.processes == 3  # the reloader, and the server twice


GEVENT = pytest.param(["-k", "gevent"], marks=pytest.mark.gevent)


@pytest.mark.parametrize("options", [[], ["--preload"], ["-k", "gthread"], GEVENT])
def test_gunicorn_with_a_worker_that_is_killed(tmp_path: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:0", *options, "legacy:app"]
    with serving(tmp_path, *command) as site:
        pids = {site.get("/")["pid"] for _ in range(5)}
        with pytest.raises((RemoteDisconnected, ConnectionError)):
            site.get("/killed")
        site.wait_for("Booting worker")
        pids.add(site.get("/left")["pid"])
    assert site.found.verdict("legacy:name_user") == ("fixed by the library", 5, 5)
    assert site.found.verdict("legacy:hang") == ("outlives its request", 1, 0)
    assert site.found.one("legacy:hang")["still_running"] == 1
    assert site.found.one("legacy:hang")["endpoint"] == "left"
    assert site.found.processes >= 2


def test_a_server_that_enables_the_library_for_its_workers_is_observed_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "-e", "FLASKTHREADS_AUTOPATCH=1", "legacy:app"]
    with serving(tmp_path, *command) as site:
        assert site.get("/")["failed"]
    assert site.found.verdict("legacy:name_user") == ("fixed by the library", 1, 1)


@pytest.mark.uwsgi
def test_workers_that_uwsgi_forks_without_pythons_hooks_count_apart(tmp_path: Path) -> None:
    options = ["--home", sys.prefix, "--master", "--processes", "2", "--enable-threads", "--die-on-term"]
    with serving(tmp_path, script("uwsgi"), *options, "--http-socket", "127.0.0.1:0", "--module", "legacy:app") as site:
        first = {site.get("/")["pid"] for _ in range(3)}
        with pytest.raises((RemoteDisconnected, ConnectionError)):
            site.get("/killed")
        site.wait_for("Respawned uWSGI worker")
        assert {site.get("/")["pid"] for _ in range(4)} != first
    assert site.found.verdict("legacy:name_user") == ("fixed by the library", 7, 7)
    assert site.found.verdict("legacy:count") == ("inherits", 7, 0)


PROCESSES = """
import multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, g

app = Flask("shop")

def name_user():
    return g.user

def work():
    with app.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        for _ in range(3):
            pool.submit(name_user).exception()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    work()
    processes = [context.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if sys.argv[2:] == ["kill"]:
        import os
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("end", [[], ["kill"]])
def test_processes_of_multiprocessing(tmp_path: Path, method: str, end: list[str]) -> None:
    (tmp_path / "work.py").write_text(PROCESSES)
    file = tmp_path / "audit.json"
    done = run(*AUDIT, "--json", file, "--", sys.executable, "work.py", method, *end, cwd=tmp_path)
    assert done.returncode == (128 + 9 if end else 0)
    found = json.loads(file.read_text())["places"]
    tasks = [place for place in found if place["callable"].endswith(":name_user")]
    # multiprocessing itself gives the main module of a spawned process another name.
    assert sum(place["starts"] for place in tasks) == sum(place["failed"] for place in tasks) == 9
    assert {place["verdict"] for place in tasks} == {"fixed by the library"}


MANY = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, g

app, folder = Flask("shop"), os.environ["FLASKTHREADS_AUTOPATCH_AUDIT"]

def name_user():
    pass

def run(times):
    with app.app_context(), ThreadPoolExecutor(2) as pool:
        for _ in range(times // 100):
            for future in [pool.submit(name_user) for _ in range(100)]:
                future.result()

def size():
    return sys.getallocatedblocks(), sum(entry.stat().st_size for entry in os.scandir(folder))

run(1000)
blocks, on_disk = size()
run(int(sys.argv[1]))
blocks_after, on_disk_after = size()
print(blocks_after - blocks, on_disk_after - on_disk)
"""


@pytest.mark.parametrize("times", [20_000])
def test_many_starts_stay_flat(tmp_path: Path, times: int) -> None:
    """The same was run once with a million: `times` is all that is different."""
    file = tmp_path / "audit.json"
    done = run(*AUDIT, "--json", file, "--", sys.executable, "-c", MANY, str(times))
    blocks, on_disk = map(int, done.stdout.split())
    assert blocks < times / 20
    assert on_disk == 0
    assert Places(file).verdict("__main__:name_user") == ("inherits", times + 1000, 0)
