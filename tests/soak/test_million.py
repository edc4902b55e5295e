"""The check of ``python -m tests.soak --requests N`` notices what it is there for."""

from __future__ import annotations

import pytest

from .million import judge
from .numbers import LATE, THREAD, TIMER, expected, expected_counts

REQUESTS = 250


def rows() -> list[dict[str, int]]:
    """Figures with which nothing is wrong: the first after a tenth of the requests, the last after all."""
    held = {"mix_ups": 0, "leaked_contexts": 0, "leaked_connections": 0, "kilobytes": 50_000, "system_threads": 15}
    counts = expected_counts(REQUESTS)
    contexts = counts.pop("contexts")
    # The context of the first request for figures has been popped by the second one.
    return [dict(held), held | counts | {"popped": contexts + 1, "kilobytes": 51_000}]


def test_counts_are_those_of_the_single_requests() -> None:
    assert judge(REQUESTS, rows()) == []
    numbers = range(REQUESTS)
    counted = expected_counts(REQUESTS)
    assert counted["threads"] == sum(number % THREAD == 0 for number in numbers)
    assert counted["timers"] == sum(number % TIMER == 0 for number in numbers)
    assert counted["late"] == sum(number % LATE == LATE // 2 for number in numbers)
    inside = counted["tasks"] + counted["threads"] + counted["timers"]
    assert sum(int(expected(number).split()[1]) for number in numbers) == inside


@pytest.mark.parametrize(
    "name", ["mix_ups", "leaked_contexts", "leaked_connections", "system_threads", "popped", "late"]
)
def test_one_too_many_is_noticed(name: str) -> None:
    first, last = rows()
    last[name] += 1
    assert len(judge(REQUESTS, [first, last])) == 1


def test_memory_that_grows_is_noticed_where_it_shrinks_again_too() -> None:
    first, last = rows()
    between = last | {"kilobytes": 51_001}
    last["popped"] += 1  # the context of the request for the figures between
    assert judge(REQUESTS, [first, between, last]) == ["memory grew from 50000 kB to 51001 kB, which is more than 2%"]
