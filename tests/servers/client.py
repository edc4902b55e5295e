"""Sixteen users at once, each on a connection of its own, who compare every answer with what it has to be."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import threading
import traceback
from typing import Any

# Above Werkzeug's limit for a file in memory (500 kB) this one is spooled to disk.
CONTENT = b"0123456789abcdef" * 40_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
BOUNDARY = "boundary-of-the-parts"
GIVE_UP_AFTER = 20


@dataclasses.dataclass
class Report:
    """What all users did, and what was wrong with the answers."""

    problems: list[str] = dataclasses.field(default_factory=list)
    wrong: set[str] = dataclasses.field(default_factory=set)
    asked: dict[str, str] = dataclasses.field(default_factory=dict)
    """By path, the user."""

    def paths(self, kind: str) -> dict[str, str]:
        return {path: user for path, user in self.asked.items() if path.startswith(f"/{kind}/")}


class Client:
    """One user, who sends one request after the other on one connection."""

    def __init__(self, port: int, user: str, report: Report) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        self.user = user
        self.report = report
        self.cookie = ""
        self.last: str | None = None

    def ask(self, path: str) -> None:
        self.report.asked[path] = self.user
        kind = path.split("/")[1]
        method, body, headers = "GET", None, {"user": self.user, "Cookie": self.cookie}
        if kind == "upload":
            method, body = "POST", _multipart(path)
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            self.complain(path, f"HTTP {response.status}", text)
            return
        if cookie := response.getheader("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        check = getattr(self, f"check_{kind}", None)
        if check is not None:
            check(path, text)
        # Else a shared cache could serve it to the next user.
        if kind in ("jobs", "upload") and response.getheader("Vary") != "Cookie":
            self.complain(path, "expected Vary: Cookie", response.getheader("Vary"))

    def check_jobs(self, path: str, text: str) -> None:
        here, there = self.expected(path, elsewhere=False), self.expected(path)
        expected = {
            "last": self.last,
            "parent before": here,
            "thread": there,
            "timer": there,
            "pool": [there, there],
            "map": [there, there],
            "callback": there,
            "own database session": True,
            "same database session": True,
            "parent after": here,
        }
        self.compare(path, json.loads(text), expected)
        self.last = path

    def check_stream(self, path: str, text: str) -> None:
        here, there = self.expected(path, elsewhere=False), self.expected(path)
        lines = [json.loads(line) for line in text.splitlines()]
        self.compare(path, lines, [{"parent": here, "thread": there, "pool": there}] * 3)

    def check_upload(self, path: str, text: str) -> None:
        sent = [path, DIGEST]
        expected = {"thread": self.expected(path), "received by thread": sent, "received by parent": sent}
        self.compare(path, json.loads(text), expected)

    def expected(self, path: str, elsewhere: bool = True) -> dict[str, Any]:
        return expected(path, self.user, elsewhere)

    def compare(self, path: str, saw: object, expected: object) -> None:
        if saw != expected:
            self.complain(path, f"expected {expected}", saw)

    def complain(self, path: str, what: str, saw: object) -> None:
        self.report.wrong.add(path)
        self.report.problems.append(f"{path} of {self.user}: {what}, saw {saw}")


def expected(path: str, user: str, elsewhere: bool = True) -> dict[str, Any]:
    """What `app.who` has to see."""
    return {"app": "served", "user": user, "path": path, "session": user, "row": user, "elsewhere": elsewhere}


def _multipart(token: str) -> bytes:
    part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    head = f'{part}"token"\r\n\r\n{token}\r\n{part}"file"; filename="file"\r\n\r\n'
    return head.encode() + CONTENT + f"\r\n--{BOUNDARY}--\r\n".encode()


def drive(port: int, kinds: list[str], rounds: int, users: int = 16, first: int = 0) -> Report:
    """Have each user ask for all *kinds*, *rounds* times. Gives up after many problems."""
    report = Report()
    all_here = threading.Barrier(users)

    def use(user: str) -> None:
        client = Client(port, user, report)
        try:
            client.ask(f"/login/{user}")
            all_here.wait(90)
            for number in range(rounds):
                for step, kind in enumerate(kinds):
                    client.ask(f"/{kind}/{user}-{number}-{step}")
                    if len(report.problems) > GIVE_UP_AFTER:
                        return
        except Exception:
            report.problems.append(f"{user}: {traceback.format_exc()}")
            all_here.abort()
        finally:
            client.connection.close()

    threads = [threading.Thread(target=use, args=(f"user{number}",)) for number in range(first, first + users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def inspection(port: int) -> dict[str, Any]:
    """What the middleware says once all requests are done."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    connection.request("GET", "/inspection")
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body
    return json.loads(body)
