"""What may leave the process: an allow-list, and the message that is made of what it names."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable

from flask.ctx import AppContext

from . import apps, flask_context, wire
from .policy import Policy

URL = (
    *("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"),
    *("SERVER_PROTOCOL", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
)
"""Method and URL as WSGI spells them. A URL in one piece would no longer say where the app is mounted."""


class NotPortableError(TypeError):
    """Something cannot be carried to another process. The message names it, its type, and the way out."""


class AllowList(t.NamedTuple):
    """What may be carried: names, each with the text that it has as a key in a message."""

    g: tuple[tuple[str, str], ...]
    """Entries of ``g``."""
    environ: tuple[tuple[str, str], ...]
    """Method, URL and headers of the request, by their names in a WSGI environ. Empty to carry no request."""
    g_names: frozenset[str]
    """The names in `g`."""

    @classmethod
    def of(cls, g: Iterable[str], headers: Iterable[str], request: bool | t.Literal["path"] = True) -> AllowList:
        """Make one of what a user has written. Raises `TypeError`."""
        if type(request) is not bool and request != "path":
            raise TypeError(f'request={request!r}: allowed are True, False and "path" (the URL without its query).')
        environ = [name for name in URL if request != "path" or name != "QUERY_STRING"]
        environ += map(_environ_name, _names("headers", headers))
        entries = _with_keys(_names("g", g))
        return cls(entries, _with_keys(environ if request else ()), frozenset(name for name, _ in entries))


def _with_keys(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{wire.quote(name)}:") for name in dict.fromkeys(names))


def _names(option: str, names: Iterable[str]) -> tuple[str, ...]:
    allowed = tuple(names) if isinstance(names, Iterable) else (names,)
    if isinstance(names, str) or not all(isinstance(name, str) for name in allowed):
        raise TypeError(f'{option}={names!r}: allowed is a tuple of names, as {option}=("one", "other").')
    return allowed


def _environ_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name == "CONTENT_TYPE" else f"HTTP_{name}"


def is_header(name: str) -> bool:
    """Return whether *name* is the one of a header in a WSGI environ."""
    return name == "CONTENT_TYPE" or name.startswith("HTTP_")


def take(ctx: AppContext, allowed: AllowList, policy: Policy, max_size: int, more: int = 0) -> str:
    """Return what *allowed* names of *ctx*, the active app context, as a message; ``""`` if there is nothing of it.

    *more*: the number of bytes that will be added to the message. A name that is not there is no error: it is not there
    on the other side either. Raises `NotPortableError`.
    """
    parts = []
    # With an app_ctx_globals_class that has slots, nothing is carried.
    there = getattr(ctx.g, "__dict__", {})
    entries = [key + _text_of(name, there[name], policy, max_size) for name, key in allowed.g if name in there]
    if entries:
        parts.append(f'"g":{{{",".join(entries)}}}')
    if allowed.environ and policy.request and (request := flask_context.own_request(ctx)) is not None:
        environ, quote = request.environ, wire.quote
        found = [key + quote(str(environ[name])) for name, key in allowed.environ if name in environ]
        parts.append(f'"request":{{{",".join(found)}}}')
    if not parts:
        return ""
    text = f'{{"v":{wire.VERSION},"app":{wire.quote(apps.name_of(ctx.app))},{",".join(parts)}}}'
    if len(text) + more > max_size:
        raise _too_large(text, allowed, ctx, max_size)
    return text


def _text_of(name: str, value: object, policy: Policy, max_size: int) -> str:
    if policy.exclude and (reason := policy.why_entry_not_inherited(name, type(value))):
        raise _not_portable(name, value, reason, _NOT_INHERITED)
    try:
        return wire.text_of(value, max_size)
    except wire.Refused as error:
        reason, way_out = error.reason, error.way_out
    except wire.TooLarge:
        reason, way_out = f"its text is longer than max_size={max_size}", _CARRY_LESS
    except Exception as error:
        # A class may have a metaclass whose hash raises, and another thread may change a dict that is being written.
        reason, way_out = f"writing it raised {type(error).__name__}", wire.PLAIN
    # Outside of the block, so that the error does not keep the other one, and by its traceback the value.
    if not_inherited := policy.why_entry_not_inherited(name, type(value)):
        reason, way_out = not_inherited, _NOT_INHERITED
    raise _not_portable(name, value, reason, way_out)


_NOT_INHERITED = (
    "Threads do not inherit it either: take it out of g= and have the task make its own, or take it out of exclude."
)
_CARRY_LESS = "Carry a key by which the task finds it, or raise max_size if the engine takes such headers."


def _not_portable(name: str, value: object, reason: str, way_out: str) -> NotPortableError:
    type_name = wire.name_of_type(type(value))
    return NotPortableError(f"g.{name} ({type_name}) cannot be carried to another process: {reason}. {way_out}")


def _too_large(text: str, allowed: AllowList, ctx: AppContext, max_size: int) -> NotPortableError:
    message = wire.read(text)
    sizes = {
        f"g.{name} ({wire.name_of_type(type(value))})": len(wire.text_of(value, max_size))
        for name, value in message.get("g", {}).items()
    }
    sizes |= {f"the request's {name}": len(value) for name, value in message.get("request", {}).items()}
    largest = max(sizes, key=sizes.__getitem__)
    return NotPortableError(
        f"{largest} cannot be carried to another process: it is the largest part, with {sizes[largest]} bytes, of a"
        f" message that is longer than max_size={max_size}. {_CARRY_LESS}"
    )
