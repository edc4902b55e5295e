"""`multiprocessing.pool.ThreadPool`: the context that reads its items, and what is held after its end."""

from __future__ import annotations

import contextvars
import gc
import multiprocessing
import signal
import threading
import typing as t
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, appcontext_pushed, g, has_app_context, request

from flaskthreads_autopatch import disable, install, is_inherited, running, suppress_inheritance

from ..helpers import LIMIT, Seen, collectable, user, user_or_none


class Value:
    """An entry of ``g`` that can be watched."""


class Lazy:
    """An iterable that is no iterator, as a query is one."""

    def __iter__(self) -> Iterator[object]:
        return iter([user(), user(), user()])


class LazyAndSized(Lazy):
    """One that tells its length, too: `map` does not read it in the caller's thread."""

    def __len__(self) -> int:
        return 3


class OldSequence:
    def __getitem__(self, index: int) -> object:
        if index == 3:
            raise IndexError
        return user()


class OwnList(list[int]):
    def __iter__(self) -> Iterator[t.Any]:
        return iter(Lazy())


def same(item: object) -> object:
    return item


def generator() -> Iterator[object]:
    for _ in range(3):
        yield user()


ITERABLES: dict[str, Callable[[], Iterable[t.Any]]] = {
    "generator": generator,
    "generator expression": lambda: (user() for _ in range(3)),
    "map": lambda: map(same, generator()),
    "class": Lazy,
    "sized class": LazyAndSized,
    "old sequence": OldSequence,
    "subclass of list": lambda: OwnList([1, 2, 3]),
}

METHODS: dict[str, Callable[[ThreadPool, Iterable[t.Any]], list[object]]] = {
    "imap": lambda pool, items: list(pool.imap(str, items)),
    "imap in chunks": lambda pool, items: list(pool.imap(str, items, 2)),
    "imap by keyword": lambda pool, items: list(pool.imap(func=str, iterable=items, chunksize=2)),
    "imap_unordered": lambda pool, items: list(pool.imap_unordered(str, items)),
    "imap_unordered in chunks": lambda pool, items: list(pool.imap_unordered(str, items, chunksize=2)),
    "map": lambda pool, items: pool.map(str, items),
    "map by keyword": lambda pool, items: pool.map(func=str, iterable=items, chunksize=1),
    "map_async": lambda pool, items: pool.map_async(str, items).get(LIMIT),
    "starmap": lambda pool, items: pool.starmap(lambda *letters: "".join(letters), items),
    "starmap_async": lambda pool, items: pool.starmap_async(lambda *letters: "".join(letters), items).get(LIMIT),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ITERABLES)
def test_h34_what_a_pool_is_given_is_read_in_the_callers_context(installed: Flask, kind: str, method: str) -> None:
    # A pool of its own reads after the length has been asked for: in a thread of the pool's.
    in_the_callers_thread = method.startswith(("map", "starmap")) and not hasattr(ITERABLES[kind](), "__len__")
    with ThreadPool(2) as pool, installed.app_context():
        g.user = "alice"
        assert METHODS[method](pool, ITERABLES[kind]()) == ["alice"] * 3
        disable()
        assert METHODS[method](pool, ITERABLES[kind]()) == ["alice" if in_the_callers_thread else "no context"] * 3


@pytest.mark.parametrize("chunksize", [1, 2])
def test_h34_a_generator_has_one_context_from_its_first_item_to_its_end(installed: Flask, chunksize: int) -> None:
    torn_down: list[object] = []
    installed.teardown_appcontext(lambda exc: torn_down.append((exc, g.get("opened"))))
    threads = set()

    def items() -> Iterator[object]:
        g.opened = 0
        for _ in range(5):
            g.opened += 1
            threads.add(threading.current_thread())
            yield g.user, request.path, is_inherited(), len(torn_down), g.opened

    with ThreadPool(1) as pool:
        with installed.test_request_context("/alices"):
            g.user = "alice"
            found = list(pool.imap(tuple, items(), chunksize))
            assert [item[:3] for item in found] == [("alice", "/alices", True)] * 5
            assert [item[4] for item in found] == [1, 2, 3, 4, 5]
            assert "opened" not in g
        assert torn_down.count((None, 5)) == 1
        (thread,) = threads
        assert thread is not threading.current_thread()
        # The pool's own thread, which reads everybody's items, has kept nothing of it.
        assert list(pool.imap(bool, (has_app_context() for _ in range(2)), chunksize)) == [False, False]


