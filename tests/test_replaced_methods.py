"""Methods that are replaced on the app, on its class, or on Flask: a thread's context goes through them."""

from __future__ import annotations

import functools
import sys
import threading
import typing as t
from collections.abc import Callable
from types import MethodType

import pytest
import wrapt
from flask import Flask, g, has_app_context
from flask.ctx import AppContext

from flaskthreads_autopatch import copy_current_app_context, disable, install, is_inherited
from flaskthreads_autopatch import flask_context as fc

from .helpers import in_thread
from .processes import run

NAME = "do_teardown_appcontext"
Called = list[bool]


def plain(app: Flask, called: Called) -> None:
    original = app.do_teardown_appcontext

    def replacement(*args: t.Any, **kwargs: t.Any) -> None:
        called.append(is_inherited())
        original(*args, **kwargs)

    app.do_teardown_appcontext = replacement  # type: ignore[method-assign]


def with_wraps(app: Flask, called: Called) -> None:
    original = app.do_teardown_appcontext

    @functools.wraps(original)
    def replacement(*args: t.Any, **kwargs: t.Any) -> None:
        called.append(is_inherited())
        original(*args, **kwargs)

    app.do_teardown_appcontext = replacement  # type: ignore[method-assign]


def with_wrapt(app: Flask, called: Called) -> None:
    def wrapper(wrapped: Callable[..., None], instance: Flask, args: t.Any, kwargs: t.Any) -> None:
        called.append(is_inherited())
        wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(app, NAME, wrapper)


def by_a_method(app: Flask, called: Called) -> None:
    original = app.do_teardown_appcontext

    class Other:
        def teardown(self, *args: t.Any) -> None:
            called.append(is_inherited())
            original(*args)

    app.do_teardown_appcontext = Other().teardown  # type: ignore[method-assign]


def bound_to_the_app(app: Flask, called: Called) -> None:
    def replacement(self: Flask, *args: t.Any) -> None:
        called.append(is_inherited())
        type(self).do_teardown_appcontext(self, *args)

    app.do_teardown_appcontext = MethodType(replacement, app)  # type: ignore[method-assign]


WAYS = [plain, with_wraps, with_wrapt, by_a_method, bound_to_the_app]


@pytest.mark.parametrize("replace", WAYS, ids=lambda way: way.__name__)
def test_a_teardown_that_is_replaced_on_the_app_is_called(
    installed: Flask, replace: Callable[[Flask, Called], None]
) -> None:
    handled: list[bool] = []
    called: Called = []
    replace(installed, called)
    for inherits in (True, False):
        with installed.app_context():
            in_thread(lambda: None)
            assert called == [True] * inherits
        assert called == [True] * inherits + [False]
        called.clear()
        disable()
    # The same where the app has handlers.
    installed.teardown_appcontext(lambda exc: handled.append(is_inherited()))
    install(installed)
    with installed.app_context():
        in_thread(lambda: None)
        assert called == handled == [True]


