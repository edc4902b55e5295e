"""Database sessions that are scoped by a thread, an app context, a request or a request context.

A thread that has worked around the missing context has the sessions that it had. A thread that inherits is lent the
view's request: a session that is scoped by the request is the view's there, and nothing in the thread removes one that
the thread opens. That is inherent to lending; the ways out are tried here and described in ``docs/extensions.md``.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable, Iterator

import flask
import pytest
from flask import Flask, copy_current_request_context, request
from flask.globals import app_ctx
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

import flaskthreads_autopatch

from ..helpers import LIMIT, in_thread
from .helpers import FLASK_3_2, Compare, NewApp, Work, in_view

ScopeFunc = Callable[[], object]


def by_thread() -> object:
    """Found in the documentation of SQLAlchemy and of Flask, "SQLAlchemy in Flask": the default scope."""
    return threading.get_ident()


def by_app_context() -> object:
    """Found in Flask-SQLAlchemy 3."""
    return id(app_ctx._get_current_object())  # type: ignore[attr-defined]


def by_request() -> object:
    """Found in the documentation of SQLAlchemy, "Using Custom Created Scopes"."""
    return request._get_current_object()  # type: ignore[attr-defined]


def by_request_context() -> object:
    """Found in code from before Flask 2.2: ``scopefunc=_request_ctx_stack.__ident_func__`` and its successors."""
    return getattr(flask.globals, "app_ctx" if FLASK_3_2 else "request_ctx")._get_current_object()


class Sessions:
    """Sessions of one scope; a count of the connections that are checked out."""

    def __init__(self, app: Flask, scope: ScopeFunc) -> None:
        self.engine: Engine = create_engine(
            "sqlite://", poolclass=QueuePool, pool_size=50, connect_args={"check_same_thread": False}
        )
        self.registry = scoped_session(sessionmaker(self.engine), scopefunc=scope)
        self.opened: list[Session] = []  # kept, so that no id is used twice
        event.listen(self.registry.session_factory, "after_begin", lambda session, *_: self.opened.append(session))

        def remove(exc: BaseException | None) -> None:
            self.registry.remove()

        # Where there is a request before Flask 3.2: at the end of it, since teardown_appcontext cannot read it.
        (app.teardown_request if scope in (by_request, by_request_context) else app.teardown_appcontext)(remove)

    def use(self) -> Session:
        """The session of this scope, which has a connection now."""
        session = self.registry()
        session.connection()
        return session

    @property
    def checked_out(self) -> int:
        return t.cast(QueuePool, self.engine.pool).checkedout()

    def close(self) -> None:
        for session in self.opened:
            session.close()
        self.engine.dispose()


@contextlib.contextmanager
def sessions_of(app: Flask, scope: ScopeFunc) -> Iterator[Sessions]:
    with contextlib.closing(Sessions(app, scope)) as sessions:
        yield sessions


# A thread that has worked around the missing context. Each uses a session twice.


def in_an_app_context(app: Flask, use: Work[Session]) -> list[Session]:
    """Found in most jobs."""
    with app.app_context():
        return [use(), use()]


def in_a_test_request_context(app: Flask, use: Work[Session]) -> list[Session]:
    """Found in jobs of code whose sessions need a request."""
    with app.test_request_context("/job"):
        return [use(), use()]


SCOPES = [by_thread, by_app_context, by_request, by_request_context]


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
@pytest.mark.parametrize("job", [in_an_app_context, in_a_test_request_context], ids=lambda job: job.__name__)
def test_a_thread_with_a_context_of_its_own_has_the_session_that_it_had(
    unchanged: Compare, scope: ScopeFunc, job: Callable[[Flask, Work[Session]], list[Session]]
) -> None:
    """Found as each of the functions says."""

    def scenario(app: Flask) -> object:
        with sessions_of(app, scope) as sessions:

            def work() -> object:
                before = sessions.checked_out
                try:
                    first, second = job(app, sessions.use)
                except RuntimeError:
                    return "no request"
                return first is second, first in sessions.opened[:1], sessions.checked_out - before

            def view() -> object:
                mine = sessions.use()
                seen = in_thread(work)
                return seen, sessions.use() is mine, sessions.checked_out

            return in_view(app, view), sessions.checked_out

    needs_a_request = scope is by_request or (scope is by_request_context and not FLASK_3_2)
    seen = "no request" if needs_a_request and job is in_an_app_context else (True, False, 0)
    if scope is by_request_context and FLASK_3_2 and job is in_an_app_context:
        seen = (True, False, 1)  # teardown_request is not called at the end of an app context
    left = int(seen == (True, False, 1))
    assert unchanged(scenario) == ((seen, True, 1 + left), left)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
def test_a_thread_with_a_copied_request_context_has_the_session_that_it_had(
    unchanged: Compare, scope: ScopeFunc
) -> None:
    """Found in views that fan out; a session that is scoped by the request is the view's in a copy, without us too."""

    def scenario(app: Flask) -> object:
        with sessions_of(app, scope) as sessions:

            def view() -> object:
                mine = sessions.use()
                copy = copy_current_request_context(sessions.use)

                def work() -> object:
                    before = sessions.checked_out
                    used = [copy(), copy()]
                    return len({id(each) for each in used}), mine in used, sessions.checked_out - before

                return in_thread(work)

            return in_view(app, view), sessions.checked_out

    outcome, left = unchanged(scenario)
    assert left == 0
    if scope is by_request:
        assert outcome == (2, True, -1)  # it is the view's in the first copy, whose end removes it
    else:
        assert outcome == (2, False, 0)