def test_h34_imap_stays_as_lazy_as_it_is_without_us(installed: Flask) -> None:
    def outcomes() -> list[object]:
        asked, seen = threading.Semaphore(0), []
        with ThreadPool(1) as pool, installed.app_context():
            g.user = "alice"

            def endless() -> Iterator[int]:
                number = 0
                while asked.acquire(timeout=LIMIT):
                    if stop.is_set():
                        return
                    yield number
                    number += 1

            stop = threading.Event()
            results = pool.imap(lambda number: (number, user()), endless())
            with pytest.raises(multiprocessing.TimeoutError):
                results.next(timeout=0)  # type: ignore[attr-defined]
            for _ in range(3):
                asked.release()
                seen.append(next(results))
            stop.set()
            asked.release()
            seen.append(next(results, "end"))
        return seen

    assert outcomes() == [(0, "alice"), (1, "alice"), (2, "alice"), "end"]
    disable()
    assert outcomes() == [(0, "no context"), (1, "no context"), (2, "no context"), "end"]


class Broken(Exception):
    pass


@pytest.mark.parametrize("chunksize", [1, 2])
def test_h34_what_an_iterable_raises_comes_as_it_does_without_us(installed: Flask, chunksize: int) -> None:
    handed: list[BaseException | None] = []
    installed.teardown_appcontext(handed.append)

    def items() -> Iterator[int]:
        yield from (1, 2)
        raise Broken("in the third")

    def outcomes(method: str, items: t.Any) -> list[str]:
        found = []
        results = getattr(pool, method)(str, items, chunksize)
        for _ in range(5):
            try:
                found.append(next(results))
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
        return found

    with ThreadPool(1) as pool, installed.app_context():
        for method in ("imap", "imap_unordered"):
            install(installed)
            handed.clear()
            on = outcomes(method, items())
            not_iterable = outcomes(method, 5)
            assert [str(exc) for exc in handed if exc is not None] == ["in the third", "'int' object is not iterable"]
            disable()
            assert on == outcomes(method, items())
            assert "Broken: in the third" in on
            assert not_iterable == outcomes(method, 5)
            assert not_iterable[0] == "TypeError: 'int' object is not iterable"


def test_h34_wrong_arguments_are_refused_as_without_us(installed: Flask) -> None:
    def outcomes(*args: t.Any, **kwargs: t.Any) -> list[str]:
        found = []
        for method in ("imap", "imap_unordered", "map", "starmap", "map_async", "starmap_async"):
            with pytest.raises((TypeError, ValueError)) as caught:
                getattr(pool, method)(*args, **kwargs)
            found.append(str(caught.value))
        return found

    calls: list[tuple[tuple[t.Any, ...], dict[str, t.Any]]] = [
        ((), {}),
        ((str,), {}),
        ((), {"iterable": [1]}),
        ((str, [1]), {"no_such": 1}),
    ]
    with ThreadPool(1) as pool, installed.app_context():
        for args, kwargs in calls:
            install(installed)
            on = outcomes(*args, **kwargs)
            disable()
            assert on == outcomes(*args, **kwargs)
        for method in (pool.imap, pool.imap_unordered):
            install(installed)
            with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
                method(str, [1], 0)


def test_h34_a_generator_under_suppression_is_read_without_a_context(installed: Flask) -> None:
    with ThreadPool(1) as pool, installed.app_context():
        g.user = "alice"
        with suppress_inheritance():
            assert list(pool.imap(str, generator())) == ["no context"] * 3


def test_h34_a_generator_of_a_function_that_is_ignored_is_read_in_the_callers_context(app: Flask) -> None:
    install(app, ignore=[f"{__name__}:ignored"])
    with ThreadPool(1) as pool, app.app_context():
        g.user = "alice"
        assert list(pool.imap(ignored, generator())) == [("alice", "no context")] * 3
        assert pool.map(ignored, LazyAndSized()) == [("alice", "no context")] * 3


def ignored(item: str) -> tuple[str, str]:
    return item, user()


def test_h34_items_that_are_there_are_read_without_a_context(installed: Flask) -> None:
    """None is pushed for them."""
    pushed: list[object] = []
    with ThreadPool(1) as pool, installed.app_context():
        g.user = "alice"
        with appcontext_pushed.connected_to(lambda *args, **kwargs: pushed.append(args), installed):
            for items in ([1, 2], (1, 2), {1: 0, 2: 0}, {1, 2}, range(2), {1: 0, 2: 0}.values(), deque((1, 2)), "12"):
                pushed.clear()
                assert len(pool.map(str, items)) == len(list(pool.imap(str, items))) == 2
                assert len(pushed) == 4


