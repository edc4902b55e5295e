"""An app with the patches on, and a way to do something in a thread and in a pool in the midst of a request."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.signals import appcontext_pushed, appcontext_tearing_down

import flaskthreads_autopatch as autopatch

from .helpers import Counts, Start, in_pool, in_thread


@pytest.fixture(params=[in_thread, in_pool], ids=["thread", "pool"])
def start(request: pytest.FixtureRequest) -> Start:
    """Call something in a thread, or in a pool, and return what it returns."""
    return t.cast(Start, request.param)


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
