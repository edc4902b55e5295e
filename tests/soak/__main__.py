"""``python -m tests.soak``: load on a real server, and proof that nothing is mixed up or left behind.

``--minutes N`` sends requests for so long, half of the time to gunicorn's gthread worker, half to gevent's; `app` does
much for each. ``--requests N`` sends so many, as `million` says. Needs the groups ``tests`` and ``soak``. Ends by
itself; exit status 1 if anything was mixed up, leaked or failed.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import million

WORKERS = ("gthread", "gevent")
CLIENTS = 4
LIMIT = 60
"""Seconds for the server to start, to answer, and to end."""

TOLERANCE_KILOBYTES, TOLERANCE_SHARE = 4096, 0.05
"""From the middle to the end memory may grow by 5 %, or by 4 MB where that is more: the allocator keeps what it got."""

TOLERANCE_THREADS = 10
"""Workers of the pools, the app's and gunicorn's, that need not have been started by the middle."""

Figures = dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1, help="in all, over both workers (default: 1)")
    parser.add_argument("--worker", choices=WORKERS, action="append", help="only this one")
    parser.add_argument("--requests", type=int, metavar="N", help="instead: so many, half to gthread, half to uWSGI")
    options = parser.parse_args()
    if options.requests:
        return report(million.soak_all(options.requests))
    workers = options.worker or WORKERS
    return report([x for worker in workers for x in soak(worker, options.minutes * 60 / len(workers))])


def report(failures: list[str]) -> int:
    """Print what is wrong, and return the exit status."""
    for failure in failures:
        print(f"FAILED: {failure}", flush=True)
    return 1 if failures else 0


def soak(worker: str, seconds: float) -> list[str]:
    """Drive a server with that worker for so long, print the table, and return what is wrong."""
    with tempfile.TemporaryDirectory() as folder, served(worker, Path(folder)) as port:
        client = Load(port)
        client.run(min(5.0, seconds / 6))  # what is made once for all is there before the first figures
        rows = {"start": figures(port)}
        for name in ("middle", "end"):
            client.run(seconds / 2)
            rows[name] = figures(port)
    print_table(worker, seconds, rows)
    return [f"{worker}: {failure}" for failure in judge(rows) + client.errors]


@contextmanager
def served(worker: str, folder: Path) -> Iterator[int]:
    """gunicorn with one process of *worker*, on a free port of the loopback; ended by its process id."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port: int = listener.getsockname()[1]
        os.set_inheritable(listener.fileno(), True)
        command = [sys.executable, "-m", "gunicorn", "--worker-class", worker, "--workers", "1", "--threads", "4"]
        command += ["--bind", f"fd://{listener.fileno()}", "--log-level", "warning", "--timeout", str(LIMIT)]
        server = subprocess.Popen(
            [*command, "--no-control-socket", "tests.soak.app:create_app()"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "SOAK_DATABASE": str(folder / "soak.sqlite")},
        )
    try:
        yield port
    finally:
        server.terminate()
        try:
            server.wait(LIMIT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(LIMIT)


def get(connection: http.client.HTTPConnection, path: str) -> Figures:
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"GET {path} was answered by {response.status}: {body[:200]!r}")
    return t.cast(Figures, json.loads(body))


def figures(port: int) -> Figures:
    return get(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT), "/figures")


class Load:
    """Clients that each ask as a new user every time, and check every answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.errors: list[str] = []
        self._users = itertools.count()

    def run(self, seconds: float) -> None:
        """Return after so many seconds, and once all that was asked has been answered."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(end,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, end: float) -> None:
        while time.monotonic() < end and len(self.errors) < 10:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
            try:
                answer = get(connection, f"/jobs?user=user{next(self._users)}")
                if answer != {"answers": 6, "wrong": 0}:
                    self.errors.append(f"a request was answered by {answer} instead of 6 answers, 0 wrong")
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                self.errors.append(f"a request failed: {error!r}")
            finally:
                connection.close()


def judge(rows: dict[str, Figures]) -> list[str]:
    """What is wrong with these figures."""
    middle, end = rows["middle"], rows["end"]
    wrong = [
        f"{end[name]} {name.replace('_', ' ')} at the end, where there should be none"
        for name in ("mix_ups", "leaked_contexts", "leaked_connections")
        if end[name]
    ]
    if not end["requests"] > middle["requests"] > rows["start"]["requests"]:
        wrong.append("the server did not go on serving")
    growth, allowed = (
        end["kilobytes"] - middle["kilobytes"],
        max(TOLERANCE_KILOBYTES, TOLERANCE_SHARE * middle["kilobytes"]),
    )
    if growth > allowed:
        wrong.append(f"memory grew by {growth} kB from the middle to the end; {allowed:.0f} kB are allowed")
    if end["system_threads"] > middle["system_threads"] + TOLERANCE_THREADS:
        wrong.append(f"{end['system_threads']} threads at the end, {middle['system_threads']} in the middle")
    return wrong


def print_table(worker: str, seconds: float, rows: dict[str, Figures]) -> None:
    columns = ["requests", "threads", "timers", "tasks", "mix_ups", "leaked_contexts", "leaked_connections"]
    columns += ["kilobytes", "system_threads"]
    print(f"{worker}, {seconds:.0f} s", flush=True)
    print("        " + " ".join(f"{name.replace('_', ' '):>18}" for name in columns))
    for name, row in rows.items():
        print(f"{name:<8}" + " ".join(f"{row[column]:>18}" for column in columns), flush=True)


if __name__ == "__main__":
    sys.exit(main())