def test_h34_the_reading_of_a_generator_is_visible(installed: Flask) -> None:
    reading, go = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        reading.set()
        go.wait(LIMIT)
        yield 1

    with ThreadPool(1) as pool, installed.test_request_context("/alices"):
        results = pool.imap(str, slow())
        assert reading.wait(LIMIT)
        (replay,) = running()
        assert replay.callable == f"{__name__}:{slow.__qualname__}"
        assert (replay.kind, replay.path) == ("task", "/alices")
        go.set()
        assert list(results) == ["1"]


def test_h34_a_generator_that_the_caller_keeps_is_not_closed_by_a_pool_that_is_terminated(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def outcome() -> str:
        read, closed = threading.Event(), []

        def items() -> Iterator[int]:
            try:
                for number in range(1_000_000):
                    read.set()
                    yield number
            finally:
                closed.append(True)

        kept = items()
        pool = ThreadPool(1)
        try:
            pool.imap(abs, kept)
            assert read.wait(LIMIT)
        finally:
            pool.terminate()
            pool.join()
        return "closed" if closed else "open"

    torn_down: list[object] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(exc) if is_inherited() else None)
    with installed.app_context():
        on = outcome()
        assert torn_down
        assert set(torn_down) == {None}
        assert caplog.records == []
        disable()
        assert on == outcome() == "open"


# What is kept


def failing(number: object) -> t.NoReturn:
    assert has_app_context()
    raise Broken


def failing_items() -> Iterator[int]:
    assert has_app_context()
    yield 1
    raise Broken


def exhausted(results: t.Any) -> t.Any:
    errors = []
    while True:
        try:
            next(results)
        except StopIteration:
            return results, errors
        except Broken as error:
            errors.append(error)


class FailingAndSized:
    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        assert has_app_context()
        raise Broken


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Broken) as caught:
        call()
    return caught.value


KEPT: dict[str, Callable[[ThreadPool], t.Any]] = {
    "imap": lambda pool: exhausted(pool.imap(str, iter([1, 2, 3]))),
    "imap that fails": lambda pool: exhausted(pool.imap(failing, [1, 2, 3])),
    "imap in chunks": lambda pool: exhausted(pool.imap(str, [1, 2, 3], 2)),
    "imap in chunks that fails": lambda pool: exhausted(pool.imap(failing, [1, 2, 3], 3)),
    "imap_unordered in chunks that fails": lambda pool: exhausted(pool.imap_unordered(failing, iter([1, 2, 3]), 3)),
    "imap of items that fail": lambda pool: exhausted(pool.imap(str, failing_items())),
    "imap of items that fail, in chunks": lambda pool: exhausted(pool.imap(str, failing_items(), 2)),
    "map of items that fail": lambda pool: raised(lambda: pool.map(str, FailingAndSized())),
    "map_async of items that fail": lambda pool: raised(lambda: pool.map_async(str, FailingAndSized()).get(LIMIT)),
}


@pytest.mark.parametrize("way", KEPT)
def test_a_kept_exception_of_imap_holds_nothing(installed: Flask, way: str) -> None:
    with ThreadPool(1) as pool:
        with installed.test_request_context("/watched"):
            g.value = Value()
            refs = weakref.ref(g.value), weakref.ref(request._get_current_object())
            kept = KEPT[way](pool)
        pool.apply(int)
        list(pool.imap(abs, [1]))
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
        assert kept


def stuck(pool: ThreadPool) -> tuple[threading.Event, threading.Event]:
    """Keep the pool's only worker busy until the second event is set."""
    busy, go = threading.Event(), threading.Event()
    pool.apply_async(lambda: (busy.set(), go.wait(LIMIT)))
    assert busy.wait(LIMIT)
    return busy, go


def ignore(outcome: object) -> None:
    assert has_app_context()


PENDING: dict[str, Callable[[ThreadPool], t.Any]] = {
    "apply_async": lambda pool: pool.apply_async(ignore, (1,)),
    "apply_async with callbacks": lambda pool: pool.apply_async(ignore, (1,), callback=ignore, error_callback=ignore),
    "map_async": lambda pool: pool.map_async(ignore, range(10)),
    "map_async of a lazy one": lambda pool: pool.map_async(ignore, LazyAndSized(), callback=ignore),
    "starmap_async": lambda pool: pool.starmap_async(ignore, [(1,)], callback=ignore),
    "imap": lambda pool: pool.imap(ignore, range(10)),
    "imap of a generator": lambda pool: pool.imap(ignore, generator()),
    "imap in chunks": lambda pool: pool.imap(ignore, range(10), 3),
    "imap_unordered": lambda pool: pool.imap_unordered(ignore, generator(), 3),
}


