"""A request context that the user's code pushes in a thread is the user's own."""

from __future__ import annotations

import threading
import typing as t

import flask
import pytest
from flask import Flask, g, request
from flask.sessions import SecureCookieSessionInterface

from flaskthreads_autopatch import disable, install, is_inherited
from flaskthreads_autopatch import flask_context as fc

from ..helpers import in_thread, user


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("lent", [False, True])
def test_a_request_context_of_the_threads_own_has_a_g_and_a_teardown_of_its_own(
    installed: Flask, by_hand: bool, lent: bool
) -> None:
    torn_down: list[tuple[str, object]] = []
    installed.teardown_appcontext(lambda exc: torn_down.append((g.pop("user", "nothing"), exc)))

    def work() -> None:
        for name in ("bob", "carol"):
            own = installed.test_request_context(f"/{name}")
            if by_hand:
                own.push()
            else:
                own.__enter__()
            assert (g.get("user"), request.path, is_inherited()) == (None, f"/{name}", False)
            g.user = name
            with own:  # as stream_with_context does
                assert (user(), request.path) == (name, f"/{name}")
            assert torn_down[1:] == []
            assert in_thread(lambda: (user(), request.path)) == (name, f"/{name}")
            torn_down.clear()
            own.pop()
            assert torn_down == [(name, None)]
            assert (user(), is_inherited(), flask.has_request_context()) == ("alice", True, lent)
        torn_down.clear()

    with installed.test_request_context("/alices") if lent else installed.app_context():
        g.user = "alice"
        in_thread(work)
        assert torn_down == [("alice", None)]  # text is not hidden from teardown


def test_a_request_context_of_the_threads_own_whose_push_fails_leaves_no_app_context(installed: Flask) -> None:
    torn_down: list[object] = []
    failure = OSError("no session")

    class NoSession(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: flask.Request) -> t.NoReturn:
            g.opened = True
            raise failure

    def open_one() -> None:
        own = installed.test_request_context("/bobs")
        try:
            own.push()
            _ = flask.session.accessed  # Flask 3.2 opens it when it is used
        finally:
            seen.append(g.get("user"))
            own.pop()

    def work() -> None:
        with pytest.raises(OSError, match="no session"):
            open_one()
        assert torn_down == [True]
        assert (user(), request.path) == ("alice", "/alices")

    seen: list[str | None] = []
    with installed.test_request_context("/alices"):
        g.user = "alice"
        installed.session_interface = NoSession()
        installed.teardown_appcontext(lambda exc: torn_down.append(g.get("opened")))
        in_thread(work)
    assert torn_down == [True, None, None]
    assert seen == [None]


def test_a_request_context_of_the_threads_own_whose_app_context_cannot_be_pushed(installed: Flask) -> None:
    torn_down: list[object] = []
    installed.teardown_appcontext(torn_down.append)
    failure = OSError("a receiver")

    def fail(sender: object) -> None:
        raise failure

    def work() -> None:
        with flask.appcontext_pushed.connected_to(fail), pytest.raises(OSError, match="a receiver"):
            installed.test_request_context("/bobs").push()
        # Flask leaves such an app context pushed. It is popped at the end of the thread.
        assert (g.get("user"), is_inherited(), torn_down) == (None, False, [])

    with installed.test_request_context("/alices"):
        g.user = "alice"
        in_thread(work)
        assert torn_down == [None, None]


def test_a_request_context_of_another_app_is_left_to_flask(installed: Flask) -> None:
    other = Flask("other")

    class NoSession(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: flask.Request) -> t.NoReturn:
            raise OSError("no session")

    def work() -> None:
        theirs = other.test_request_context("/bobs")
        with pytest.raises(OSError, match="no session"):
            theirs.push()
        assert flask.current_app == other
        theirs.pop()
        assert flask.current_app == installed

    other.session_interface = NoSession()
    with installed.app_context():
        in_thread(work)


def test_h11_a_request_context_pushed_by_a_teardown_handler_does_not_tear_down_for_ever(installed: Flask) -> None:
    calls: list[str] = []

    @installed.teardown_appcontext
    def note(exc: BaseException | None) -> None:
        calls.append(threading.current_thread().name)
        if len(calls) < 9 and is_inherited() and fc.REUSES_APP_CONTEXT:
            with installed.test_request_context("/teardown"):
                pass

    with installed.app_context():
        in_thread(int)
        assert len(calls) == 1


def test_h29_a_copied_request_context_has_an_app_context_of_its_own(installed: Flask) -> None:
    """A thread that calls such a function for each item has a ``g`` and a teardown for each item without us, too."""
    torn_down: list[object] = []
    installed.teardown_appcontext(lambda exc: torn_down.append(g.get("item")))

    def look(item: str) -> tuple[object, ...]:
        seen = g.get("user"), g.get("item"), request.path, is_inherited()
        g.item = item
        return seen

    def work(copied: t.Callable[[str], object]) -> None:
        for item in ("one", "two"):
            # Flask 3.2 pushes the one copy each time, and so with the same g.
            before = None if fc.REUSES_APP_CONTEXT or item == "one" else "one"
            assert copied(item) == (None, before, "/alices", False)
        assert torn_down == ["one", "two"]
        if flask.has_request_context():
            assert flask.copy_current_request_context(look)("three") == (None, None, "/alices", False)
            assert torn_down == ["one", "two", "three"]
        torn_down.clear()

    for options in (None, {}, {"request": False}):
        disable()
        if options is not None:
            install(installed, **options)
        with installed.test_request_context("/alices"):
            g.user = "alice"
            in_thread(work, flask.copy_current_request_context(look))
        torn_down.clear()


def test_a_request_context_of_the_threads_own_once_all_is_off(installed: Flask) -> None:
    def work() -> bool:
        disable()
        with installed.test_request_context("/bobs"):
            return is_inherited()

    with installed.app_context():
        assert in_thread(work) is fc.REUSES_APP_CONTEXT
