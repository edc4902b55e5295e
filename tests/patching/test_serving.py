"""A request is served outside of an inherited context."""

from __future__ import annotations

import contextvars
import threading
import typing as t
import urllib.request

import flask
import pytest
import werkzeug.serving
from flask import Flask, g, request

from flaskthreads_autopatch import disable, install, is_inherited
from flaskthreads_autopatch import flask_context as fc

from ..helpers import ended, in_thread


@pytest.fixture
def served(installed: Flask) -> Flask:
    @installed.get("/<name>")
    def view(name: str) -> str:
        before = g.get("user", "nobody")
        g.user = name
        return f"{before} {is_inherited()} {request.path}"

    @installed.get("/stream/<name>")
    def stream(name: str) -> flask.Response:
        g.user = name

        @flask.stream_with_context
        def generate() -> t.Iterator[str]:
            for _ in range(3):
                yield f"{g.user} {request.path} "

        return flask.Response(generate())

    return installed


@pytest.mark.parametrize("through", ["__call__", "wsgi_app", "a middleware"])
def test_h14_a_request_is_never_served_inside_an_inherited_context(served: Flask, through: str) -> None:
    def serve() -> list[str]:
        from werkzeug.test import Client

        application = served if through != "wsgi_app" else served.wsgi_app
        client = Client(application)
        seen = [client.get(path).text for path in ("/bob", "/carol", "/stream/dave")]
        return [*seen, f"{g.user} {request.path}"]

    if through == "a middleware":
        disable()
        wsgi_app = served.wsgi_app  # bound before the patches are on
        served.wsgi_app = lambda environ, start_response: wsgi_app(environ, start_response)  # type: ignore[method-assign]
        install(served)
    with served.test_request_context("/alices"):
        g.user = "alice"
        assert in_thread(serve) == [
            "nobody False /bob",
            "nobody False /carol",
            "dave /stream/dave " * 3,
            "alice /alices",
        ]


def test_h14_a_streaming_response_is_closed_in_its_own_context(served: Flask) -> None:
    seen: list[tuple[str, str]] = []
    closed: list[str] = []

    @served.get("/closing/<name>")
    def closing(name: str) -> flask.Response:
        g.user = name

        @flask.stream_with_context
        def generate() -> t.Iterator[str]:
            try:
                yield "first"
                yield "second"
            finally:
                seen.append((g.user, request.path))

        response = flask.Response(generate())
        response.call_on_close(lambda: closed.append("closed"))
        return response

    def serve() -> None:
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        response, status, _ = run_wsgi_app(served, EnvironBuilder("/closing/bob").get_environ())
        assert (next(iter(response)), status) == (b"first", "200 OK")
        response.close()
        assert closed == ["closed"]

    with served.app_context():
        g.user = "alice"
        in_thread(serve)
    assert seen == [("bob", "/closing/bob")]


def test_h14_a_context_that_nobody_inherited_is_reused_as_ever(served: Flask) -> None:
    """As by a test that puts something on g for the view."""
    with served.app_context():
        g.user = "alice"
        text = served.test_client().get("/bob").text
    assert text == ("alice False /bob" if fc.REUSES_APP_CONTEXT else "nobody False /bob")


def test_h14_a_server_started_from_a_thread_with_a_context(served: Flask) -> None:
    """As a live-server fixture does, with a target of its own that no catalogue can know."""
    server = werkzeug.serving.make_server("127.0.0.1", 0, served)
    with served.app_context():
        g.user = "alice"
        thread = threading.Thread(target=lambda: server.serve_forever())
        thread.start()
    for name in ("bob", "carol"):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{name}") as response:
            assert response.read().decode() == f"nobody False /{name}"
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/stream/dave") as response:
        assert response.read().decode() == "dave /stream/dave " * 3
    server.shutdown()
    ended(thread)


def test_h14_a_served_request_sees_nothing_of_the_lent_one(served: Flask) -> None:
    had_request: list[bool] = []
    served.teardown_appcontext(lambda exc: had_request.append(flask.has_request_context()))
    flask.appcontext_pushed.connect(pushed := lambda sender: had_request.append(flask.has_request_context()), served)
    with served.test_request_context("/alices"):

        def serve() -> None:
            had_request.clear()
            served.test_client().get("/bob")
            outside_of_the_request.extend(had_request)

        outside_of_the_request: list[bool] = []
        in_thread(serve)
    del pushed
    # Flask 3.2 pushes and tears down with the request active: then it is the served one.
    assert outside_of_the_request == [not fc.REUSES_APP_CONTEXT] * 2


@pytest.mark.parametrize("has_ended", [False, True])
def test_h14_nor_inside_one_that_is_active_in_copied_context_variables(served: Flask, has_ended: bool) -> None:
    """As by a server that a thread starts on an event loop: the loop copies the thread's context variables."""

    def serve() -> list[str]:
        return [served.test_client().get(path).text for path in ("/bob", "/carol")]

    def copy() -> t.Any:
        context = contextvars.copy_context()
        return context if has_ended else in_thread(context.run, serve)

    with served.test_request_context("/alices"):
        g.user = "alice"
        seen = in_thread(copy)
    if has_ended:
        seen = in_thread(seen.run, serve)
    assert seen == ["nobody False /bob", "nobody False /carol"]


def test_a_test_client_kept_open_in_a_thread(served: Flask) -> None:
    def work() -> tuple[str, str, str]:
        with served.test_client() as client:
            client.get("/bob")
            inside = t.cast(str, g.user), request.path
        return (*inside, t.cast(str, g.user))

    with served.app_context():
        g.user = "alice"
        assert in_thread(work) == ("bob", "/bob", "alice")
