"""The snapshot for another process: what may travel, as JSON, and its replay there.

The same two halves as in `snapshot`, by value instead of by reference. `take` is called in the process that has the
context and writes down what an allow list names; `replay` is called in the other process and runs a callable in an
app context, or request context, filled from that.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import os
import sys
import typing as t
import weakref
from collections.abc import Callable, Iterable
from io import BytesIO

from flask import Flask, Request
from flask.json.provider import DefaultJSONProvider, JSONProvider
from flask.sessions import SecureCookieSessionInterface

from . import flask_context
from .policy import Policy
from .suppression import R, clean_context, is_suppressed, suppress_inheritance
from .switch import policy_for, policy_or_default

logger = logging.getLogger("flaskthreads_autopatch")

_URL = (
    *("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"),
    *("SERVER_PROTOCOL", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
)
"""Method and URL as WSGI spells them. A URL in one piece would no longer say where the app is mounted."""


class NotPortableError(TypeError):
    """Something cannot be carried to another process. The message names it, its type, and the way out."""


class AllowList(t.NamedTuple):
    """What may leave the process, besides method and URL of the request."""

    g: tuple[str, ...]
    environ: tuple[str, ...]
    """Headers, by their names in a WSGI environ."""

    @classmethod
    def of(cls, g: Iterable[str], headers: Iterable[str]) -> AllowList:
        """From what a user has written. Raises `TypeError`."""
        return cls(_names("g", g), tuple(map(_environ_name, _names("headers", headers))))


def _names(option: str, names: Iterable[str]) -> tuple[str, ...]:
    allowed = tuple(names) if isinstance(names, Iterable) else (names,)
    if isinstance(names, str) or not all(isinstance(name, str) for name in allowed):
        raise TypeError(f'{option}={names!r}: allowed is a tuple of names, as {option}=("one", "other").')
    return allowed


def _environ_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name == "CONTENT_TYPE" else f"HTTP_{name}"


class Settings:
    """The policies of the apps that send. What the config and the environment say is read once for each app."""

    def __init__(self) -> None:
        # An app that has not installed: reading both costs as much as all the rest of `take`, or twice that.
        self._read: weakref.WeakKeyDictionary[Flask, Policy] = weakref.WeakKeyDictionary()

    def __call__(self, app: Flask) -> Policy:
        """As `policy_or_default`. Raises `PolicyError`."""
        policy = policy_for(app) or self._read.get(app)
        if policy is None:
            policy = self._read[app] = policy_or_default(app)
        return policy


def take(allowed: AllowList, settings: Callable[[Flask], Policy] = policy_or_default) -> str:
    """What *allowed* names of the context that is active here; ``""`` if there is nothing to carry.

    Raises `NotPortableError`. A name that is not there is no error: it is not there on the other side either.
    """
    ctx = flask_context.active()
    if ctx is None:
        return ""
    app = ctx.app
    policy = settings(app)
    content: dict[str, t.Any] = {}
    there = getattr(ctx.g, "__dict__", {})  # an app_ctx_globals_class may have slots: of that nothing is carried
    if entries := {name: there[name] for name in allowed.g if name in there}:
        content["g"] = entries
        for name, value in entries.items() if policy.exclude else ():
            if reason := policy.why_home(name, type(value)):
                raise _not_portable(name, value, reason, _STAYS_HOME)
    if policy.request and (request := flask_context.own_request(ctx)) is not None:
        environ = request.environ
        content["request"] = {name: environ[name] for name in (*_URL, *allowed.environ) if name in environ}
    if not content:
        return ""
    content["app"] = name_of(app)
    if _PLAIN_JSON.issuperset(map(type, entries.values())) and _is_flasks_own(app.json):
        return _encode(content)
    return _write(app, content, policy)


_PLAIN_JSON = frozenset({str, bool, type(None)})
"""Types whose values Flask's own JSON brings back as they were."""

# Flask's own provider writes what reads the same, with an encoder that it makes anew for each text: twice the time, and
# in a round trip, where each thing is touched for the first time in a while, three times.
_encode = json.JSONEncoder().encode


def _is_flasks_own(provider: JSONProvider) -> bool:
    return type(provider) is DefaultJSONProvider and vars(provider).keys().isdisjoint(("dumps", "loads"))


def _write(app: Flask, content: dict[str, t.Any], policy: Policy) -> str:
    entries = content.get("g")
    try:
        text = app.json.dumps(content)
        if entries is None or _comes_back(entries, app.json.loads(text)["g"]):
            return text
    except Exception:
        if entries is None:
            raise
    for name, value in entries.items():
        if reason := _why_not_portable(app, value):
            if at_home := policy.why_home(name, type(value)):
                raise _not_portable(name, value, at_home, _STAYS_HOME)
            raise _not_portable(name, value, reason, _MAKE_IT_PLAIN)
    raise NotPortableError(f"g.{', g.'.join(entries)}: app.json carries each of them back alone, and not together.")


_STAYS_HOME = "It stays home in threads too: take it out of g=, and have the task make its own; or out of exclude."
_MAKE_IT_PLAIN = (
    "Keep what is needed of it on g as plain values, name fewer entries in g=, or teach app.json to carry it."
)


