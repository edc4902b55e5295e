"""What may travel and what is refused, decided where the task is submitted."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import gc
import os
import typing as t
import uuid
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import flask
import pytest
from flask import Flask, current_app, g
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface
from markupsafe import Markup

import flaskthreads_autopatch
from flaskthreads_autopatch import NotPortableError, RemoteAppContextExecutor, carry

from . import shop


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


PORTABLE = [
    *(None, True, 0, -(2**70), 1.5, -0.0, float("inf"), "", "ä\u2028</script>", "\ud800"),
    *([], [1, [None]], {}, {"b": {"a": [True]}, "a": 1}),
]
NOT_PORTABLE = [
    *((1, 2), [(1,)], {"a": (1,)}, {1: "a"}, {None: 1}, {True: 1}, {1: 1, "1": 1}, {Markup("a"): 1}),
    *(float("nan"), [float("nan")], b"bytes", {1}, Color.RED, {Color.RED: 1}, Markup("<b>"), 1j),
    *(datetime.date(2026, 1, 1), uuid.UUID(int=1), decimal.Decimal("1.5"), collections.OrderedDict(a=1)),
    *(object(), circle(), shop.connection, 10**5000),
]


@pytest.mark.parametrize("value", PORTABLE, ids=ascii)
def test_what_json_brings_back_equal_travels(app: Flask, value: object) -> None:
    with app.app_context():
        g.entry = value
        back = carry(shop.look, shop.APP, g=("entry",))()["g"]["entry"]
    assert (repr(back), type(back)) == (repr(value), type(value)) or back == value == {"b": {"a": [True]}, "a": 1}


@pytest.mark.parametrize("value", NOT_PORTABLE, ids=lambda value: type(value).__qualname__)
def test_what_json_does_not_bring_back_equal_is_refused(app: Flask, value: object) -> None:
    with app.app_context():
        g.fine, g.entry = 1, value
        executor = RemoteAppContextExecutor(Untouched(), shop.APP, g=("fine", "entry"))
        for submit in (executor.submit, executor.map):
            with pytest.raises(NotPortableError) as raised:
                submit(shop.look)
            cls = type(value)
            name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
            assert str(raised.value).startswith(f"g.entry ({name}) cannot be carried to another process: app.json ")
            assert isinstance(raised.value, TypeError)
        executor = RemoteAppContextExecutor(ThreadPoolExecutor(1), shop.APP, g=("fine",), owned=True)
        with executor:
            assert executor.submit(shop.look).result(30)["g"] == {"fine": 1}


def test_the_value_is_not_in_the_message(app: Flask) -> None:
    with app.app_context():
        g.token = ("t0ken-ring",)
        with pytest.raises(NotPortableError) as raised:
            carry(shop.look, shop.APP, g=("token",))
    assert "t0ken-ring" not in str(raised.value)


class DatesToo(DefaultJSONProvider):
    """A provider that carries dates; both sides have to have it."""

    @staticmethod
    def default(o: t.Any) -> t.Any:  # type: ignore[override]
        return {"$date": o.isoformat()}

    def loads(self, s: str | bytes, **kwargs: t.Any) -> t.Any:
        def back(found: dict[str, t.Any]) -> t.Any:
            return datetime.date.fromisoformat(found["$date"]) if "$date" in found else found

        return super().loads(s, object_hook=back, **kwargs)


def create_app_with_dates() -> Flask:
    app = Flask("dates")
    app.json = DatesToo(app)
    return app


def day() -> datetime.date:
    return t.cast(datetime.date, g.day)


def test_the_apps_own_json_decides() -> None:
    with create_app_with_dates().app_context():
        g.day = datetime.date(2026, 11, 22)
        assert carry(day, f"{__name__}:create_app_with_dates", g=("day",))() == g.day


class WithoutNothing(DefaultJSONProvider):
    """A provider that loses something on the way."""

    def loads(self, s: str | bytes, **kwargs: t.Any) -> t.Any:
        return super().loads(str(s).replace(", null", ""), **kwargs)


def test_what_the_apps_own_json_loses_is_refused() -> None:
    app = Flask("loses")
    app.json = WithoutNothing(app)
    with app.app_context():
        g.items = [1, None]
        with pytest.raises(NotPortableError, match=r"g.items \(list\) .* app.json brings back another value"):
            carry(shop.look, shop.APP, g=("items",))


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


@pytest.mark.parametrize("name", ["lambda", "local", "partial", "instance", "bound", "builtin", "replaced"])
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
        "builtin": "".join,
        "replaced": replaced,
    }
    executor = RemoteAppContextExecutor(Untouched(), shop.APP)
    with app.app_context():
        for submit in (executor.submit, executor.map):
            with pytest.raises(NotPortableError, match="cannot be found by name in another process"):
                submit(callables[name])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"app": shop.create_app}, r"app=<function .*: allowed is where a worker process finds the app"),
        ({"app": ""}, "app='': allowed is"),
        ({"g": "user_id"}, r"g='user_id': allowed is a tuple of names, as g=\("),
        ({"g": (1,)}, r"g=\(1,\): allowed is a tuple of names"),
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


def test_an_executor_reads_the_settings_of_an_app_once_and_carry_each_time(app: Flask) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "other"
    with ThreadPoolExecutor(1) as engine, app.app_context():
        g.user_id = "alice"
        remote = RemoteAppContextExecutor(engine, **shop.NAMED)
        assert remote.submit(shop.user).result(30) == "alice"
        app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "user_*"
        assert remote.submit(shop.user).result(30) == "alice"
        for refusing in (functools.partial(carry, **shop.NAMED), RemoteAppContextExecutor(engine, **shop.NAMED).submit):
            with pytest.raises(NotPortableError, match="excluded by"):
                refusing(shop.user)
        flaskthreads_autopatch.install(app)
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


class Shouting(DefaultJSONProvider):
    """A provider that changes plain text."""

    def loads(self, s: str | bytes, **kwargs: t.Any) -> t.Any:
        return super().loads(str(s).replace("alice", "ALICE"), **kwargs)


def test_of_the_apps_own_json_nothing_is_taken_for_granted() -> None:
    app = Flask("shouts")
    app.json = Shouting(app)
    with app.app_context():
        g.user_id = "alice"
        with pytest.raises(NotPortableError, match=r"g.user_id \(str\) .* app.json brings back another value"):
            carry(shop.user, shop.APP, g=("user_id",))


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
