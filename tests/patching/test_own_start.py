"""Threads whose class has a ``start()`` that does not come through `threading.Thread.start`."""

from __future__ import annotations

import _thread
import gc
import threading
import typing as t
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, g, has_app_context, request

from flaskthreads_autopatch import disable
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from ..helpers import LIMIT, user


class Value:
    """An entry of ``g`` that can be watched."""


class Bypassing(threading.Thread):
    """One that is not known to `threading`: it has no ident, and cannot be joined."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.done = threading.Event()

    def start(self) -> None:
        _thread.start_new_thread(self.run, ())

    def run(self) -> None:
        self.seen.append(user())
        self.done.set()


class InPlace(Bypassing):
    def start(self) -> None:
        self.run()


class ByAnother(Bypassing):
    def start(self) -> None:
        threading.Thread(target=self.run).start()


class InAPool(Bypassing):
    pool: t.ClassVar[ThreadPoolExecutor]

    def start(self) -> None:
        self.pool.submit(self.run)


@pytest.fixture(autouse=True)
def pool() -> t.Iterator[None]:
    with ThreadPoolExecutor(1) as InAPool.pool:
        InAPool.pool.submit(int).result(LIMIT)
        yield


def run_twice(thread: Bypassing) -> list[str]:
    for _ in range(2):
        thread.done.clear()
        thread.start()
        assert thread.done.wait(LIMIT)
    return thread.seen


# What each sees when it is started twice where it was made, and once made there and started outside; with the patches
# on, and off.
SEEN: dict[type[Bypassing], tuple[list[str], list[str], list[str], list[str]]] = {
    Bypassing: (["alice"] * 2, ["no context"] * 2, ["no context"] * 2, ["no context"] * 2),
    InPlace: (["alice"] * 2, ["no context"] * 2, ["alice"] * 2, ["no context"] * 2),
    ByAnother: (
        *(["alice"] * 2, ["no context"] * 2),
        *(["alice" if THREADS_INHERIT_CONTEXT else "no context"] * 2, ["no context"] * 2),
    ),
    InAPool: (["alice"] * 2, ["no context"] * 2, ["no context"] * 2, ["no context"] * 2),
}


@pytest.mark.parametrize("cls", SEEN)
def test_h20_a_start_of_its_own_that_bypasses_ours(installed: Flask, cls: type[Bypassing]) -> None:
    torn_down: list[bool] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(has_app_context()))
    for inside, outside in (SEEN[cls][:2], SEEN[cls][2:]):
        with installed.app_context():
            g.user = "alice"
            assert run_twice(cls()) == inside
            made_inside = cls()
        assert run_twice(made_inside) == outside
        if cls is InAPool:
            cls.pool.submit(int).result(LIMIT)
        disable()
    assert all(torn_down)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("cls", SEEN)
def test_a_thread_whose_start_bypasses_ours_holds_nothing_after_its_end(
    installed: Flask, cls: type[Bypassing], inside: bool
) -> None:
    # Other tests may have left threads that never end, as the workers of a third party's pool are.
    threads = {threading.current_thread(), *threading.enumerate()}
    with installed.test_request_context("/watched"):
        g.user, g.value = "alice", Value()
        refs = weakref.ref(g.value), weakref.ref(request._get_current_object())
        thread = cls()
        if inside:
            thread.start()
    if not inside:
        thread.start()
    assert thread.done.wait(LIMIT)
    InAPool.pool.submit(int).result(LIMIT)
    for other in {*threading.enumerate()} - threads - InAPool.pool._threads:
        other.join(LIMIT)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert "run" not in vars(thread)


def test_a_run_called_by_another_thread_leaves_a_started_thread_its_context(installed: Flask) -> None:
    begun, go = threading.Event(), threading.Event()
    seen: list[str] = []

    class Late(threading.Thread):
        """It has its ident, and has not come to its ``run()`` yet."""

        def _bootstrap_inner(self) -> None:
            self._set_ident()  # type: ignore[attr-defined]
            begun.set()
            assert go.wait(LIMIT)
            super()._bootstrap_inner()  # type: ignore[misc]

        def run(self) -> None:
            seen.append(user())

    def start() -> None:
        with installed.app_context():
            g.user = "alice"
            thread.start()

    thread = Late()
    starter = threading.Thread(target=start)
    starter.start()
    assert begun.wait(LIMIT)
    thread.run()
    assert seen == ["no context"]
    go.set()
    starter.join(LIMIT)
    thread.join(LIMIT)
    assert seen == ["no context", "alice"]
