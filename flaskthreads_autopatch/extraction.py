"""What arrives: the message is read, checked and filtered, and a context is filled from it."""

from __future__ import annotations

import functools
import logging
import sys
import typing as t
from io import BytesIO
from types import TracebackType

from flask import Flask, Request
from flask.ctx import AppContext
from flask.sessions import SecureCookieSessionInterface

from . import apps, flask_context, suppression, wire
from .app_policies import policy_for
from .log import log
from .portable import URL, AllowList, is_header
from .replay import Replaying, begin, end
from .snapshot import NO_ENTRIES, NONE_LEFT_OUT, CarriedSnapshot
from .visibility import parents
from .visibility.overdue import watch

_URL = frozenset(URL)
_REQUIRED = frozenset({"REQUEST_METHOD", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT"})


Arrived = tuple[dict[str, t.Any], "dict[str, str] | None"]
"""What is used of a message: entries of ``g``, and a WSGI environ."""

_NOTHING: Arrived = {}, None


def read(app: Flask, text: t.Any, allowed: AllowList | None) -> Arrived:
    """Return what *allowed* names of the message *text*, for a task of *app*. Raises `CarrierError`.

    Without an allow-list everything is used that a message of ours can hold.
    """
    if text is None or text == "":
        return _NOTHING
    message = wire.read(text)
    get = message.get
    sender, entries, environ = get("app"), get("g", NO_ENTRIES), get("request")
    if type(entries) is not dict or (sender is not None and type(sender) is not str):
        raise wire.unusable("'app' must be text and 'g' an object")
    if sender != app.import_name and sender is not None and not apps.is_same(sender, own := apps.name_of(app)):
        _warn_of_another(sender[:200], own)
        return _NOTHING
    if allowed is None:
        return entries, None if environ is None else _environ(environ, None)
    if not allowed.g_names.issuperset(entries):
        entries = {name: value for name, value in entries.items() if name in allowed.g_names}
    return entries, None if environ is None or not allowed.environ else _environ(environ, allowed)


def _environ(found: t.Any, allowed: AllowList | None) -> dict[str, str]:
    if type(found) is not dict or not _REQUIRED.issubset(found):
        raise wire.unusable(f"'request' must be an object with {', '.join(sorted(_REQUIRED))}")
    if allowed is not None:
        environ = {name: found[name] for name, _ in allowed.environ if name in found}
    else:
        others = [name for name in found.keys() - _URL if not is_header(name)]
        environ = {name: value for name, value in found.items() if name not in others} if others else found
    try:
        # WSGI has the bytes of the URL and of a header as text.
        "".join(environ.values()).encode("latin-1")
    except (TypeError, UnicodeEncodeError):
        raise wire.unusable("'request' must hold text in latin-1") from None
    environ.setdefault("QUERY_STRING", "")
    return environ


@functools.lru_cache(maxsize=1024)
def _warn_of_another(sender: str, own: str) -> None:
    log(
        logging.WARNING,
        "The context that was sent with a task is not used: the app %r it was taken from is not the worker's, which"
        " is %r. Apps are compared by their import_name.",
        sender,
        own,
    )


class Extraction:
    """A context manager: inside, a new context of *app* is active, filled from what *arrived*.

    Each handler of ``teardown_appcontext`` runs at the end, as in a thread, and none of ``teardown_request``. An error
    in one is logged, as one of *shown*, which stands for the code in the block.
    """

    __slots__ = ("_arrived", "_covered", "_into", "_replaying", "_shown", "app")

    def __init__(self, app: Flask, arrived: Arrived, shown: object) -> None:
        self.app = app
        self._arrived: Arrived | None = arrived
        self._shown = shown
        self._into: AppContext | None = None

    def into(self, ctx: AppContext) -> Extraction:
        """Have *ctx* filled, an active app context of other code, which leaves it and tears it down."""
        self.app, self._into = ctx.app, ctx
        return self

    def __enter__(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is None:
            raise RuntimeError("A carried context can be entered once. Call extract() again for another block.")
        covers = self._into is None and (flask_context.foreign_request() is not None or suppression.is_suppressed())
        self._covered = cover() if covers else None
        try:
            self._replaying: Replaying | None = begin(_snapshot(self.app, arrived), self._shown, into=self._into)
        except BaseException:
            if self._covered is not None:
                uncover(self._covered)
            raise

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: TracebackType | None) -> None:
        replaying, self._replaying = self._replaying, None
        self._into = None
        try:
            end(replaying, exc)  # type: ignore[arg-type]  # cast() would be a call
        finally:
            if self._covered is not None:
                uncover(self._covered)
            del replaying, exc, traceback  # As in `replay`.


def cover() -> tuple[t.Any, t.Any]:
    """Hide the requests that are active here, and lift `suppress_inheritance`, until `uncover` gets the result.

    A worker that was forked in the middle of a request has that request's context variables.
    """
    return flask_context.hide_requests(), suppression.lift()


def uncover(covered: tuple[t.Any, t.Any]) -> None:
    """Take `cover` back."""
    hidden, suppressed = covered
    flask_context.show_requests(hidden)
    suppression.restore(suppressed)


def _snapshot(app: Flask, arrived: Arrived) -> CarriedSnapshot:
    snapshot = CarriedSnapshot()
    snapshot.app = app
    snapshot.values, environ = arrived
    snapshot.closable = snapshot.namespaces = NO_ENTRIES
    snapshot.not_inherited = NONE_LEFT_OUT
    snapshot.shared_g = snapshot.lent = snapshot.variables = None
    if environ is None:
        snapshot.environ = snapshot.session = None
    else:
        snapshot.environ, snapshot.session = _complete(environ), _without_cookie(app, environ)
    policy = policy_for(app)
    snapshot.origin = None
    snapshot.warn_after = None if policy is None else policy.warn_after
    snapshot.parent = parents.NOWHERE
    if snapshot.warn_after is not None:
        watch(snapshot)
    return snapshot


def _without_cookie(app: Flask, environ: dict[str, str]) -> t.Any:
    """Return the session that Flask's own interface would open, where that is certain; None where it must be asked.

    The interface makes a signing serializer before it looks for the cookie, which is a third of the time that a request
    context takes.
    """
    interface: t.Any = app.session_interface
    others = type(interface) is not SecureCookieSessionInterface or vars(interface) or app.request_class is not Request
    if others or not app.secret_key or "HTTP_COOKIE" in environ:
        return None
    return interface.session_class()


def _complete(environ: dict[str, str]) -> dict[str, t.Any]:
    """Return *environ* with everything that WSGI demands. The body is not carried: it is empty."""
    return {
        **environ,
        "wsgi.version": (1, 0),
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
