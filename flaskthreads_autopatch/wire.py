"""The wire format, version 1: values as JSON text and back, equal down to their types, or refused.

A message is one JSON object, ``{"v": 1, ...}``. Text, numbers, `bool`, `None`, lists and dicts with text as keys are
written as JSON has them. Every other type in the table below is an object with one key, its tag: ``{"$uuid": "..."}``.
A dict whose only key begins with ``$`` gets another ``$`` in front, so that it is not taken for a tag.

Reading constructs the types of the table and nothing else; no message makes the reader import a module.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import functools
import json
import math
import re
import typing as t
from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from uuid import UUID

VERSION = 1

MAX_DEPTH = 100
MAX_BITS = 2048
"""The size of the largest `int`. The strictest setting has Python read integers of up to 640 digits."""


class CarrierError(ValueError):
    """A message cannot be used: it is malformed, of an unknown version, or its signature is missing or wrong.

    The task does not run. The message of the error names the reason and never what was carried.
    """


class Refused(Exception):
    """A value would not arrive equal. *reason* says why, *way_out* what to do."""

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(reason, way_out)
        self.reason = reason
        self.way_out = way_out


class TooLarge(Exception):
    """The text of a value is longer than allowed."""


quote: Callable[[str], str] = encode_basestring_ascii
"""Return *text* as JSON in ASCII, quotes included."""

_encode = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":")).encode

# JSON spells a character beyond U+FFFF as such a pair, so that a text that holds one arrives as another text.
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def text_of(value: t.Any, limit: int) -> str:
    """Return *value* as text that `read` turns into an equal value.

    Raises `Refused`, and `TooLarge` if the text would be longer than *limit*; a value that refers to one list very
    often is not written out for that.
    """
    cls = type(value)
    if cls is str and value.isascii():
        text = quote(value)
    elif cls is bool or value is None:
        return "true" if value is True else "false" if value is False else "null"
    elif cls is int and -(2**63) <= value < 2**63:
        return int.__repr__(value)
    else:
        text = _encode(_Tree(limit).of(value))
    if len(text) > limit:
        raise TooLarge
    return text


class _Tree:
    """Makes what JSON can hold of one value, with tags for the rest."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._around: set[int] = set()
        """The containers around the value that is being written, by id."""

    def of(self, value: t.Any) -> t.Any:
        cls = type(value)
        self._left -= len(value) if cls in (str, bytes) else 1
        if self._left < 0:
            raise TooLarge
        if value is None or cls is bool:
            return value
        if cls is str:
            if _SURROGATE_PAIR.search(value):
                raise Refused("it contains a pair of surrogates, which arrives as one character", _CLEAN_TEXT)
            return value
        if cls is int:
            if value.bit_length() > MAX_BITS:
                raise Refused(f"it contains an int of more than {MAX_BITS} bits", "Carry str(...) of it.")
            return value
        if cls is float:
            return self._of_float(value)
        if cls in (list, dict, tuple, set):
            return self._of_container(value, cls)
        write = _WRITERS.get(cls)
        if write is None:
            raise Refused(f"it contains a value of type {name_of_type(cls)}, which JSON does not bring back", _way(cls))
        return write(value)

    @staticmethod
    def _of_float(value: float) -> t.Any:
        if math.isfinite(value):
            return value
        if math.isnan(value):
            raise Refused("it contains nan, which equals nothing", "Use None in its place.")
        return {"$float": repr(value)}

    def _of_container(self, value: t.Any, cls: type) -> t.Any:
        key = id(value)
        if key in self._around:
            raise Refused("it contains itself", PLAIN)
        if len(self._around) >= MAX_DEPTH:
            raise Refused(f"it is nested more than {MAX_DEPTH} levels deep", PLAIN)
        self._around.add(key)
        if cls is dict:
            made: t.Any = self._of_dict(value)
        else:
            made = [self.of(item) for item in value]
            if cls is not list:
                made = {f"${cls.__name__}": made}
        self._around.discard(key)
        return made

    def _of_dict(self, value: dict[t.Any, t.Any]) -> dict[str, t.Any]:
        made: dict[str, t.Any] = {}
        for key, item in value.items():
            if type(key) is not str:
                raise Refused(
                    f"it contains a dict with a key of type {name_of_type(type(key))}", "Use text for keys: str(...)."
                )
            made[self.of(key)] = self.of(item)
        if len(made) == 1 and (only := next(iter(made)))[:1] == "$":
            return {f"${only}": made[only]}
        return made


def _write_zoned(tag: str) -> Callable[[t.Any], dict[str, t.Any]]:
    def write(value: t.Any) -> dict[str, t.Any]:
        zone = value.tzinfo
        # Neither the rules of a named zone nor the name of a fixed offset is in the text.
        if zone is not None and (type(zone) is not dt.timezone or repr(zone) != repr(_plain_zone(zone))):
            raise Refused(
                f"it contains a {tag} with the time zone {name_of_type(type(zone))}, which does not arrive",
                "Use value.astimezone(datetime.timezone.utc), or value.isoformat().",
            )
        # Of an hour that the clocks show twice, the text does not say which.
        return {f"${tag}": [value.isoformat(), 1] if value.fold else value.isoformat()}

    return write


