"""The end of a parent's context: when it is noted, and for whom."""

from __future__ import annotations

import gc
import time
import typing as t

from flask import Flask, appcontext_tearing_down
from flask.ctx import AppContext

import flaskthreads_autopatch
from flaskthreads_autopatch import context_released, copy_current_app_context
from flaskthreads_autopatch.visibility import parents

from ..helpers import LIMIT
from .helpers import Gate, Warnings, is_watched, needs_blinker, start


class Quiet(Flask):
    """Its own teardown sends no signal."""

    # Until Flask 3.1 the first argument is the exception; 3.2 looks at the name.
    def do_teardown_appcontext(self, ctx: AppContext, *args: object) -> None:  # type: ignore[override]
        pass


@needs_blinker
def test_the_end_is_noted_once_and_the_contexts_death_is_none(app: Flask) -> None:
    with app.app_context() as ctx:
        parent = parents.watched(ctx)
        assert parents.watched(ctx) is parent
        assert (parent.ended, parents.seconds_over(parent, 0.0)) == (None, None)
    ended = parent.ended
    assert ended is not None
    del ctx
    gc.collect()
    assert (parent(), parent.ended) == (None, ended)
    parents.stop_watching()


def test_where_there_is_no_parent_the_beginning_counts() -> None:
    assert parents.is_over(parents.NOWHERE)
    assert 5 <= t.cast(float, parents.seconds_over(parents.NOWHERE, time.monotonic() - 5)) < 5 + LIMIT


def test_where_no_signal_is_sent_the_death_is_the_end() -> None:
    with Quiet("tests").app_context() as ctx:
        parent = parents.watched(ctx)
    assert parent.ended is None
    del ctx
    gc.collect()
    assert parent() is None and parent.ended is not None
    parents.stop_watching()


def test_where_no_signal_is_sent_a_living_context_is_over_since_somebody_asked(
    gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    app = Quiet("tests")
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context() as ctx:
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    assert "still runs" in heard.get(timeout=LIMIT).getMessage()
    gate.opened.set()
    thread.join(LIMIT)
    assert "has finished" in heard.get(timeout=LIMIT).getMessage()
    del ctx


@needs_blinker
def test_nobody_watches_where_nobody_asks(installed: Flask, no_watcher: None) -> None:
    before = len(appcontext_tearing_down.receivers)
    with installed.app_context():
        copy_current_app_context(int)
    assert len(appcontext_tearing_down.receivers) == before
    with installed.app_context(), context_released.connected_to(lambda sender, **values: None):
        copy_current_app_context(int)
    assert len(appcontext_tearing_down.receivers) == before + 1
    assert not is_watched()


@needs_blinker
def test_after_disable_nobody_notes_the_end_of_a_context(app: Flask, no_watcher: None) -> None:
    before = len(appcontext_tearing_down.receivers)
    flaskthreads_autopatch.install(app, warn_after=60)
    with app.app_context():
        copy_current_app_context(int)
    assert len(appcontext_tearing_down.receivers) == before + 1
    flaskthreads_autopatch.disable()
    assert len(appcontext_tearing_down.receivers) == before
