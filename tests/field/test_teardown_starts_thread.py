"""A thread, timer or task that a teardown handler starts does not inherit; its work is done once (H31).

Its own teardown would run the handler again, which would find on ``g`` what it has just dealt with. Without us there is
no context in it, and it pushes one if it needs one.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, after_this_request, g, has_app_context, has_request_context

import flaskthreads_autopatch
from flaskthreads_autopatch import copy_current_app_context

from ..helpers import LIMIT, in_thread
from .helpers import FLASK_3_2, Compare, NewApp, Start, Work, in_view

Sent = list[tuple[str, bool, bool]]
Cause = Callable[[Flask, Work[None]], None]


class Outbox:
    """A mail that is put on ``g`` and sent in the background when the context ends."""

    def __init__(self, app: Flask, start: Start[None]) -> None:
        self.app = app
        self.start = start
        self.sent: Sent = []
        self.handled = 0
        self._lock = threading.Lock()

        @app.teardown_appcontext
        def send_mail(exc: BaseException | None) -> None:
            with self._lock:
                self.handled += 1
                assert self.handled < 20, "the handler starts a thread whose teardown runs the handler"
            # Not taken off g: nobody else is going to see this g.
            if mail := g.get("mail"):
                self.start(lambda: self._send(mail))

    def _send(self, mail: str) -> None:
        seen = has_app_context(), has_request_context()
        with self.app.app_context():
            self.sent.append((mail, *seen))


def write_a_mail() -> None:
    g.mail = "your order"  # a plain value, which a teardown in a thread does see


# Each has a context in which a mail is written, and ends it.


def of_a_request(app: Flask, write: Work[None]) -> None:
    """Found in shops that send their mails after the response."""
    in_view(app, write)


def of_a_request_that_fails(app: Flask, write: Work[None]) -> None:
    """Found in apps that report errors at the end of a request, by a thread."""

    def view() -> None:
        write()
        raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError):
        in_view(app, view)


def of_an_app_context(app: Flask, write: Work[None]) -> None:
    """Found in scripts: ``with app.app_context():``."""
    with app.app_context():
        write()


def of_a_command(app: Flask, write: Work[None]) -> None:
    """Found in ``flask`` commands, whose context ends with the command."""
    app.cli.command("write")(write)
    result = app.test_cli_runner().invoke(args=["write"])
    assert result.exception is None, result.output


def of_a_context_that_a_thread_has_pushed(app: Flask, write: Work[None]) -> None:
    """Found in consumers: a thread that is started at start-up, and pushes a context for each message."""

    def work() -> None:
        with app.app_context():
            write()

    in_thread(work)


def of_a_context_that_a_thread_of_a_view_has_pushed(app: Flask, write: Work[None]) -> None:
    """The same in a thread that a view starts."""

    def work() -> None:
        with app.app_context():
            write()

    in_view(app, lambda: in_thread(work))


CAUSES: list[Cause] = [
    of_a_request,
    of_a_request_that_fails,
    of_an_app_context,
    of_a_command,
    of_a_context_that_a_thread_has_pushed,
    of_a_context_that_a_thread_of_a_view_has_pushed,
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_h31_a_thread_started_by_the_teardown_does_not_inherit(unchanged: Compare, cause: Cause) -> None:
    """Found as each of the functions says."""

    def scenario(app: Flask) -> Sent:
        outbox = Outbox(app, in_thread)
        cause(app, write_a_mail)
        return outbox.sent

    assert unchanged(scenario) == [("your order", False, False)]


def test_h31_nor_does_a_timer_or_a_task(unchanged: Compare, start: Start[None]) -> None:
    """Found in the same handlers, with a pool or a timer."""

    def scenario(app: Flask) -> Sent:
        outbox = Outbox(app, start)
        of_a_request(app, write_a_mail)
        of_an_app_context(app, write_a_mail)
        return outbox.sent

    assert unchanged(scenario) == [("your order", False, False)] * 2


def submitted_to_a_pool_of_the_app(app: Flask) -> tuple[Start[t.Any], Work[None]]:
    pool = ThreadPoolExecutor(1)
    return pool.submit, pool.shutdown


def mapped_by_a_pool_of_the_app(app: Flask) -> tuple[Start[t.Any], Work[None]]:
    pool = ThreadPool(1)

    def close() -> None:
        pool.close()
        pool.join()

    return (lambda work: pool.map_async(lambda _: work(), [0])), close


@pytest.mark.parametrize("make", [submitted_to_a_pool_of_the_app, mapped_by_a_pool_of_the_app])
def test_h31_nor_does_a_task_of_a_pool_that_the_app_keeps(
    unchanged: Compare, make: Callable[[Flask], tuple[Start[t.Any], Work[None]]]
) -> None:
    """Found in apps with one pool for all background work, made at start-up."""

    def scenario(app: Flask) -> Sent:
        start, close = make(app)
        outbox = Outbox(app, start)
        of_a_request(app, write_a_mail)
        of_an_app_context(app, write_a_mail)
        close()
        return outbox.sent

    assert unchanged(scenario) == [("your order", False, False)] * 2


def test_h31_nor_does_a_done_callback_that_it_adds(unchanged: Compare) -> None:
    """Found in handlers that log what has become of the work."""

    def scenario(app: Flask) -> list[object]:
        seen: list[object] = []
        calls = Future[None]()

        @app.teardown_appcontext
        def teardown(exc: BaseException | None) -> None:
            # Enough for what is expected, and for one call too many.
            if len(seen) < 2:
                calls.add_done_callback(lambda _: seen.append(has_app_context()))

        of_a_request(app, write_a_mail)
        in_thread(calls.set_result, None)
        return seen

    assert unchanged(scenario) == [False]


def test_h31_nor_does_a_thread_that_the_view_has_made_and_the_teardown_starts(unchanged: Compare) -> None:
    """Found in apps that prepare a thread per mail in the view, and start them when all has gone well."""

    def scenario(app: Flask) -> list[object]:
        seen: list[object] = []
        runs: list[int] = []

        @app.teardown_appcontext
        def start_threads(exc: BaseException | None) -> None:
            runs.append(1)
            assert len(runs) < 100
            threads = g.pop("threads", [])
            for thread in threads:
                thread.start()
                thread.join(LIMIT)

        def view() -> None:
            g.threads = [threading.Thread(target=lambda: seen.append((has_app_context(), has_request_context())))]

        of_a_request(app, view)
        return [*seen, len(runs)]

    assert unchanged(scenario) == [(False, False), 1]


def test_h31_nor_does_one_started_by_an_async_handler(unchanged: Compare) -> None:
    """Found in apps with async views: Flask runs an async handler by asgiref, in a thread of its own."""

    def scenario(app: Flask) -> list[object]:
        sent: list[object] = []

        @app.teardown_appcontext
        async def send_mail(exc: BaseException | None) -> None:
            if g.get("mail") and len(sent) < 5:
                in_thread(lambda: sent.append((has_app_context(), has_request_context())))

        of_a_request(app, write_a_mail)
        of_an_app_context(app, write_a_mail)
        return sent

    assert unchanged(scenario) == [(False, False)] * 2


def test_h31_nor_does_one_started_by_a_receiver_of_the_signal(unchanged: Compare) -> None:
    """Found in extensions that connect to ``appcontext_tearing_down`` in place of a handler."""
    pytest.importorskip("blinker")
    from flask.signals import appcontext_tearing_down

    def scenario(app: Flask) -> list[object]:
        seen: list[object] = []

        def receive(sender: Flask, **_: object) -> None:
            if g.get("mail") and len(seen) < 5:
                in_thread(lambda: seen.append(has_app_context()))

        with appcontext_tearing_down.connected_to(receive, app):
            of_a_request(app, write_a_mail)
            of_an_app_context(app, write_a_mail)
        return seen

    assert unchanged(scenario) == [False, False]


def test_h31_nor_does_one_started_by_the_teardown_of_the_apps_own_class(unchanged: Compare) -> None:
    """Found in subclasses of Flask that override ``do_teardown_appcontext``."""
    sent: list[object] = []

    def send() -> None:
        if g.get("mail") and len(sent) < 5:
            in_thread(lambda: sent.append((has_app_context(), has_request_context())))

    if FLASK_3_2:

        class Shop(Flask):
            def do_teardown_appcontext(self, ctx, exc=None):  # type: ignore[no-untyped-def] # Flask looks at the annotation
                send()
                super().do_teardown_appcontext(ctx, exc)

    else:

        class Shop(Flask):  # type: ignore[no-redef]
            def do_teardown_appcontext(self, exc: t.Any = None) -> None:  # type: ignore[override] # of Flask 3.2
                send()
                super().do_teardown_appcontext(exc)

    def scenario(app: Flask) -> list[object]:
        app.__class__ = Shop
        sent.clear()
        of_a_request(app, write_a_mail)
        of_an_app_context(app, write_a_mail)
        return sent.copy()

    assert unchanged(scenario) == [(False, False)] * 2


def test_h31_a_thread_started_by_teardown_request_does_its_work_once(unchanged: Compare) -> None:
    """Found in request logs that are written by a thread: what it starts is not run by a teardown of the thread."""

    def scenario(app: Flask) -> list[str]:
        sent: list[str] = []

        @app.teardown_request
        def send(exc: BaseException | None) -> None:
            in_thread(sent.append, g.mail)

        of_a_request(app, write_a_mail)
        return sent

    assert unchanged(scenario) == ["your order"]


def test_h31_so_does_one_started_after_the_request(unchanged: Compare) -> None:
    """Found with ``after_this_request`` and ``response.call_on_close``: no handler runs it again."""

    def scenario(app: Flask) -> list[str]:
        sent: list[str] = []

        def view() -> None:
            @after_this_request
            def send(response: t.Any) -> t.Any:
                in_thread(sent.append, "after the request")
                response.call_on_close(lambda: in_thread(sent.append, "on close"))
                return response

        in_view(app, view)
        return sent

    assert unchanged(scenario) == ["after the request", "on close"]


def test_h31_after_the_teardown_all_is_inherited_as_before(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """With us on only: the next request of the same thread, and one whose teardown is under way beside it."""

    def scenario(app: Flask) -> list[object]:
        outbox = Outbox(app, in_thread)
        seen: list[object] = []
        tearing_down, go_on = threading.Event(), threading.Event()

        @app.teardown_appcontext
        def wait(exc: BaseException | None) -> None:
            if g.get("slow"):
                tearing_down.set()
                go_on.wait(LIMIT)

        def view() -> None:
            seen.append(in_thread(has_app_context))
            write_a_mail()

        def slow() -> None:
            with app.app_context():
                g.slow = True

        beside = threading.Thread(target=slow)
        beside.start()
        assert tearing_down.wait(LIMIT)
        in_view(app, view)
        with app.app_context():
            view()
        go_on.set()
        beside.join(LIMIT)
        return [*seen, len(outbox.sent)]

    off, on = off_and_on(scenario)
    assert off == [False, False, 2]
    assert on == [True, True, 2]


def test_h31_what_an_inheriting_thread_puts_on_g_is_dealt_with_by_its_own_teardown(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """With us on only: a thread that writes a mail of its own has it sent, by a thread that does not inherit."""

    def scenario(app: Flask) -> Sent:
        outbox = Outbox(app, in_thread)

        def work() -> None:
            if has_app_context():
                write_a_mail()

        in_view(app, lambda: in_thread(work))
        return outbox.sent

    off, on = off_and_on(scenario)
    assert off == []
    assert on == [("your order", False, False)]


@pytest.mark.parametrize("options", [{}, {"exclude": ["mail"]}], ids=["default", "exclude"])
def test_a_handler_that_acts_on_a_plain_value_acts_in_each_thread_unless_it_is_excluded(
    new_app: NewApp, options: dict[str, t.Any]
) -> None:
    """Found in audit logs. With us only; inherent to the teardown in a thread, so it is documented with its way out."""
    app = new_app()
    outbox = Outbox(app, in_thread)
    flaskthreads_autopatch.install(app, **options)

    def view() -> None:
        write_a_mail()
        in_thread(int)

    in_view(app, view)
    assert outbox.sent == [("your order", False, False)] * (1 if options else 2)


def test_h31_the_explicit_api_still_inherits_there(off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]]) -> None:
    """With us only: code that asks for the context gets it, in a handler too."""

    def scenario(app: Flask) -> list[object]:
        seen: list[object] = []

        @app.teardown_appcontext
        def teardown(exc: BaseException | None) -> None:
            if g.get("mail") and threading.current_thread() is threading.main_thread():
                in_thread(copy_current_app_context(lambda: seen.append(g.mail)))

        of_a_request(app, write_a_mail)
        return seen

    off, on = off_and_on(scenario)
    assert off == on == ["your order"]
