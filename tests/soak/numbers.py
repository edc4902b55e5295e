"""What ``--requests`` asks for: which requests start a thread, and what each has to be answered."""

from __future__ import annotations

LIMIT = 60
"""Seconds after which what hangs is an error."""

THREAD = LATE = 10
"""One thread in so many requests that ends before the response, and one that reads its request after it."""
TIMER = 100
"""One timer in so many requests."""


def answers(number: int, count: int, wrong: int) -> str:
    """The body of a response."""
    return f"{number}: {count} answers, {wrong} wrong"


def expected(number: int) -> str:
    """The body that the response to request *number* has to have."""
    return answers(number, 1 + (number % THREAD == 0) + (number % TIMER == 0), 0)


def expected_counts(requests: int) -> dict[str, int]:
    """What the app has to have counted after so many requests, numbered from 0."""
    kinds = {
        "requests": requests,
        "tasks": requests,
        "threads": -(-requests // THREAD),
        "timers": -(-requests // TIMER),
        "late": (requests + LATE // 2 - 1) // LATE,
    }
    # Each is a context of its own.
    return kinds | {"contexts": sum(kinds.values())}
