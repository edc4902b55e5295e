"""`_thread.start_new_thread`, as called by others than `threading`."""

from __future__ import annotations

import _thread
import contextvars
import functools
import importlib
import queue
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g, has_app_context, request

from flaskthreads_autopatch import disable, install, is_inherited, running, suppress_inheritance

from ..helpers import ended
from ..own_code.layouts import install as install_package
from ..own_code.layouts import unload

LIMIT = 20
"""Seconds after which a test that hangs fails."""

early = _thread.start_new_thread

THIRD = """
import _thread

def start(fn, *args):
    return _thread.start_new_thread(fn, args)

def call(fn):
    fn()
"""


def user() -> str:
    return str(g.get("user", "nobody")) if has_app_context() else "no context"


class Seen(queue.SimpleQueue[str]):
    def note(self, *args: object, **kwargs: object) -> None:
        self.put(user())

    def next(self) -> str:
        return self.get(timeout=LIMIT)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def alice(installed: Flask) -> Iterator[Flask]:
    with installed.test_request_context("/alice"):
        g.user = "alice"
        yield installed


@pytest.fixture
def third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[t.Any]:
    files = {"thirdlow/__init__.py": THIRD}
    monkeypatch.syspath_prepend(install_package(tmp_path / "site-packages", "thirdlow", files))
    yield importlib.import_module("thirdlow")
    unload("thirdlow")


def test_a_low_level_thread_inherits_and_is_torn_down(alice: Flask) -> None:
    outcomes: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
    alice.teardown_appcontext(lambda error: outcomes.put(("teardown", threading.get_ident(), type(error))))

    def work(*args: object, **kwargs: object) -> None:
        [replay] = running()
        outcomes.put((args, kwargs, g.user, request.path, is_inherited(), replay.kind, replay.callable))
        raise SystemExit  # which ends a low-level thread quietly

    ident = _thread.start_new_thread(work, (1,), {"two": 2})
    assert outcomes.get(timeout=LIMIT) == (
        *((1,), {"two": 2}, "alice", "/alice", True, "thread"),
        f"{__name__}:test_a_low_level_thread_inherits_and_is_torn_down.<locals>.work",
    )
    assert outcomes.get(timeout=LIMIT) == ("teardown", ident, SystemExit)


@pytest.mark.parametrize("name", ["start_new_thread", "start_new"])
def test_both_names(alice: Flask, seen: Seen, name: str) -> None:
    if not hasattr(_thread, name):
        assert name == "start_new"
        return
    start = getattr(_thread, name)
    start(seen.note, ())
    assert seen.next() == "alice"
    with suppress_inheritance():
        start(seen.note, ())
    assert seen.next() == "no context"
    disable()
    getattr(_thread, name)(seen.note, ())
    start(seen.note, ())
    assert [seen.next(), seen.next()] == ["no context"] * 2


def test_a_name_that_was_imported_early_is_out_of_reach(alice: Flask, seen: Seen) -> None:
    early(seen.note, ())
    assert seen.next() == "no context"


def test_own_code_must_have_a_hand_in_it(alice: Flask, third: t.Any, seen: Seen) -> None:
    def theirs() -> t.Any:
        """A function of theirs that runs own code, without a way to see that from outside."""
        return eval("lambda: put(user())", {"__name__": "thirdlow", "put": seen.put, "user": user})

    third.start(seen.note)  # own function
    _thread.start_new_thread(theirs(), ())  # started by own code
    assert [seen.next(), seen.next()] == ["alice"] * 2
    third.start(theirs())
    assert seen.next() == "no context"
    third.start(functools.partial(seen.note, 1))
    assert seen.next() == "alice"


def test_what_has_no_context_is_provided_with_one(app: Flask, seen: Seen) -> None:
    install(app, provide=[f"{__name__}:Seen.note"])
    _thread.start_new_thread(seen.note, ())
    assert seen.next() == "nobody"
    _thread.start_new_thread(lambda: seen.note(), ())
    assert seen.next() == "no context"


def test_a_wrong_call_is_the_callers(alice: Flask) -> None:
    for args in ((), (print,), (1, ()), (print, 1), (print, (), 2)):
        with pytest.raises(TypeError) as on:
            _thread.start_new_thread(*args)  # type: ignore[call-overload]
        with pytest.raises(TypeError) as off:
            early(*args)  # type: ignore[call-overload]
        assert str(on.value) == str(off.value)


class ByBootstrap(threading.Thread):
    """What a start() that does not use threading's, but starts the thread as that does, looks like."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(daemon=True)
        self.seen = seen
        self._context = contextvars.Context()  # It runs in these variables, since Python 3.14.

    _context: contextvars.Context | None  # since Python 3.14

    def start(self) -> None:
        threading._limbo[self] = self  # type: ignore[attr-defined]
        self._context = contextvars.Context()
        _thread.start_new_thread(self._bootstrap, ())  # type: ignore[attr-defined]
        self._started.wait(LIMIT)  # type: ignore[attr-defined]

    def run(self) -> None:
        self.seen.note()


class ByRun(ByBootstrap):
    def start(self) -> None:
        _thread.start_new_thread(self.run, ())


@pytest.mark.parametrize("cls", [ByBootstrap, ByRun])
@pytest.mark.parametrize("made", ["outside", "inside"])
def test_a_start_that_calls_it(installed: Flask, seen: Seen, cls: type[ByBootstrap], made: str) -> None:
    torn_down: queue.SimpleQueue[str] = queue.SimpleQueue()
    thread = cls(seen)
    with installed.app_context():
        g.user = "alice"
        if made == "inside":
            thread = cls(seen)
    with installed.app_context():
        g.user = "bob"
        installed.teardown_appcontext(lambda _: torn_down.put(str(g.get("user"))))
        thread.start()
        assert seen.next() == "bob"
        assert torn_down.get(timeout=LIMIT) == "bob"
    assert torn_down.get(timeout=LIMIT) == "bob"  # the one that is left here
    assert torn_down.empty()
    assert "run" not in vars(thread)


@pytest.mark.parametrize("cls", [ByBootstrap, ByRun])
def test_a_third_partys_start_is_looked_through(alice: Flask, third: t.Any, seen: Seen, cls: t.Any) -> None:
    namespace: dict[str, t.Any] = {
        "__name__": "thirdlow",
        "cls": cls,
        "_thread": _thread,
        "user": user,
        "Context": contextvars.Context,
    }
    namespace["limbo"] = threading._limbo if cls is ByBootstrap else {}  # type: ignore[attr-defined]
    exec(
        "class Thread(cls):\n"
        "    def start(self):\n"
        "        limbo[self], self._context = self, Context()\n"
        f"        _thread.start_new_thread(self.{'_bootstrap' if cls is ByBootstrap else 'run'}, ())\n"
        "    def run(self):\n"
        "        self.seen.put(user())\n"
        "def start(thread):\n"
        "    thread.start()\n",
        namespace,
    )
    namespace["Thread"](seen).start()
    assert seen.next() == "alice"
    namespace["start"](namespace["Thread"](seen))
    assert seen.next() == "no context"


def test_threads_of_threading_are_replayed_once(alice: Flask) -> None:
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(len(running())))
    thread.start()
    ended(thread)
    assert counts == [1]