@pytest.mark.parametrize("end", ["terminate", "with", "twice"])
@pytest.mark.parametrize("way", PENDING)
def test_a_kept_result_of_a_terminated_pool_holds_nothing(installed: Flask, way: str, end: str) -> None:
    pool = ThreadPool(1)
    go = threading.Event()
    try:
        _, go = stuck(pool)
        with installed.test_request_context("/watched"):
            g.value = Value()
            refs = weakref.ref(g.value), weakref.ref(request._get_current_object())
            # More than the pool's own thread gets to put before the pool is terminated.
            kept = [PENDING[way](pool) for _ in range(3)]
            if end == "with":
                with pool:
                    pass
            else:
                pool.terminate()
        if end == "twice":
            pool.terminate()
    finally:
        go.set()
        pool.terminate()
        pool.join()
    assert collectable(*refs)
    assert kept


def test_thread_pool_methods(installed: Flask) -> None:
    def pair(a: object, b: object) -> str:
        return user()

    def one(a: object) -> str:
        return user()

    with ThreadPool(2) as pool, installed.app_context():
        g.user = "alice"
        assert pool.apply(user) == "alice"
        assert pool.apply_async(user).get(LIMIT) == "alice"
        assert pool.apply_async(func=pair, args=(1,), kwds={"b": 2}).get(LIMIT) == "alice"
        for method in (pool.map, pool.imap, pool.imap_unordered):
            assert list(method(one, range(3))) == ["alice"] * 3
            assert list(method(one, range(5), chunksize=2)) == ["alice"] * 5
        assert pool.map_async(one, range(3)).get(LIMIT) == ["alice"] * 3
        assert pool.starmap(pair, [(1, 2), (3, 4)]) == ["alice"] * 2
        assert pool.starmap_async(pair, [(1, 2)]).get(LIMIT) == ["alice"]
    with ThreadPool(1) as pool:
        assert pool.apply(user) == "no context"


def test_thread_pool_callbacks(installed: Flask) -> None:
    def fails() -> None:
        raise ValueError(g.user)

    with ThreadPool(2) as pool, installed.app_context():
        g.user = "alice"
        results: list[Future[str]] = [Future() for _ in range(4)]
        pool.apply_async(user, callback=lambda _: results[0].set_result(user()))
        pool.apply_async(fails, (), {}, None, lambda _: results[1].set_result(user()))
        pool.map_async(len, ["a"], None, lambda _: results[2].set_result(user()))
        pool.starmap_async(pow, [(1, 2)], callback=lambda _: results[3].set_result(user()))
        assert [result.result(LIMIT) for result in results] == ["alice"] * 4


def test_a_kept_result_of_a_thread_pool_holds_nothing(installed: Flask) -> None:
    class Entry:
        pass

    with ThreadPool(1) as pool:
        done = threading.Event()
        with installed.app_context():
            g.entry = Entry()
            dead = weakref.ref(g.entry)
            kept = [
                pool.apply_async(user_or_none, callback=lambda _: None),
                pool.map_async(len, ["a"], callback=lambda _: done.set()),
            ]
            assert done.wait(LIMIT)
        pool.apply(len, ("",))
        assert collectable(dead)
        assert all(result.ready() for result in kept)


def test_process_pools_are_left_alone(installed: Flask) -> None:
    with installed.app_context():
        g.user = lambda: "cannot be pickled"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(len, ["ab"]) == [2]
            assert pool.apply(len, ("abc",)) == 3


def test_an_ignored_function_of_a_pool_whose_callback_inherits(installed: Flask) -> None:
    seen = Seen()
    with installed.app_context(), ThreadPool(1) as pool:
        g.user = "alice"
        run = contextvars.Context().run
        assert pool.apply_async(run, (user,), callback=seen.note).get(LIMIT) == "no context"
    assert seen == ["alice"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no setitimer here")
def test_a_map_that_a_signal_interrupts_goes_on_with_its_context(installed: Flask) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*args: object) -> None:
        if started.is_set() and not interrupted.is_set():
            interrupted.set()
            raise Interrupted

    def work(number: int) -> None:
        started.set()
        assert interrupted.wait(LIMIT)
        seen.note()
        done.release()

    seen, started, interrupted, done = Seen(), threading.Event(), threading.Event(), threading.Semaphore(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    # Again and again: one that comes just before the wait does not end it.
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with ThreadPool(1) as pool, installed.app_context():
            g.user = "alice"
            with pytest.raises(Interrupted):
                pool.map(work, range(2))
            assert done.acquire(timeout=LIMIT)
            assert done.acquire(timeout=LIMIT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen == ["alice", "alice"]
