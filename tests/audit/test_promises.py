"""What an observation says comes true: all cases are observed in one process, and inherit in another one."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest

from flaskthreads_autopatch.audit_command import BROKEN_PROMISE

from ..processes import run
from .test_command import AUDIT

APP = """
import json, sqlite3, sys, types
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, copy_current_request_context, current_app, g, request, session
from flaskthreads_autopatch import suppress_inheritance

app, pool = Flask("shop"), ThreadPoolExecutor(1)
lends_nothing = Flask("lends_nothing")
lends_nothing.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = False
app.secret_key = "x"

def read_app(): return current_app.name
def read_user(): return g.user
def read_db(): return g.db
def read_request(): return request.path
def read_session(): return session.get("user")
def read_request_in_own_context():
    with app.app_context():
        return request.path
def read_app_in_own_context():
    with app.app_context():
        return current_app.name
def read_app_first():
    current_app.name
    return read_app_in_own_context()
def fail_otherwise():
    current_app.name
    raise LookupError
def catch():
    try:
        return g.user
    except RuntimeError:
        return None

def submit(fn):
    pool.submit(fn).exception()

def in_context(fn):
    with app.app_context():
        g.user, g.db = "alice", sqlite3.connect(":memory:")
        submit(fn)

def in_request(fn, app=app):
    with app.test_request_context("/order"):
        g.user, g.db = "alice", sqlite3.connect(":memory:")
        submit(fn)

def copied(fn):
    with app.test_request_context("/order"):
        submit(copy_current_request_context(fn))

def suppressed(fn):
    with app.test_request_context("/order"), suppress_inheritance():
        submit(fn)

def in_request_that_is_not_lent(fn):
    in_request(fn, lends_nothing)

def in_request_and_ignored(fn):
    in_request(fn)

for name, (start, fn) in json.loads(sys.argv[1]).items():
    copied_fn = types.FunctionType(globals()[fn].__code__, globals(), name)
    copied_fn.__qualname__ = name
    globals()[start](copied_fn)
"""


class Case(t.NamedTuple):
    start: str
    fn: str
    verdict: str
    on: tuple[int, int] = (0, 0)
    """With inheritance on: how many runs failed for want of a context, and how many raised another exception."""
    is_broken: bool = False

    @property
    def name(self) -> str:
        return f"{self.start}__{self.fn}"


CASES = [
    Case("in_request", "read_app", "fixed by the library"),
    Case("in_context", "read_app", "fixed by the library"),
    Case("in_context", "read_user", "fixed by the library"),
    Case("in_request", "read_user", "fixed by the library"),
    Case("in_request", "read_request", "fixed by the library"),
    Case("in_request", "read_session", "fixed by the library"),
    Case("in_request", "read_app_first", "fixed by the library"),
    Case("in_request", "catch", "inherits"),
    Case("in_request", "read_app_in_own_context", "provides its own context"),
    Case("copied", "read_request", "provides its own context"),
    # Nothing lends them a request, and nothing promises that.
    Case("in_context", "read_request", "inherits", (0, 1)),
    Case("in_context", "read_session", "inherits", (0, 1)),
    Case("in_request_that_is_not_lent", "read_request", "inherits", (0, 1)),
    Case("in_request", "read_request_in_own_context", "provides its own context", (1, 0)),
    Case("suppressed", "read_app", "does not inherit", (1, 0)),
    Case("submit", "read_app", "does not inherit", (1, 0)),
    Case("in_request_and_ignored", "read_app", "does not inherit", (1, 0)),
    # The proposal warns of the first one. An observation cannot see what would happen after the first failure.
    Case("in_request", "read_db", "fixed by the library", (0, 1), is_broken=True),
    Case("in_request", "fail_otherwise", "fixed by the library", (0, 1), is_broken=True),
]


class Outcome(t.NamedTuple):
    """What both audits have found, by the names of the cases."""

    observed: dict[str, dict[str, t.Any]]
    on: dict[str, dict[str, t.Any]]
    errors: str


def tasks(file: Path) -> dict[str, dict[str, t.Any]]:
    places = json.loads(file.read_text())["places"]
    return {place["callable"].partition(":")[2]: place for place in places if place["kind"] == "task"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("promises")
    before, after = folder / "before.json", folder / "after.json"
    cases = {case.name: (case.start, case.fn) for case in CASES}
    command = [sys.executable, "-c", APP, json.dumps(cases)]
    ignored = {"FLASKTHREADS_AUTOPATCH_IGNORE": "__main__:in_request_and_ignored__*"}
    done = run(*AUDIT, "--json", before, "--", *command, **ignored)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    done = run(*AUDIT, "--on", "--json", after, "--compare", before, "--", *command, **ignored)
    assert (done.returncode, done.stdout) == (BROKEN_PROMISE, ""), done.stderr
    return Outcome(tasks(before), tasks(after), done.stderr)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_an_observation_says_comes_true(outcome: Outcome, case: Case) -> None:
    assert outcome.observed[case.name]["verdict"] == case.verdict
    assert (outcome.on[case.name]["failed"], outcome.on[case.name]["raised"]) == case.on
    assert outcome.observed[case.name]["reason"] == outcome.on[case.name]["reason"]
    assert (f"{case.name}, started at" in outcome.errors) == case.is_broken


def test_nothing_else_was_started(outcome: Outcome) -> None:
    assert outcome.observed.keys() == outcome.on.keys() == {case.name for case in CASES}
