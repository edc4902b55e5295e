"""Code that asks whether there is a request or an app context, to find out whether it runs in the background.

In a thread that inherits, both are there, and the code takes the other branch. That is what lending means, so it is
documented (README "Limits", docs/inheritance.md) with the ways out, which are tried here: ``request=False`` for the
app, ``suppress_inheritance()`` or `ignore` for a thread, and an app context that the thread pushes itself.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable, Iterator

import pytest
from flask import (
    Flask,
    current_app,
    flash,
    g,
    get_flashed_messages,
    has_app_context,
    has_request_context,
    request,
    session,
)
from werkzeug.serving import make_server

import flaskthreads_autopatch
from flaskthreads_autopatch import suppress_inheritance

from ..helpers import LIMIT, in_thread
from .helpers import Compare, NewApp, in_view

Events = list[str]


class Shop:
    """An app that tells its user what has gone wrong, or logs it where there is no user."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.logged: Events = []
        app.add_url_rule("/messages", "messages", lambda: {"messages": get_flashed_messages()})

    def report(self, text: str) -> None:
        """Found in service layers that are called by views and by jobs."""
        if has_request_context():
            flash(text)
        else:
            self.logged.append(text)

    def run(self, start: Callable[[Callable[[], None]], None]) -> tuple[Events, Events]:
        """Report an error in a thread after the response. Returns what the user sees, and what is logged."""
        response, threads = threading.Event(), []

        def work() -> None:
            response.wait(LIMIT)
            self.report("The import has failed.")

        def start_and_note(work: Callable[[], None]) -> None:
            before = threading.enumerate()
            start(work)
            threads.extend(thread for thread in threading.enumerate() if thread not in before)

        def view() -> str:
            session["user"] = "alice"
            start_and_note(work)
            return "started"

        self.app.add_url_rule("/import", "import", view)
        client = self.app.test_client()
        client.get("/import")
        response.set()
        for thread in threads:
            thread.join(LIMIT)
        return client.get("/messages").get_json()["messages"], self.logged


def start(work: Callable[[], None]) -> None:
    threading.Thread(target=work).start()


LOGGED: tuple[Events, Events] = ([], ["The import has failed."])
LOST: tuple[Events, Events] = ([], [])