def _plain_zone(zone: dt.timezone) -> dt.timezone:
    offset = zone.utcoffset(None)
    return dt.timezone(offset) if offset else dt.timezone.utc


def _write_decimal(value: Decimal) -> dict[str, t.Any]:
    if value.is_nan():
        raise Refused("it contains a Decimal that is not a number, which equals nothing", "Use None in its place.")
    return {"$decimal": str(value)}


_WRITERS: dict[type, Callable[[t.Any], dict[str, t.Any]]] = {
    UUID: lambda value: {"$uuid": str(value)},
    dt.datetime: _write_zoned("datetime"),
    dt.time: _write_zoned("time"),
    dt.date: lambda value: {"$date": value.isoformat()},
    dt.timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: _write_decimal,
    bytes: lambda value: {"$bytes": base64.b64encode(value).decode()},
}


def _of_type(expected: type, make: Callable[[t.Any], t.Any]) -> Callable[[t.Any], t.Any]:
    def read_one(found: t.Any) -> t.Any:
        if type(found) is not expected:
            raise TypeError
        return make(found)

    return read_one


def _read_zoned(cls: t.Any) -> Callable[[t.Any], t.Any]:
    def read_one(found: t.Any) -> t.Any:
        text, fold = found if type(found) is list else (found, 0)
        return cls.fromisoformat(text).replace(fold=fold)

    return read_one


def _read_timedelta(found: list[t.Any]) -> dt.timedelta:
    days, seconds, microseconds = found
    if {type(part) for part in found} != {int}:
        raise TypeError
    return dt.timedelta(days, seconds, microseconds)


_READERS: dict[str, Callable[[t.Any], t.Any]] = {
    "$uuid": _of_type(str, UUID),
    "$datetime": _read_zoned(dt.datetime),
    "$time": _read_zoned(dt.time),
    "$date": dt.date.fromisoformat,
    "$timedelta": _of_type(list, _read_timedelta),
    "$decimal": _of_type(str, Decimal),
    "$bytes": _of_type(str, functools.partial(base64.b64decode, validate=True)),
    "$float": {"inf": math.inf, "-inf": -math.inf}.__getitem__,
    "$tuple": _of_type(list, tuple),
    "$set": _of_type(list, set),
}


class _UnknownTag(Exception): ...


def _untag(found: dict[str, t.Any]) -> t.Any:
    if len(found) != 1 or (key := next(iter(found)))[:1] != "$":
        return found
    if key[1:2] == "$":
        return {key[1:]: found[key]}
    if key not in _READERS:
        raise _UnknownTag
    return _READERS[key](found[key])


def _no_constant(name: str) -> t.NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON.


# Faster than decode(), which looks for white space around the text.
_read_plain = json.JSONDecoder(parse_constant=_no_constant).raw_decode
_read_tagged = json.JSONDecoder(parse_constant=_no_constant, object_hook=_untag).raw_decode


def read(text: t.Any) -> dict[str, t.Any]:
    """Return the message that *text* holds. Raises `CarrierError`, whatever *text* is."""
    if type(text) is not str:
        raise unusable(f"it is of type {name_of_type(type(text))}, not text")
    try:
        message, end = _read_tagged(text) if '"$' in text else _read_plain(text)
    except _UnknownTag:
        raise unusable("it has a value with a tag that this version does not know") from None
    except Exception as error:
        # Their own texts quote what was carried.
        raise unusable(f"reading it raised {type(error).__name__}") from None
    if type(message) is not dict or end != len(text):
        raise unusable("it is not one JSON object")
    version = message.get("v")
    if type(version) is not int or version != VERSION:
        raise unusable(f"its version 'v' is not {VERSION}, the only one that this release reads")
    return message


def unusable(reason: str) -> CarrierError:
    """Return the error for a message that cannot be used for that *reason*."""
    return CarrierError(
        f"The carried context cannot be used, and the task does not run: {reason}. Send the task again from a process"
        " with the same release and the same settings of flaskthreads_autopatch."
    )


def name_of_type(cls: type) -> str:
    """Return the name of *cls*, with its module unless that is ``builtins``."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


PLAIN = "Put what the task needs of it on g as a plain value, such as str(...) of it, and name that."
_CLEAN_TEXT = "Use value.encode('utf-16', 'surrogatepass').decode('utf-16'), or leave it out."

_WAYS: Mapping[type, str] = {
    enum.Enum: "Carry its .value or its .name.",
    **{cls: f"Carry {cls.__name__}(...) of it." for cls in (str, int, float, Decimal, bytes, dict, list, tuple, set)},
    **dict.fromkeys((bytearray, memoryview), "Carry bytes(...) of it."),
    frozenset: "Carry set(...) of it.",
    dt.date: "Carry value.isoformat().",
}


def _way(cls: type) -> str:
    return next((way for base, way in _WAYS.items() if issubclass(cls, base)), PLAIN)
