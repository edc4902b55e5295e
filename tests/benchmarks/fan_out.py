"""Real requests: a gunicorn gthread server whose view fans out to 4 tasks, one server for each way."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from .harness import ROOT, Column, Scenario

WAYS = ("by hand", "ours", "copy_current_request_context")
REQUESTS = 200


def _request(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/orders/7?page=2", headers={"Cookie": "session="})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200 or body != b"7/2/alice " * 4:
        raise RuntimeError(f"the server answered {response.status} {body[:200]!r}")


def _seconds_per_request(way: str) -> float:
    connection = _connections[way]
    for _ in range(10):
        _request(connection)
    start = time.perf_counter()
    for _ in range(REQUESTS):
        _request(connection)
    return (time.perf_counter() - start) / REQUESTS


_connections: dict[str, http.client.HTTPConnection] = {}


@contextlib.contextmanager
def _servers() -> Iterator[None]:
    """A server for each way, all at once, so that they can be asked in turns."""
    with contextlib.ExitStack() as stack:
        for way in WAYS:
            port = stack.enter_context(_server(way))
            _connections[way] = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        yield


@contextlib.contextmanager
def _server(way: str) -> Iterator[int]:
    with socket.socket() as listening:
        # Else the kernel holds a small answer back for 40 ms now and then.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "1", "--threads", "2", "--keep-alive", "60"]
        command += ["--log-level", "warning", "--bind", f"fd://{listening.fileno()}", "tests.benchmarks.shop:app"]
        environ = {**os.environ, "SHOP_WAY": way}
        process = subprocess.Popen(command, cwd=ROOT, env=environ, pass_fds=[listening.fileno()])
        try:
            yield listening.getsockname()[1]
        finally:
            process.terminate()
            process.wait(30)


def _columns() -> list[Column]:
    return [Column(way, functools.partial(_seconds_per_request, way)) for way in WAYS]


SCENARIOS = (
    Scenario(
        "request",
        "A request to a gunicorn gthread server whose view fans out to 4 tasks",
        "by hand",
        _columns,
        sampled=True,
        share=0.5,
        around=_servers,
    ),
)
