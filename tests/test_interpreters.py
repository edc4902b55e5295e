"""What only newer Pythons have: interpreter pools, and threads that inherit context variables by themselves."""

from __future__ import annotations

import concurrent.futures
import operator
import subprocess
import sys
import threading
import typing as t

import pytest
from flask import Flask, g

from flaskthreads_autopatch import install

pytestmark = [
    pytest.mark.python314,
    pytest.mark.skipif(sys.version_info < (3, 14), reason="needs Python 3.14: tox -e py314-flask31"),
]


@pytest.fixture
def interpreters() -> t.Iterator[concurrent.futures.Executor]:
    """A pool of one subinterpreter, made while no context is active."""
    with concurrent.futures.InterpreterPoolExecutor(1) as pool:  # type: ignore[attr-defined,unused-ignore]
        yield pool


def test_an_interpreter_pool_works_with_a_context_active(
    installed: Flask, interpreters: concurrent.futures.Executor
) -> None:
    with installed.test_request_context("/"):
        g.user = "alice"
        g.unshareable = threading.Lock()
        assert interpreters.submit(operator.add, 40, 2).result(60) == 42
        assert list(interpreters.map(abs, [-1, 2])) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            interpreters.submit(operator.truediv, 1, 0).result(60)


def test_a_callback_of_an_interpreter_pools_future_inherits(
    installed: Flask, interpreters: concurrent.futures.Executor
) -> None:
    seen: list[str] = []
    called = threading.Event()

    def callback(future: concurrent.futures.Future[int]) -> None:
        seen.append(g.user)
        called.set()

    with installed.app_context():
        g.user = "alice"
        # Whether the task has ended when the callback is added is left open: it sees alice's context either way.
        interpreters.submit(operator.add, 1, 1).add_done_callback(callback)
        assert called.wait(60)
    assert seen == ["alice"]


def test_an_interpreter_pool_made_inside_a_context_works_and_its_threads_stay_clean(app: Flask) -> None:
    install(app)
    with app.app_context():
        g.user = "alice"
        with concurrent.futures.InterpreterPoolExecutor(1) as pool:  # type: ignore[attr-defined,unused-ignore]
            assert pool.submit(operator.add, 40, 2).result(60) == 42


@pytest.mark.parametrize("flag", ["0", "1"])
def test_h15_a_shared_pool_shows_nobody_the_contexts_of_its_first_user(flag: str) -> None:
    code = """if True:
        import sys, threading
        from concurrent.futures import ThreadPoolExecutor
        from flask import Flask, g, has_app_context, has_request_context, request
        from flaskthreads_autopatch import install

        assert sys.flags.thread_inherit_context == int(sys.argv[1])
        app = Flask("app")
        other = Flask("other")
        install(app)
        pool = ThreadPoolExecutor(1)

        def seen():
            return has_app_context() and g.get("user"), has_request_context() and request.path

        for user in ("alice", "bob"):
            with app.test_request_context("/" + user):
                g.user = user
                assert pool.submit(seen).result(60) == (user, "/" + user), user
        assert pool.submit(seen).result(60) == (False, False), "no context at submit()"
        with other.app_context():
            assert pool.submit(seen).result(60) == (False, False), "an app that is not installed"
        """
    command = [sys.executable, "-X", f"thread_inherit_context={flag}", "-c", code, flag]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