@pytest.mark.parametrize("scope", [by_thread, by_app_context], ids=lambda scope: scope.__name__)
def test_a_thread_that_inherits_has_a_session_of_its_own_which_its_teardown_removes(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]], scope: ScopeFunc
) -> None:
    """Found in views that use a session in a thread without a context, by thread; by app context that is an error."""

    def scenario(app: Flask) -> object:
        with sessions_of(app, scope) as sessions:

            def work() -> object:
                try:
                    return sessions.use()
                except RuntimeError:
                    return None

            def view() -> object:
                mine = sessions.use()
                used = in_thread(work)
                return used is None or used is mine, sessions.use() is mine

            return in_view(app, view), sessions.checked_out

    off, on = off_and_on(scenario)
    # Without us a session of the thread is never removed: its connection comes back when it is collected.
    assert off == (((False, True), 1) if scope is by_thread else ((True, True), 0))
    assert on == ((False, True), 0)


# What lending does to a session that is scoped by the request. With us on only: without us there is no request.


class Outcome(t.NamedTuple):
    in_time: str
    """Whose session the thread has that ends before the response."""
    too_late: str
    """The same for a thread that outlives the response."""
    leaked: int
    """The connections that are never given back."""


def lend(app: Flask, scope: ScopeFunc) -> Outcome:
    """What threads that inherit see of a session."""
    with sessions_of(app, scope) as sessions:
        response = threading.Event()
        late: list[str] = []

        def work(mine: Session) -> str:
            try:
                used = sessions.use()
            except RuntimeError:
                return "none"
            return "the view's" if used is mine else "its own"

        def view() -> tuple[str, threading.Thread]:
            mine = sessions.use()
            in_time = in_thread(work, mine)
            thread = threading.Thread(target=lambda: response.wait(LIMIT) and late.append(work(mine)))
            thread.start()
            return in_time, thread

        in_time, thread = in_view(app, view)
        response.set()
        thread.join(LIMIT)
        return Outcome(in_time, *late, sessions.checked_out)


def test_a_session_scoped_by_the_request_is_shared_with_the_view_and_leaks_after_the_response(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in the documentation of SQLAlchemy, "Using Custom Created Scopes"."""
    off, on = off_and_on(lambda app: lend(app, by_request))
    assert off == Outcome("none", "none", 0)
    assert on == Outcome("the view's", "its own", 1)


def test_a_session_scoped_by_the_request_context_leaks_in_each_thread(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in code from before Flask-SQLAlchemy 3: each thread has its own, and no end of a request removes it."""
    off, on = off_and_on(lambda app: lend(app, by_request_context))
    assert off == Outcome("none", "none", 0)
    assert on == Outcome("its own", "its own", 2)


def test_way_out_a_session_scoped_by_the_app_context_is_the_threads_own_and_is_removed(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """The way out in docs/extensions.md: scope by the app context, remove in teardown_appcontext."""
    off, on = off_and_on(lambda app: lend(app, by_app_context))
    assert off == Outcome("none", "none", 0)
    assert on == Outcome("its own", "its own", 0)


@pytest.mark.parametrize("scope", [by_request, by_request_context], ids=lambda scope: scope.__name__)
def test_way_out_without_a_lent_request_there_is_no_such_session_in_a_thread(new_app: NewApp, scope: ScopeFunc) -> None:
    """The other way out in docs/extensions.md: ``request=False``, with which a thread fails loudly, as without us."""
    app = new_app()
    flaskthreads_autopatch.install(app, request=False)
    outcome = lend(app, scope)
    if scope is by_request or not FLASK_3_2:
        assert outcome == Outcome("none", "none", 0)
    else:
        # From Flask 3.2 on the scope is the app context; but its end is no end of a request.
        assert outcome == Outcome("its own", "its own", 2)
