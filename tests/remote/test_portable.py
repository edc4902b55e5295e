"""What may travel and what is refused, decided where the task is submitted."""

from __future__ import annotations

import collections
import contextvars
import datetime
import decimal
import enum
import functools
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import typing as t
import uuid
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import flask
import pytest
from flask import Flask, current_app, g
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface
from markupsafe import Markup

import flaskthreads_autopatch
from flaskthreads_autopatch import AppLoadError, NotPortableError, RemoteAppContextExecutor, carry

from . import shop
from .servers import ROOT


class Color(enum.IntEnum):
    RED = 1


class Untouched(Executor):
    """An engine that must not be reached."""

    def submit(self, fn: t.Any, /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
        raise AssertionError("submitted")


def circle() -> list[t.Any]:
    items: list[t.Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "value", [Color.RED, object(), circle(), [Markup("a")]], ids=lambda value: type(value).__name__
)
def test_what_would_not_arrive_equal_is_refused_where_it_is_sent(app: Flask, value: object) -> None:
    with app.app_context():
        g.fine, g.entry = 1, value
        executor = RemoteAppContextExecutor(Untouched(), shop.APP, g=("fine", "entry"))
        for submit in (executor.submit, executor.map):
            with pytest.raises(NotPortableError) as raised:
                submit(shop.look)
            cls = type(value)
            name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
            assert str(raised.value).startswith(f"g.entry ({name}) cannot be carried to another process: it contains")
            assert isinstance(raised.value, TypeError)
        executor = RemoteAppContextExecutor(ThreadPoolExecutor(1), shop.APP, g=("fine",), owned=True)
        with executor:
            assert executor.submit(shop.look).result(30)["g"] == {"fine": 1}


def test_an_error_holds_neither_the_value_nor_its_text(app: Flask) -> None:
    class Token(str):
        pass

    with app.app_context():
        g.token = Token("t0ken-ring")
        held = weakref.ref(g.token)
        with pytest.raises(NotPortableError) as raised:
            carry(shop.look, shop.APP, g=("token",))
        error = raised.value
        del raised, g.token
    while error is not None:
        assert "t0ken-ring" not in str(error)
        error.__traceback__ = None
        error = error.__context__ or error.__cause__  # type: ignore[assignment]
    assert held() is None


class Unwilling(DefaultJSONProvider):
    """A provider that must not be asked."""

    def dumps(self, obj: t.Any, **kwargs: t.Any) -> str:
        raise AssertionError

    loads = dumps


def create_app_with_other_json() -> Flask:
    app = shop.create_app()
    app.teardown_appcontext_funcs.clear()
    app.json = Unwilling(app)
    return app


def test_the_apps_own_json_does_not_matter() -> None:
    app = shop.create_app(install=False)
    app.teardown_appcontext_funcs.clear()
    value = {"b": [datetime.date(2026, 11, 22)], "a": (decimal.Decimal("1.50"), uuid.UUID(int=1))}
    with shop.in_request(app):
        app.json = Unwilling(app)
        g.user_id = value
        seen = carry(shop.look, f"{__name__}:create_app_with_other_json", g=("user_id",))()
    assert (seen["g"], list(seen["g"]["user_id"]), seen["endpoint"]) == ({"user_id": value}, ["b", "a"], "order")


def test_where_there_is_nothing_to_carry_nothing_is_sent(app: Flask) -> None:
    sent = [carry(shop.look, **shop.NAMED)]
    with app.app_context():
        sent.append(carry(shop.look, **shop.NAMED))
    app.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = False
    with shop.in_request(app):
        sent.append(carry(shop.look, **shop.NAMED))
    strings = (shop.APP, f"{shop.__name__}:look", "")
    assert [carried.__reduce__()[1] for carried in sent] == [strings] * 3  # type: ignore[misc]


def test_a_name_that_is_not_there_is_not_there(app: Flask) -> None:
    with shop.in_request(app, **{"X-Request-ID": ""}):
        assert carry(shop.look, shop.APP, g=("nobody",), headers=("X-Nothing",))()["g"] == {}


def test_of_a_g_with_slots_nothing_is_carried(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slots:
        __slots__ = ("user_id",)

    monkeypatch.setattr(app, "app_ctx_globals_class", Slots)
    with app.app_context():
        g.user_id = "alice"
        carried = carry(os.getpid, shop.APP, g=("user_id",))
    assert carried() == os.getpid()


class Alike:
    """Says that it is `shop.user`."""

    __qualname__: t.Any

    def __init__(self, **names: str) -> None:
        vars(self).update({"__module__": shop.user.__module__, "__qualname__": "user"} | names)

    def __call__(self) -> None: ...

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "name", ["lambda", "local", "partial", "instance", "bound", "method", "builtin", "replaced", "alike", "unnamed"]
)
def test_a_callable_that_is_not_found_by_name_is_refused(app: Flask, name: str) -> None:
    def local() -> None: ...

    @functools.wraps(shop.user)
    def replaced() -> None: ...

    callables: dict[str, t.Any] = {
        "lambda": lambda: None,
        "local": local,
        "partial": functools.partial(shop.user_and, 1),
        "instance": shop.Orders(),
        "bound": [].append,
        "method": collections.Counter().most_common,
        "builtin": "".join,
        "replaced": replaced,
        "alike": Alike(),
        "unnamed": Alike(__module__=""),
    }
    executor = RemoteAppContextExecutor(Untouched(), shop.APP)
    with app.app_context():
        for submit in (executor.submit, executor.map):
            with pytest.raises(NotPortableError, match="cannot be found by name in another process") as raised:
                submit(callables[name])
            named = getattr(callables[name], "__qualname__", type(callables[name]).__qualname__)
            assert str(raised.value).startswith(f"{named!r} ({type(callables[name]).__qualname__}, module ")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"app": shop.create_app}, r"app=<function .*: allowed is where a worker process finds the app"),
        ({"app": ""}, "app='': allowed is"),
        ({"g": "user_id"}, r"g='user_id': allowed is a tuple of names, as g=\("),
        ({"g": (1,)}, r"g=\(1,\): allowed is a tuple of names"),
        ({"g": None}, r"g=None: allowed is a tuple of names"),
        ({"headers": "X-Request-ID"}, "headers='X-Request-ID': allowed is a tuple of names"),
    ],
)
def test_wrong_options_are_named(options: dict[str, t.Any], complaint: str) -> None:
    for make in (functools.partial(RemoteAppContextExecutor, Untouched()), functools.partial(carry, shop.look)):
        with pytest.raises(TypeError, match=complaint):
            make(**{"app": shop.APP, **options})


