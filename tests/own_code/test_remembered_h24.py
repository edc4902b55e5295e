"""H24: what is remembered of one thread does not count for another that runs something else."""

from __future__ import annotations

import asyncio
import functools
import importlib
import threading
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, has_app_context

import flaskthreads_autopatch
from flaskthreads_autopatch import own_code

from ..helpers import LIMIT
from ..processes import python
from .layouts import install, unload


def noting(fn: Callable[..., object], seen: list[bool]) -> Callable[..., object]:
    """Return *fn*, noting in *seen* whether it is called in an app context: one code, for functions of all names."""

    @functools.wraps(fn)
    def wrapper(*args: object) -> object:
        seen.append(has_app_context())
        return fn(*args)

    return wrapper


def run(fn: Callable[..., object]) -> None:
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join(LIMIT)


def test_a_service_that_an_own_decorator_has_wrapped_does_not_inherit_after_another_function_has(
    installed: Flask,
) -> None:
    def own() -> None:
        """Do nothing."""

    seen: list[bool] = []
    loop = asyncio.new_event_loop()
    loop.call_soon(loop.stop)
    with installed.app_context():
        run(noting(own, seen))
        run(noting(loop.run_forever, seen))
    loop.close()
    assert seen == [True, False]


WEBSOCKET = {
    "websocket/__init__.py": "",
    "websocket/_app.py": """
        import threading

        from flask import has_app_context

        class WebSocketApp:
            def __init__(self):
                self.seen = []

            def run_forever(self):
                self.seen.append(has_app_context())
                thread = threading.Thread(target=self.ping)
                thread.start()
                thread.join(60)

            def ping(self):
                pass
    """,
}


def test_a_service_that_the_option_own_covers_does_not_inherit_after_its_line_was_recorded(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "site-packages", "websocket", WEBSOCKET))
    websocket: t.Any = importlib.import_module("websocket._app")
    flaskthreads_autopatch.install(app, own=("*",), origins=True)
    with app.app_context():
        service = websocket.WebSocketApp()
        service.run_forever()
        run(service.run_forever)
    unload("websocket")
    assert service.seen == [True, False]


SERVICE = {
    "thirdservice.py": """
        import threading

        from flask import has_app_context

        class Service(threading.Thread):
            saw = None

            def start(self):
                super().start()

            def run(self):
                self.saw = has_app_context()

        def begin():
            service = Service()
            service.start()
            service.join(60)
            return service.saw
    """,
}


def test_a_patch_of_the_apps_that_has_started_a_thread_itself_is_looked_through_when_it_is_a_layer_again(
    installed: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "site-packages", "thirdservice", SERVICE))
    thirdservice: t.Any = importlib.import_module("thirdservice")
    start = threading.Thread.start

    def patched(thread: threading.Thread) -> None:
        start(thread)

    with installed.app_context():
        service = thirdservice.Service()
        patched(service)
        service.join(LIMIT)
        with monkeypatch.context() as patching:
            patching.setattr(threading.Thread, "start", patched)
            seen = thirdservice.begin()
    unload("thirdservice")
    assert [service.saw, seen] == [True, False]


def test_names_that_are_made_for_each_function_do_not_fill_the_cache(app: Flask) -> None:
    flaskthreads_autopatch.install(app, ignore=("nothing",))
    seen: list[bool] = []

    def start(name: str) -> None:
        def job() -> None:
            seen.append(has_app_context())

        job.__qualname__ = name
        run(job)

    with app.app_context():
        start("job")
        verdicts = own_code.state.verdicts
        count = len(verdicts)
        for number in range(20):
            start(f"job-{number}")
    assert seen == [True] * 21
    assert own_code.state.verdicts is verdicts
    assert len(verdicts) == count > 0


def test_threads_inherit_where_the_working_directory_has_been_deleted() -> None:
    ran = python(
        """
import os, sys, tempfile, threading
from flask import Flask, g
import flaskthreads_autopatch

app = Flask("app")
flaskthreads_autopatch.install(app, origins=True)
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
sys.path[:0] = ["", "."]
def work():
    print(g.user, flaskthreads_autopatch.running()[0].origin)
    flaskthreads_autopatch.dump()

namespace = {"__name__": "generated"}
exec("def start(thread):\\n    thread.start()", namespace)
with app.app_context():
    g.user = "alice"
    thread = threading.Thread(target=work)
    namespace["start"](thread)
    thread.join()
print(flaskthreads_autopatch.place.Place(os.__file__, 1, "f"))
"""
    )
    assert "Traceback" not in ran.stderr
    assert "<string>:2 in start" in ran.stderr
    assert ran.stdout.splitlines() == ["alice <string>:2 in start", "os.py:1 in f"]


def test_a_thread_is_started_while_another_one_installs_apps() -> None:
    """On a free-threaded build both work on the set of names at the same time. On others nothing of that overlaps."""
    names = [f"shop{number}" for number in range(64)]

    def install_many() -> None:
        for _ in range(20_000):
            for name in names:
                own_code.adopt(name)

    thread = threading.Thread(target=install_many)
    thread.start()
    try:
        while thread.is_alive():
            own_code.adopted()
            own_code.forget_adopted()  # The set is filled again, and so grows.
    finally:
        thread.join(LIMIT)
    install_many()
    assert {*names} <= {*own_code.adopted()}
    own_code.forget_adopted()
