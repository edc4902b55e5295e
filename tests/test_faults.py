"""What goes wrong in production: no threads left, handlers and receivers that raise, exits, and races."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.pool import ThreadPool
from typing import NoReturn

import pytest
from flask import (
    Flask,
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
)
from flask.signals import Namespace

import flaskthreads_autopatch
from flaskthreads_autopatch import AppContextThread, ThreadPoolWithAppContextExecutor, flask_context
from flaskthreads_autopatch.patching.bound_run import kept
from flaskthreads_autopatch.visibility import overdue

from .helpers import LIMIT, changed


def join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


# No more threads to be had

Refuse = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def no_more_threads() -> Iterator[Refuse]:
    """Inside, the operating system refuses every new thread: none has room for a stack of this size."""
    if (watcher := overdue._state.watcher) is not None and watcher.is_alive():
        join(watcher)  # Of an earlier test. As long as it lives, none is started.

    @contextmanager
    def refuse() -> Iterator[None]:
        before = threading.stack_size(1 << 60)
        try:
            yield
        finally:
            threading.stack_size(before)

    yield refuse
    threading.stack_size(0)


class Own(threading.Thread):
    """A thread with a run() of its own."""

    seen: object = None

    def run(self) -> None:
        self.seen = g.get("user") if has_app_context() else "nothing"


def state_of(thread: threading.Thread) -> dict[str, object]:
    """What a thread holds, but for what Python itself leaves there when a start fails (its own context, since 3.14)."""
    return {name: value for name, value in vars(thread).items() if name != "_context"}


def start_again(thread: threading.Thread, can_start_again: bool) -> bool:
    """Start a thread whose first start has failed, if Python can."""
    if can_start_again:
        thread.start()
        join(thread)
    else:
        with pytest.raises(RuntimeError, match="thread already started"):
            thread.start()
    return can_start_again


@pytest.fixture
def can_start_again(no_more_threads: Refuse) -> bool:
    """Whether Python itself can start a thread whose first start has failed: 3.13 and 3.14 cannot."""
    thread = threading.Thread()
    with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        thread.start()
    try:
        thread.start()
    except RuntimeError:
        return False
    join(thread)
    return True


def test_a_capture_is_not_kept_from_its_work_where_nobody_can_watch(
    app: Flask, no_more_threads: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    with app.app_context():
        g.user = "alice"
        with no_more_threads():
            replay = flaskthreads_autopatch.copy_current_app_context(lambda: g.user)
        assert [record.getMessage() for record in caplog.records] == [
            "warn_after: the thread that watches could not be started: can't start new thread."
        ]
        # The next one has it started.
        flaskthreads_autopatch.copy_current_app_context(int)
        watcher = overdue._state.watcher
        assert watcher is not None
    assert replay() == "alice"
    del replay
    join(watcher)


def test_h36_a_capture_is_not_kept_from_its_work_where_that_cannot_be_logged(
    app: Flask, no_more_threads: Refuse
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError(record.getMessage())

    logger, handler = logging.getLogger("flaskthreads_autopatch"), Broken()
    logger.addHandler(handler)
    flaskthreads_autopatch.install(app, warn_after=0.01)
    try:
        with app.app_context():
            g.user = "alice"
            with no_more_threads():
                replay = flaskthreads_autopatch.copy_current_app_context(lambda: g.user)
    finally:
        logger.removeHandler(handler)
    assert replay() == "alice"


@pytest.mark.parametrize("made_inside", [True, False])
def test_a_start_that_fails_leaves_the_thread_as_it_was(
    installed: Flask,
    no_more_threads: Refuse,
    can_start_again: bool,
    made_inside: bool,
) -> None:
    thread = Own()
    with installed.app_context():
        g.user = "alice"
        if made_inside:
            thread = Own()
        before = state_of(thread)
        bound_before = kept(thread)
        snapshot_before = bound_before and bound_before.snapshot
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
        assert state_of(thread) == before
        assert (kept(thread) and kept(thread).snapshot) is snapshot_before
    # Made inside, it has what it was made in; made outside, the start that failed has left it nothing.
    if start_again(thread, can_start_again):
        assert thread.seen == ("alice" if made_inside else "nothing")


def test_a_thread_that_could_not_start_inherits_from_where_it_is_started_later(
    installed: Flask, no_more_threads: Refuse, can_start_again: bool
) -> None:
    with installed.app_context():
        g.user = "alice"
        thread = Own()
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
    with installed.app_context():
        g.user = "bob"
        if start_again(thread, can_start_again):
            assert thread.seen == "bob"


def test_an_explicit_thread_that_could_not_start_is_left_as_it_was(
    app: Flask, no_more_threads: Refuse, can_start_again: bool
) -> None:
    seen = []
    with app.app_context():
        g.user = "alice"
        thread = AppContextThread(target=lambda: seen.append(g.user))
    with app.app_context():
        g.user = "bob"
        before = state_of(thread)
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
        assert state_of(thread) == before
    if start_again(thread, can_start_again):
        assert seen == ["alice"]


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ThreadPoolWithAppContextExecutor])
def test_a_submit_without_a_worker_fails_as_it_does_without_us(
    installed: Flask,
    no_more_threads: Refuse,
    kind: type[ThreadPoolExecutor],
) -> None:
    seen = []
    with installed.app_context(), kind(1) as pool:
        g.user = "alice"
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(lambda: seen.append(g.user))
        g.user = "bob"
        # The standard library has queued the first one all the same: it runs with what it was submitted with.
        assert pool.submit(lambda: g.user).result(LIMIT) == "bob"
        assert seen == ["alice"]
        assert pool.submit(lambda: g.user).result(LIMIT) == "bob"


# Teardown handlers and receivers that raise


class Broken(Exception):
    pass


def fail(*args: object, **kwargs: object) -> NoReturn:
    raise Broken


def exit_(*args: object, **kwargs: object) -> NoReturn:
    raise SystemExit("from a handler")


def test_every_teardown_handler_runs_though_each_raises_h9_h10(installed: Flask) -> None:
    ran = []
    for name in ("third", "second", "first"):

        @installed.teardown_appcontext
        def handler(exc: BaseException | None, name: str = name) -> None:
            ran.append((name, threading.get_ident()))
            if current_app.config.get("FAIL"):
                raise Broken(name)

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        installed.config["FAIL"] = True
        assert pool.submit(lambda: "result").result(LIMIT) == "result"
        worker = pool.submit(threading.get_ident).result(LIMIT)
        installed.config["FAIL"] = False
    assert ran[:6] == [(name, worker) for name in ("first", "second", "third")] * 2


def test_a_teardown_that_exits_after_one_that_forgets_a_context_leaves_nothing_active(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    main = threading.main_thread()

    def forget(exc: BaseException | None) -> None:
        if threading.current_thread() is not main:
            Flask("forgotten").app_context().push()

    installed.teardown_appcontext(lambda exc: exit_() if threading.current_thread() is not main else None)
    installed.teardown_appcontext(forget)
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            assert pool.submit(has_app_context).exception(LIMIT) is not None
        assert pool.submit(has_app_context).result(LIMIT) is False
    assert caplog.text == ""


def only(error: BaseException | None) -> BaseException | None:
    """Return *error* itself, or what is in it if it is a group: Flask 3.2 raises the errors of a teardown as one."""
    inside = getattr(error, "exceptions", (error,))
    assert len(inside) == 1
    return t.cast("BaseException | None", inside[0])


@pytest.mark.parametrize("where", ["handler", "receiver"])
def test_a_teardown_that_exits_keeps_nothing_from_being_torn_down(installed: Flask, where: str) -> None:
    # As gevent's Timeout and GreenletExit, which are no Exceptions either, may strike in a handler that waits.
    ran = []
    installed.teardown_appcontext(lambda exc: ran.append("last handler"))
    if where == "handler":
        installed.teardown_appcontext(lambda exc: exit_() if threading.current_thread() is not main else None)
    installed.teardown_appcontext(lambda exc: ran.append("first handler"))
    main = threading.main_thread()

    def receiver(sender: Flask, exc: BaseException | None = None) -> None:
        ran.append("receiver")
        if where == "receiver":
            exit_()

    def popped(sender: Flask) -> None:
        ran.append("popped")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with appcontext_tearing_down.connected_to(receiver, installed), appcontext_popped.connected_to(popped):
            future = pool.submit(has_app_context)
            assert isinstance(only(future.exception(LIMIT)), SystemExit)
            assert ran == ["first handler", "last handler", "receiver", "popped"]
        flaskthreads_autopatch.disable()
        assert pool.submit(flask_context.active).result(LIMIT) is None


@pytest.mark.parametrize("signal", [appcontext_tearing_down, appcontext_popped], ids=lambda signal: signal.name)
def test_a_receiver_that_raises_at_the_end_is_logged_and_changes_no_outcome(
    installed: Flask, signal: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    torn_down = []
    installed.teardown_appcontext(torn_down.append)
    with installed.app_context(), ThreadPoolExecutor(1) as pool, signal.connected_to(fail, installed):
        assert pool.submit(lambda: "result").result(LIMIT) == "result"
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result(LIMIT)
        assert [type(exc) for exc in torn_down] == [type(None), ZeroDivisionError]
        logged = [type(only(record.exc_info[1])) for record in caplog.records if record.exc_info]
        assert logged == [Broken, Broken]
        flaskthreads_autopatch.disable()
        assert pool.submit(flask_context.active).result(LIMIT) is None


def test_a_receiver_that_raises_at_the_beginning_is_the_tasks_own_error(installed: Flask) -> None:
    torn_down, ran = [], []
    installed.teardown_appcontext(torn_down.append)
    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with appcontext_pushed.connected_to(fail, installed):
            future = pool.submit(ran.append, "task")
            assert isinstance(future.exception(LIMIT), Broken)
        assert [type(exc) for exc in torn_down] == [Broken]
        assert not ran
        assert pool.submit(lambda: "well").result(LIMIT) == "well"
        flaskthreads_autopatch.disable()
        assert pool.submit(flask_context.active).result(LIMIT) is None


# Exits and interrupts


@pytest.fixture
def popped(installed: Flask) -> Iterator[list[object]]:
    """The ident of the thread of each context of the app that is popped."""
    idents: list[object] = []

    def note(sender: Flask) -> None:
        idents.append(threading.get_ident())

    with appcontext_popped.connected_to(note, installed):
        yield idents


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exit_in_a_task_is_its_outcome_and_the_context_is_torn_down(
    installed: Flask, popped: list[object], error: type[BaseException]
) -> None:
    torn_down = []
    installed.teardown_appcontext(torn_down.append)

    def task() -> NoReturn:
        raise error(g.user)

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        outcome = pool.submit(task).exception(LIMIT)
        assert type(outcome) is error
        assert outcome.args == ("alice",)
        assert torn_down == [outcome]
        assert len(popped) == 1
        assert pool.submit(lambda: g.user).result(LIMIT) == "alice"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_thread_ends_it_torn_down_and_reported_as_ever(
    installed: Flask, popped: list[object], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    torn_down = []
    installed.teardown_appcontext(lambda exc: torn_down.append(type(exc)))

    def target() -> NoReturn:
        raise error

    with installed.app_context():
        thread = threading.Thread(target=target)
        thread.start()
        ident = thread.ident
        join(thread)
        assert torn_down == [error]
        assert popped == [ident]
    # That the hook ignores SystemExit is its own affair.
    assert reported == [error]


def test_a_worker_of_a_thread_pool_killed_by_system_exit_is_torn_down_and_the_others_go_on(
    installed: Flask, popped: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave() -> NoReturn:
        killed.append(threading.current_thread())
        leaving.set()
        raise SystemExit

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest's reports SystemExit
    killed: list[threading.Thread] = []
    leaving = threading.Event()
    torn_down = []
    installed.teardown_appcontext(lambda exc: torn_down.append(type(exc)))
    with installed.app_context(), ThreadPool(2) as pool:
        g.user = "alice"
        pool.apply_async(leave)  # its result never comes, with us or without
        assert leaving.wait(LIMIT)
        assert [pool.apply_async(lambda: g.user).get(LIMIT) for _ in range(3)] == ["alice"] * 3
        join(*killed)
        assert torn_down.count(SystemExit) == 1
        assert popped.count(killed[0].ident) >= 1
        assert len(popped) == 4


# Depth and races


def test_threads_fifty_deep_each_inherit_from_the_last(installed: Flask, popped: list[object]) -> None:
    depths: list[list[int]] = []

    def descend() -> None:
        g.path = [*g.path, len(g.path)]
        if len(g.path) < 50:
            thread = threading.Thread(target=descend)
            thread.start()
            join(thread)
        # What the deeper ones have written is theirs.
        depths.append(g.path)

    with installed.app_context():
        g.path = []
        thread = threading.Thread(target=descend)
        thread.start()
        join(thread)
        assert g.path == []
        assert len(popped) == 50
    assert depths == [list(range(depth)) for depth in range(50, 0, -1)]


def test_switching_while_threads_and_tasks_are_started_never_tears_one(app: Flask) -> None:
    """Each of them has inherited the whole of the context, or nothing at all; and in the end all is as it was."""
    rounds, errors, seen = 120, [], []
    whole = ("tests", "alice", "example.org")
    barrier, working = threading.Barrier(16), set(range(8))

    def look() -> None:
        if has_app_context() or has_request_context():
            seen.append((current_app.name, g.get("user"), request.host if has_request_context() else None))
        else:
            seen.append(None)

    def switch(_: int) -> None:
        for number in itertools.count():
            if not working:
                return
            if number % 3 == 0:
                flaskthreads_autopatch.install(app)
            else:
                flaskthreads_autopatch.enable()
            if number % 2:
                flaskthreads_autopatch.uninstall(app)
            # On as well as off, others have their turn: else what is started meets it on two times in a thousand only.
            time.sleep(0)
            flaskthreads_autopatch.disable()
            time.sleep(0)

    def start(number: int) -> None:
        try:
            with app.test_request_context(base_url="http://example.org"), ThreadPoolExecutor(2) as pool:
                g.user = "alice"
                for _ in range(rounds):
                    thread = threading.Thread(target=look)
                    thread.start()
                    future = pool.submit(look)
                    join(thread)
                    future.result(LIMIT)
        finally:
            working.discard(number)

    def guarded(work: Callable[[int], None], number: int) -> None:
        barrier.wait(LIMIT)
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=guarded, args=(work, n)) for n in range(8) for work in (switch, start)]
        for thread in threads:
            thread.start()
        join(*threads)
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert len(seen) == 8 * rounds * 2
    assert set(seen) == {whole, None}
    flaskthreads_autopatch.disable()
    assert changed() == []
