"""What a patched method is not: docs/inheritance.md, "Patched methods cannot be pickled or copied"."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from types import MethodType
from typing import Any

import pytest
from blinker import Namespace
from flask import Flask

from flaskthreads_autopatch import disable, install

OF_A_CLASS = (threading.Thread, "start"), (ThreadPoolExecutor, "submit"), (Future, "add_done_callback")


@pytest.fixture
def methods() -> Iterator[list[tuple[Any, str]]]:
    with ThreadPoolExecutor(1) as executor, ThreadPool(1) as pool:
        yield [
            (threading.Thread(target=int), "start"),
            (executor, "submit"),
            (Future(), "add_done_callback"),
            (pool, "apply_async"),
        ]


def outcome(call: Callable[[Any], object], owner: Any, name: str) -> object:
    """What *call* does with an attribute that is read anew, or the text of what it raises."""
    try:
        return call(getattr(owner, name))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (copy.copy, "NotImplementedError: object proxy must define __copy__()"),
        (lambda method: weakref.WeakMethod(method)(), "TypeError: "),
    ],
    ids=["copy", "WeakMethod"],
)
def test_a_patched_method_can_be_neither_copied_nor_kept_by_a_weak_method(
    app: Flask, methods: list[tuple[Any, str]], call: Callable[[Any], object], message: str
) -> None:
    for owner, name in methods:
        install(app)
        assert message in str(outcome(call, owner, name))
        disable()
        assert outcome(call, owner, name) == getattr(owner, name)


@pytest.mark.parametrize("call", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda call: call.__name__)
def test_a_patched_function_of_a_class_can_be_neither_pickled_nor_copied(
    app: Flask, call: Callable[[Any], object]
) -> None:
    for owner, name in OF_A_CLASS:
        install(app)
        assert "NotImplementedError: object proxy must define __" in str(outcome(call, owner, name))
        disable()
        assert "object proxy" not in str(outcome(call, owner, name))


def test_the_ways_out_hold(app: Flask, methods: list[tuple[Any, str]]) -> None:
    """A function of one's own that calls the method, and a weak reference to the object."""
    thread, _ = methods[0]

    def start(thread: threading.Thread) -> None:
        thread.start()

    install(app)
    copy.deepcopy(start)(thread)
    thread.join()
    weak = weakref.ref(thread)
    assert weak().start == thread.start
    # blinker keeps a bound method by a weak method, unless it is told not to.
    signal, received = Namespace().signal("tests"), threading.Thread(target=int)
    signal.connect(lambda sender: received.start(), weak=False)
    signal.send(app)
    received.join()


def test_what_else_looks_at_a_patched_method_sees_what_it_sees_without_us(
    app: Flask, methods: list[tuple[Any, str]]
) -> None:
    calls: list[Callable[[Any], object]] = [
        inspect.ismethod,
        inspect.signature,
        lambda method: isinstance(method, MethodType),
        lambda method: MethodType(method.__func__, method.__self__) == method,
        lambda method: hash(method),
        lambda method: method in {method},
        lambda method: method.__name__ + method.__qualname__ + method.__module__ + method.__doc__,
        lambda method: functools.partial(method).func == method,
        lambda method: weakref.ref(method)() is method,
    ]
    for owner, name in methods:
        for call in calls:
            install(app)
            on = outcome(call, owner, name)
            disable()
            assert on == outcome(call, owner, name)
