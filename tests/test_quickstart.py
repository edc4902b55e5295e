"""The quickstart, as a newcomer uses it: run as a script, and served by ``flask run``."""

from __future__ import annotations

import ast
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "examples" / "quickstart.py"
USERS = ["alice", "bob", "carol", "dave"]
OUTSIDE = "Working outside of application context."


def run(**environ: str) -> tuple[int, list[str]]:
    """Run the demonstration. Its exit status, and its lines."""
    # On a free-threaded 3.14 threads see something without the line too, and that is not always their own.
    command = [sys.executable, "-X", "thread_inherit_context=0", QUICKSTART]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environ)
    return done.returncode, done.stdout.splitlines()


def test_shows_every_thread_its_own_user_with_the_line_and_none_without() -> None:
    status, (head, *rows, verdict) = run()

    assert re.split(r"\s{2,}", head) == ["view", "user", "the thread saw, without the line", "with it"]
    expected = [(view, user, OUTSIDE, user) for view in ("/thread", "/pool") for user in USERS]
    assert [tuple(re.split(r"\s{2,}", row)) for row in rows] == expected
    assert verdict == "With the line, every thread saw its own user."
    assert status == 0


@pytest.mark.parametrize(
    ("environ", "failing"),
    [
        ({"FLASKTHREADS_AUTOPATCH_SHARE": "perhaps"}, {"/thread", "/pool"}),  # a typo: nothing is patched
        ({"FLASKTHREADS_AUTOPATCH_IGNORE": "__main__:in_a_thread"}, {"/thread"}),
        ({"FLASKTHREADS_AUTOPATCH_IGNORE": "__main__:who"}, {"/pool"}),
    ],
)
def test_fails_where_threads_do_not_inherit(environ: dict[str, str], failing: set[str]) -> None:
    status, (_, *rows, verdict) = run(**environ)

    assert {row.split()[0] for row in rows if row.endswith(OUTSIDE)} == failing
    assert verdict == "With the line, some thread did not see its own user."
    assert status == 1


def test_legacy_views_know_nothing_of_this_package() -> None:
    tree = ast.parse(QUICKSTART.read_text())
    users = {
        function.name
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == "flaskthreads_autopatch"
    }
    assert users == {"create_app", "demonstrate"}


@pytest.fixture
def port() -> Iterator[int]:
    """The quickstart, served by ``flask run`` on a free port."""
    command = [sys.executable, "-u", "-m", "flask", "--app", "examples/quickstart.py", "run", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as server:
        try:
            lines, found = [], None
            assert server.stdout is not None
            for line in server.stdout:
                lines.append(line)
                if found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", line):
                    break
            assert found, "".join(lines)
            yield int(found[1])
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)


def test_is_served_by_flask_run(port: int) -> None:
    def get(path: str, user: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path, headers={"user-id": user})
        body = connection.getresponse().read().decode()
        connection.close()
        return body

    asked = [(path, user) for user in USERS for path in ("/thread", "/pool")]
    assert [get(path, user) for path, user in asked] == [user for _, user in asked]
