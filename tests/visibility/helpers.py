"""What is waited for, and what is watched."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import threading
from collections.abc import Callable

import pytest

from flaskthreads_autopatch import context_inherited
from flaskthreads_autopatch.visibility import overdue

from ..helpers import LIMIT

needs_blinker = pytest.mark.skipif(not hasattr(context_inherited, "receivers"), reason="signals need blinker")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


class Gate:
    """A callable that says when it is entered, and returns when it is told to."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, *ignored: object) -> None:
        self.entered.set()
        assert self.opened.wait(LIMIT)


def start(target: object, name: str = "worker") -> threading.Thread:
    thread = threading.Thread(target=target, name=name)  # type: ignore[arg-type]
    thread.start()
    return thread


class Asked(threading.Thread):
    """A thread that does something when it is asked for its name, and ends when it is told to."""

    def __init__(self, when_asked: Callable[[], object]) -> None:
        self.when_asked, self.told = when_asked, threading.Event()
        super().__init__(target=self.told.wait, args=[LIMIT], daemon=True)

    @property
    def name(self) -> str:
        self.when_asked()
        return "asked"

    @name.setter
    def name(self, name: str) -> None:
        raise AttributeError


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "flaskthreads_autopatch"]


Warnings = queue.SimpleQueue[logging.LogRecord]


def is_watched() -> bool:
    """Whether the thread that watches is there."""
    thread = overdue._state.watcher
    return thread is not None and thread.is_alive()


TERMINAL = "GE\x1b]0;OWNED\x07\x1b[2J\nT\u202e\x9b31M"
"""A method, as a client may send one: a terminal would obey it."""