def _not_portable(name: str, value: object, reason: str, way_out: str) -> NotPortableError:
    return NotPortableError(f"g.{name} ({_type_of(value)}) cannot be carried to another process: {reason}. {way_out}")


def _why_not_portable(app: Flask, value: object) -> str | None:
    try:
        back = app.json.loads(app.json.dumps(value))
        if _comes_back(value, back):
            return None
    except Exception as error:
        return f"app.json raises {type(error).__name__}: {error}"
    return f"app.json brings back {'another value' if type(back) is type(value) else _type_of(back)}"


def _comes_back(value: t.Any, back: t.Any) -> bool:
    """Whether *back* is the same as *value*, down to the types: no list for a tuple, no text for a number."""
    if type(value) is not type(back):
        return False
    if type(value) is dict:
        same_keys = {(type(key), key) for key in value} == {(type(key), key) for key in back}
        return same_keys and all(_comes_back(item, back[key]) for key, item in value.items())
    if type(value) in (list, tuple):
        return len(value) == len(back) and all(map(_comes_back, value, back))
    return bool(value == back)


def _type_of(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def replay(app: Flask, message: str, fn: Callable[..., R], args: t.Any, kwargs: t.Any, *, shown: object) -> R:
    """Return or raise what ``fn(*args, **kwargs)`` does, called in a new context of *app* filled from *message*.

    Torn down as a snapshot is in a thread: each handler of ``teardown_appcontext``, none of ``teardown_request``. An
    error in it is logged, as one of *shown*, which stands for *fn*.
    """
    entries, environ = _read(app, message)
    ctx: t.Any = None
    token = error = None
    if environ is None:
        ctx, token = flask_context.enter(app, None, shown)
    else:
        session = _without_cookie(app, environ)
        ctx, token = flask_context.enter_with_request(app, _complete(environ), session, shown)
        del session
    try:
        _fill(ctx.g, entries)
        return fn(*args, **kwargs)
    except BaseException as exc:
        error = exc
        raise
    finally:
        flask_context.leave(ctx, token, error, shown)
        # The traceback of an exception that is kept keeps this frame and its variables.
        del message, fn, args, kwargs, shown, entries, environ, ctx, token, error


def _read(app: Flask, message: str) -> tuple[dict[str, t.Any], dict[str, t.Any] | None]:
    content = app.json.loads(message) if message else {}
    sender = content.get("app")
    if sender is not None and not _is_same(sender, own := name_of(app)):
        _warn_of_another(sender, own)
        return {}, None
    return content.get("g", {}), content.get("request")


def is_twin(one: Flask, other: Flask) -> bool:
    """Return whether both apps are the same program, perhaps made twice: by a factory, for WSGI and for the workers."""
    return one is other or _is_same(name_of(one), name_of(other))


def name_of(app: Flask) -> str:
    """Return the ``import_name`` of *app* as another process has it.

    A main module is named as it would be imported. Of a script only the last part of that name is known: the result
    is ``".shop"`` for ``python anywhere/shop.py``.
    """
    name = app.import_name
    if name not in ("__main__", "__mp_main__"):
        return name
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return t.cast(str, spec.name)
    file = getattr(main, "__file__", None)
    return name if not file else "." + os.path.splitext(os.path.basename(file))[0]


def _is_same(one: str, other: str) -> bool:
    return one == other or any(a[0] == "." and f".{b}".endswith(a) for a, b in ((one, other), (other, one)))


@functools.lru_cache(maxsize=1024)
def _warn_of_another(sender: str, own: str) -> None:
    with suppress_inheritance():  # A logging handler may start a thread.
        logger.warning(
            "The context that was sent with a task is not used: the app %r it was taken from is not the worker's, which"
            " is %r. Apps are compared by their import_name.",
            sender,
            own,
        )


def _fill(g: object, entries: dict[str, t.Any]) -> None:
    for name, value in entries.items():
        # What a receiver of appcontext_pushed has put there wins, as in a thread.
        vars(g).setdefault(name, value)


def _without_cookie(app: Flask, environ: dict[str, t.Any]) -> t.Any:
    """The session that Flask's own interface would open, where that is plain to see; None where it has to be asked.

    It makes a signing serializer before it looks for the cookie: a third of what a request context costs.
    """
    interface: t.Any = app.session_interface
    others = type(interface) is not SecureCookieSessionInterface or vars(interface) or app.request_class is not Request
    if others or not app.secret_key or "HTTP_COOKIE" in environ:
        return None
    return interface.session_class()


def _complete(environ: dict[str, t.Any]) -> dict[str, t.Any]:
    """What WSGI demands of every environ. The body does not travel: it is empty."""
    return {
        **environ,
        "wsgi.version": (1, 0),
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def alone(fn: Callable[..., R], *args: t.Any) -> R:
    """Return or raise what ``fn(*args)`` does where no context of Flask's is active, and nothing is suppressed.

    A worker that was forked in the middle of a request has that request's context variables, for ever. (No request is
    active without an app context.)
    """
    if flask_context.active() is None and not is_suppressed():
        return fn(*args)
    context: contextvars.Context = clean_context()
    return context.run(fn, *args)
