"""The teardown runs in the child, on what the child has opened."""

from __future__ import annotations

import logging
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from flask import Flask, appcontext_popped, appcontext_pushed, appcontext_tearing_down, g, request
from flask.ctx import AppContext

from flaskthreads_autopatch import copy_current_app_context, install, is_inherited, suppress_inheritance
from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch.replay import replay

from .helpers import LIMIT, Resource, flask_3_2, in_thread, snapshot_here


def test_h5_teardown_never_closes_what_the_parent_opened(installed: Flask) -> None:
    @installed.teardown_appcontext
    def close(exc: BaseException | None) -> None:
        if (resource := g.pop("resource", None)) is not None:
            resource.close()

    with installed.app_context():
        g.resource = parents = Resource()

        def work() -> Resource:
            assert g.resource is parents
            return parents

        in_thread(work)
        assert parents.closed_in == []
        assert g.resource is parents
    assert parents.closed_in == [threading.get_ident()]


def test_what_the_child_opened_is_closed_in_the_child(installed: Flask) -> None:
    @installed.teardown_appcontext
    def close(exc: BaseException | None) -> None:
        if (resource := g.pop("resource", None)) is not None:
            resource.close()

    def replace() -> Resource:
        g.resource = Resource()
        return t.cast(Resource, g.resource)

    with installed.app_context():
        g.resource = parents = Resource()
        childs = in_thread(replace)
        assert childs.closed_in == [childs.opened_in] != [threading.get_ident()]
        assert parents.closed_in == []


@pytest.mark.parametrize("exclude", [(), ("secret",)])
def test_teardown_sees_the_parents_plain_values(app: Flask, exclude: tuple[str, ...]) -> None:
    install(app, exclude=exclude)
    seen: list[object] = []

    @app.teardown_appcontext
    def log(exc: BaseException | None) -> None:
        seen.append((g.request_id, "tags" in g))

    with app.app_context():
        g.request_id, g.tags = "r-1", ["mutable"]
        in_thread(lambda: None)
        assert seen == [("r-1", False)]


def test_h6_every_context_is_torn_down_and_signals_fire_once(installed: Flask) -> None:
    fired: list[tuple[str, bool]] = []

    def note(name: str) -> t.Callable[..., None]:
        return lambda sender, **kwargs: fired.append((name, is_inherited()))

    installed.teardown_appcontext(lambda exc: fired.append(("handler", is_inherited())))
    receivers = [
        (appcontext_pushed, note("pushed")),
        (appcontext_tearing_down, note("tearing_down")),
        (appcontext_popped, note("popped")),
    ]
    for signal, receiver in receivers:
        signal.connect(receiver, installed)
    with installed.app_context():
        fired.clear()
        in_thread(lambda: None)
        in_one_thread = fired.copy()
    assert in_one_thread == [("pushed", True), ("handler", True), ("tearing_down", True), ("popped", False)]


def test_h9_every_teardown_handler_runs_even_if_one_raises(installed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    @installed.teardown_appcontext
    def first_registered_runs_last(exc: BaseException | None) -> None:
        ran.append("last")

    @installed.teardown_appcontext
    def raises(exc: BaseException | None) -> None:
        if is_inherited():
            ran.append("raises")
            raise ValueError("in teardown")

    def on_signal(sender: Flask, exc: BaseException | None = None) -> None:
        ran.append("signal")

    with installed.app_context(), appcontext_tearing_down.connected_to(on_signal, installed):
        assert in_thread(lambda: "result") == "result"  # H10
        assert ran == ["raises", "last", "signal"]
    (record,) = [record for record in caplog.records if record.name == installed.logger.name]
    assert record.exc_info is not None
    assert "in_thread" in record.getMessage() or "Thread" in record.getMessage()


def test_h9_every_teardown_handler_runs_once_if_logging_an_error_is_interrupted(installed: Flask) -> None:
    """A signal, or gevent's Timeout, may strike in a logging handler that writes to a network."""
    ran: list[str] = []

    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt("while logging")

    @installed.teardown_appcontext
    def first_registered_runs_last(exc: BaseException | None) -> None:
        ran.append("last")

    @installed.teardown_appcontext
    def raises(exc: BaseException | None) -> None:
        if is_inherited():
            ran.append("raises")
            raise ValueError("in teardown")

    handler = Interrupted()
    with installed.app_context():
        installed.logger.addHandler(handler)
        try:
            with pytest.raises(KeyboardInterrupt, match="while logging"):
                copy_current_app_context(lambda: None)()
        finally:
            installed.logger.removeHandler(handler)
        assert ran == ["raises", "last"]


def test_h9_a_do_teardown_appcontext_of_the_users_own_is_called() -> None:
    called: list[bool] = []

    class App(Flask):
        # Until Flask 3.1 the first argument is the exception; 3.2 looks at the name, and warns of the old signature.
        def do_teardown_appcontext(self, ctx: AppContext, *args: t.Any) -> None:
            called.append(is_inherited())
            super().do_teardown_appcontext(ctx, *args)

    app = App("own")
    install(app)
    with app.app_context():
        in_thread(lambda: None)
        assert called == [True]


@pytest.mark.parametrize("signal", [appcontext_tearing_down, appcontext_popped], ids=lambda signal: signal.name)
def test_h10_an_error_in_a_receiver_at_the_end_is_logged(
    installed: Flask, caplog: pytest.LogCaptureFixture, signal: t.Any
) -> None:
    main_thread = threading.get_ident()

    def receiver(sender: Flask, **kwargs: object) -> None:
        if threading.get_ident() != main_thread:
            raise ValueError("in a receiver")

    with installed.app_context(), signal.connected_to(receiver, installed), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: "result").result(LIMIT) == "result"
        with pytest.raises(KeyError):
            pool.submit(lambda: {}["task"]).result(LIMIT)
    assert caplog.text.count("ValueError: in a receiver") == 2


