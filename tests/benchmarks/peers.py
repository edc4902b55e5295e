"""The states a column is measured in: whose patches are on, and which context is active."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import wrapt
from flask import Flask, g, session

import flaskthreads_autopatch


class User:
    """An object on ``g`` that is neither plain nor bound to a thread."""


def make_app() -> Flask:
    app = Flask("benchmarks")
    app.secret_key = "benchmarks"
    app.add_url_rule("/orders/<int:order>", "orders", lambda order: "")
    return app


app = make_app()


@contextlib.contextmanager
def app_context() -> Iterator[None]:
    with app.app_context():
        yield


@contextlib.contextmanager
def request_context(plain: int = 3, objects: int = 2) -> Iterator[None]:
    """A request with a session and entries of ``g``: plain values, and objects that a teardown could close."""
    with app.test_request_context("/orders/7?page=2"):
        session["user_id"] = 1
        for i in range(plain):
            setattr(g, f"plain_{i}", f"value {i}")
        for i in range(objects):
            setattr(g, f"object_{i}", User())
        yield


@contextlib.contextmanager
def ours() -> Iterator[None]:
    with flaskthreads_autopatch.enable():
        yield


@contextlib.contextmanager
def opentelemetry() -> Iterator[None]:
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    ThreadingInstrumentor().instrument()
    try:
        yield
    finally:
        ThreadingInstrumentor().uninstrument()


_SENTRY_POINTS: list[tuple[type, str]] = [
    (threading.Thread, "start"),
    (threading.Thread, "run"),
    (ThreadPoolExecutor, "submit"),
]
_sentry_layers: list[tuple[type, str, t.Any, t.Any]] = []


@contextlib.contextmanager
def sentry() -> Iterator[None]:
    """Sentry cannot be taken out again: its layers are put in by `sentry_sdk.init`, kept, and swapped from then on."""
    if not _sentry_layers:
        import sentry_sdk
        from sentry_sdk.integrations.threading import ThreadingIntegration

        before = [vars(owner)[name] for owner, name in _SENTRY_POINTS]
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            integrations=[ThreadingIntegration()],
            default_integrations=False,
            auto_enabling_integrations=False,
        )
        for (owner, name), old in zip(_SENTRY_POINTS, before, strict=True):
            _sentry_layers.append((owner, name, old, vars(owner)[name]))
    for owner, name, _, layer in _sentry_layers:
        setattr(owner, name, layer)
    try:
        yield
    finally:
        for owner, name, old, _ in _sentry_layers:
            setattr(owner, name, old)


@contextlib.contextmanager
def bare_wrapt(*points: tuple[type, str]) -> Iterator[None]:
    """A wrapt layer that only calls through, on each of the points."""
    layers = [wrapt.wrap_object(owner, name, wrapt.FunctionWrapper, (_call_through,)) for owner, name in points]
    try:
        yield
    finally:
        for (owner, name), layer in zip(points, layers, strict=True):
            wrapt.unwrap_object(owner, name, layer)


def _call_through(wrapped: t.Any, instance: object, args: t.Any, kwargs: t.Any) -> t.Any:
    return wrapped(*args, **kwargs)


def both(outer: t.Any, inner: t.Any) -> t.Any:
    """One state inside another."""

    @contextlib.contextmanager
    def state() -> Iterator[None]:
        with outer(), inner():
            yield

    return state
