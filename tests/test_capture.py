"""What is captured: the request and the session that are lent, the body that is read before, and when nothing is."""

from __future__ import annotations

import io
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface

from flaskthreads_autopatch import copy_current_app_context, install, is_inherited, suppress_inheritance
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import LIMIT, flask_3_2, in_thread


def test_the_childs_view_of_the_request(installed: Flask) -> None:
    @installed.get("/user/<name>")
    def view(name: str) -> str:
        session["cart"] = name

        def work() -> tuple[object, ...]:
            flask.flash("from the child")
            session["by"] = "child"
            return request.path, request.args["q"], session["cart"], flask.url_for("view", name="x"), request.endpoint

        seen = in_thread(work)
        assert request.view_args == {"name": name}
        return repr((seen, flask.get_flashed_messages(), session["by"]))

    client = installed.test_client()
    expected = (("/user/bob", "1", "bob", "/user/x", "view"), ["from the child"], "child")
    assert client.get("/user/bob?q=1").text == repr(expected)
    with client.session_transaction() as saved:  # written before the response was sent, saved with it
        assert saved["by"] == "child"


def test_without_a_request_nothing_is_lent(installed: Flask) -> None:
    with installed.app_context():
        assert in_thread(flask.has_request_context) is False


def test_request_false_lends_nothing(app: Flask) -> None:
    install(app, request=False)
    with app.test_request_context("/"):
        g.user = "alice"
        assert in_thread(lambda: (flask.has_request_context(), g.user)) == (False, "alice")
        with pytest.raises(RuntimeError, match="request"):
            in_thread(lambda: request.path)


def test_h3_the_child_never_closes_or_tears_down_the_request(installed: Flask) -> None:
    torn_down: list[int] = []
    opened: list[int] = []

    class Interface(type(installed.session_interface)):  # type: ignore[misc]
        def open_session(self, *args: object) -> object:
            opened.append(threading.get_ident())
            return super().open_session(*args)

    installed.session_interface = Interface()

    @installed.teardown_request
    def note(exc: BaseException | None) -> None:
        torn_down.append(threading.get_ident())

    @installed.post("/")
    def view() -> str:
        upload = request.files["upload"]
        in_thread(lambda: session.get("x"))
        assert torn_down == []
        return upload.read().decode()  # ValueError: I/O operation on closed file

    data = {"upload": (io.BytesIO(b"content"), "name")}
    assert installed.test_client().post("/", data=data).text == "content"
    assert torn_down == opened == [threading.get_ident()]


def test_h4_view_args_stay_as_the_view_left_them(installed: Flask) -> None:
    @installed.get("/<name>")
    def view(name: str) -> str:
        assert request.view_args is not None
        request.view_args["name"] = "changed"
        in_thread(lambda: None)
        in_thread(lambda: list(flask.stream_with_context(iter("x"))))
        return t.cast(str, request.view_args["name"])

    assert installed.test_client().get("/original").text == "changed"


def test_h17_stream_with_context_in_a_thread_leaves_the_parents_request_open(installed: Flask) -> None:
    torn_down: list[int] = []

    @installed.teardown_request
    def note(exc: BaseException | None) -> None:
        torn_down.append(threading.get_ident())

    @installed.post("/")
    def view() -> str:
        def read() -> list[str]:
            return list(flask.stream_with_context(part for part in [request.path, "x"]))

        assert in_thread(read) == ["/", "x"]
        assert torn_down == []
        return request.files["upload"].read().decode()

    assert installed.test_client().post("/", data={"upload": (io.BytesIO(b"yyy"), "n")}).text == "yyy"
    assert torn_down == [threading.get_ident()]


def test_h23_reading_the_session_in_a_thread_alone_keeps_vary_cookie(installed: Flask) -> None:
    installed.add_url_rule("/set", "set", lambda: session.update(user="alice") or "")
    installed.add_url_rule("/page", "page", lambda: in_thread(lambda: session["user"]))
    client = installed.test_client()
    client.get("/set")
    response = client.get("/page")
    assert response.text == "alice"
    assert response.headers["Vary"] == "Cookie"


def test_starting_a_thread_alone_does_not_mark_the_session(installed: Flask) -> None:
    installed.add_url_rule("/", view_func=lambda: in_thread(lambda: "plain"))
    assert "Vary" not in installed.test_client().get("/").headers


def test_h19_preload_reads_the_body_before_the_thread_starts(app: Flask) -> None:
    install(app, preload=True)
    answered = threading.Event()
    bodies: list[object] = []

    @app.post("/")
    def view() -> str:
        def work() -> None:
            answered.wait(LIMIT)
            bodies.append(request.get_json(silent=True) or request.form.to_dict() or request.get_data())

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return ""

    threads: list[threading.Thread] = []
    client = app.test_client()
    for arguments in ({"json": {"a": 1}}, {"data": {"b": "2"}}, {"data": b"raw"}):
        client.post("/", **arguments).close()
    answered.set()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(bodies, key=repr) == [b"raw", {"a": 1}, {"b": "2"}]


