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
LIMIT = 60  # less than the limit of the test, so that the process can tell where it hangs


class Cycle:
    def __init__(self):
        self.me = self


def interrupted(files, operation, interrupt, step=1):
    '''Call *operation* once for each of its instructions in *files*, and *interrupt* at that instruction.

    Yields what each call has returned.
    '''
    signal.signal(signal.SIGUSR1, lambda number, frame: interrupt())
    # A collection then looks at what is new, and takes no time.
    gc.collect()
    gc.freeze()
    at = 0
    while True:
        at += step
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


SWITCHING = """
from flaskthreads_autopatch import app_policies
from flaskthreads_autopatch.patching import points
import wrapt

app, other = Flask("app"), Flask("other")
OURS = "flaskthreads_autopatch."


def attributes():
    owners = ((p.name, *wrapt.resolve_path(p.module, p.attribute)[:2]) for p in points.POINTS)
    return {name: vars(owner).get(attribute) for name, owner, attribute in owners}


BORN_WITH = attributes()


def check():
    '''The library is on as a whole, or off as a whole.'''
    on = app_policies.is_wanted()
    assert flaskthreads_autopatch.is_enabled() is on
    layers = flaskthreads_autopatch.status().patch_points
    for name, origins in layers.items():
        assert sum(origin.startswith(OURS) for origin in origins) == on, (name, origins)
    for each in (app, other):
        known = app_policies._state.known.get(id(each))
        covered = app_policies._state.keywords is not None or known is not None
        assert (user_in_thread(each) == each.name) is covered, (each, known)
    flaskthreads_autopatch.disable()
    changed = [name for name, value in attributes().items() if value is not BORN_WITH[name]]
    assert not changed and not app.extensions and not other.extensions, changed


def install():
    flaskthreads_autopatch.install(app)

def enable():
    flaskthreads_autopatch.enable()

def disable():
    flaskthreads_autopatch.disable()

def uninstall():
    flaskthreads_autopatch.uninstall(app)

def install_other():
    flaskthreads_autopatch.install(other)

def start():
    user_in_thread(app)
    user_in_thread(other)

def nothing():
    pass
"""


# What is on before, the call that is interrupted, and what interrupts it.
CALLS = [("nothing", "install"), ("install", "enable"), ("install", "uninstall"), ("enable", "start")]
INTERRUPTS = {"signal": ["disable", "install_other", "start"], "finalizer": ["disable"]}


@pytest.mark.parametrize("kind", INTERRUPTS)
@pytest.mark.parametrize("before, call", CALLS)
def test_h32_a_switch_that_is_interrupted(kind: str, before: str, call: str) -> None:
    run(
        kind,
        f"""{SWITCHING}
for interrupt in ({", ".join(INTERRUPTS[kind])},):
    {before}()
    for _ in interrupted(("switch.py", "app_policies.py"), {call}, interrupt):
        check()
        {before}()
    flaskthreads_autopatch.disable()
print("done")
""",
    )


@pytest.mark.parametrize("interrupt", ["start", "disable"])
@pytest.mark.parametrize("before, call", [("nothing", "install"), ("install", "uninstall")])
def test_h32_layers_whose_putting_on_or_off_is_interrupted(before: str, call: str, interrupt: str) -> None:
    # Most instructions of a switch are here, many times the same for each patch point: one in thirteen is tried.
    run(
        "signal",
        f"""{SWITCHING}
{before}()
for _ in interrupted("layers.py", {call}, {interrupt}, 13):
    check()
    {before}()
print("done")
""",
    )


@KINDS
@pytest.mark.parametrize("interrupt", ["submit", "shut_down"])
def test_h32_what_goes_to_other_processes_is_interrupted(kind: str, interrupt: str) -> None:
    run(
        kind,
        """
import pickle
from concurrent.futures import Executor, Future
from flask import has_app_context
from flaskthreads_autopatch import RemoteAppContextExecutor, apps

app = Flask("__main__")

class InPlace(Executor):
    '''An engine of this process: what it is given goes through pickle, and runs at once.'''

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(pickle.loads(pickle.dumps(fn))(*args, **kwargs))
        return future

def new_pool():
    global pool
    apps._apps.forget()  # as after a fork: the app is loaded again
    pool = RemoteAppContextExecutor(InPlace(), "__main__:app")

def submit():
    try:
        seen.append(pool.submit(has_app_context).result())
    except RuntimeError as error:
        assert "after shutdown" in str(error)

def shut_down():
    pool.shutdown()

def operation():
    new_pool()
    submit()
    shut_down()

seen = []
new_pool()
for _ in interrupted(("remote.py", "apps.py"), operation, """
        + f"{interrupt}):"
        + """
    assert set(seen) <= {True}
    assert not pool._open
assert seen
print("done")
""",
    )


def test_h32_the_dump_signal_comes_as_soon_as_its_handler_is_set() -> None:
    run(
        "signal",
        """
os.environ["FLASKTHREADS_AUTOPATCH_DUMP_SIGNAL"] = "USR2"
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
app, got = Flask("app"), []
signal.signal(signal.SIGUSR2, lambda number, frame: got.append(number))

def switch_on_and_off():
    flaskthreads_autopatch.install(app)
    flaskthreads_autopatch.disable()

for _ in interrupted("dump_signal.py", switch_on_and_off, lambda: signal.raise_signal(signal.SIGUSR2)):
    assert got.pop() == signal.SIGUSR2 and not got
print("done")
""",
    )


def test_h32_a_capture_while_the_watcher_ends() -> None:
    """At each instruction of the watcher's loop, in its own thread, the main thread captures."""
    run(
        "signal",
        """
import logging, queue
app, heard = Flask("app"), queue.SimpleQueue()

class Tell(logging.Handler):
    def emit(self, record):
        heard.put(record.getMessage())

logger = logging.getLogger("flaskthreads_autopatch")
logger.addHandler(Tell())
logger.propagate = False
flaskthreads_autopatch.install(app, warn_after=0.001)

def capture(fn):
    with app.app_context():
        return flaskthreads_autopatch.copy_current_app_context(fn)

at, captured = 0, True
while captured:
    at += 1
    left, captured = at, False
    reached, go_on, opened, ended = threading.Event(), threading.Event(), threading.Event(), threading.Event()

    def trace(frame, event, arg):
        global left, captured
        if frame.f_code is not overdue._Watcher.run.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                captured = True
                reached.set()
                go_on.wait(LIMIT)
        elif event == "return":
            ended.set()
            reached.set()
        return trace

    threading.settrace(trace)
    first = capture(int)
    threading.settrace(None)
    del first  # now there is nothing left to watch
    reached.wait(LIMIT)
    if captured:
        thread = threading.Thread(target=capture(lambda: opened.wait(LIMIT)))
        thread.start()
        go_on.set()
        assert "still runs" in heard.get(timeout=LIMIT)
        opened.set()
        thread.join()
        assert "has finished" in heard.get(timeout=LIMIT)
        while not heard.empty():
            heard.get()
    overdue._state.watcher.join(LIMIT)
assert at > 20, at
print("done")
""",
    )
