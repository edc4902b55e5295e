"""The callable that a thread or a pool is given in the place of the user's."""

from __future__ import annotations

import functools
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, g

from ..helpers import LIMIT, ended, user


def test_the_wrapped_callable_looks_like_the_users(installed: Flask) -> None:
    class Pool(ThreadPoolExecutor):
        def submit(self, fn: t.Any, /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            return super().submit(fn, *args, **kwargs)

        def _adjust_thread_count(self) -> None:
            pass  # nothing runs: the work item stays in the queue, to be looked at

    def task(a: int, b: int = 2) -> None:
        """Its doc."""

    task.attribute = "its own"  # type: ignore[attr-defined]
    with installed.app_context():
        pool = Pool(1)
        pool.submit(task)
        item = pool._work_queue.get_nowait()
        fn = t.cast(t.Any, item).task[0] if hasattr(item, "task") else t.cast(t.Any, item).fn
    assert fn.__wrapped__ is task
    assert (fn.__name__, fn.__doc__, fn.attribute) == ("task", "Its doc.", "its own")
    assert fn.__module__ == __name__
    import inspect

    assert inspect.signature(fn) == inspect.signature(task)


def test_a_callable_that_cannot_be_looked_at_runs_without_a_context(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    class Awkward:
        __call__ = staticmethod(functools.partial(user))

        def __getattr__(self, name: str) -> t.NoReturn:
            raise RuntimeError(f"no {name}")

        @property
        def __self__(self) -> t.NoReturn:
            raise RuntimeError("not here")

        @property
        def __class__(self) -> t.NoReturn:  # type: ignore[override]
            raise RuntimeError("of no class")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        assert pool.submit(Awkward()).result(LIMIT) == "no context"
        thread = threading.Thread(target=print)
        thread._target = Awkward()  # type: ignore[attr-defined]
        thread.start()
        ended(thread)
    assert caplog.text.count("No snapshot of the app context could be taken") == 2


class Falsy(list[str]):
    """A callable that is an empty list."""

    def __call__(self, *args: object) -> str:
        return user()


class Undecided:
    """A callable whose truth cannot be asked."""

    def __bool__(self) -> t.NoReturn:
        raise ValueError("neither true nor false")

    def __call__(self, *args: object) -> str:
        return user()


@pytest.mark.parametrize("kind", [Falsy, Undecided])
def test_the_truth_of_a_callable_is_not_asked(installed: Flask, kind: type[Falsy | Undecided]) -> None:
    seen: list[str] = []

    class Noting(kind):  # type: ignore[misc, valid-type]
        def __call__(self, *args: object) -> None:
            seen.append(user())

    with installed.app_context(), ThreadPool(1) as pool:
        g.user = "alice"
        assert pool.apply_async(kind(), (1,)).get(LIMIT) == "alice"
        thread = threading.Thread(target=Noting())
        thread.start()
        ended(thread)
    assert seen == ["alice"]