def test_h19_several_threads_read_one_preloaded_body(app: Flask) -> None:
    install(app, preload=True)

    @app.post("/")
    def view() -> str:
        with ThreadPoolExecutor(8) as pool:
            bodies = [future.result(LIMIT) for future in [pool.submit(request.get_data) for _ in range(8)]]
        return str({len(body) for body in bodies})

    assert app.test_client().post("/", data=b"x" * 1_000_000).text == "{1000000}"


def test_a_body_that_cannot_be_preloaded_is_said_and_the_thread_runs(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10
    install(app, preload=True)
    app.add_url_rule("/", view_func=lambda: in_thread(lambda: request.path), methods=["POST"])
    assert app.test_client().post("/", data=b"x" * 100).text == "/"
    assert "preload: reading the body" in caplog.text


def test_a_body_that_cannot_be_preloaded_is_logged_once_for_each_request(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread is captured when it is made and when it is started, and a view may start many."""
    app.config["MAX_CONTENT_LENGTH"] = 10
    install(app, preload=True)
    app.add_url_rule("/", view_func=lambda: [in_thread(lambda: request.path) for _ in range(2)], methods=["POST"])
    for count in (1, 2):
        assert app.test_client().post("/", data=b"x" * 100).json == ["/", "/"]
        assert caplog.text.count("preload: reading the body") == count


def test_preload_without_a_request_reads_nothing(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    install(app, preload=True)
    with app.app_context():
        assert in_thread(is_inherited)
    assert caplog.text == ""


@pytest.mark.parametrize("preload", [False, True])
def test_the_body_is_left_unread_without_preload(app: Flask, preload: bool) -> None:
    install(app, preload=preload)

    @app.post("/")
    def view() -> str:
        in_thread(lambda: None)
        return request.stream.read().decode()

    assert app.test_client().post("/", data=b"a stream").text == ("" if preload else "a stream")


def test_no_context_no_change(installed: Flask) -> None:
    assert in_thread(flask.has_app_context) is False


def test_an_app_that_is_not_installed_is_left_alone(installed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    import contextvars

    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    context = contextvars.copy_context()

    def start() -> None:
        var.set("set")
        with Flask("other").app_context(), ThreadPoolExecutor(1) as pool:
            assert in_thread(is_inherited) is False
            # As Python itself has it.
            as_ever = ("set", True) if THREADS_INHERIT_CONTEXT else ("unset", False)
            assert in_thread(lambda: (var.get(), flask.has_app_context())) == as_ever
            assert pool.submit(lambda: (var.get(), flask.has_app_context())).result(LIMIT) == as_ever

    context.run(start)
    assert caplog.text == ""


def test_is_inherited(installed: Flask) -> None:
    assert is_inherited() is False
    with installed.app_context():
        assert is_inherited() is False
        assert in_thread(is_inherited) is True

        def own() -> bool:
            with installed.app_context():
                return is_inherited()

        assert in_thread(own) is False


@flask_3_2
def test_h38_a_thread_that_opening_the_session_starts_does_not_open_it(installed: Flask) -> None:
    opened: list[str] = []
    seen: list[str] = []

    class Opening(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: flask.Request) -> t.Any:
            opened.append(threading.current_thread().name)
            assert len(opened) < 10
            thread = threading.Thread(target=read)
            thread.start()
            thread.join(LIMIT)
            return super().open_session(app, request)

    def read() -> None:
        try:
            seen.append(f"{request.path} {flask.session.get('user')}")
        except RuntimeError as error:
            seen.append(f"{request.path} {error}")

    installed.session_interface = Opening()
    with installed.test_request_context("/alices"):
        assert flask.session.get("user") is None
    assert opened == [threading.current_thread().name]
    assert [text.startswith("/alices The session cannot be used here") for text in seen] == [True]


def test_carried_context_variables_do_not_carry_the_suppression(app: Flask) -> None:
    install(app, contextvars=True)
    with app.app_context(), suppress_inheritance():
        fn = copy_current_app_context(lambda: in_thread(is_inherited))
    assert fn() is True


@pytest.mark.parametrize("carried", [False, True])
def test_contextvars_option_carries_the_other_context_variables(app: Flask, carried: bool) -> None:
    import contextvars

    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    install(app, contextvars=carried)
    with app.app_context(), ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(LIMIT)  # starts the worker
        token = var.set("parent")

        def work() -> tuple[str, bool]:
            before = var.get()
            var.set("child")
            return before, is_inherited()

        if carried:
            assert pool.submit(work).result(LIMIT) == ("parent", True)
            assert pool.submit(work).result(LIMIT) == ("parent", True)
        else:
            assert pool.submit(lambda: (var.get(), is_inherited())).result(LIMIT) == ("unset", True)
        assert var.get() == "parent"
        var.reset(token)
        with suppress_inheritance():
            assert pool.submit(var.get).result(LIMIT) == "unset"