def test_a_message_that_was_logged_is_flashed_and_lost_after_the_response(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in service layers: ``if has_request_context(): flash(...)``, else the error is logged."""
    off, on = off_and_on(lambda app: Shop(app).run(start))
    assert off == LOGGED
    assert on == LOST


def test_way_out_request_false(new_app: NewApp) -> None:
    """The way out in README "Limits": the app's threads inherit, and are lent no request."""
    app = new_app()
    flaskthreads_autopatch.install(app, request=False)
    assert Shop(app).run(start) == LOGGED

    def view() -> object:
        g.user = "alice"
        return in_thread(lambda: (g.user, current_app.name, has_request_context()))

    other = new_app()
    flaskthreads_autopatch.install(other, request=False)
    assert in_view(other, view) == ("alice", "tests.field.app", False)


def test_way_out_request_false_in_the_config(new_app: NewApp) -> None:
    """The same by a key of the app's config, as docs/options.md has it."""
    app = new_app()
    app.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = False
    flaskthreads_autopatch.install(app)
    assert Shop(app).run(start) == LOGGED


def test_way_out_suppress_inheritance(new_app: NewApp) -> None:
    """For one thread: it inherits nothing, as without us."""
    app = new_app()
    flaskthreads_autopatch.install(app)

    def start_suppressed(work: Callable[[], None]) -> None:
        with suppress_inheritance():
            start(work)

    assert Shop(app).run(start_suppressed) == LOGGED


def test_way_out_an_app_context_of_the_threads_own(new_app: NewApp) -> None:
    """For one thread, where its code may be changed: in an app context that it pushes there is no request."""
    app = new_app()
    flaskthreads_autopatch.install(app)

    def start_with_context(work: Callable[[], None]) -> None:
        def push_and_work() -> None:
            with app.app_context():
                work()

        start(push_and_work)

    assert Shop(app).run(start_with_context) == LOGGED


def test_a_context_that_is_pushed_only_where_there_is_none_is_not_pushed(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in job decorators: ``if has_app_context(): return fn()``, else a context is pushed."""

    def scenario(app: Flask) -> object:
        def job() -> object:
            with contextlib.nullcontext() if has_app_context() else app.app_context():
                return has_request_context(), sorted(g)

        def view() -> object:
            g.user = "alice"
            return in_thread(job)

        return in_view(app, view)

    off, on = off_and_on(scenario)
    assert off == (False, [])
    assert on == (True, ["user"])


def test_so_it_is_with_a_command_that_is_invoked_in_a_thread(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in admin pages that run commands: Flask's ``with_appcontext`` pushes a context only if none is active."""

    def scenario(app: Flask) -> object:
        seen: list[object] = []

        @app.cli.command("look")
        def look() -> None:
            seen.append((has_request_context(), sorted(g)))

        def invoke() -> None:
            result = app.test_cli_runner().invoke(args=["look"])
            assert result.exception is None, result.output

        def view() -> None:
            g.user = "alice"
            in_thread(invoke)

        in_view(app, view)
        return seen

    off, on = off_and_on(scenario)
    assert off == [(False, [])]
    assert on == [(True, ["user"])]


def test_what_asks_in_a_context_of_its_own_is_answered_as_before(unchanged: Compare) -> None:
    """Found in models: ``if has_request_context(): self.remote_addr = request.remote_addr``, as Flask documents it."""

    def scenario(app: Flask) -> list[object]:
        def address() -> str | None:
            return request.remote_addr if has_request_context() else None

        def work() -> list[object]:
            with app.app_context():
                outside = address()
            with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
                return [outside, address()]

        return in_view(app, lambda: in_thread(work))

    assert unchanged(scenario) == [None, "192.0.2.1"]


# Flask-SocketIO: emit() with a callback


@contextlib.contextmanager
def served(app: Flask) -> Iterator[str]:
    """The address of *app*, served for real."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


def answers(app: Flask, emit: Callable[..., None]) -> list[str]:
    """The answers for which the callback of ``emit(..., callback=...)`` is called.

    Bob's event starts a thread, and bob is gone. The thread asks everybody, and alice answers.
    """
    import socketio
    from flask_socketio import SocketIO

    app.config["SERVER_NAME"] = None
    # A poll that waits for something to be sent ends after this interval, and the server with it.
    server = SocketIO(app, async_mode="threading", ping_interval=1)
    answers: list[str] = []
    done = threading.Event()

    def ask(bob: str) -> None:
        server.server.disconnect(bob)
        emit(server, "question", callback=answers.append)
        # Alice answers in order, and this callback is none of Flask-SocketIO's.
        server.server.emit("last question", callback=lambda answer: done.set())

    @server.on("start")
    def start() -> None:
        threading.Thread(target=ask, args=(request.sid,)).start()  # type: ignore[attr-defined]

    alice, bob = (socketio.Client(reconnection=False, handle_sigint=False) for _ in range(2))
    alice.on("question", lambda: "yes")
    alice.on("last question", lambda: "yes")
    with served(app) as address:
        for client in (alice, bob):
            client.connect(address, transports=["polling"])
        bob.emit("start")
        assert done.wait(LIMIT)
        alice.disconnect()
    return answers


def emit(server: t.Any, *args: object, **kwargs: object) -> None:
    server.emit(*args, **kwargs)


@pytest.mark.extensions
def test_a_callback_of_flask_socketio_is_tied_to_the_client_whose_event_started_the_thread(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in chats and games: ``emit(..., callback=fn)`` in a thread; when that one leaves, answers are dropped."""
    off, on = off_and_on(lambda app: answers(app, emit))
    assert off == ["yes"]
    assert on == []


@pytest.mark.extensions
def test_way_out_for_flask_socketio(new_app: NewApp, unchanged: Compare) -> None:
    """The ways out of above: ``request=False``, or an app context that the thread pushes itself."""
    app = new_app()
    flaskthreads_autopatch.install(app, request=False)
    assert answers(app, emit) == ["yes"]
    flaskthreads_autopatch.disable()

    def scenario(app: Flask) -> list[str]:
        def emit_in_an_app_context(server: t.Any, *args: object, **kwargs: object) -> None:
            with app.app_context():
                server.emit(*args, **kwargs)

        return answers(app, emit_in_an_app_context)

    assert unchanged(scenario, "install") == ["yes"]