def test_a_teardown_that_is_replaced_on_flask_is_called(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    called: Called = []
    original = Flask.do_teardown_appcontext

    def replacement(self: Flask, ctx: AppContext, *args: t.Any) -> None:
        called.append(is_inherited())
        original(self, ctx, *args)

    monkeypatch.setattr(Flask, NAME, replacement)
    with installed.app_context():
        in_thread(lambda: None)
        assert called == [True]


def test_h9_an_agents_layer_around_flasks_own_teardown_does_not_keep_a_handler_from_running(
    installed: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flask's own stops at the first one that raises, before 3.2."""

    def wrapper(wrapped: Callable[..., None], instance: Flask, args: t.Any, kwargs: t.Any) -> None:
        wrapped(*args, **kwargs)

    handled: list[str] = []

    @installed.teardown_appcontext
    def runs_last(exc: BaseException | None) -> None:
        handled.append("last")

    @installed.teardown_appcontext
    def raises(exc: BaseException | None) -> None:
        if is_inherited():
            raise ValueError

    monkeypatch.setattr(Flask, NAME, wrapt.FunctionWrapper(vars(Flask)[NAME], wrapper))
    with installed.app_context():
        in_thread(lambda: None)
        assert handled == ["last"]


def test_handlers_that_are_added_late_run(installed: Flask) -> None:
    """Flask refuses that after the first request; an extension may still put one into the list."""
    handled: list[str] = []

    def work() -> None:
        installed.teardown_appcontext_funcs.append(lambda exc: handled.append(g.user))

    with installed.app_context():
        g.user = "alice"
        in_thread(work)
        assert handled == ["alice"]
        installed.teardown_appcontext_funcs = []
        in_thread(lambda: None)
        assert handled == ["alice"]


def test_an_ensure_sync_that_wrapt_has_wrapped_is_called_for_a_copied_function(installed: Flask) -> None:
    called = []

    def wrapper(wrapped: Callable[..., t.Any], instance: object, args: t.Any, kwargs: t.Any) -> t.Any:
        called.append(args[0])
        return wrapped(*args, **kwargs)

    def copied() -> None:
        """Do nothing."""

    handle = wrapt.wrap_object("flask", "Flask.ensure_sync", wrapt.FunctionWrapper, (wrapper,))
    try:
        with installed.app_context():
            copy_current_app_context(copied)
    finally:
        wrapt.unwrap_object("flask", "Flask.ensure_sync", handle)
    assert called == [copied]


def test_an_ensure_sync_that_is_replaced_on_the_app_runs_the_handlers(installed: Flask) -> None:
    synced: list[str] = []

    async def handler(exc: BaseException | None) -> None:
        pass

    def ensure_sync(func: Callable[..., t.Any]) -> Callable[..., t.Any]:
        def call(*args: t.Any) -> None:
            synced.append(f"{func.__name__} {threading.current_thread() is threading.main_thread()}")

        return call

    installed.teardown_appcontext(handler)
    installed.ensure_sync = ensure_sync  # type: ignore[method-assign]
    with installed.app_context():
        in_thread(lambda: None)
        assert synced == ["handler False"]


def test_an_app_context_that_is_replaced_on_the_app_is_the_threads(installed: Flask) -> None:
    class Own(AppContext):
        log: t.ClassVar[list[str]] = []

        def push(self) -> None:
            super().push()
            self.log.append("pushed")

        def pop(self, *args: t.Any) -> None:
            super().pop(*args)
            self.log.append("popped")

    installed.app_context = lambda: Own(installed)  # type: ignore[method-assign]
    with installed.app_context():
        Own.log.clear()
        assert in_thread(lambda: (has_app_context(), type(fc.active()))) == (True, Own)
        assert Own.log == ["pushed", "popped"]


def test_a_session_interface_is_not_asked_by_a_thread(installed: Flask) -> None:
    class Interface(type(installed.session_interface)):  # type: ignore[misc]
        log: t.ClassVar[list[str]] = []

        def open_session(self, *args: t.Any) -> t.Any:
            self.log.append("open")
            return super().open_session(*args)

        def save_session(self, *args: t.Any) -> None:
            self.log.append("save")

    installed.session_interface = Interface()
    with installed.test_request_context("/"):
        from flask import session

        session["user"] = "alice"
        assert in_thread(lambda: session["user"]) == "alice"
        assert Interface.log == ["open"]


def test_a_teardown_that_was_replaced_on_flask_before_the_import_is_called() -> None:
    code = """
from flask import Flask
called = []
Flask.do_teardown_appcontext = lambda self, *args: called.append(args)

import threading
from flaskthreads_autopatch import install

app = Flask("replaced")
install(app)
app.teardown_appcontext_funcs.append(lambda exc: called.append("the handler, past the replacement"))
with app.app_context():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    print(len(called), "the handler, past the replacement" in called)
"""
    done = run(sys.executable, "-c", code)
    assert (done.stdout.split(), done.stderr) == (["1", "False"], "")
