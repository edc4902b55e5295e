"""Out of memory, at any one allocation: a capture or a replay then fails or succeeds, and leaves nothing behind."""

from __future__ import annotations

import sys

import pytest
from flask import Flask, g

from . import processes
from .helpers import in_thread, user

STARVED = """
import contextvars, logging, sys, threading, _testcapi
from flask import Flask, g, request
import flaskthreads_autopatch
from flaskthreads_autopatch.visibility.registry import replays

app = Flask("app")
logging.getLogger("flaskthreads_autopatch").addHandler(logging.NullHandler())
app.logger.addHandler(logging.NullHandler())
app.logger.propagate = False
flaskthreads_autopatch.install(app)
wrong, torn_down = [], []


@app.teardown_appcontext
def handler(exc):
    torn_down.append(1)


def starved(fn, number):
    '''Call *fn*, for which one allocation fails, that of this number.'''
    outcome = None
    _testcapi.set_nomemory(number, number + 1)
    try:
        outcome = fn()
    except MemoryError:
        _testcapi.remove_mem_hooks()
        outcome = MemoryError
    finally:
        _testcapi.remove_mem_hooks()
    return outcome


def active():
    '''The values of context variables that are not None.'''
    return {variable.name: value for variable, value in contextvars.copy_context().items() if value is not None}


def bind():
    return flaskthreads_autopatch.copy_current_app_context(lambda: (g.user, request.path))


def each(fn, check):
    '''Starve *fn* at each allocation, until there are no more of them.'''
    fn()
    number = succeeded = 0
    while succeeded < 50:  # Python may go on without some of them.
        number += 1
        before = active()
        outcome = starved(fn, number)
        succeeded = 0 if outcome is MemoryError else succeeded + 1
        if active() != before or replays:
            wrong.append((number, outcome, active(), len(replays)))
            break
        check(outcome)
    assert number > 60, number
"""


@pytest.mark.parametrize("what", ["capture", "replay"])
def test_h43_a_want_of_memory_leaves_no_context(what: str) -> None:
    pytest.importorskip("_testcapi", reason="this Python was installed without its own tests")
    body = {
        "capture": """
with app.test_request_context("/orders"):
    g.user, g.thing = "alice", object()

    def check(outcome):
        assert outcome is MemoryError or outcome() == ("alice", "/orders")
        assert bind()() == ("alice", "/orders")

    each(bind, check)
""",
        "replay": """
with app.test_request_context("/orders"):
    g.user, g.thing = "alice", object()
    replay = bind()

def check(outcome):
    assert outcome in (MemoryError, ("alice", "/orders")), outcome
    torn_down.clear()
    assert replay() == ("alice", "/orders")
    assert torn_down == [1]

each(replay, check)
""",
    }[what]
    done = processes.run(sys.executable, "-W", "ignore", "-c", f"{STARVED}{body}\nprint(wrong)\n")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


class OutOfMemory(type):
    """The metaclass of values that cannot be looked up."""

    def __hash__(cls) -> int:
        raise MemoryError


class Value(metaclass=OutOfMemory):
    pass


def test_a_memory_error_while_g_is_read_is_not_raised_by_start(installed: Flask) -> None:
    with installed.app_context():
        g.user = "alice"
        assert in_thread(user) == "alice"
        g.value = Value()
        # With the patches off, the thread runs and has no context. Here it may have one.
        assert in_thread(user) in ("alice", "no context")
        del g.value
        assert in_thread(user) == "alice"
