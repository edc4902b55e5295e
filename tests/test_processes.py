"""Other processes, and the end of this one: fork, spawn, forkserver, interpreter shutdown; each tried in its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import flaskthreads_autopatch
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import LIMIT

HEAD = """
import os, sys, threading, traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from flask import Flask, g, has_app_context
import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

app = Flask("processes")
LIMIT = 60  # less than the limit of the test, so that the process can tell where it hangs

def user():
    return g.user if has_app_context() else None

def user_in_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(user()))
    thread.start()
    thread.join(LIMIT)
    return seen[0]

def user_in_pool():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(user).result(LIMIT)
"""

FORK_HEAD = (
    HEAD
    + """
import signal

def in_fork(work):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(LIMIT)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]
"""
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script to its end, which must be a clean one: nothing on stderr, exit status 0. Returns what it printed."""

    def run(script: str, *args: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(script)
        root = str(Path(flaskthreads_autopatch.__file__).parents[1])
        # Python 3.12 and later warn of every fork in a process that has threads, which is what is tried here.
        done = subprocess.run(
            [sys.executable, "-W", "ignore:This process:DeprecationWarning", str(path), *args],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**os.environ, "PYTHONPATH": root},
        )
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout

    return run


def script(body: str, head: str = HEAD) -> str:
    return head + dedent(body)


# Fork


@needs_fork
def test_a_fork_while_threads_replay(run: Run) -> None:
    output = run(
        script(
            """
            flaskthreads_autopatch.install(app)
            torn_down = []
            app.teardown_appcontext(lambda exc: torn_down.append(user()))
            inside, go, seen = threading.Barrier(5), threading.Event(), []

            def task():
                inside.wait(LIMIT)
                go.wait(LIMIT)
                seen.append(user())

            def work():
                assert (user(), user_in_thread(), user_in_pool()) == ("alice",) * 3
                assert torn_down == ["alice"] * 2
                flaskthreads_autopatch.disable()
                in_threads = "alice" if THREADS_INHERIT_CONTEXT else None  # by themselves
                assert (user(), user_in_thread(), user_in_pool()) == ("alice", in_threads, in_threads)

            with app.app_context():
                g.user = "alice"
                threads = [threading.Thread(target=task) for _ in range(4)]
                for thread in threads:
                    thread.start()
                inside.wait(LIMIT)
                print("child", in_fork(work))
                go.set()
                for thread in threads:
                    thread.join(LIMIT)
                print("parent", seen, torn_down)
            """,
            FORK_HEAD,
        )
    )
    assert output.splitlines() == ["child 0", f"parent {['alice'] * 4} {['alice'] * 4}"]


@needs_fork
def test_a_fork_by_a_thread_that_replays(run: Run) -> None:
    output = run(
        script(
            """
            flaskthreads_autopatch.install(app)

            def work():
                assert (user(), user_in_thread(), user_in_pool()) == ("alice",) * 3

            with app.app_context(), ThreadPoolExecutor(1) as pool:
                g.user = "alice"
                print("child", pool.submit(in_fork, work).result(LIMIT))
                print("parent", user_in_thread(), pool.submit(user).result(LIMIT))
            """,
            FORK_HEAD,
        )
    )
    assert output.splitlines() == ["child 0", "parent alice alice"]


@needs_fork
def test_forks_while_another_thread_switches_leave_each_child_a_switch_that_works(run: Run) -> None:
    output = run(
        script(
            """
            from flaskthreads_autopatch.patching import points
            import wrapt

            def attributes():
                owners = ((p, *wrapt.resolve_path(p.module, p.attribute)[:2]) for p in points.POINTS)
                return {p.name: vars(owner).get(attribute) for p, owner, attribute in owners}

            born = attributes()
            flaskthreads_autopatch.disable()  # imports; a fork during an import hangs in Python itself
            stop = threading.Event()

            def switch():
                while not stop.is_set():
                    flaskthreads_autopatch.enable()
                    flaskthreads_autopatch.disable()

            def work():
                flaskthreads_autopatch.disable()
                changed = [name for name, value in attributes().items() if value is not born[name]]
                assert not changed, changed
                flaskthreads_autopatch.enable()
                with app.app_context():
                    g.user = "alice"
                    assert user_in_thread() == "alice"

            thread = threading.Thread(target=switch)
            thread.start()
            try:
                print({in_fork(work) for _ in range(50)})
            finally:
                stop.set()
                thread.join(LIMIT)
            """,
            FORK_HEAD,
        )
    )
    assert output == "{0}\n"


# multiprocessing

