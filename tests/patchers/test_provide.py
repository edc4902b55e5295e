"""The option ``provide`` beside other patchers, in either order: exactly one context where none is active."""

from __future__ import annotations

import itertools

import pytest

from .helpers import Ask

pytestmark = pytest.mark.patchers

OTHERS = ["opentelemetry", "sentry", "datadog", "newrelic", "wrapt"]
HIDES_THE_TASK = ("ours", "wrapt")
"""Own code that encloses each task before we see it, without a ``__wrapped__``."""


@pytest.mark.parametrize("names", [names for other in OTHERS for names in itertools.permutations(["ours", other])])
def test_what_is_named_gets_one_context(names: tuple[str, str], ask: Ask) -> None:
    found = ask({"provide": names})
    # A request that a thread serves has a context of its own. A run() that was assigned is nothing that can be named.
    expected = {way: [1, 1] for way in ("Thread", "Timer", "subclass", "submit")}
    expected |= {"assigned run": [0, 0], "map": [3, 3], "served": [2, 2]}
    if names == HIDES_THE_TASK:
        expected |= {"submit": [0, 0], "map": [0, 0]}
    assert found == expected
