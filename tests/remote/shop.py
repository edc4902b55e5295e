"""The app of these tests, as a worker process finds it, and what the workers do in its context."""

from __future__ import annotations

import inspect
import os
import sqlite3
import threading
import time
import typing as t
import weakref

import flask
from flask import Flask, current_app, g, request, session
from flask.globals import app_ctx

import flaskthreads_autopatch

APP = "tests.remote.shop:create_app"
NAMED: dict[str, t.Any] = {"app": APP, "g": ("user_id", "request_id"), "headers": ("X-Request-ID",)}

SECRETS = {"Cookie": "session=c00kie-jar", "Authorization": "Bearer t0ken-ring"}
HEADERS = {"user-id": "alice", "X-Request-ID": "r-1", **SECRETS}

torn_down: list[str] = []
"""In this process: what each handler saw, in the order of their calls."""


def create_app(install: bool = True) -> Flask:
    app = Flask("shop")
    app.secret_key = "tests"
    app.config["LOADED_IN"] = os.getpid()
    if install:
        flaskthreads_autopatch.install(app)

    @app.before_request
    def load_user() -> None:
        g.user_id = request.headers["user-id"]
        g.request_id = request.headers.get("X-Request-ID")
        g.secret = "not named"

    @app.teardown_request
    def of_request(error: BaseException | None) -> None:
        torn_down.append("request")

    @app.teardown_appcontext
    def runs_last(error: BaseException | None) -> None:
        torn_down.append(f"last {g.get('user_id')} {type(error).__name__}")

    @app.teardown_appcontext
    def runs_first(error: BaseException | None) -> None:
        torn_down.append("first")
        raise ZeroDivisionError("in a teardown handler")

    @app.route("/orders/<int:number>", methods=["GET", "POST"])
    def order(number: int) -> str:
        return str(number)

    return app


def in_request(app: Flask, **headers: str) -> t.Any:
    """A request context of *app*, with the user loaded."""
    return app.test_request_context("/orders/7?q=ä", "https://shop.example/mounted", headers=HEADERS | headers)


def preprocess(app: Flask) -> None:
    """Runs what runs before a view. Since Flask 3.2 it is told in which context."""
    takes = len(inspect.signature(app.preprocess_request).parameters)
    app.preprocess_request(*[app_ctx._get_current_object()][:takes])  # type: ignore[attr-defined]


def broken_app() -> Flask:
    raise LookupError("no such config file")


def ending_app() -> Flask:
    raise SystemExit("stop here")


def look() -> dict[str, t.Any]:
    """What a task sees of its context."""
    here: dict[str, t.Any] = {"app": current_app.name, "g": dict(vars(g))}
    if flask.has_request_context():
        here |= {
            "method": request.method,
            "url": request.url,
            "root": request.script_root,
            "headers": dict(request.headers),
            "endpoint": request.endpoint,
            "view_args": request.view_args,
            "sibling": flask.url_for("order", number=8),
            "body": request.get_data(),
            "session": dict(session),
        }
    return here


def context_outside() -> tuple[bool, int | None]:
    """What Flask context is active in a task that nobody carries."""
    return flask.has_request_context(), id(g._get_current_object()) if g else None


def user() -> str:
    return t.cast(str, g.user_id)


def user_and(number: int) -> tuple[str, int]:
    return g.user_id, number


def user_in_thread() -> str | None:
    seen: list[str] = []

    def work() -> None:
        if flask.has_app_context():
            seen.append(g.user_id)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    return seen[0] if seen else None


async def user_async() -> str:
    return user()


def fail() -> None:
    raise KeyError(g.user_id)


noted: list[weakref.ref[t.Any]] = []
"""In this process: the contexts, and where there are any the sessions, of `fail_and_note`."""


def fail_and_note(*ignored: object, **more: object) -> None:
    noted.append(weakref.ref(app_ctx._get_current_object()))  # type: ignore[attr-defined]
    if flask.has_request_context():
        noted.append(weakref.ref(session._get_current_object()))  # type: ignore[attr-defined]
    raise KeyError


def leave_torn_down() -> list[str]:
    seen, torn_down[:] = list(torn_down), []
    return seen


def write(name: str) -> list[str]:
    """Leaves something on ``g`` and in the session; returns what was on ``g`` before."""
    before = sorted(vars(g))
    setattr(g, name, 1)
    if flask.has_request_context():
        session[name] = 1
    return before


def loaded_in() -> tuple[int, int]:
    return current_app.config["LOADED_IN"], os.getpid()


def loaded_id() -> tuple[int, int]:
    return os.getpid(), id(t.cast(t.Any, current_app)._get_current_object())


def end_process(told: str | None = None) -> None:
    """Ends at once, or when there is a file *told*."""
    while told is not None and not os.path.exists(told):
        time.sleep(0.01)
    os._exit(9)


class Orders:
    @classmethod
    def of_user(cls) -> str:
        return f"{cls.__name__} of {g.user_id}"


def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")
