"""`suppress_inheritance`, and whether Python itself lets threads inherit context variables."""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
import typing as t
from collections.abc import Callable

P = t.ParamSpec("P")
R = t.TypeVar("R")

suppressed: contextvars.ContextVar[bool | str] = contextvars.ContextVar(
    "flaskthreads_autopatch.suppressed", default=False
)
"""True inside `suppress_inheritance`; `WORKERS` inside `starting_workers`; else False."""

WORKERS = "workers"


class _Suppression:
    def __init__(self) -> None:
        self._tokens: list[contextvars.Token[bool | str]] = []

    def __enter__(self) -> None:
        self._tokens += map(suppressed.set, (True,))  # see `starting_workers`

    def __exit__(self, *exc_info: object) -> None:
        suppressed.reset(self._tokens.pop())

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"suppress_inheritance cannot decorate the generator {fn!r}, because its body runs in turns with the"
                " code that reads it. Write 'with suppress_inheritance():' in the body, around the code that starts"
                " threads."
            )

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with _Suppression():
                return fn(*args, **kwargs)

        @functools.wraps(fn)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> t.Any:
            with _Suppression():
                return await t.cast("t.Any", fn(*args, **kwargs))

        return t.cast("Callable[P, R]", call_async) if inspect.iscoroutinefunction(fn) else call


@t.overload
def suppress_inheritance() -> _Suppression: ...
@t.overload
def suppress_inheritance(fn: Callable[P, R], /) -> Callable[P, R]: ...
def suppress_inheritance(fn: Callable[..., t.Any] | None = None, /) -> t.Any:
    """Have threads, timers, tasks and callbacks that are started inside inherit nothing. Context manager or decorator.

    The decorator is written with or without parentheses. It covers the body of an ``async def`` too, and raises
    `TypeError` for a generator.

    This affects the code inside, in this thread or asyncio task. It does not affect `AppContextThread`,
    `ThreadPoolWithAppContextExecutor` and `copy_current_app_context`, which are explicit.
    """
    return _Suppression() if fn is None else _Suppression()(fn)


is_suppressed = suppressed.get


def starting_workers(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call *fn*, which may start workers of a pool. Threads that it starts do not inherit; tasks and callbacks do."""
    # map() calls set(), because an asynchronous exception may be raised after a call, and the token be lost (H41).
    (token,) = map(suppressed.set, (suppressed.get() or WORKERS,))
    try:
        return fn(*args, **kwargs)
    finally:
        suppressed.reset(token)
        # A stored exception keeps this frame alive through its traceback, so its variables are deleted.
        del fn, args, kwargs


def unsuppressed(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call *fn*, which starts a thread that has the other context variables of its starter, but no suppression."""
    (token,) = map(suppressed.set, (False,))  # see `starting_workers`
    try:
        return fn(*args, **kwargs)
    finally:
        suppressed.reset(token)
        del fn, args, kwargs


def lift() -> contextvars.Token[bool | str]:
    """End the suppression for the current context variables, until `restore` is called with the result."""
    return suppressed.set(False)


restore = suppressed.reset


THREADS_INHERIT_CONTEXT = bool(getattr(sys.flags, "thread_inherit_context", False))
"""Whether a thread starts with the context variables of its starter. That is so on free-threaded builds since 3.14, and
with ``-X thread_inherit_context=1``."""