def test_h10_a_teardown_error_never_kills_a_pools_worker(installed: Flask) -> None:
    @installed.teardown_appcontext
    def raises(exc: BaseException | None) -> None:
        if is_inherited():
            raise ValueError("in teardown")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        idents = {pool.submit(threading.get_ident).result(LIMIT) for _ in range(5)}
        assert len(idents) == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_the_tasks_exception_is_raised_and_handed_to_the_handlers(installed: Flask, error: type[BaseException]) -> None:
    handed: list[BaseException | None] = []
    installed.teardown_appcontext(handed.append)

    def work() -> None:
        raise error("from the task")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with pytest.raises(error, match="from the task"):
            pool.submit(work).result(LIMIT)
        assert [type(exc) for exc in handed] == [error]
        with suppress_inheritance():
            assert pool.submit(flask.has_app_context).result(LIMIT) is False


def test_an_error_in_a_pushed_receiver_is_raised_and_nothing_stays_pushed(installed: Flask) -> None:
    main_thread = threading.get_ident()
    ran: list[str] = []
    torn_down: list[str] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(type(exc).__name__))

    def receiver(sender: Flask) -> None:
        if threading.get_ident() != main_thread:
            raise ValueError("in a receiver")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with appcontext_pushed.connected_to(receiver, installed):
            future = pool.submit(ran.append, "task")
            with pytest.raises(ValueError, match="in a receiver"):
                future.result(LIMIT)
        with suppress_inheritance():
            assert pool.submit(flask.has_app_context).result(LIMIT) is False
        assert ran == []
        assert torn_down == ["ValueError"]


def test_h11_a_teardown_handler_that_starts_a_thread_does_not_start_them_for_ever(installed: Flask) -> None:
    started: list[bool] = []

    @installed.teardown_appcontext
    def start_a_thread(exc: BaseException | None) -> None:
        started.append(is_inherited())
        assert len(started) < 10
        in_thread(lambda: None)

    with installed.app_context():
        in_thread(lambda: None)
    # The thread that the parent's own teardown starts does not inherit, so it has no teardown.
    assert started == [True, False]


def test_h11_a_pushed_receiver_that_starts_a_thread_does_not_start_them_for_ever(installed: Flask) -> None:
    started: list[bool] = []

    def start_a_thread(sender: Flask) -> None:
        started.append(is_inherited())
        assert len(started) < 10
        in_thread(lambda: None)

    with appcontext_pushed.connected_to(start_a_thread, installed), installed.app_context():
        assert started == [False, True]


def test_h11_async_teardown_handlers(installed: Flask) -> None:
    pytest.importorskip("asgiref")
    ran: list[bool] = []

    @installed.teardown_appcontext
    async def handler(exc: BaseException | None) -> None:
        ran.append(is_inherited())
        assert len(ran) < 10

    with installed.app_context():
        in_thread(lambda: None)
        assert ran == [True]


def test_a_teardown_inside_somebody_elses_request_does_not_see_it(installed: Flask) -> None:
    seen = []
    with installed.test_request_context("/alices"):
        snapshot = snapshot_here()
    with installed.test_request_context("/bobs"):
        installed.teardown_appcontext(lambda exc: seen.append(flask.has_request_context() and request.path))
        assert replay(snapshot, lambda: request.path, (), {}) == "/alices"
        assert seen == [False if fc.REUSES_APP_CONTEXT else "/alices"]
        assert request.path == "/bobs"


@flask_3_2
def test_h37_a_teardown_handler_that_reads_the_request_runs_to_its_end(installed: Flask) -> None:
    closed: list[str] = []
    torn_down: list[str] = []
    installed.teardown_request(lambda exc: torn_down.append("request"))

    @installed.teardown_appcontext
    def close(exc: BaseException | None) -> None:
        closed.append(f"{request.path} {flask.session.get('user')} {g.pop('opened')}")

    def work() -> None:
        g.opened = threading.current_thread().name

    with installed.test_request_context("/alices"):
        flask.session["user"] = "alice"
        thread = threading.Thread(target=work, name="child")
        thread.start()
        thread.join(LIMIT)
        assert (closed, torn_down) == (["/alices alice child"], [])
        work()
    assert closed[1:] == ["/alices alice MainThread"]
    assert torn_down == ["request"]
