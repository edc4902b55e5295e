"""Real servers, as processes, under sixteen concurrent users."""

from __future__ import annotations

import re

import pytest

from .client import drive, expected, inspection
from .serving import SERVERS, served_by

KINDS = ["jobs", "jobs", "outlive", "jobs", "stream", "jobs", "upload", "jobs"]
ROUNDS = 3
POOL_WORKERS = 4


@pytest.mark.parametrize("server", SERVERS)
def test_each_thread_timer_and_task_sees_its_own_request(server: str) -> None:
    with served_by(server, "tests.servers.inspected") as served:
        log = served.log
        report = drive(served.port, KINDS, ROUNDS)
        assert report.problems == [], "".join(log[-60:])
        found = inspection(served.port)

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


# The client and the app are the same for all servers.
@pytest.mark.parametrize("server", ["gunicorn", pytest.param("uwsgi", marks=pytest.mark.uwsgi)])
def test_these_checks_notice_that_nothing_is_inherited(server: str) -> None:
    # A wrong option in the environment: nothing is patched.
    with served_by(server, "tests.servers.inspected", FLASKTHREADS_AUTOPATCH_SHARE="perhaps") as served:
        report = drive(served.port, ["jobs"], 1)

    assert any("Nothing is patched." in line for line in served.log)
    # Where threads inherit all context variables by themselves, a pool's worker does too, and keeps those of the
    # request that made the pool grow for ever: that one is answered right.
    assert len(report.wrong) >= len(report.paths("jobs")) - POOL_WORKERS


def test_a_process_that_werkzeugs_reloader_starts_inherits_too() -> None:
    with served_by("werkzeug", "tests.servers.inspected") as served:
        first = served.wait_for(r"process (\d+) serves")[1]
        before = drive(served.port, ["jobs", "outlive"], 1, users=4)
        (served.folder / "watched").write_text("changed")
        served.wait_for(rf"process (?!{first} )\d+ serves")
        # Its database has the users of before.
        after = drive(served.port, ["jobs", "outlive"], 1, users=4, first=4)
        found = inspection(served.port)
    assert before.problems == after.problems == []
    late = found["late"]
    assert late == {path: [expected(path, user)] for path, user in after.paths("outlive").items()}
