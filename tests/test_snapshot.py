"""The contract (DESIGN 3) seen from a plain thread, and the hazards that capture and replay guard against."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
import sqlite3
import threading
import typing as t
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import flask
import pytest
from flask import Flask, appcontext_popped, appcontext_pushed, appcontext_tearing_down, g, request, session
from flask.ctx import AppContext
from flask.globals import app_ctx
from flask.sessions import SecureCookieSessionInterface

from flaskthreads_autopatch import (
    Policy,
    copy_current_app_context,
    install,
    is_inherited,
    running,
    suppress_inheritance,
)
from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch.capture import capture
from flaskthreads_autopatch.replay import replay
from flaskthreads_autopatch.snapshot import Snapshot
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import collectable, in_thread


class Resource:
    """Something that is opened in one place and closed in another, as a connection is."""

    def __init__(self) -> None:
        self.opened_in = threading.get_ident()
        self.closed_in: list[int] = []

    def close(self) -> None:
        self.closed_in.append(threading.get_ident())


def snapshot_here(**policy: t.Any) -> Snapshot:
    ctx = fc.active()
    assert ctx is not None
    snapshot = capture(ctx, Policy(**policy))
    assert snapshot is not None
    return snapshot


# 3.1 Own context


def test_child_has_an_app_context_of_its_own(installed: Flask) -> None:
    with installed.app_context() as parent:
        g.user = "alice"
        child, user, app = in_thread(lambda: (app_ctx._get_current_object(), g.user, flask.current_app.name))
        assert (user, app) == ("alice", installed.name)
        assert child is not parent
        assert app_ctx._get_current_object() is parent


def test_h1_overlapping_threads_each_pop_their_own_context(installed: Flask) -> None:
    all_in = threading.Barrier(4)

    def work(number: int) -> tuple[int, str]:
        g.number = number
        all_in.wait(30)  # every context is pushed before the first is popped
        return g.number, g.user

    with installed.app_context(), ThreadPoolExecutor(4) as pool:
        g.user = "alice"
        futures = [pool.submit(work, number) for number in range(4)]
        assert [future.result(30) for future in futures] == [(number, "alice") for number in range(4)]
        assert "number" not in g


def test_h2_the_next_request_on_the_same_thread_starts_clean(installed: Flask) -> None:
    @installed.get("/<user>")
    def view(user: str) -> str:
        seen = g.get("user", "nobody")
        g.user = user
        in_thread(lambda: g.user)
        return t.cast(str, seen)

    client = installed.test_client()
    assert [client.get(f"/{user}").text for user in ("alice", "bob")] == ["nobody", "nobody"]
    assert fc.active() is None


# 3.2 g is a snapshot


def test_g_is_taken_at_start_and_writes_stay_in_the_child(installed: Flask) -> None:
    go_on = threading.Event()
    seen: list[object] = []

    def work() -> None:
        go_on.wait(30)
        seen.append((g.name, "late" in g))
        g.name = "child"
        g.mine = True

    with installed.app_context():
        g.name = "parent"
        thread = threading.Thread(target=work)
        g.name = "parent at start"
        thread.start()
        g.name, g.late = "parent after start", True
        go_on.set()
        thread.join(30)
        assert seen == [("parent at start", False)]
        assert (g.name, "mine" in g) == ("parent after start", False)


def test_entries_are_inherited_by_reference(installed: Flask) -> None:
    with installed.app_context():
        g.items = []
        in_thread(lambda: g.items.append("from the child"))
        assert g.items == ["from the child"]


def test_h8_a_namespace_on_g_is_copied_one_level(installed: Flask) -> None:
    def force_locale() -> str:
        before = g._babel.locale
        g._babel.locale = "de"
        g._babel.cache["x"] = 1
        return t.cast(str, before)

    with installed.app_context():
        g._babel = SimpleNamespace(locale="en", cache={})
        assert in_thread(force_locale) == "en"
        assert g._babel.locale == "en"
        assert g._babel.cache == {"x": 1}  # one level: its attributes are inherited by reference


def test_a_namespace_is_named_once_among_what_is_inherited(installed: Flask) -> None:
    with installed.app_context():
        g.user, g._state = "alice", SimpleNamespace(locale="de")
        assert sorted(snapshot_here().inherited) == ["_state", "user"]


def test_h8_a_namespace_is_hidden_attribute_by_attribute(installed: Flask) -> None:
    parents, childs = Resource(), Resource()

    @installed.teardown_appcontext
    def close(exc: BaseException | None) -> None:
        if is_inherited():
            for value in list(vars(g._state).values()):
                if isinstance(value, Resource):
                    value.close()
            seen.append(sorted(vars(g._state)))

    def work() -> None:
        assert g._state.parents is parents
        g._state.childs = childs

    seen: list[list[str]] = []
    with installed.app_context():
        g._state = SimpleNamespace(parents=parents, name="plain")
        in_thread(work)
        assert vars(g._state) == {"parents": parents, "name": "plain"}
    assert seen == [["childs", "name"]]
    assert (len(parents.closed_in), len(childs.closed_in)) == (0, 1)


def test_a_pushed_receivers_entry_wins_and_is_torn_down(installed: Flask) -> None:
    shared = Resource()
    torn_down: list[list[str]] = []

    def prepare(sender: Flask) -> None:
        g.tenant = "from the receiver"
        g.shared = shared

    @installed.teardown_appcontext
    def note(exc: BaseException | None) -> None:
        torn_down.append(sorted(g))

    with appcontext_pushed.connected_to(prepare, installed), installed.app_context():
        g.tenant = "from the parent"
        g.other = Resource()
        assert in_thread(lambda: (g.tenant, "other" in g)) == ("from the receiver", True)
    # What the receiver put on the child's g is the child's, even where it is the very object that the parent has.
    assert torn_down == [["shared", "tenant"], ["other", "shared", "tenant"]]


def test_share_gives_the_parents_own_g(app: Flask) -> None:
    install(app, share=True)
    seen_by_teardown: list[tuple[bool, list[str]]] = []

    @app.teardown_appcontext
    def note(exc: BaseException | None) -> None:
        seen_by_teardown.append((is_inherited(), sorted(g)))

    def work() -> bool:
        g.by_child = Resource()
        return g._get_current_object() is parent

    with app.app_context():
        parent = g._get_current_object()
        g.by_parent = Resource()
        assert in_thread(work)
        assert "by_child" in g
    assert seen_by_teardown == [(True, []), (False, ["by_child", "by_parent"])]


# 3.3 Thread-bound values stay home


def test_h7_a_sqlite_connection_stays_home_and_the_child_opens_its_own(installed: Flask) -> None:
    def get_db() -> sqlite3.Connection:
        if "db" not in g:
            g.db = sqlite3.connect(":memory:")
        return t.cast(sqlite3.Connection, g.db)

    closed: list[int] = []

    @installed.teardown_appcontext
    def close_db(exc: BaseException | None) -> None:
        if (db := g.pop("db", None)) is not None:
            db.close()  # sqlite3 raises if this is another thread's
            closed.append(threading.get_ident())

    with installed.app_context():
        mine = get_db()
        mine.execute("create table here (x)")
        other, ident = in_thread(lambda: (get_db(), threading.get_ident()))
        assert other is not mine
        assert closed == [ident]
        assert mine.execute("select count(*) from here").fetchone() == (0,)
    assert closed == [ident, threading.get_ident()]


def test_thread_bound_values_stay_home_inside_a_namespace_too(installed: Flask) -> None:
    with installed.app_context():
        db = sqlite3.connect(":memory:")
        g.state = SimpleNamespace(db=db, name="x")
        assert in_thread(lambda: vars(g.state).copy()) == {"name": "x"}
        db.close()


def test_flask_logins_user_stays_home_by_name(installed: Flask) -> None:
    with installed.app_context():
        g._login_user = "an ORM object of the parent's session"
        assert in_thread(lambda: "_login_user" in g) is False


def test_excluded_entries_stay_home(app: Flask) -> None:
    install(app, exclude=("secret_*", "tests.test_snapshot:Res*"))
    with app.app_context():
        g.secret_key, g.resource, g.state = "x", Resource(), SimpleNamespace(resource=Resource(), a=1)
        g.user = "alice"
        assert in_thread(lambda: (sorted(g), vars(g.state).copy())) == (["state", "user"], {"a": 1})


def test_what_stays_home_is_said_once_at_debug_level(installed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with installed.app_context():
        g.db_for_this_test = sqlite3.connect(":memory:")
        for level in (logging.INFO, logging.DEBUG, logging.DEBUG):
            caplog.set_level(level, "flaskthreads_autopatch")
            with pytest.raises(AttributeError, match="db_for_this_test"):
                in_thread(lambda: g.db_for_this_test)
        g.db_for_this_test.close()
    (message,) = [record.getMessage() for record in caplog.records if "db_for_this_test" in record.getMessage()]
    assert message.startswith("g.db_for_this_test is not inherited because it is a sqlite3.Connection: ")


# 3.4 The request is lent


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
            answered.wait(30)
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
        thread.join(30)
    assert sorted(bodies, key=repr) == [b"raw", {"a": 1}, {"b": "2"}]


def test_h19_several_threads_read_one_preloaded_body(app: Flask) -> None:
    install(app, preload=True)

    @app.post("/")
    def view() -> str:
        with ThreadPoolExecutor(8) as pool:
            bodies = [future.result(30) for future in [pool.submit(request.get_data) for _ in range(8)]]
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


# 3.5 Teardown runs in the child, on what the child opened


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
        assert pool.submit(lambda: "result").result(30) == "result"
        with pytest.raises(KeyError):
            pool.submit(lambda: {}["task"]).result(30)
    assert caplog.text.count("ValueError: in a receiver") == 2


def test_h10_a_teardown_error_never_kills_a_pools_worker(installed: Flask) -> None:
    @installed.teardown_appcontext
    def raises(exc: BaseException | None) -> None:
        if is_inherited():
            raise ValueError("in teardown")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        idents = {pool.submit(threading.get_ident).result(30) for _ in range(5)}
        assert len(idents) == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_the_tasks_exception_is_raised_and_handed_to_the_handlers(installed: Flask, error: type[BaseException]) -> None:
    handed: list[BaseException | None] = []
    installed.teardown_appcontext(handed.append)

    def work() -> None:
        raise error("from the task")

    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with pytest.raises(error, match="from the task"):
            pool.submit(work).result(30)
        assert [type(exc) for exc in handed] == [error]
        with suppress_inheritance():
            assert pool.submit(flask.has_app_context).result(30) is False


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
                future.result(30)
        with suppress_inheritance():
            assert pool.submit(flask.has_app_context).result(30) is False
        assert ran == []
        assert torn_down == ["ValueError"]


# H11: endless threads


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


# 3.6 Nothing is left behind


def test_h16_a_context_the_task_forgot_to_pop_does_not_stay(installed: Flask) -> None:
    other = Flask("other")
    torn_down: list[str] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(g.get("user", "nobody")))

    def forget(push: t.Callable[[], object]) -> None:
        g.user = "child"
        push()

    def left() -> tuple[bool, bool]:
        return flask.has_app_context(), flask.has_request_context()

    forgotten = [
        lambda: other.app_context().push(),
        lambda: other.test_request_context("/").push(),
        lambda: installed.test_request_context("/").push(),
        lambda: app_ctx.push(),
    ]
    with ThreadPoolExecutor(1) as pool:
        for context in (installed.app_context(), installed.test_request_context("/")):
            for push in forgotten:
                with context:
                    torn_down.clear()
                    pool.submit(forget, push).result(30)
                    assert torn_down[-1] == "child"
                assert pool.submit(left).result(30) == (False, False)


def test_h16_a_context_that_the_task_popped_itself_is_not_popped_twice(
    installed: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    torn_down: list[bool] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(True))
    with ThreadPoolExecutor(1) as pool:
        with installed.app_context():
            pool.submit(lambda: app_ctx.pop()).result(30)
            assert torn_down == [True]
        assert pool.submit(flask.has_app_context).result(30) is False
    assert caplog.records == []


class Weak:
    """Can be referred to weakly, and is not plain."""


def fails() -> None:
    raise ValueError(g.entry)


@pytest.mark.skipif(not fc.REUSES_APP_CONTEXT, reason="Flask 3.2 has no request context to pop")
def test_h16_a_lent_request_that_the_task_popped_itself(installed: Flask) -> None:
    def task() -> str:
        flask.globals.request_ctx.pop()
        return "popped"

    with installed.test_request_context(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(task).result(30) == "popped"
        with suppress_inheritance():
            assert not pool.submit(flask.has_app_context).result(30)


def test_a_kept_exception_of_a_thread_holds_nothing(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: kept.append(args.exc_value))

    def start() -> list[weakref.ref[t.Any]]:
        with installed.test_request_context("/"):
            g.entry = Weak()
            thread = threading.Thread(target=raises)
            thread.start()
            thread.join(30)
            return [weakref.ref(g.entry), weakref.ref(request._get_current_object())]

    def raises() -> None:
        raise ValueError("kept")

    refs = start()
    assert collectable(*refs)
    assert [str(error) for error in kept] == ["kept"]


@pytest.mark.parametrize("work", [lambda: None, fails], ids=["returns", "raises"])
@pytest.mark.parametrize("share", [False, True])
def test_a_finished_thread_a_kept_future_and_a_living_worker_hold_nothing(
    app: Flask, work: t.Callable[[], None], share: bool
) -> None:
    install(app, share=share)
    with ThreadPoolExecutor(1) as pool:
        thread = threading.Thread(target=lambda: pool.submit(lambda: None).result(30))
        future, refs = start_in_a_request(app, pool, thread, work)
        assert future.done()
        assert not thread.is_alive()
        assert collectable(*refs)


def start_in_a_request(
    app: Flask, pool: ThreadPoolExecutor, thread: threading.Thread, work: t.Callable[[], None]
) -> tuple[t.Any, list[weakref.ref[t.Any]]]:
    with app.test_request_context("/"):
        g.entry = Weak()
        g.name = "plain"
        refs: list[weakref.ref[t.Any]] = [weakref.ref(g.entry), weakref.ref(app_ctx._get_current_object())]
        refs.append(weakref.ref(request._get_current_object()))
        thread.start()
        thread.join(30)
        future = pool.submit(work)
        future.add_done_callback(lambda future: g.get("entry"))
        if error := future.exception(30):
            error.args = ()
        pool.submit(lambda: None).result(30)
    return future, refs


# 3.8 and the rest


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
            assert pool.submit(lambda: (var.get(), flask.has_app_context())).result(30) == as_ever

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


def test_suppress_inheritance(installed: Flask) -> None:
    with installed.app_context(), ThreadPoolExecutor(1) as pool:
        with suppress_inheritance():
            assert in_thread(flask.has_app_context) is False
            assert pool.submit(flask.has_app_context).result(30) is False
            created = threading.Thread(target=lambda: seen.append(flask.has_app_context()))
        assert in_thread(flask.has_app_context) is True
        assert suppress_inheritance()(in_thread)(flask.has_app_context) is False

        seen: list[bool] = []
        created_inside = threading.Thread(target=lambda: seen.append(flask.has_app_context()))
        with suppress_inheritance():  # what is started inside does not inherit, wherever it was made
            created_inside.start()
        created_inside.join(30)
        created.start()
        created.join(30)
        assert seen == [False, True]


def test_suppress_inheritance_as_a_decorator(installed: Flask) -> None:
    @suppress_inheritance
    def bare(number: int) -> tuple[int, bool]:
        """Its words."""
        return number, in_thread(flask.has_app_context)

    @suppress_inheritance()
    async def coroutine(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0)
        return number, in_thread(flask.has_app_context)

    @suppress_inheritance
    async def bare_coroutine() -> bool:
        return in_thread(flask.has_app_context)

    async def all_at_once() -> list[object]:
        return [
            *await asyncio.gather(coroutine(1), coroutine(number=2)),
            await bare_coroutine(),
            in_thread(flask.has_app_context),
        ]

    assert (bare.__name__, bare.__doc__) == ("bare", "Its words.")
    assert inspect.iscoroutinefunction(coroutine)
    with installed.app_context():
        assert [bare(1), bare(number=2)] == [(1, False), (2, False)]
        assert asyncio.run(all_at_once()) == [(1, False), (2, False), False, True]
        assert in_thread(flask.has_app_context) is True


@pytest.mark.parametrize("decorate", [suppress_inheritance, suppress_inheritance()], ids=["bare", "called"])
def test_suppress_inheritance_does_not_decorate_generators(decorate: t.Any) -> None:
    def generator() -> t.Iterator[int]:
        yield 1

    async def asynchronous() -> t.AsyncIterator[int]:
        yield 1

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match=r"generator.*'with suppress_inheritance\(\):' in the body"):
            decorate(function)


@pytest.mark.parametrize("contextvars", [False, True])
def test_a_snapshot_is_replayed_any_number_of_times_at_once(installed: Flask, contextvars: bool) -> None:
    all_in = threading.Barrier(8)

    def work() -> str:
        all_in.wait(30)
        g.mine = threading.get_ident()
        all_in.wait(30)
        assert g.mine == threading.get_ident()
        return f"{g.user} {request.path}"

    with installed.test_request_context("/path"):
        g.user = "alice"
        snapshot = snapshot_here(contextvars=contextvars)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(replay, snapshot, work, (), {}) for _ in range(8)]
        assert {future.result(30) for future in futures} == {"alice /path"}


flask_3_2 = pytest.mark.skipif(fc.REUSES_APP_CONTEXT, reason="the request is not active in a teardown before Flask 3.2")


@pytest.mark.parametrize("lent", [False, True])
def test_a_replay_inside_somebody_elses_request_does_not_show_it(installed: Flask, lent: bool) -> None:
    seen: list[str] = []

    def note(*args: object, **kwargs: object) -> None:
        if flask.has_request_context():
            seen.append(request.path)

    with installed.test_request_context("/alices") if lent else installed.app_context():
        g.user = "alice"
        snapshot = snapshot_here()
    with installed.test_request_context("/bobs"):
        g.user = "bob"
        installed.teardown_appcontext(note)
        with appcontext_pushed.connected_to(note, installed), appcontext_tearing_down.connected_to(note, installed):
            user, path = replay(snapshot, lambda: (g.user, flask.has_request_context() and request.path), (), {})
        assert (user, path) == ("alice", "/alices" if lent else False)
        # From Flask 3.2 on, a teardown handler may read the request: that is alice's.
        assert seen == (["/alices", "/alices"] if lent and not fc.REUSES_APP_CONTEXT else [])
        assert (g.user, request.path) == ("bob", "/bobs")


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
        thread.join(30)
        assert (closed, torn_down) == (["/alices alice child"], [])
        work()
    assert closed[1:] == ["/alices alice MainThread"]
    assert torn_down == ["request"]


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
            thread.join(30)
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
        pool.submit(int).result(30)  # starts the worker
        token = var.set("parent")

        def work() -> tuple[str, bool]:
            before = var.get()
            var.set("child")
            return before, is_inherited()

        if carried:
            assert pool.submit(work).result(30) == ("parent", True)
            assert pool.submit(work).result(30) == ("parent", True)
        else:
            assert pool.submit(lambda: (var.get(), is_inherited())).result(30) == ("unset", True)
        assert var.get() == "parent"
        var.reset(token)
        with suppress_inheritance():
            assert pool.submit(var.get).result(30) == "unset"


@pytest.mark.parametrize("share", [False, True])
def test_a_g_without_a_dict_stays_home_and_is_said_once(
    app: Flask, share: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Slotted:
        __slots__ = ("user",)

    app.app_ctx_globals_class = Slotted  # type: ignore[assignment]
    install(app, share=share)
    with app.test_request_context("/alices"):
        g.user = "alice"
        for _ in range(2):
            assert in_thread(lambda: (flask.current_app.name, request.path, is_inherited())) == (
                "tests",
                "/alices",
                True,
            )
            assert in_thread(lambda: hasattr(g, "user")) is share
            assert in_thread(lambda: [replay.inherited for replay in running()]) == [()]
    said = [(record.levelname, record.exc_info) for record in caplog.records if Slotted.__qualname__ in record.message]
    assert said == ([] if share else [("WARNING", None)])
    assert len(caplog.records) == len(said)
