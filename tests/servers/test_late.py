"""A thread of alice that runs on while bob's request is served, under real servers (H25, H26)."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from .serving import SERVERS, Server, served_by

UWSGI = pytest.param("uwsgi with one core", marks=pytest.mark.uwsgi)
APACHE = pytest.param("apache", marks=pytest.mark.apache)
EVERY = [server for server in SERVERS if "uwsgi" not in str(server)] + [UWSGI]


def post(server: Server, path: str, user: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=90)
    headers = {"Authorization": f"Bearer {user}", "Cookie": f"user={user}", "Content-Type": "text/plain"}
    connection.request("POST", f"{path}?user={user}", f"the body of {user}".ljust(20), headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body
    return json.loads(body)


def read_by_alice(server: Server, how: str) -> dict[str, Any]:
    """What alice's thread saw while bob's request was served, and whether the two requests had the same environ."""
    hers = post(server, f"/start/{how}/released", "alice")
    his = post(server, "/look", "bob")
    return his["seen"] | {"environ is reused": hers["environ"] == his["environ"]}


@pytest.mark.parametrize("server", EVERY)
def test_h25_a_late_thread_reads_its_own_request(server: str) -> None:
    with served_by(server, "tests.servers.late") as served:
        seen = read_by_alice(served, "inherits")
        served.wait_for("logged by alice")
    body = (
        "RuntimeError: The body of POST '/start/inherits/released' can no longer be read: the request has ended. Read"
        " the body before the view returns (request.get_data(), request.form), or set preload=True, which reads it"
        " before the thread starts."
    )
    reused, stream = seen.pop("environ is reused"), seen.pop("stream")
    if "uwsgi" in server:
        assert reused
        assert stream == body
    # Others gave the thread their own stream, which ends with the request.
    assert "bob" not in stream
    assert seen == {
        "authorization": "Bearer alice",
        "headers": "Bearer alice",
        "cookie": "alice",
        "path": "/start/inherits/released",
        "args": "alice",
        "body": body,
        "error stream": None,
        "log": None,
    }
    assert "printed\n" in served.log
    assert not any("Logging error" in line for line in served.log)


@pytest.mark.parametrize("server", [UWSGI])
def test_h25_by_hand_a_late_thread_reads_the_next_request(server: str) -> None:
    with served_by(server, "tests.servers.late") as served:
        seen = read_by_alice(served, "by-hand")
    assert seen["environ is reused"]
    names = ("authorization", "headers", "cookie", "path")
    assert [seen[name] for name in names] == ["Bearer bob", "Bearer bob", "bob", "/look"]
    assert seen["body"].strip() == "the body of bob"


@pytest.mark.parametrize("server", [UWSGI])
def test_h26_a_late_thread_logs_where_the_environ_is_empty(server: str) -> None:
    with served_by(server, "tests.servers.late") as served:
        post(served, "/start/inherits/emptied", "alice")
        served.wait_for("logged by alice")
        assert post(served, "/look", "bob")["seen"]["authorization"] == "Bearer alice"

        post(served, "/start/by-hand/emptied", "alice")
        served.wait_for("KeyError: 'wsgi.errors'")


@pytest.mark.parametrize("server", [APACHE])
def test_h26_by_hand_a_late_thread_cannot_log(server: str) -> None:
    with served_by(server, "tests.servers.late") as served:
        seen = read_by_alice(served, "by-hand")
        served.wait_for("Logging error")
    assert "expired" in seen["error stream"]
    assert "expired" in seen["body"]
