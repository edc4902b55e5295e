"""`suppress_inheritance`, as a context manager and as a decorator."""

from __future__ import annotations

import asyncio
import inspect
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from flask import Flask

from flaskthreads_autopatch import suppress_inheritance

from .helpers import LIMIT, in_thread


def test_suppress_inheritance(installed: Flask) -> None:
    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with suppress_inheritance():
            assert in_thread(flask.has_app_context) is False
            assert pool.submit(flask.has_app_context).result(LIMIT) is False
            created = threading.Thread(target=lambda: seen.append(flask.has_app_context()))
        assert in_thread(flask.has_app_context) is True
        assert suppress_inheritance()(in_thread)(flask.has_app_context) is False

        seen: list[bool] = []
        created_inside = threading.Thread(target=lambda: seen.append(flask.has_app_context()))
        with suppress_inheritance():  # what is started inside does not inherit, wherever it was made
            created_inside.start()
        created_inside.join(LIMIT)
        created.start()
        created.join(LIMIT)
        assert seen == [False, True]


def test_suppress_inheritance_as_a_decorator(installed: Flask) -> None:
    @suppress_inheritance
    def bare(number: int) -> tuple[int, bool]:
        """Its words."""
        return number, in_thread(flask.has_app_context)

    @suppress_inheritance()
    async def coroutine(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0)
        return number, in_thread(flask.has_app_context)

    @suppress_inheritance
    async def bare_coroutine() -> bool:
        return in_thread(flask.has_app_context)

    async def all_at_once() -> list[object]:
        return [
            *await asyncio.gather(coroutine(1), coroutine(number=2)),
            await bare_coroutine(),
            in_thread(flask.has_app_context),
        ]

    assert (bare.__name__, bare.__doc__) == ("bare", "Its words.")
    assert inspect.iscoroutinefunction(coroutine)
    with installed.app_context():
        assert [bare(1), bare(number=2)] == [(1, False), (2, False)]
        assert asyncio.run(all_at_once()) == [(1, False), (2, False), False, True]
        assert in_thread(flask.has_app_context) is True


@pytest.mark.parametrize("decorate", [suppress_inheritance, suppress_inheritance()], ids=["bare", "called"])
def test_suppress_inheritance_does_not_decorate_generators(decorate: t.Any) -> None:
    def generator() -> t.Iterator[int]:
        yield 1

    async def asynchronous() -> t.AsyncIterator[int]:
        yield 1

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match=r"generator.*'with suppress_inheritance\(\):' in the body"):
            decorate(function)
