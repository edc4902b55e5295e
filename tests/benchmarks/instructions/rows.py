"""The table: which case is set against which, and how much it may cost."""

from __future__ import annotations

import typing as t

from .counting import START_UP, START_UP_ON


class Row(t.NamedTuple):
    """A ratio of two cases."""

    name: str
    title: str
    case: str
    base: str
    at_most: float | None = None
    """The target; None where only the growth from one version to the next is limited."""
    is_recorded: bool = True
    """Whether --check looks at the row; not where it depends on another package's version."""

    def ratio(self, instructions: dict[str, float]) -> float:
        return instructions[self.case] / instructions[self.base]


_COPY = "`copy_current_app_context` and call"
_CONTEXT = "`with app.app_context(): pass`"
_REQUEST = "request, session, 5 plain entries"
_CARRIED = "two entries of `g`"
_HAND_WRITTEN = "a hand-written copy of five values in `copy_current_request_context`"

ROWS = (
    Row("request", "a plain request, on / off", "request, on", "request", 1.02),
    Row("copy app context", f"{_COPY}, app context only / {_CONTEXT}", "copy, app context", "own context", 1.6),
    Row("copy request", f"the same, {_REQUEST}", "copy, request", "own context", 2.3),
    Row("copy objects", "the same, request, session, 5 objects", "copy, objects", "own context", 2.6),
    Row(
        "copy app context, not installed",
        "the same, not installed, app context only",
        "copy, app context, not installed",
        "own context",
        2.1,
    ),
    Row(
        "copy request, not installed",
        f"the same, not installed, {_REQUEST}",
        "copy, request, not installed",
        "own context",
        2.8,
    ),
    Row(
        "copy request, by hand",
        f"the same, {_REQUEST} / {_HAND_WRITTEN}",
        "copy, request",
        "copy by hand",
        0.25,
    ),
    Row("thread", "`Thread` start + join in a request / bare", "thread in request, on", "thread in request", 2.1),
    Row(
        "thread of third party",
        "the same, own code starts a third party's function",
        "third party in request, on",
        "third party in request",
    ),
    Row("submit", "submit + result in a request / bare", "submit in request, on", "submit in request", 2.05),
    Row("thread, by hand", f"the same thread, ours / {_HAND_WRITTEN}", "thread in request, on", "thread by hand"),
    Row("submit, by hand", f"the same submit, ours / {_HAND_WRITTEN}", "submit in request, on", "submit by hand"),
    Row(
        "submit, Flask's copy",
        "the same submit, ours / `copy_current_request_context`, which leaves `g` empty",
        "submit in request, on",
        "submit, copy_current_request_context",
    ),
    Row(
        "submit, Flask-Executor",
        "the same submit, ours / Flask-Executor",
        "submit in request, on",
        "submit, Flask-Executor",
        is_recorded=False,
    ),
    Row("thread, no context", "`Thread` start + join, no context / bare", "thread, on", "thread", 1.12),
    Row("submit, no context", "submit + result, no context / bare", "submit, on", "submit", 1.09),
    Row(
        "thread, observed",
        "`Thread` start + join in a request, observed / bare",
        "thread in request, observed",
        "thread in request",
        is_recorded=False,
    ),
    Row(
        "submit, observed",
        "submit + result in a request, observed / bare",
        "submit in request, observed",
        "submit in request",
        is_recorded=False,
    ),
    Row(
        "thread, no context, observed",
        "`Thread` start + join, no context, observed / bare",
        "thread, observed",
        "thread",
        is_recorded=False,
    ),
    Row("inject", f"`inject`, {_CARRIED} / JSON by hand", "inject", "inject, by hand"),
    Row("extract", f"`extract`, {_CARRIED} / a context filled from JSON by hand", "extract", "extract, by hand"),
    Row(
        "inject, request",
        f"`inject`, {_CARRIED} and a request / by hand",
        "inject, request",
        "inject, request, by hand",
        is_recorded=False,
    ),
    Row(
        "extract, request",
        f"`extract`, {_CARRIED} and a request / by hand",
        "extract, request",
        "extract, request, by hand",
        is_recorded=False,
    ),
    Row(
        "inject, signed",
        "`inject` with `signed=True` / `inject`, and itsdangerous for the same text",
        "inject, signed",
        "inject, itsdangerous",
        1.0,
        is_recorded=False,
    ),
    Row(
        "extract, signed",
        "`extract` with `signed=True` / `extract`, and itsdangerous for the same text",
        "extract, signed",
        "extract, itsdangerous",
        1.0,
        is_recorded=False,
    ),
    Row("start-up", "an interpreter with the start-up hook, no Flask / bare", START_UP_ON, START_UP, 1.05),
)


def cases(rows: tuple[Row, ...]) -> list[str]:
    """What must be counted for *rows*, each case once."""
    return list(dict.fromkeys(case for row in rows for case in (row.base, row.case)))
