"""H36: what the application's logging raises is neither a task's outcome nor the end of anything of ours."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from flask import Flask, g, has_app_context, request

import flaskthreads_autopatch
from flaskthreads_autopatch import context_released, entries, is_inherited, log
from flaskthreads_autopatch.patching import threads, wrappers
from flaskthreads_autopatch.visibility import overdue

from .helpers import LIMIT, in_thread


class ReadsTheRequest(logging.Filter):
    """The filter that Flask's documentation shows as a formatter; outside of a request it raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.url = request.url
        return True


class Raises(logging.Handler):
    """A handler that raises what it is given; logging calls its own handlers' mistakes a task of `handleError`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@pytest.fixture(params=["filter", "handler"])
def broken_logging(request: pytest.FixtureRequest, app: Flask) -> Iterator[None]:
    """Both loggers raise: the one of the app, and the library's."""
    loggers = [app.logger, logging.getLogger("flaskthreads_autopatch")]
    broken_filter, broken_handler = ReadsTheRequest(), Raises(ZeroDivisionError("in the handler"))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        if request.param == "filter":
            logger.addFilter(broken_filter)
        else:
            logger.addHandler(broken_handler)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
        logger.removeFilter(broken_filter)
        logger.removeHandler(broken_handler)


def look() -> str:
    return str(g.user) if has_app_context() else "nothing"


def outcome_in_a_pool(app: Flask, work: Callable[[], object]) -> Future[object]:
    with app.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        return pool.submit(work)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Our lines on stderr, but for those of threads that do not inherit: a pool's worker is one of them."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("flaskthreads_autopatch: ") and "A thread that runs" not in line]


