"""H41: an asynchronous exception strikes the library where Python delivers one: after a call, and in a function's head.

`PyThreadState_SetAsyncExc` raises it in a thread that runs, as stopit and func_timeout do; so does a signal handler in
the main thread, as for KeyboardInterrupt. An `Exception` that strikes a capture is logged, as any error there is.
"""

from __future__ import annotations

import sys

import pytest

from . import processes

HARNESS = """
import contextvars, gc, logging, os, sys, threading
from flask import Flask, appcontext_popped, appcontext_pushed, g, has_app_context, request
import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context
from flaskthreads_autopatch.visibility.registry import replays

PACKAGE = os.path.dirname(flaskthreads_autopatch.__file__)
KIND = {"Exception": Exception, "BaseException": BaseException}[sys.argv[1]]
LIMIT = 60

class Stopped(KIND):
    pass


def struck(operation):
    '''Call *operation* once for each point in the package at which an asynchronous exception may be raised in it.

    Yields the point, as text, and what was raised, or the result if that is nothing.
    '''
    operation()  # What is made once for all is made here.
    at = 0
    while True:
        at += 1
        left, place = at, None

        def profile(frame, event, arg):
            # After a call of a C function, and in the head of a Python function. (And in a loop, which is not tried.)
            nonlocal left, place
            code = frame.f_code
            if event in ("call", "c_return") and code.co_filename.startswith(PACKAGE):
                left -= 1
                if left == 0:
                    where = f"after {arg}" if event == "c_return" else "at its beginning"
                    place = f"{os.path.relpath(code.co_filename, PACKAGE)}:{frame.f_lineno} {code.co_name} {where}"
                    raise Stopped

        gc.disable()
        sys.setprofile(profile)
        try:
            outcome = operation()
        except BaseException as error:
            outcome = type(error)
        finally:
            sys.setprofile(None)
            gc.enable()
        if place is None:
            assert at > 20, at
            return
        yield place, outcome


app = Flask("app")
app.secret_key = "secret"
flaskthreads_autopatch.install(app)
logged = []
logging.getLogger("flaskthreads_autopatch").addFilter(lambda record: logged.append(record.getMessage()))
logging.getLogger("app").addFilter(lambda record: False)
pushed, popped, torn_down, wrong = [], [], [], []
appcontext_pushed.connect(lambda sender: pushed.append(1), app, weak=False)
appcontext_popped.connect(lambda sender: popped.append(1), app, weak=False)


@app.teardown_appcontext
def first(exc):
    torn_down.append("first")


@app.teardown_appcontext
def second(exc):
    torn_down.append("second")


def variables():
    return {variable.name: value for variable, value in contextvars.copy_context().items() if value is not None}


def done():
    for each in wrong:
        print(each)
    print("done")
"""


def run(kind: str, body: str) -> None:
    done = processes.run(sys.executable, "-W", "ignore", "-c", HARNESS + body + "\ndone()\n", kind)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


KINDS = pytest.mark.parametrize("kind", ["Exception", "BaseException"])
CONTEXTS = pytest.mark.parametrize("context", ["app_context()", "test_request_context('/?user=alice')"])


@KINDS
@CONTEXTS
@pytest.mark.parametrize("what", ["one call", "the items of imap()"])
def test_h41_a_replay_that_is_struck_leaves_no_context(kind: str, context: str, what: str) -> None:
    run(
        kind,
        f"""
with app.{context}:
    g.user, g.connection = "alice", object()
    replay = flaskthreads_autopatch.copy_current_app_context(lambda: g.user)

if {what != "one call"}:
    from flaskthreads_autopatch.patching.reading import read
    snapshot = replay._self_snapshot
    replay = lambda: list(read(snapshot, (g.user for _ in range(1))))[0]
"""
        + """
for clear in pushed, popped, torn_down:
    clear.clear()
before = variables()
for place, outcome in struck(replay):
    if outcome is not Stopped and outcome != "alice":
        wrong.append((place, outcome))
    if variables() != before or replays:
        wrong.append((place, "left behind", variables(), len(replays)))
    # A handler whose call is struck is not called again, as by Flask itself. The others are called, once.
    expected = ["second", "first"] if pushed else []
    if "_call_handler" in place:
        torn_down.extend({"first", "second"} - {*torn_down})
    # Flask 3.2 calls no pop() of its own, and the signal is the last that we do: it may be struck.
    if (flask_context.REUSES_APP_CONTEXT and len(pushed) != len(popped)) or sorted(torn_down) != sorted(expected):
        wrong.append((place, outcome, len(pushed), len(popped), torn_down))
    for clear in pushed, popped, torn_down:
        clear.clear()
""",
    )


@KINDS
@CONTEXTS
def test_h41_a_start_that_is_struck(kind: str, context: str) -> None:
    """The thread runs, or it does not; the parent's context is as before, and its next thread inherits."""
    run(
        kind,
        f"""
outer = app.{context}
"""
        + """
seen = []

def work():
    seen.append(g.user if has_app_context() else None)

outer.push()
g.user, g.connection = "alice", object()
before = variables(), vars(g).copy()

def start():
    thread = threading.Thread(target=work)
    threads.append(thread)
    thread.start()

threads = []
for place, outcome in struck(start):
    if (variables(), vars(g).copy()) != before:
        wrong.append((place, "changed", variables(), vars(g)))
    ran = [thread for thread in threads if thread.ident is not None]
    for thread in ran:
        thread.join(LIMIT)
    if len(seen) != len(ran) or not {*seen} <= {"alice", None} or (outcome is None and not seen):
        wrong.append((place, outcome, seen, len(ran)))
    seen.clear()
    start()
    threads.pop().join(LIMIT)
    if seen != ["alice"]:
        wrong.append((place, "the next thread", seen))
    seen.clear(), threads.clear()
""",
    )


@KINDS
def test_h41_a_submit_that_is_struck(kind: str) -> None:
    run(
        kind,
        """
from concurrent.futures import ThreadPoolExecutor
outer = app.app_context()
outer.push()
g.user = "alice"
before = variables()

class Own(ThreadPoolExecutor):
    '''Starts its workers by whatever means.'''

def submit():
    with Own(1) as pool:
        return pool.submit(lambda: g.user).result(LIMIT)

for place, outcome in struck(submit):
    without_context = outcome is RuntimeError and KIND is Exception
    if outcome is not Stopped and outcome != "alice" and not (without_context and "No snapshot" in logged[0]):
        wrong.append((place, outcome, logged))
    if variables() != before:
        wrong.append((place, "changed", variables()))
    logged.clear()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(g.user))
    thread.start()
    thread.join(LIMIT)
    if seen != ["alice"]:
        wrong.append((place, "the next thread", seen))
""",
    )


@KINDS
def test_h41_a_first_start_that_is_struck_while_the_config_is_read(kind: str) -> None:
    run(
        kind,
        """
def start():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(g.user if has_app_context() else None))
    with app.app_context():
        g.user = "alice"
        thread.start()
    thread.join(LIMIT)
    return seen

for place, outcome in struck(start):
    if outcome not in (Stopped, ["alice"], [None]):
        wrong.append((place, outcome))
    if start() != ["alice"]:
        wrong.append((place, "the next thread", logged))
    app = Flask("app")
    flaskthreads_autopatch.install(app)
""",
    )