def test_what_is_no_executor_is_named() -> None:
    with pytest.raises(TypeError, match=r"executor=<object .*>: allowed is a concurrent.futures.Executor"):
        RemoteAppContextExecutor(object(), shop.APP)  # type: ignore[arg-type]


def test_the_settings_of_threads_hold_here_too(app: Flask) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = False
    with shop.in_request(app):
        shop.preprocess(app)
        assert carry(shop.look, **shop.NAMED)() == {"app": "shop", "g": {"user_id": "alice", "request_id": "r-1"}}

        app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "request_*"
        with pytest.raises(NotPortableError, match=r"g.request_id \(str\) .*: excluded by 'request_\*'"):
            carry(shop.look, **shop.NAMED)


def test_the_settings_count_as_they_are_when_a_task_is_sent(app: Flask) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "other"
    with ThreadPoolExecutor(1) as engine, app.app_context():
        g.user_id = "alice"
        remote = RemoteAppContextExecutor(engine, **shop.NAMED)
        assert remote.submit(shop.user).result(30) == "alice"
        app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "user_*"
        for refusing in (functools.partial(carry, **shop.NAMED), remote.submit):
            with pytest.raises(NotPortableError, match="excluded by"):
                refusing(shop.user)
        app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "other"
        flaskthreads_autopatch.install(app, exclude=["user_*"])
        with pytest.raises(NotPortableError, match="excluded by"):
            remote.submit(shop.user)


def test_an_executor_keeps_the_settings_of_each_app_and_no_app(app: Flask) -> None:
    other = shop.create_app(install=False)
    other.teardown_appcontext_funcs.clear()
    other.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "user_*"
    held = weakref.ref(other)
    with ThreadPoolExecutor(1) as engine:
        remote = RemoteAppContextExecutor(engine, **shop.NAMED)
        for each, sends in ((app, True), (other, False), (app, True)):
            with each.app_context():
                g.user_id = "alice"
                if sends:
                    assert remote.submit(shop.user).result(30) == "alice"
                else:
                    with pytest.raises(NotPortableError, match="excluded by"):
                        remote.submit(shop.user)
        del each, other
        gc.collect()
        assert held() is None


