"""H32: a signal handler or a finalizer interrupts the library at each of its instructions, in the same thread.

Each scenario runs in a process of its own: where a lock is taken twice, the process hangs.
"""

from __future__ import annotations

import sys

import pytest

from . import processes

HARNESS = """
import gc, os, signal, sys, threading, weakref
from flask import Flask, g
import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context, is_inherited, switch
from flaskthreads_autopatch.visibility import overdue

KIND = sys.argv[1]
PACKAGE = os.path.dirname(flaskthreads_autopatch.__file__)
LIMIT = 60


class Cycle:
    def __init__(self):
        self.me = self


def interrupted(files, operation, interrupt):
    '''Call *operation* once for each of its instructions in *files*, and *interrupt* at that instruction.

    Yields what each call has returned.
    '''
    signal.signal(signal.SIGUSR1, lambda number, frame: interrupt())
    at = 0
    while True:
        at += 1
        left, cycle = at, Cycle()
        if KIND == "finalizer":
            weakref.finalize(cycle, interrupt).atexit = False
        del cycle

        def trace(frame, event, arg):
            nonlocal left
            path = frame.f_code.co_filename
            if not path.endswith(files) or not path.startswith(PACKAGE):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left -= 1
                if left == 0 and KIND == "finalizer":
                    gc.collect()
                elif left == 0:
                    signal.raise_signal(signal.SIGUSR1)
            return trace

        gc.disable()
        sys.settrace(trace)
        try:
            outcome = [operation()]
        finally:
            sys.settrace(None)
            gc.enable()
        if left > 0:
            assert at > 20, at
            return
        yield outcome.pop()


def in_thread(fn):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(fn()))
    thread.start()
    thread.join(LIMIT)
    return seen[0]


def user():
    return g.user if flask_context.active() is not None and is_inherited() else None


def user_in_thread(app):
    with app.app_context():
        g.user = app.name
        return in_thread(user)
"""


def run(kind: str, body: str) -> None:
    done = processes.run(sys.executable, "-W", "ignore", "-c", HARNESS + body, kind)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


KINDS = pytest.mark.parametrize("kind", ["signal", "finalizer"])


@KINDS
def test_h32_each_context_is_watched_once(kind: str) -> None:
    run(
        kind,
        """
app = Flask("app")
flaskthreads_autopatch.install(app, warn_after=60)
parents = []

def interrupt():
    if flask_context.active() is not None:  # it may have ended
        parents.append(flaskthreads_autopatch.copy_current_app_context(user)._self_snapshot.parent)

def capture():
    with app.app_context():
        return [flaskthreads_autopatch.copy_current_app_context(user)._self_snapshot.parent, *parents]

for found in interrupted("parents.py", capture, interrupt):
    assert len({*map(id, found)}) == 1, found
    parents.clear()
print("done")
""",
    )


@KINDS
def test_h32_a_capture_that_starts_the_watcher(kind: str) -> None:
    run(
        kind,
        """
app, other = Flask("app"), Flask("other")
flaskthreads_autopatch.install(app, warn_after=0.001)
flaskthreads_autopatch.install(other, warn_after=0.001)
seen = []

def capture():
    # All snapshots of the round before are gone, and the watcher is at its end.
    if overdue._state.watcher is not None:
        overdue._state.watcher.join(LIMIT)
    with app.app_context():
        g.user = "alice"
        return flaskthreads_autopatch.copy_current_app_context(user)

for kept in interrupted("overdue.py", capture, lambda: seen.append(user_in_thread(other))):
    assert kept() == "alice"
    assert overdue._state.watcher.is_alive() and len(overdue._state.snapshots) == 1
    del kept
    gc.collect()
assert set(seen) == {"other"}
print("done")
""",
    )
