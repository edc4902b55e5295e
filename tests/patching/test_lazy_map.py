"""``Executor.map(..., buffersize=)``, since Python 3.14: tasks are submitted while the results are read (H34)."""

from __future__ import annotations

import contextvars
import gc
import inspect
import sys
import threading
import typing as t
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from flask import Flask, g, has_app_context, request

from flaskthreads_autopatch import (
    ThreadPoolWithAppContextExecutor,
    disable,
    install,
    is_inherited,
    running,
    suppress_inheritance,
)

from ..helpers import LIMIT, collectable, user

pytestmark = [
    pytest.mark.python314,
    pytest.mark.skipif(sys.version_info < (3, 14), reason="buffersize= came with Python 3.14"),
]


class Value:
    """An entry of ``g`` that can be watched."""


class Broken(Exception):
    pass


class Plain(ThreadPoolExecutor):
    """A subclass."""


class Wrapping(ThreadPoolExecutor):
    """A subclass that submits a function of its own, as many do that log or measure."""

    def submit(self, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
        return super().submit(lambda: fn(*args, **kwargs))


class OwnMap(ThreadPoolExecutor):
    def map(self, fn: Callable[..., t.Any], *iterables: t.Any, **kwargs: t.Any) -> Iterator[t.Any]:
        return super().map(fn, *iterables, **kwargs)


EXECUTORS = {cls.__name__: cls for cls in (ThreadPoolExecutor, Plain, Wrapping, OwnMap)}
READERS = ["bob", "the same", "nobody", "another thread"]


def read(app: Flask, results: Iterator[t.Any], reader: str) -> list[t.Any]:
    if reader == "bob":
        with app.test_request_context("/bobs"):
            g.user = "bob"
            return list(results)
    if reader == "another thread":
        found: list[t.Any] = []
        thread = threading.Thread(target=lambda: found.extend(results))
        thread.start()
        thread.join(LIMIT)
        return found
    return list(results)


def look(number: int) -> tuple[str, bool, str | None]:
    return user(), is_inherited(), request.path if has_app_context() else None


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", EXECUTORS)
def test_h34_one_map_has_one_context(installed: Flask, kind: str, reader: str) -> None:
    with EXECUTORS[kind](2) as pool:
        with installed.test_request_context("/alices"):
            g.user = "alice"
            results = pool.map(look, range(6), buffersize=2)
            if reader == "the same":
                assert list(results) == [("alice", True, "/alices")] * 6
        if reader != "the same":
            assert read(installed, results, reader) == [("alice", True, "/alices")] * 6


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("made", ["outside", "suppressed", "not installed"])
def test_h34_a_map_without_a_context_has_none_whoever_reads_it(installed: Flask, made: str, kind: str) -> None:
    def results() -> Iterator[tuple[str, bool, str | None]]:
        if made == "outside":
            return pool.map(look, range(6), buffersize=2)
        app = installed if made == "suppressed" else Flask("other")
        with app.test_request_context("/alices"), suppress_inheritance():
            g.user = "alice"
            return pool.map(look, range(6), buffersize=2)

    with EXECUTORS[kind](2) as pool:
        # Where threads inherit context variables by themselves, the workers are started outside of a context.
        barrier = threading.Barrier(2)
        for future in [pool.submit(barrier.wait, LIMIT) for _ in range(2)]:
            future.result(LIMIT)
        assert read(installed, results(), "bob") == [("no context", False, None)] * 6
        disable()
        assert read(installed, results(), "bob") == [("no context", False, None)] * 6


def test_h34_without_buffersize_the_map_submits_at_once(installed: Flask) -> None:
    with ThreadPoolExecutor(2) as pool:
        with installed.test_request_context("/alices"):
            g.user = "alice"
            results = pool.map(look, range(6)), pool.map(look, range(6), buffersize=None)
        assert [read(installed, each, "bob") for each in results] == [[("alice", True, "/alices")] * 6] * 2


@pytest.mark.parametrize("cls", [ThreadPoolExecutor, ThreadPoolWithAppContextExecutor])
def test_h34_without_buffersize_each_task_has_the_context_at_its_submit(
    installed: Flask, cls: type[ThreadPoolExecutor]
) -> None:
    def items() -> Iterator[str]:
        for g.user in ("alice", "bob", "carol"):
            yield g.user

    with cls(1) as pool, installed.app_context():
        g.user = "nobody"
        assert list(pool.map(lambda item: (item, user()), items())) == [
            (name, name) for name in ("alice", "bob", "carol")
        ]
        g.user = "nobody"
        found = list(pool.map(lambda item: (item, user()), items(), buffersize=1))
        assert found == [(name, "nobody") for name in ("alice", "bob", "carol")]


def test_h34_the_items_are_read_where_the_results_are(installed: Flask) -> None:
    """As without us: the view's own generator may keep its database session on the view's own ``g``."""

    def outcome() -> list[tuple[str, str, int]]:
        main = threading.get_ident()

        def items() -> Iterator[tuple[str, str]]:
            for _ in range(4):
                g.read = g.get("read", 0) + 1
                yield user(), "here" if threading.get_ident() == main else "elsewhere"

        with ThreadPoolExecutor(1) as pool, installed.app_context():
            g.user = "alice"
            found = list(pool.map(lambda item: item, items(), buffersize=1))
            return [(*item, g.read) for item in found]

    assert outcome() == [("alice", "here", 4)] * 4
    disable()
    assert outcome() == [("alice", "here", 4)] * 4


def test_h34_what_the_items_submit_is_not_the_maps(installed: Flask) -> None:
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:

        def items() -> Iterator[str]:
            for _ in range(4):
                yield other.submit(user).result(LIMIT)

        with installed.app_context():
            g.user = "alice"
            results = pool.map(lambda item: (item, user()), items(), buffersize=1)
        assert read(installed, results, "bob") == [("alice", "alice")] + [("bob", "alice")] * 3
        with installed.app_context():
            g.user = "alice"
            chained = pool.map(lambda item: (item, user()), other.map(lambda _: user(), range(3), buffersize=1))
            results = pool.map(lambda item: (item, user()), chained, buffersize=1)
        assert read(installed, results, "bob") == [(("alice", "alice"), "alice")] * 3


def test_h34_what_another_thread_submits_meanwhile_is_not_the_maps(installed: Flask) -> None:
    reading, go = threading.Event(), threading.Event()

    def work(number: int) -> str:
        if number:
            reading.set()
            assert go.wait(LIMIT)
        return user()

    def read_results() -> None:
        assert list(results) == ["alice"] * 3

    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        with installed.app_context():
            g.user = "alice"
            results = pool.map(work, range(3), buffersize=1)
        read_by = ThreadPoolExecutor(1)
        done = read_by.submit(read_results)
        assert reading.wait(LIMIT)
        with installed.app_context():
            g.user = "bob"
            assert other.submit(user).result(LIMIT) == "bob"
        assert other.submit(user).result(LIMIT) == "no context"
        go.set()
        done.result(LIMIT)
        read_by.shutdown()


def test_h34_a_copy_of_the_readers_context_variables_does_not_belong_to_the_map(installed: Flask) -> None:
    """As a thread has one that is started in ``submit()`` and inherits context variables by itself."""
    copies: list[contextvars.Context] = []

    class Copying(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            copies.append(contextvars.copy_context())
            if len(copies) > 1:
                found.append(fresh(contextvars.copy_context()).result(LIMIT))
            return super().submit(fn, *args, **kwargs)

    class Hooked(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            found.append(copies[1].run(other.submit, user).result(LIMIT))
            return super().submit(fn, *args, **kwargs)

    def fresh(context: contextvars.Context) -> Future[str]:
        starter = ThreadPoolExecutor(1)
        future = starter.submit(lambda: context.run(other.submit, user).result(LIMIT))
        starter.shutdown()
        return future

    found: list[str] = []
    with Copying(1) as pool, ThreadPoolExecutor(1) as other:
        with installed.app_context():
            g.user = "alice"
            results = pool.map(lambda _: user(), range(3), buffersize=1)
        with installed.app_context():
            g.user = "bob"
            assert next(results) == "alice"
            assert copies[1].run(other.submit, user).result(LIMIT) == "bob"
        # The same while another map submits.
        with Hooked(1) as hooked:
            list(hooked.map(abs, [1], buffersize=1))
        assert found == ["bob", "bob"]


def test_h34_an_executor_that_hands_on_to_one_of_ours(installed: Flask) -> None:
    class HandingOn(Executor):
        def submit(self, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            return inner.submit(fn, *args, **kwargs)

    with ThreadPoolExecutor(1) as inner:
        with installed.app_context():
            g.user = "alice"
            executor = HandingOn()
            results = executor.map(lambda _: user(), range(4), buffersize=1)
        assert read(installed, results, "bob") == ["alice"] * 4
        # As without us, the results do not keep the executor, and end with what it has taken.
        for _ in ("on", "off"):
            found = list(HandingOn().map(lambda number: number, range(4), buffersize=1))
            assert found == [0]
            disable()


def test_h34_an_executor_that_runs_in_place_runs_in_the_callers_own_context(installed: Flask) -> None:
    class InPlace(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            future: Future[t.Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    def outcome() -> int:
        def work(number: int) -> None:
            g.worked = g.get("worked", 0) + 1

        with InPlace(1) as pool, installed.app_context():
            list(pool.map(work, range(4), buffersize=2))
            return t.cast(int, g.worked)

    assert outcome() == 4
    disable()
    assert outcome() == 4


@pytest.mark.parametrize("kwargs", [{"buffersize": 0}, {"buffersize": "two"}, {"buffersize": 2, "no_such": 1}])
def test_h34_wrong_arguments_are_refused_as_without_us(installed: Flask, kwargs: dict[str, t.Any]) -> None:
    def outcome(cls: type[ThreadPoolExecutor]) -> str:
        with cls(1) as pool, installed.app_context(), pytest.raises((TypeError, ValueError)) as caught:
            pool.map(int, [1], **kwargs)
        return repr(caught.value)

    on = outcome(ThreadPoolExecutor)
    assert on == outcome(ThreadPoolWithAppContextExecutor)
    disable()
    assert on == outcome(ThreadPoolExecutor) == outcome(ThreadPoolWithAppContextExecutor)


def test_h34_a_map_looks_and_ends_as_without_us(installed: Flask) -> None:
    def outcome() -> list[object]:
        started = threading.Semaphore(0)

        def work(number: int) -> int:
            started.release()
            if number == 2:
                raise Broken(number)
            return number

        with ThreadPoolExecutor(1) as pool, installed.app_context():
            results = pool.map(work, range(9), buffersize=2)
            found: list[object] = [inspect.isgenerator(results), next(results), next(results)]
            with pytest.raises(Broken) as caught:
                next(results)
            found.append(caught.value.args)
            found.append(next(results, "end"))
            closed = pool.map(work, range(9), buffersize=2)
            closed.close()  # type: ignore[attr-defined]
            found.append(next(closed, "end"))
            found.append(list(pool.map(work, [], buffersize=2)))
            found.append(list(pool.map(work, buffersize=2)))
            found.append(list(pool.map(pow, [1, 2], [3, 4, 5], buffersize=2)))
            with pytest.raises(TypeError) as not_iterable:
                pool.map(work, 5, buffersize=1)  # type: ignore[arg-type]
            with pytest.raises(TypeError) as no_function:
                pool.map(buffersize=1)  # type: ignore[call-arg]
        with pytest.raises(RuntimeError) as refused:
            pool.map(work, [1], buffersize=1)
        return [*found, str(not_iterable.value), str(no_function.value), str(refused.value)]

    on = outcome()
    disable()
    assert on == outcome()
    assert on[:5] == [True, 0, 1, (2,), "end"]


def test_h34_a_map_that_is_given_up_is_cancelled_as_without_us(installed: Flask) -> None:
    def outcome() -> list[int]:
        ran, begun, go = [], threading.Event(), threading.Event()

        def work(number: int) -> None:
            if number:
                begun.set()
                assert go.wait(LIMIT)
            ran.append(number)

        with ThreadPoolExecutor(1) as pool, installed.app_context():
            results = pool.map(work, range(5), buffersize=4)
            next(results)
            assert begun.wait(LIMIT)
            with pytest.raises(Broken) as kept:
                results.throw(Broken())  # type: ignore[attr-defined]
            go.set()
            pool.submit(int).result(LIMIT)
            del kept
        return ran

    on = outcome()
    disable()
    assert on == outcome() == [0, 1]


def process_pools_task(number: int) -> int:
    return number * 2


def test_h34_process_pools_are_left_alone(installed: Flask) -> None:
    import multiprocessing

    with installed.app_context(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        g.user = lambda: "cannot be pickled"
        assert list(pool.map(process_pools_task, range(3), buffersize=1)) == [0, 2, 4]


def test_h34_interpreter_pools_are_left_alone(installed: Flask) -> None:
    from concurrent.futures import InterpreterPoolExecutor

    with installed.app_context(), InterpreterPoolExecutor(1) as pool:
        g.user = lambda: "cannot be shared"
        assert list(pool.map(abs, range(3), buffersize=1)) == [0, 1, 2]


def test_h34_an_executor_that_is_not_one_of_ours_is_left_alone(installed: Flask) -> None:
    seen = []

    class Other(Executor):
        def submit(self, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
            seen.append(fn)
            future: Future[t.Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    with installed.app_context():
        list(Other().map(look_simply, range(3), buffersize=2))
    assert {type(fn) for fn in seen} == {type(look_simply)}


def look_simply(number: int) -> None:
    assert has_app_context()


# The explicit executor


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("reader", READERS)
def test_h34_the_explicit_executor(app: Flask, reader: str, on: bool) -> None:
    if on:
        install(app)
    replays: list[int] = []

    def work(number: int) -> tuple[str, bool, str | None]:
        replays.append(sum(replay.thread_ident == threading.get_ident() for replay in running()))
        return look(number)

    with ThreadPoolWithAppContextExecutor(2) as pool:
        with app.test_request_context("/alices"):
            g.user = "alice"
            results = pool.map(work, range(6), buffersize=2)
            if reader == "the same":
                assert list(results) == [("alice", True, "/alices")] * 6
        if reader != "the same":
            assert read(app, results, reader) == [("alice", True, "/alices")] * 6
    assert replays == [1] * 6


@pytest.mark.parametrize("on", [True, False])
def test_h34_the_explicit_executor_outside_a_context(app: Flask, on: bool) -> None:
    if on:
        install(app)
    with app.app_context():
        g.user = "alice"
        made_in = ThreadPoolWithAppContextExecutor(1)
    with made_in as pool:
        results = pool.map(lambda number: user(), range(4), buffersize=1)
        assert read(app, results, "bob") == ["alice"] * 4
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(look, range(4), buffersize=1)
    with (
        ThreadPoolWithAppContextExecutor(1) as pool,
        pytest.raises(RuntimeError, match=r"map\(\) needs an app context"),
    ):
        pool.map(look, range(4), buffersize=1)


# What is kept


def fail(number: int) -> None:
    assert has_app_context()
    if number == 3:
        raise Broken


def items_that_fail(at: int) -> Iterator[int]:
    yield from range(at)
    raise Broken


def raised(call: Callable[[], object]) -> Broken:
    with pytest.raises(Broken) as caught:
        call()
    return caught.value


KEPT: dict[str, Callable[[ThreadPoolExecutor], object]] = {
    "read to its end": lambda pool: [results := pool.map(look, range(6), buffersize=2), list(results)],
    "a task fails": lambda pool: [results := pool.map(fail, range(9), buffersize=2), raised(lambda: list(results))],
    "the items fail at once": lambda pool: raised(lambda: pool.map(look, items_that_fail(1), buffersize=2)),
    "the items fail later": lambda pool: raised(lambda: list(pool.map(look, items_that_fail(4), buffersize=2))),
    "closed": lambda pool: [results := pool.map(look, range(6), buffersize=2), next(results), results.close()],  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("cls", [ThreadPoolExecutor, Wrapping, ThreadPoolWithAppContextExecutor])
@pytest.mark.parametrize("way", KEPT)
def test_h34_what_is_kept_of_a_map_holds_nothing(installed: Flask, way: str, cls: type[ThreadPoolExecutor]) -> None:
    with cls(1) as pool:
        with installed.test_request_context("/watched"):
            g.value, g.user = Value(), "alice"
            refs = weakref.ref(g.value), weakref.ref(request._get_current_object())
            kept = KEPT[way](pool)
            if cls is ThreadPoolWithAppContextExecutor:
                pool.submit(int).result(LIMIT)
        if cls is not ThreadPoolWithAppContextExecutor:
            pool.submit(int).result(LIMIT)
        gc.collect()
        assert collectable(*refs)
        assert kept is not None


def test_h34_what_runs_when_a_map_is_given_up_keeps_its_context(installed: Flask) -> None:
    """The task that fails ends the map. Another one, which a worker has begun, goes on."""
    found: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number:
            begun.set()
            assert go.wait(LIMIT)
            found.append(user())
        else:
            assert begun.wait(LIMIT)
            raise Broken

    with Wrapping(2) as pool:
        with installed.app_context():
            g.user = "alice"
            kept = raised(lambda: list(pool.map(work, [0, 1], buffersize=2)))
        go.set()
    assert found == ["alice"]
    assert kept