@pytest.mark.parametrize("on", [True, False])
def test_h36_a_teardown_error_that_cannot_be_logged_is_not_the_tasks_outcome(
    app: Flask, broken_logging: None, on: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    torn_down: list[str] = []
    app.teardown_appcontext(lambda exc: torn_down.append(threading.current_thread().name))

    @app.teardown_appcontext
    def broken(exc: BaseException | None) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise KeyError("in the teardown")

    if on:
        flaskthreads_autopatch.install(app)
    # Without the library a task has no context, and so no teardown.
    assert outcome_in_a_pool(app, lambda: "done").result(LIMIT) == "done"
    assert len(torn_down) == (2 if on else 1)
    if on:
        [line] = said(capsys)
        assert "Error in the teardown of the app context inherited by" in line
        assert "KeyError" in line or "ExceptionGroup" in line  # Flask 3.2 raises a group


def test_h36_a_receivers_error_that_cannot_be_logged_is_not_the_tasks_outcome(
    installed: Flask, broken_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if not hasattr(context_released, "receivers"):
        pytest.skip("signals need blinker")

    def receive(sender: Flask, **values: object) -> None:
        raise KeyError("in the receiver")

    with context_released.connected_to(receive):
        assert outcome_in_a_pool(installed, look).result(LIMIT) == "alice"
    [line] = said(capsys)
    assert "context-released" in line and "KeyError" in line


def test_h36_what_stays_home_cannot_be_logged_and_the_rest_is_inherited(
    app: Flask, broken_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    entries._log_once.cache_clear()
    flaskthreads_autopatch.install(app, exclude=["token"])
    with app.app_context():
        g.user, g.token = "alice", "s3cret"
        assert in_thread(look) == "alice"
    assert len(said(capsys)) == 1


def test_h36_a_body_that_cannot_be_read_cannot_be_logged_either(
    app: Flask, broken_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Gone(t.BinaryIO):
        def read(self, size: int = -1) -> bytes:
            raise OSError("the client has gone")

    flaskthreads_autopatch.install(app, preload=True)
    environ = {"wsgi.input": Gone(), "CONTENT_LENGTH": "5", "wsgi.input_terminated": True}
    with app.test_request_context("/", method="POST", environ_overrides=environ):
        g.user = "alice"
        assert in_thread(look) == "alice"
    # In a request the filter works.
    assert all("preload" in line for line in said(capsys))


def test_h36_a_capture_that_fails_cannot_be_logged_and_the_thread_starts(
    installed: Flask, broken_logging: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> t.NoReturn:
        raise LookupError("no snapshot for you")

    for module in (wrappers, threads):
        monkeypatch.setattr(module, "capture", fail)
    with installed.app_context():
        assert in_thread(look) == "nothing"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(look).result(LIMIT) == "nothing"
    lines = said(capsys)
    assert lines and all("No snapshot of the app context could be taken" in line for line in lines)


def test_h36_a_context_without_a_dict_cannot_be_logged(
    app: Flask, broken_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slotted:
        __slots__ = ("user",)

    app.app_ctx_globals_class = Slotted  # type: ignore[assignment]
    flaskthreads_autopatch.install(app)
    with app.app_context():
        assert in_thread(is_inherited)
    assert len(said(capsys)) == 1


def test_h36_the_logger_itself_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    class Silent(Flask):
        logger = property(lambda self: 1 / 0)  # type: ignore[assignment]

    app = Silent("silent")

    @app.teardown_appcontext
    def broken(exc: BaseException | None) -> None:
        if is_inherited():
            raise KeyError("in the teardown")

    flaskthreads_autopatch.install(app)
    assert outcome_in_a_pool(app, look).result(LIMIT) == "alice"
    assert "ZeroDivisionError" in said(capsys)[0]


def test_h36_a_message_that_cannot_be_made(
    installed: Flask, broken_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise LookupError("no picture")

        def __call__(self) -> str:
            return look()

    @installed.teardown_appcontext
    def broken(exc: BaseException | None) -> None:
        if is_inherited():
            raise KeyError("in the teardown")

    assert outcome_in_a_pool(installed, Unshowable()).result(LIMIT) == "alice"
    assert len(said(capsys)) == 1


def test_h36_nothing_is_logged_inside_an_inherited_context(installed: Flask) -> None:
    """A handler that starts a thread for each record, as those that send records away do: it starts one, not many."""
    started: list[bool] = []

    class Sends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=lambda: started.append(is_inherited()))
            thread.start()
            thread.join(LIMIT)

    @installed.teardown_appcontext
    def broken(exc: BaseException | None) -> None:
        if threading.current_thread() is not threading.main_thread() and has_app_context():
            raise KeyError("in the teardown")

    handler = Sends()
    installed.logger.addHandler(handler)
    try:
        assert outcome_in_a_pool(installed, look).result(LIMIT) == "alice"
    finally:
        installed.logger.removeHandler(handler)
    assert started == [False]


def test_h36_what_a_handler_starts_does_not_inherit(app: Flask) -> None:
    """What it inherited would be logged again, and so on."""
    started: list[bool] = []

    class Sends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            started.append(in_thread(is_inherited))

    logger, handler = logging.getLogger("flaskthreads_autopatch"), Sends()
    logger.addHandler(handler)
    flaskthreads_autopatch.install(app)
    try:
        with app.app_context():
            assert in_thread(is_inherited)
            log.log(logging.ERROR, "something")
    finally:
        logger.removeHandler(handler)
    assert started == [False]


def test_h36_an_error_that_is_logged_keeps_its_place_and_its_traceback(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise KeyError("here")
    except KeyError:
        log.log(logging.ERROR, "What happened: %s.", "this", exc_info=True, app=app)
    log.log(logging.INFO, "not at this level")
    [record] = caplog.records
    assert (record.name, record.getMessage(), record.funcName) == (
        app.logger.name,
        "What happened: this.",
        "test_h36_an_error_that_is_logged_keeps_its_place_and_its_traceback",
    )
    assert record.exc_info and record.exc_info[0] is KeyError


def test_h36_an_exit_in_a_handler_is_not_caught(app: Flask) -> None:
    handler = Raises(SystemExit(3))
    app.logger.addHandler(handler)
    try:
        with pytest.raises(SystemExit):
            log.log(logging.ERROR, "something", app=app)
    finally:
        app.logger.removeHandler(handler)


# warn_after


@pytest.fixture
def heard() -> Iterator[queue.SimpleQueue[str]]:
    """What the library's logger is told, by a handler that then raises."""
    texts: queue.SimpleQueue[str] = queue.SimpleQueue()
    logger = logging.getLogger("flaskthreads_autopatch")

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.put(record.getMessage().split(" tests.")[0])
            raise ZeroDivisionError("in the handler")

    handler = Broken(logging.WARNING)
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


def test_h36_the_watcher_survives_a_handler_that_raises(
    app: Flask, heard: queue.SimpleQueue[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flaskthreads_autopatch.install(app, warn_after=0.01)
    opened = threading.Event()
    futures = []
    with ThreadPoolExecutor(2) as pool:
        for number in range(2):
            with app.app_context():
                g.user = number
                futures.append(pool.submit(lambda: (opened.wait(LIMIT), g.user)))
            assert "still runs" in heard.get(timeout=LIMIT)
            watcher = overdue._state.watcher
            assert watcher is not None and watcher.is_alive()
        opened.set()
        assert [future.result(LIMIT) for future in futures] == [(True, 0), (True, 1)]
    assert ["has finished" in heard.get(timeout=LIMIT) for _ in range(2)] == [True, True]
    watcher.join(LIMIT)
    assert not watcher.is_alive() and overdue.overdue == {}
    assert len(said(capsys)) == 4


def test_h36_the_watcher_survives_what_cannot_be_described(
    heard: queue.SimpleQueue[str], capsys: pytest.CaptureFixture[str]
) -> None:
    class Nameless(Flask):
        broken = False

        @property
        def name(self) -> str:  # type: ignore[override]
            return "nameless" if not self.broken else str(1 / 0)

    app = Nameless("nameless")
    flaskthreads_autopatch.install(app, warn_after=0.01)
    opened, entered = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        with app.app_context():
            future = pool.submit(lambda: (entered.set(), opened.wait(LIMIT), "done"))
            assert entered.wait(LIMIT)
            app.broken = True
        assert "cannot be described" in heard.get(timeout=LIMIT)
        opened.set()
        assert future.result(LIMIT) == (None, True, "done")
    thread = overdue._state.watcher
    if thread is not None:
        thread.join(LIMIT)
    # Once: it is not looked at again.
    assert heard.empty() and overdue.overdue == {}
