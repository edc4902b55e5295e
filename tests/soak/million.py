"""``python -m tests.soak --requests N``: so many requests, half to gunicorn's gthread worker, half to uWSGI's threads.

The client keeps one connection for each thread of the server busy, in one loop without threads, so that the server is
what limits it. It compares each response with the one that it has to be.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
import typing as t

from ..servers.serving import THREADS, served_by
from .numbers import LIMIT, expected, expected_counts

SERVERS = {"gthread": "gunicorn", "uWSGI": "uwsgi with connections kept"}
FLAT = 0.02
"""From a tenth of the requests to the end, memory may be this much above what it was after that tenth."""
ROUNDS = 10
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""glibc gives each of the first threads an arena of its own, sixteen on two cores. Each grows to the most that was ever
needed in it at once, and keeps that: in 60,000 requests memory grew by 0.8 % with them, and by 0.1 % with one."""
NONE_OF = ("mix_ups", "leaked_contexts", "leaked_connections")

Figures = dict[str, int]


class Connection:
    """One connection, on which one request after the other is sent."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = -1
        self._received = b""

    def send(self, number: int) -> None:
        self.number = number
        self.socket.sendall(
            f"GET /lean/{number}?number={number} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {number}\r\n"
            f"Cookie: number={number}\r\n\r\n".encode()
        )

    def receive(self) -> str | None:
        """Read what is there, and return the body of the response once it is complete; what is no success raises."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError(f"the server closed the connection of request {self.number}: {self._received!r}")
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) or not length:
            raise RuntimeError(f"request {self.number} was answered by {self._received!r}")
        if len(body) < int(length):
            return None
        self._received = b""
        return body.decode()

    def figures(self) -> Figures:
        self.socket.sendall(b"GET /figures HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while (body := self.receive()) is None:
            pass
        return t.cast(Figures, json.loads(body))


def drive(connections: list[Connection], numbers: range) -> list[str]:
    """Send requests with these numbers, and return what was wrong with the responses."""
    wrong: list[str] = []
    left = iter(numbers)
    with selectors.DefaultSelector() as selector:
        for connection, number in zip(connections, left, strict=False):
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(number)
        while selector.get_map():
            ready = selector.select(LIMIT)
            if not ready:
                return [*wrong, f"no response within {LIMIT} seconds"]
            for key, _ in ready:
                connection = key.data
                body = connection.receive()
                if body is None:
                    continue
                if body != expected(connection.number):
                    wrong.append(f"{body!r} instead of {expected(connection.number)!r}")
                number = next(left, -1)
                if number < 0 or len(wrong) > 20:
                    selector.unregister(connection.socket)
                else:
                    connection.send(number)
    return wrong


def soak_all(requests: int) -> list[str]:
    """Have each server answer its share of so many requests, and return what is wrong."""
    return [x for name in SERVERS for x in soak(name, requests // len(SERVERS))]


def soak(name: str, requests: int) -> list[str]:
    """Send so many requests to that server, print the table, and return what is wrong."""
    wrong: list[str] = []
    rows: list[Figures] = []
    columns = ["requests", "tasks", "threads", "timers", "late", *NONE_OF, "blocks", "kilobytes", "system_threads"]
    with served_by(SERVERS[name], "tests.soak.lean", **ONE_ARENA) as server:
        connections = [Connection(server.port) for _ in range(int(THREADS))]
        print("| server | " + " | ".join(column.replace("_", " ") for column in columns) + " | seconds |", flush=True)
        start = time.monotonic()
        for part in range(ROUNDS):
            try:
                wrong += drive(connections, range(requests * part // ROUNDS, requests * (part + 1) // ROUNDS))
                rows.append(connections[0].figures())
            except (OSError, RuntimeError) as error:
                wrong.append(str(error))
            if wrong:
                break
            cells = [f"{rows[-1][column]:,}" for column in columns] + [f"{time.monotonic() - start:,.0f}"]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        for connection in connections:
            connection.socket.close()
    wrong += [line.rstrip() for line in server.log if "Traceback" in line or "Error" in line][:20]
    return [f"{name}: {each}" for each in wrong or judge(requests, rows)]


def judge(requests: int, rows: list[Figures]) -> list[str]:
    """Return what is wrong with these figures, the first of which were taken after a tenth of the requests."""
    first, last = rows[0], rows[-1]
    wrong = [f"{last[name]} {name.replace('_', ' ')}, where there should be none" for name in NONE_OF if last[name]]
    # The requests for the figures have contexts too.
    counted = last | {"contexts": last["popped"] - len(rows) + 1}
    wrong += [
        f"{counted[name]} {name}, where {number} are expected"
        for name, number in expected_counts(requests).items()
        if counted[name] != number
    ]
    most = max(row["kilobytes"] for row in rows)
    if most > first["kilobytes"] * (1 + FLAT):
        wrong.append(f"memory grew from {first['kilobytes']} kB to {most} kB, which is more than {FLAT:.0%}")
    if last["system_threads"] > first["system_threads"]:
        wrong.append(f"{last['system_threads']} threads at the end, {first['system_threads']} after a tenth")
    return wrong
