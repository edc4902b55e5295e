"""An app with the patches on, and a way to do something in a thread and in a pool in the midst of a request."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.signals import appcontext_pushed, appcontext_tearing_down

import flaskthreads_autopatch as autopatch

Work = Callable[[], t.Any]
Start = Callable[[Work], t.Any]


def in_thread(work: Work) -> t.Any:
    """What *work* returns, called in a thread."""
    returned: list[t.Any] = []
    thread = threading.Thread(target=lambda: returned.append(work()))
    thread.start()
    thread.join()
    assert returned, "the thread has raised"
    return returned[0]


def in_pool(work: Work) -> t.Any:
    """What *work* returns, called in a pool's worker."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture(params=[in_thread, in_pool], ids=["thread", "pool"])
def start(request: pytest.FixtureRequest) -> Start:
    """Call something in a thread, or in a pool, and return what it returns."""
    return t.cast(Start, request.param)


class Counts:
    """How many app contexts were pushed and torn down, and how many of these were inherited ones."""

    def __init__(self) -> None:
        self.pushed = self.torn_down = self.inherited = 0
        self.lock = threading.Lock()


@pytest.fixture
def counts(app: Flask) -> Iterator[Counts]:
    """Counted for the app; in the end each context that was pushed has been torn down."""
    counts = Counts()

    def pushed(sender: Flask, **extra: t.Any) -> None:
        with counts.lock:
            counts.pushed += 1

    def torn_down(sender: Flask, **extra: t.Any) -> None:
        # The old number is read before is_inherited() is called: another thread may come in between.
        with counts.lock:
            counts.torn_down += 1
            counts.inherited += autopatch.is_inherited()

    with appcontext_pushed.connected_to(pushed, app), appcontext_tearing_down.connected_to(torn_down, app):
        yield counts
        assert counts.pushed == counts.torn_down
