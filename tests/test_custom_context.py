"""A request's context of the app's own class: what its class, or other code, has put on it is there in a thread."""

from __future__ import annotations

import threading
import typing as t
import weakref

import pytest
from flask import Flask, g, has_request_context, request

from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch import install, running

from .helpers import LIMIT, collectable, in_thread

if fc.REUSES_APP_CONTEXT:
    from flask.ctx import RequestContext as Base
    from flask.globals import request_ctx
else:
    from flask.ctx import AppContext as Base  # type: ignore[assignment]
    from flask.globals import app_ctx as request_ctx  # type: ignore[assignment]


class Value:
    """An attribute that can be watched."""


class Own(Base):
    popped: t.ClassVar[list[str]] = []

    def __init__(self, app: Flask, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(app, *args, **kwargs)
        self.tenant = "from __init__"
        self.value = Value()

    def push(self) -> None:
        super().push()
        self.pushed = "from push"

    def pop(self, *args: t.Any) -> None:
        self.popped.append(self.tenant)
        super().pop(*args)


class App(Flask):
    def request_context(self, environ: t.Any) -> t.Any:
        if fc.REUSES_APP_CONTEXT:
            ctx: t.Any = Own(self, environ)
        else:
            ctx = Own.from_environ(self, environ)  # type: ignore[attr-defined]
        ctx.made = "from request_context"
        return ctx


@pytest.fixture
def custom() -> App:
    Own.popped.clear()
    app = App("custom")
    app.secret_key = "tests"
    install(app)
    return app


def look() -> tuple[object, ...]:
    ctx: t.Any = request_ctx
    return ctx.tenant, ctx.pushed, ctx.made, ctx.added, ctx.value, request.path


def test_the_attributes_of_a_context_are_there_in_a_thread(custom: App) -> None:
    with custom.test_request_context("/alices") as ctx:
        t.cast(t.Any, ctx).added = "by a view"
        here = look()
        assert here[:4] == ("from __init__", "from push", "from request_context", "by a view")
        assert in_thread(look) == here
        # The same in a thread of that thread.
        assert in_thread(lambda: in_thread(look)) == here
        assert Own.popped == []
    assert Own.popped == ["from __init__"]


def test_what_a_thread_sets_on_its_context_stays_there(custom: App) -> None:
    def change() -> None:
        t.cast(t.Any, request_ctx).tenant = "the thread's"
        g.user = "bob"

    with custom.test_request_context("/alices") as ctx:
        g.user = "alice"
        in_thread(change)
        assert (t.cast(t.Any, ctx).tenant, g.user) == ("from __init__", "alice")


def test_without_a_request_nothing_is_lent(custom: App) -> None:
    with custom.app_context() as ctx:
        t.cast(t.Any, ctx).added = "outside of a request"
        assert in_thread(lambda: (has_request_context(), hasattr(fc.active(), "added"))) == (False, False)
    with custom.test_request_context("/"):
        install(custom, request=False)
        assert in_thread(lambda: (has_request_context(), hasattr(fc.active(), "tenant"))) == (False, False)


def test_what_is_noted_of_the_parent_is_not_lent(custom: App) -> None:
    """Otherwise a thread's thread would be told the end of its grandparent."""
    install(custom, warn_after=LIMIT)
    go, seen = threading.Event(), []

    def grandchild() -> None:
        assert go.wait(LIMIT)
        seen.append(next(replay.parent_is_over for replay in running() if replay.callable.endswith("grandchild")))

    def child() -> threading.Thread:
        thread = threading.Thread(target=grandchild)
        thread.start()
        assert vars(fc.active())[fc.PARENT]() is fc.active()
        go.set()
        thread.join(LIMIT)
        return thread

    with custom.test_request_context("/alices"):
        in_thread(child)
    assert seen == [False]


def test_an_attribute_is_released_with_the_thread(custom: App) -> None:
    with custom.test_request_context("/alices") as ctx:
        refs = weakref.ref(t.cast(t.Any, ctx).value), weakref.ref(fc.active())  # type: ignore[arg-type]
        in_thread(lambda: None)
        del ctx
    assert collectable(*refs)