MULTIPROCESSING = script(
    """
    import json, multiprocessing

    def look(*ignored):
        # What runs in the child: its own context, and what a thread started there gets.
        flaskthreads_autopatch.install(app)
        return user(), user_in_thread()

    def put(queue):
        queue.put(look())

    if __name__ == "__main__":
        if sys.argv[2] == "on":
            flaskthreads_autopatch.install(app)
        context = multiprocessing.get_context(sys.argv[1])
        with app.test_request_context("/"):
            g.user = "alice"
            # A pool's own threads, the feeder of a queue and the manager of an executor are not the user's.
            queue = context.Queue()
            process = context.Process(target=put, args=(queue,))
            process.start()
            found = {"process": queue.get(timeout=LIMIT)}
            process.join(LIMIT)
            found["exit"] = process.exitcode
            with context.Pool(1) as pool:
                found["pool"] = pool.map_async(look, [1]).get(LIMIT)[0]
            called, seen = threading.Event(), []
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                future = executor.submit(look)
                future.add_done_callback(lambda future: (seen.append(user()), called.set()))
                found["executor"] = future.result(LIMIT)
                called.wait(LIMIT)
            found["callback"] = seen[0]
            queue.close()
            queue.join_thread()
        with ThreadPoolExecutor(1) as clean:
            assert clean.submit(flask_context.active).result(LIMIT) is None
        print(json.dumps(found))
    """
)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_started_from_inside_a_context_are_what_they_are_without_us(run: Run, method: str) -> None:
    if method != "spawn" and not hasattr(os, "fork"):
        pytest.skip("this platform has no fork")

    def found(switch: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(MULTIPROCESSING, method, switch))
        return found

    # A process made by fork is a copy of its parent, the active context included: threads started in it inherit.
    user = "alice" if method == "fork" else None
    expected = {"process": [user, user], "exit": 0, "pool": [user, user], "executor": [user, user], "callback": None}
    # An executor's manager is a thread, which may inherit context variables by itself.
    assert found("off") == expected | {"callback": "alice" if THREADS_INHERIT_CONTEXT else None}
    assert found("on") == expected | {"callback": "alice"}


# The end of the interpreter

ENDS = {
    "a pool with work left": """
        pool = ThreadPoolExecutor(1)
        go = threading.Event()
        with app.app_context():
            g.user = "alice"
            pool.submit(go.wait, LIMIT)
            for _ in range(3):
                pool.submit(lambda: print(user() + "\\n", end=""))
        go.set()
    """,
    "threads that outlive the main one": """
        main = threading.main_thread()
        with app.app_context():
            g.user = "alice"
            for _ in range(3):
                threading.Thread(target=lambda: (main.join(LIMIT), print(user() + "\\n", end=""))).start()
    """,
    "a timer": """
        with app.app_context():
            g.user = "alice"
            timers = [threading.Timer(0.01, lambda: print(user() + "\\n", end="")) for _ in range(3)]
            for timer in timers:
                timer.start()
    """,
    "daemons that wait, work and start others": """
        started = threading.Barrier(4)

        def wait():
            started.wait(LIMIT)
            threading.Event().wait()

        def work():
            started.wait(LIMIT)
            while True:
                user()

        def start():
            started.wait(LIMIT)
            try:
                while True:
                    user_in_thread()
            except RuntimeError:
                pass  # the interpreter, at its end, starts no more of them

        with app.app_context():
            g.user = "alice"
            for target in (wait, work, start):
                threading.Thread(target=target, daemon=True).start()
            started.wait(LIMIT)
        print("alice\\n" * 3, end="")
    """,
    "a thread pool that nobody closes": """
        pool = ThreadPool(2)
        with app.app_context():
            g.user = "alice"
            for result in [pool.apply_async(user) for _ in range(3)]:
                print(result.get(LIMIT))
            pool.apply_async(threading.Event().wait)
    """,
    "a context and an executor of it that are never left": """
        app.app_context().push()
        g.user = "alice"
        pool = flaskthreads_autopatch.ThreadPoolWithAppContextExecutor(2)
        for _ in range(3):
            pool.submit(lambda: print(user() + "\\n", end=""))
    """,
    "work that begins when all else has ended": """
        import atexit

        def last():
            with app.app_context():
                g.user = "alice"
                for _ in range(3):
                    try:
                        print(user_in_thread())
                    except RuntimeError:
                        print("alice")  # since 3.12 there are no threads by now

        atexit.register(last)
    """,
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_in_silence_with(run: Run, end: str) -> None:
    switch_on = "flaskthreads_autopatch.install(app)\n"
    assert run(HEAD + switch_on + dedent(ENDS[end])) == "alice\n" * 3
