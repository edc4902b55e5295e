"""The signals `context_inherited` and `context_released`."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, g

import flaskthreads_autopatch
from flaskthreads_autopatch import Replay, context_inherited, context_released, copy_current_app_context
from flaskthreads_autopatch.flask_context import teardown
from flaskthreads_autopatch.visibility import parents, registry

from ..helpers import LIMIT, in_thread
from .helpers import Gate, needs_blinker, start


@needs_blinker
def test_signals_tell_of_begin_and_end(installed: Flask) -> None:
    begun: list[tuple[Replay, bool, str]] = []
    ended: list[tuple[Replay, str | None, float | None]] = []

    def on_begin(sender: Flask, replay: Replay) -> None:
        begun.append((replay, flaskthreads_autopatch.is_inherited(), g.user))

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> None:
        ended.append((replay, error, outlived))

    def fail() -> None:
        raise ZeroDivisionError

    with (
        context_inherited.connected_to(on_begin, installed),
        context_released.connected_to(on_end, installed),
        installed.app_context(),
        ThreadPoolExecutor(1) as pool,
    ):
        g.user = "alice"
        pool.submit(int).result(LIMIT)
        pool.submit(fail).exception(LIMIT)
    assert [(replay.callable.rpartition(":")[2].rpartition(".")[2], own, user) for replay, own, user in begun] == [
        ("int", True, "alice"),
        ("fail", True, "alice"),
    ]
    assert [(error, outlived) for _, error, outlived in ended] == [(None, None), ("builtins:ZeroDivisionError", None)]
    for (first, *_), (last, *_) in zip(begun, ended, strict=True):
        assert first.seconds <= last.seconds
        assert first == dataclasses.replace(last, seconds=first.seconds)


@needs_blinker
def test_released_says_by_how_much_the_parent_was_outlived(installed: Flask, gate: Gate) -> None:
    ended: list[tuple[Replay, float]] = []
    released = threading.Event()

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float) -> None:
        ended.append((replay, outlived))
        released.set()

    with context_released.connected_to(on_end):
        with installed.app_context():
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
        assert not threading.Event().wait(0.05)  # the least that it outlives
        gate.opened.set()
        thread.join(LIMIT)
        assert released.wait(LIMIT)
    [(replay, outlived)] = ended
    assert 0.05 <= outlived <= replay.seconds
    assert replay.parent_is_over


@needs_blinker
def test_outlived_is_read_before_the_seconds(installed: Flask, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes a second on each time that it is read.
    clock = itertools.count(time.monotonic() + 1000)
    for module in (registry, parents):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=clock.__next__))
    ended: list[tuple[float, float]] = []

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float) -> None:
        ended.append((outlived, replay.seconds - 1000))

    with context_released.connected_to(on_end):
        with installed.app_context():
            thread = start(gate)
            assert gate.entered.wait(LIMIT)
        gate.opened.set()
        thread.join(LIMIT)
    [(outlived, seconds)] = ended
    assert outlived == 1 < seconds


@needs_blinker
@pytest.mark.parametrize("which", [context_inherited, context_released], ids=lambda which: which.name)
def test_what_a_receiver_raises_is_logged(installed: Flask, caplog: pytest.LogCaptureFixture, which: object) -> None:
    def broken(sender: Flask, **values: object) -> None:
        raise ZeroDivisionError

    before = {*threading.enumerate()}
    with which.connected_to(broken), installed.app_context():  # type: ignore[attr-defined]
        assert in_thread(lambda: 17) == 17
        for thread in {*threading.enumerate()} - before:
            thread.join(LIMIT)
    [record] = caplog.records
    assert record.name == installed.logger.name
    assert record.getMessage().startswith(f"Error in a receiver of the signal {which.name!r}")  # type: ignore[attr-defined]


@needs_blinker
def test_h11_what_a_receiver_starts_does_not_inherit(installed: Flask) -> None:
    seen: list[bool] = []

    def on_begin(sender: Flask, replay: Replay) -> None:
        seen.append(in_thread(flaskthreads_autopatch.is_inherited))

    with context_inherited.connected_to(on_begin), installed.app_context():
        in_thread(int)
    assert seen == [False]


@needs_blinker
def test_outlived_is_zero_where_nobody_listened_when_it_was_captured(installed: Flask) -> None:
    seen: list[float | None] = []
    with installed.app_context():
        replay = copy_current_app_context(int)

    def on_end(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> None:
        seen.append(outlived)

    with context_released.connected_to(on_end):
        replay()
    assert seen == [0.0]


@needs_blinker
def test_what_a_task_starts_inherits_though_somebody_listens(installed: Flask) -> None:
    with installed.app_context(), context_inherited.connected_to(lambda sender, **values: None):
        g.user = "alice"
        assert in_thread(lambda: in_thread(lambda: g.user)) == "alice"


@needs_blinker
def test_a_receiver_may_be_async(installed: Flask) -> None:
    pytest.importorskip("asgiref")
    seen: list[str] = []

    async def receive(sender: Flask, replay: Replay, **values: object) -> None:
        seen.append(replay.kind)

    with context_inherited.connected_to(receive), context_released.connected_to(receive), installed.app_context():
        copy_current_app_context(int)()
    assert seen == ["task"] * (2 if teardown._takes_async_wrapper else 0)
