"""Fixtures: a gate, the warnings that are heard, and the proof that no replay and no watcher was left."""

from __future__ import annotations

import gc
import logging
import logging.handlers
import queue
from collections.abc import Iterator

import pytest

from flaskthreads_autopatch import running
from flaskthreads_autopatch.visibility import overdue

from ..helpers import LIMIT
from .helpers import Gate, Warnings, is_watched


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture(autouse=True)
def empty_again() -> Iterator[None]:
    assert running() == []
    yield
    assert running() == []


@pytest.fixture
def heard() -> Iterator[Warnings]:
    """The library's warnings, to be waited for."""
    records: Warnings = queue.SimpleQueue()
    handler, logger = logging.handlers.QueueHandler(records), logging.getLogger("flaskthreads_autopatch")
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture
def no_watcher() -> Iterator[None]:
    """No thread watches before the test, and none is left after it."""
    assert not is_watched()
    yield
    gc.collect()  # an error that has ended a thread may hold a snapshot
    thread = overdue._state.watcher
    if thread is not None:
        thread.join(LIMIT)
    assert not is_watched()
