"""A third party's package, installed for one test, in the process of the tests."""

from __future__ import annotations

import importlib
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from .layouts import POOL, install, unload


@pytest.fixture
def thirdpool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[t.Any]:
    """The module `POOL`, imported from a folder ``site-packages``."""
    monkeypatch.syspath_prepend(install(tmp_path / "site-packages", "thirdpool", POOL))
    yield importlib.import_module("thirdpool")
    unload("thirdpool")
