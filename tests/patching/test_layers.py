"""Layers on patch points of modules that are imported late."""

from __future__ import annotations

import importlib
import sys
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from flaskthreads_autopatch.patching.layers import Layers, PatchPoint

from ..helpers import LIMIT

SLOW = """
import flaskthreads_autopatch_tests_gate as gate
gate.entered.set()
assert gate.opened.wait(60)

class Pool:
    def submit(self):
        return "submitted"
"""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[t.Any]:
    """A module whose import waits until it is told to go on."""
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    gate: t.Any = type(sys)("flaskthreads_autopatch_tests_gate")
    gate.entered, gate.opened = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, gate.__name__, gate)
    monkeypatch.syspath_prepend(tmp_path)
    yield gate
    gate.opened.set()
    sys.modules.pop("slow_to_import", None)


def wrapper(argument: str, wrapped: t.Any, instance: object, args: t.Any, kwargs: t.Any) -> str:
    return f"{argument}, {wrapped(*args, **kwargs)}"


class WatchedLock:
    """A reentrant lock that says when it is held."""

    def __init__(self) -> None:
        self.lock, self.held = threading.RLock(), threading.Event()

    def __enter__(self) -> None:
        self.lock.acquire()
        self.held.set()

    def __exit__(self, *exc_info: object) -> None:
        self.held.clear()
        self.lock.release()


def test_a_module_that_another_thread_is_importing_does_not_hang_both(gate: t.Any) -> None:
    lock = WatchedLock()
    layers = Layers((), (PatchPoint("slow_to_import", "Pool.submit", wrapper),), "ours", lock)

    def apply() -> None:
        layers.watch_imports()
        with lock:
            layers.apply()

    apply()  # before anybody imports it
    importer = threading.Thread(target=importlib.import_module, args=("slow_to_import",), daemon=True)
    importer.start()
    assert gate.entered.wait(LIMIT)
    switcher = threading.Thread(target=apply, daemon=True)
    lock.held.clear()
    switcher.start()
    # Without its care it now holds the lock, and waits for the import, which ends with a call that takes the lock.
    lock.held.wait(0.5)
    gate.opened.set()
    for thread in (importer, switcher):
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert sys.modules["slow_to_import"].Pool().submit() == "ours, submitted"
    layers.revert()
    assert sys.modules["slow_to_import"].Pool().submit() == "submitted"


def test_a_module_that_is_imported_while_all_is_off_is_left_alone(gate: t.Any) -> None:
    gate.opened.set()
    layers = Layers((), (PatchPoint("slow_to_import", "Pool.submit", wrapper),), "ours", threading.RLock())
    layers.watch_imports()
    layers.apply()
    layers.revert()
    pool = importlib.import_module("slow_to_import").Pool
    assert pool().submit() == "submitted"
    layers.watch_imports()
    layers.apply()
    assert pool().submit() == "ours, submitted"
    layers.revert()