def test_what_threads_do_not_inherit_has_a_way_out_of_its_own(app: Flask) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "user_*"
    with app.app_context():
        g.user_id, g.connection = "alice", shop.connection()
        for name, reason in (("user_id", r"excluded by 'user_\*'"), ("connection", ".*thread.*")):
            with pytest.raises(
                NotPortableError, match=rf"^g.{name} .*: {reason}. Threads do not inherit it either: take"
            ):
                carry(shop.user, shop.APP, g=(name,))
        app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = ""
        with pytest.raises(
            NotPortableError, match=r"^g.connection .*thread.*\. Threads do not inherit it either: take"
        ):
            carry(shop.user, shop.APP, g=("connection",))
        g.connection.close()


def greeted_app() -> Flask:
    app = Flask("greets")

    def greet(sender: Flask, **_: object) -> None:
        g.user_id = "of the worker"

    flask.appcontext_pushed.connect(greet, app, weak=False)
    return app


def test_what_a_receiver_has_put_on_g_wins_as_in_a_thread(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert carry(shop.user, f"{__name__}:greeted_app", g=("user_id",))() == "of the worker"


class Counted(SecureCookieSessionInterface):
    opened = 0

    def open_session(self, app: t.Any, request: t.Any) -> t.Any:
        type(self).opened += 1
        return super().open_session(app, request)


def app_with_counted_sessions() -> Flask:
    app = shop.create_app()
    app.session_interface = Counted()
    return app


def test_a_session_is_opened_once(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    with shop.in_request(app):
        carried = carry(session_of_task, f"{__name__}:app_with_counted_sessions")
        carried()
        assert Counted.opened == 1
        monkeypatch.setattr(SecureCookieSessionInterface, "open_session", None)
        assert carry(session_of_task, shop.APP)() == ("SecureCookieSession", {})


def complain() -> None:
    print("complaint", file=flask.request.environ["wsgi.errors"])


def test_a_carried_request_has_a_complete_environ(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    with shop.in_request(app):
        carry(complain, shop.APP)()
    assert "complaint" in capsys.readouterr().err


class OwnSessions(SecureCookieSessionInterface):
    def open_session(self, app: t.Any, request: t.Any) -> t.Any:
        return self.session_class({"opened": "by the app"})


class RequestWithCookie(flask.Request):
    cookies = property(lambda self: {"session": current_app.config["IN_NO_HEADER"]})  # type: ignore[assignment]


def create_app_with_sessions(kind: str) -> Flask:
    app = shop.create_app()
    app.teardown_appcontext_funcs.clear()
    # Flask's own is one object for all apps.
    interface: t.Any = SecureCookieSessionInterface()
    app.session_interface = interface
    if kind == "interface":
        app.session_interface = OwnSessions()
    elif kind == "method":
        interface.open_session = OwnSessions().open_session
    elif kind == "request class":
        app.config["IN_NO_HEADER"] = interface.get_signing_serializer(app).dumps({"opened": "by the app"})
        app.request_class = RequestWithCookie
    elif kind == "no key":
        app.secret_key = None
    return app


def session_of_task() -> tuple[str, dict[str, t.Any]]:
    return type(flask.session._get_current_object()).__name__, dict(flask.session)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["flask", "interface", "method", "request class", "no key"])
def test_the_session_is_the_one_that_the_app_opens(app: Flask, kind: str) -> None:
    with shop.in_request(app):
        seen = carry(session_of_task, f"{__name__}:create_app_with_sessions({kind!r})")()
    with create_app_with_sessions(kind).test_request_context("/"):
        assert seen == session_of_task()
    assert seen[1] == ({} if kind in ("flask", "no key") else {"opened": "by the app"})
    assert seen[0] == ("NullSession" if kind == "no key" else "SecureCookieSession")


def test_sessions_are_not_shared(app: Flask) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        carried = carry(shop.write, **shop.NAMED)
        carried("mine")
        assert carry(shop.look, **shop.NAMED)()["session"] == {}


def test_names_may_come_from_any_iterable(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert carry(shop.user, shop.APP, g=(name for name in ["user_id"]))() == "alice"


def test_keyword_arguments_arrive(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert carry(shop.user_and, **shop.NAMED)(number=7) == ("alice", 7)


def test_what_engines_show_of_a_task_is_its_name_and_nothing_carried(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        carried: t.Any = carry(shop.Orders.of_user, **shop.NAMED)
    assert (carried.__name__, carried.__qualname__) == ("Orders.of_user", "Orders.of_user")
    assert repr(carried) == (
        f"<{shop.__name__}:Orders.of_user carried to a context of {shop.APP} (a job store takes its .run)>"
    )
    with pytest.raises(AttributeError, match="'Carried' object has no attribute 'user_id'"):
        carried.user_id  # noqa: B018


def test_an_error_in_the_teardown_is_logged_as_one_of_the_users_function(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with app.app_context():
        g.user_id = "alice"
        for fn in (shop.user, shop.user_async):
            caplog.clear()
            carry(fn, **shop.NAMED)()
            [message] = caplog.messages
            assert message.startswith(f"Error in the teardown of the app context inherited by {fn.__name__} in thread")


def test_a_kept_exception_holds_no_context(app: Flask) -> None:
    # An app that has the request's route: Flask's own routing exception keeps its request.
    path = f"{__name__}:create_app_with_sessions('flask')"
    carried = [carry(shop.fail_and_note, path)]
    with shop.in_request(app):
        carried.append(carry(shop.fail_and_note, path))
    gc.collect()
    gc.disable()
    try:
        for call in carried:
            with pytest.raises(KeyError) as kept:
                call(1, two=2)
            assert kept.traceback
            assert [held() for held in shop.noted] == [None] * len(shop.noted)
    finally:
        gc.enable()
        assert len(shop.noted) == 3
        shop.noted.clear()


def test_a_request_of_another_app_is_not_carried(app: Flask) -> None:
    with Flask("other").test_request_context("/", headers=shop.HEADERS), app.app_context():
        g.user_id = "alice"
        assert carry(shop.look, **shop.NAMED)() == {"app": "shop", "g": {"user_id": "alice"}}


def test_h40_nothing_is_carried_from_another_app(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    other, twin = Flask("unlike any other"), Flask("shop")
    for around in (other.app_context, lambda: other.test_request_context("/", headers=shop.HEADERS)):
        with ThreadPoolExecutor(1) as engine, around():
            g.user_id = "alice"
            remote = RemoteAppContextExecutor(engine, **shop.NAMED)
            for seen in (carry(shop.look, **shop.NAMED)(), remote.submit(shop.look).result(30)):
                assert seen == {"app": "shop", "g": {}}
    # Once for each pair of apps.
    assert [message for message in caplog.messages if "is not the worker's" in message] == [
        "The context that was sent with a task is not used: the app 'unlike any other' it was taken"
        " from is not the worker's, which is 'shop'. Apps are compared by their import_name."
    ]
    # A factory may make one app for WSGI and another one for the workers.
    with twin.app_context():
        g.user_id = "alice"
        assert carry(shop.look, **shop.NAMED)() == {"app": "shop", "g": {"user_id": "alice"}}


MAIN = """
import sys
from flask import Flask, current_app, g
from flaskthreads_autopatch import carry

def create_app():
    return Flask(__name__)

def work():
    return current_app.import_name, g.user_id

if __name__ == "__main__":
    import {module} as importable
    with create_app().app_context():
        g.user_id = "alice"
        print(carry(importable.work, "{module}:create_app", g=("user_id",))())
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["only_a_script.py"], "only_a_script"),
        (["-m", "only_a_script"], "only_a_script"),
        (["-m", "package.only_a_script"], "package.only_a_script"),
        (["package/only_a_script.py"], "package.only_a_script"),
        (["-m", "package"], "package.__main__"),
    ],
    ids=" ".join,
)
def test_h40_the_main_module_is_the_module_that_it_would_be_imported_as(
    tmp_path: Path, command: list[str], module: str
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    for path in (tmp_path / "only_a_script.py", package / "only_a_script.py", package / "__main__.py"):
        path.write_text(MAIN.format(module=module))
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"('{module}', 'alice')\n", done.stderr


class InPlace(Executor):
    """An engine that runs a task where it is submitted."""

    def submit(self, fn: t.Any, /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
        future: Future[t.Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def submit_again() -> str:
    return t.cast(str, in_place.submit(shop.user).result(30))


in_place = RemoteAppContextExecutor(InPlace(), **shop.NAMED)


def test_a_task_that_an_engine_runs_in_place_may_submit(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        thread = threading.Thread(target=contextvars.copy_context().run, args=(in_place.submit, submit_again))
        thread.daemon = True
        thread.start()
        thread.join(30)
        assert not thread.is_alive()


def app_that_pushes() -> Flask:
    app = Flask("pushes")
    app.test_request_context("/of-the-import").push()
    return app


def test_what_an_import_pushes_is_not_active_in_the_first_task() -> None:
    carried = carry(flask.has_request_context, f"{__name__}:app_that_pushes")
    assert [carried(), carried()] == [False, False]
    assert not flask.has_request_context()


def create_app_with_slots() -> Flask:
    class Slots:
        __slots__ = ("user_id",)

    app = Flask("slots")
    app.app_ctx_globals_class = Slots  # type: ignore[assignment]
    return app


def test_an_app_whose_g_has_slots_runs_tasks() -> None:
    assert carry(os.getpid, f"{__name__}:create_app_with_slots")() == os.getpid()


in_factory, on_its_way = threading.Event(), threading.Event()
loads: list[Flask] = []


def create_app_slowly() -> Flask:
    in_factory.set()
    assert on_its_way.wait(30)
    time.sleep(0.1)  # so that the other thread comes to the lock: if it is later than that, the test says less
    loads.append(Flask("slow"))
    return loads[-1]


def app_here() -> Flask:
    return t.cast(Flask, current_app._get_current_object())  # type: ignore[attr-defined]


def test_threads_of_one_worker_load_the_app_once() -> None:
    carried = carry(app_here, f"{__name__}:create_app_slowly")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(carried)
        assert in_factory.wait(30)
        second = threads.submit(lambda: (on_its_way.set(), carried())[1])
        assert [first.result(30), second.result(30)] == [loads[0]] * 2
    assert len(loads) == 1


def create_debugged_app() -> Flask:
    app = Flask("debugged")
    app.debug = True
    return app


def test_the_apps_own_debug_flag_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "0")
    assert carry(app_here, f"{__name__}:create_debugged_app")().debug


def test_an_app_load_error_is_pickled_as_a_whole() -> None:
    error = pickle.loads(pickle.dumps(AppLoadError(import_path="shop:app", reason="LookupError: none.")))
    assert (error.import_path, error.reason) == ("shop:app", "LookupError: none.")
    assert str(error).startswith(
        "The app 'shop:app' cannot be loaded in the worker process: LookupError: none. The worker reads the path"
    )


class Recording(Executor):
    """An engine that notes what it is asked for, and never gets to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[t.Any, ...]] = []
        self.futures: list[Future[t.Any]] = []

    def submit(self, fn: t.Any, /, *args: t.Any, **kwargs: t.Any) -> Future[t.Any]:
        self.calls.append(("submit", args, kwargs))
        self.futures.append(Future())
        return self.futures[-1]

    def map(self, fn: t.Any, *iterables: t.Any, **options: t.Any) -> t.Any:
        self.calls.append(("map", iterables, options))
        return iter(())

    def shutdown(self, *args: t.Any, **kwargs: t.Any) -> None:
        self.calls.append(("shutdown", args, kwargs))


def test_what_is_given_is_passed_on() -> None:
    engine = Recording()
    remote = RemoteAppContextExecutor(engine, shop.APP)
    remote.submit(shop.user_and, 1, number=2, fn=3)
    assert list(remote.map(shop.user_and, [1], [2], timeout=3, chunksize=4)) == []
    assert engine.calls == [
        ("submit", (1,), {"number": 2, "fn": 3}),
        ("map", ([1], [2]), {"timeout": 3, "chunksize": 4}),
    ]


@pytest.mark.parametrize("options", [{}, {"cancel_futures": True}])
def test_an_owned_engine_is_shut_down_as_asked(options: dict[str, bool]) -> None:
    engine = Recording()
    for wait in (True, False):
        remote = RemoteAppContextExecutor(engine, shop.APP, owned=True)
        future = remote.submit(shop.user)
        remote.shutdown(wait, **options)
        # Not every engine knows the option: it is named only if it is asked for.
        assert engine.calls.pop() == ("shutdown", (wait,), options)
        assert future.cancelled() is bool(options)


def test_shutdown_waits_only_if_asked() -> None:
    engine = Recording()
    remote = RemoteAppContextExecutor(engine, shop.APP)
    future = remote.submit(shop.user)
    order: list[str] = []
    future.add_done_callback(lambda _: order.append("done"))

    def shut_down(wait: bool) -> None:
        remote.shutdown(wait)
        order.append(f"returned with {wait=}")

    for wait in (False, True):
        thread = threading.Thread(target=shut_down, args=(wait,), daemon=True)
        thread.start()
        if wait:
            # It waits by a condition of the future's, which is there from then on.
            while thread.is_alive() and not future._waiters:  # type: ignore[attr-defined]
                time.sleep(0.01)
            future.set_result(None)
        thread.join(30)
    assert sorted(order[1:]) == ["done", "returned with wait=True"]
    assert order[0] == "returned with wait=False"
    assert [name for name, *_ in engine.calls] == ["submit"]
