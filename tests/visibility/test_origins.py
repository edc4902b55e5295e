"""The place where a thread or task was started, in lists, warnings, signals, and the table."""

from __future__ import annotations

import functools
import io
import queue
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    AppContextThread,
    ThreadPoolWithAppContextExecutor,
    context_inherited,
    copy_current_app_context,
    is_inherited,
    place,
    running,
)

from ..helpers import LIMIT
from .helpers import Gate, Warnings, start

HERE = "tests/visibility/test_origins.py"


def line_of(fn: Callable[..., object], text: str) -> int:
    """The line of this file, in the body of *fn*, that contains *text*."""
    lines = Path(__file__).read_text().splitlines()
    first: int = t.cast(t.Any, fn).__code__.co_firstlineno
    return next(number for number, line in enumerate(lines[first:], first + 1) if text in line)


def origin(*_: object) -> str | None:
    return running()[-1].origin


def by_thread() -> str | None:
    found: queue.Queue[str | None] = queue.Queue()
    thread = threading.Thread(target=lambda: found.put(origin()))
    thread.start()  # here
    return found.get(timeout=LIMIT)


def by_timer() -> str | None:
    found: queue.Queue[str | None] = queue.Queue()
    timer = threading.Timer(0, lambda: found.put(origin()))
    timer.start()  # here
    return found.get(timeout=LIMIT)


class _Own(threading.Thread):
    found: str | None = None

    def run(self) -> None:
        self.found = origin()

    def start_and_join(self) -> None:
        self.start()  # not there, but in the caller: see by_subclass
        self.join(LIMIT)


def by_subclass() -> str | None:
    thread = _Own()
    thread.start()  # here
    thread.join(LIMIT)
    return thread.found


def by_explicit_thread() -> str | None:
    found: queue.Queue[str | None] = queue.Queue()
    thread = AppContextThread(target=lambda: found.put(origin()))
    thread.start()  # here
    return found.get(timeout=LIMIT)


def by_submit() -> str | None:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(origin).result(LIMIT)  # here


def by_explicit_pool() -> str | None:
    with ThreadPoolWithAppContextExecutor(1) as pool:
        return pool.submit(origin).result(LIMIT)  # here


def by_map() -> str | None:
    with ThreadPoolExecutor(1) as pool:
        return next(iter(pool.map(origin, [1])))  # here


def by_thread_pool() -> str | None:
    with ThreadPool(1) as pool:
        return pool.apply_async(origin).get(LIMIT)  # here


def by_thread_pool_map() -> str | None:
    with ThreadPool(1) as pool:
        return pool.map(origin, [1])[0]  # here


def by_callback() -> str | None:
    found: queue.Queue[str | None] = queue.Queue()
    future: Future[None] = Future()
    future.add_done_callback(lambda _: found.put(origin()))  # here
    thread = threading.Thread(target=future.set_result, args=(None,))
    with flaskthreads_autopatch.suppress_inheritance():
        thread.start()
    return found.get(timeout=LIMIT)


def by_copy() -> str | None:
    return copy_current_app_context(origin)()  # here


WAYS = (
    *(by_thread, by_timer, by_subclass, by_explicit_thread, by_submit, by_explicit_pool, by_map, by_thread_pool),
    *(by_thread_pool_map, by_callback, by_copy),
)


@pytest.mark.parametrize("way", WAYS)
def test_the_place_is_where_own_code_starts_it(app: Flask, way: Callable[[], str | None]) -> None:
    flaskthreads_autopatch.install(app, origins=True)
    with app.test_request_context("/orders"):
        found = way()
    assert found is not None
    assert found.endswith(f"{HERE}:{line_of(way, '# here')} in {way.__name__}")


@pytest.mark.parametrize("way", WAYS)
def test_without_the_option_no_place_is_looked_for(
    app: Flask, way: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(own: object) -> t.NoReturn:
        raise AssertionError("The stack was searched.")

    monkeypatch.setattr("flaskthreads_autopatch.capture.place_of_origin", fail)
    flaskthreads_autopatch.install(app)
    with app.test_request_context("/orders"):
        assert way() is None


def test_where_another_package_starts_own_code_the_place_is_the_line_that_calls_the_package(app: Flask) -> None:
    # functools stands for a package: none of its frames is own code.
    flaskthreads_autopatch.install(app, origins=True)
    found: queue.Queue[str | None] = queue.Queue()
    thread = threading.Thread(target=lambda: found.put(origin()))
    with app.app_context():
        functools.reduce(lambda _, start: start(), [thread.start], None)
    text = found.get(timeout=LIMIT)
    assert text is not None and f"{HERE}:" in text and "test_where_another_package" in text


def test_without_own_code_on_the_stack_it_is_the_innermost_frame_outside_of_threads_and_pools() -> None:
    code = compile("def work(): found.append(look(()))", "/opt/lib/site-packages/other.py", "exec")
    found: list[place.Place | None] = []
    other: dict[str, t.Any] = {"__name__": "other", "found": found, "look": place.place_of_origin}
    exec(code, other)
    thread = threading.Thread(target=other["work"])
    thread.start()
    thread.join(LIMIT)
    assert found == [("/opt/lib/site-packages/other.py", 1, "work")]


def test_the_place_is_in_the_warning_which_ends_with_what_to_do(
    app: Flask, gate: Gate, heard: Warnings, no_watcher: None
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.test_request_context("/orders"):
        thread = start(gate)
        assert gate.entered.wait(LIMIT)
    texts = [heard.get(timeout=LIMIT).getMessage()]
    gate.opened.set()
    thread.join(LIMIT)
    texts.append(heard.get(timeout=LIMIT).getMessage())
    for text in texts:
        assert "tests/visibility/helpers.py:" in text and " in start. " in text
        assert text.endswith(
            "If it needs no context, start it in suppress_inheritance() or add"
            f" ignore=['{Gate.__module__}:Gate']; if it may take that long, raise warn_after."
        )


def test_what_the_warning_proposes_works_for_a_class_of_threads(app: Flask) -> None:
    found: list[bool] = []

    class Worker(threading.Thread):
        def run(self) -> None:
            found.append(is_inherited())

    def once() -> None:
        with app.app_context():
            thread = Worker()
            thread.start()
            thread.join(LIMIT)

    flaskthreads_autopatch.install(app)
    once()
    # This is what `_advice` makes of the callable "module:Worker.run".
    flaskthreads_autopatch.install(app, ignore=[f"{__name__}:{Worker.__qualname__}"])
    once()
    assert found == [True, False]


def test_signals_and_the_table_name_the_place(app: Flask) -> None:
    pytest.importorskip("blinker", reason="signals need blinker")
    flaskthreads_autopatch.install(app, origins=True)
    told: list[str | None] = []

    def tell(sender: Flask, *, replay: flaskthreads_autopatch.Replay) -> None:
        told.append(replay.origin)

    def table() -> str:
        out = io.StringIO()
        flaskthreads_autopatch.dump(out)
        return out.getvalue()

    with context_inherited.connected_to(tell, app), app.app_context():
        text = copy_current_app_context(table)()
    assert told[0] is not None and told[0].endswith("in test_signals_and_the_table_name_the_place")
    assert text.splitlines()[1].split()[-2:] == ["started", "at"]
    assert f"{told[0]}\n" in text
    flaskthreads_autopatch.install(app)
    with app.app_context():
        assert "started at" not in copy_current_app_context(table)()
