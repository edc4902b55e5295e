"""The wire format: each value arrives equal, down to its types, or is refused; no message raises another error."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import enum
import json
import sys
import typing as t
import uuid
import zoneinfo
from decimal import Decimal

import hypothesis.strategies as st
import pytest
from hypothesis import given
from markupsafe import Markup

from flaskthreads_autopatch import CarrierError, wire

from .generated import by_no_clock

LIMIT = 64 * 1024


class Color(enum.IntEnum):
    RED = 1


class Level(str, enum.Enum):
    HIGH = "high"


class Text(str):
    pass


class Point(t.NamedTuple):
    x: int


class Day(dt.date):
    pass


class Pretending(dict[str, t.Any]):
    """Says that it is a dict."""

    __class__ = dict  # type: ignore[assignment]


def sent(value: t.Any) -> str:
    return f'{{"v":1,"g":{wire.text_of(value, LIMIT)}}}'


def there_and_back(value: t.Any) -> t.Any:
    return wire.read(sent(value))["g"]


def exactly(value: t.Any) -> t.Any:
    """*value* with the types, and what ``==`` does not compare, written out."""
    if type(value) in (list, tuple):
        return type(value), [exactly(item) for item in value]
    if type(value) is dict:
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    if type(value) is set:
        return set, sorted(map(repr, map(exactly, value)))
    if type(value) in (dt.datetime, dt.time):
        return type(value), value.isoformat(), value.fold, repr(value.tzinfo)
    return type(value), repr(value)


UTC, HERE = dt.timezone.utc, dt.timezone(dt.timedelta(hours=-9, minutes=-30, seconds=-1, microseconds=-5))

ARRIVE: list[t.Any] = [
    *(None, True, False, 0, 1, -1, 2**63, -(2**63) - 1, 2**2048 - 1, 1.5, -0.0, 1e300, float("inf"), -float("inf")),
    *("", "alice", "ä\u2028</script>", "\U0001f600", "\ud800", "\udc00\ud800", 'a"b\\c\n\0', "\\ud83d\\ude00"),
    *([], [1, [None]], (), (1,), ((),), [()], {}, {"b": {"a": [True]}, "a": 1}, {"": 1}, set(), {1, "a", (2,)}),
    *(uuid.UUID(int=1), b"", b"\0\xff", Decimal("1.50"), Decimal("-0"), Decimal("1E+9"), Decimal("-Infinity")),
    *(dt.date(1, 1, 1), dt.date.max, dt.time(), dt.time(23, 59, 59, 999999), dt.time(1, tzinfo=HERE)),
    *(dt.datetime.min, dt.datetime.max, dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC), dt.datetime(2026, 1, 2, tzinfo=HERE)),
    *(dt.datetime(2026, 10, 25, 2, 30, fold=1), dt.time(2, 30, fold=1), dt.datetime(2026, 10, 25, tzinfo=UTC, fold=1)),
    *(dt.timedelta(), dt.timedelta.min, dt.timedelta.max, dt.timedelta(-1, 1, 1)),
    # What looks like a tag.
    *({"$uuid": "alice"}, {"$$uuid": 1}, {"$": 1}, {"$$": 1}, {"$tuple": [1]}, {"$x": {"$y": {"$date": 1}}}),
    *({"$uuid": 1, "other": 2}, "$uuid", ["$uuid"], {"v": 2}),
]


def _id(value: object) -> str:
    # The order of a set, and so its text, differs from one process to the next. All must find the same tests.
    return (f"a {type(value).__name__}" if isinstance(value, (set, frozenset)) else ascii(value))[:40]


@pytest.mark.parametrize("value", ARRIVE, ids=_id)
def test_it_arrives_equal(value: t.Any) -> None:
    back = there_and_back(value)
    assert exactly(back) == exactly(value)
    assert back == value
    nested = {"a": [value, (value,)], "$b": value}
    assert exactly(there_and_back(nested)) == exactly(nested)
    # Whatever carries it further: the text is ASCII, and is JSON for others too.
    json.loads(sent(value).encode("ascii"), parse_constant=pytest.fail)


def test_a_shared_list_arrives_twice() -> None:
    shared = [1]
    assert there_and_back([shared, shared]) == [shared, shared]


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.uuids()
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
)
zones = (
    st.none() | st.just(UTC) | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)))
)
folded = st.builds(lambda value, fold: value.replace(fold=fold), st.datetimes(timezones=zones), st.sampled_from([0, 1]))
hashable = st.recursive(plain | folded, lambda inner: st.lists(inner).map(tuple), max_leaves=5)
values = st.recursive(
    hashable | st.sets(hashable),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.just("$uuid"), inner),
    max_leaves=20,
)


@by_no_clock
@given(values)
def test_each_value_arrives_equal_or_is_refused(value: t.Any) -> None:
    try:
        back = there_and_back(value)
    except wire.Refused as error:
        assert "surrogates" in error.reason
    else:
        assert exactly(back) == exactly(value)


def circle() -> list[t.Any]:
    items: list[t.Any] = []
    items.append(items)
    return items


def deep() -> list[t.Any]:
    items: list[t.Any] = []
    for _ in range(wire.MAX_DEPTH):
        items = [items]
    return items


BERLIN = dt.timezone(dt.timedelta(hours=1), "CET")

REFUSED: list[tuple[t.Any, str, str]] = [
    *((Color.RED, "value of type tests.remote.test_wire.Color", ".value"), (Level.HIGH, "Level", ".value")),
    *((Text("a"), "Text", "str(...)"), (Markup("<b>"), "Markup", "str(...)"), (Point(1), "Point", "tuple(...)")),
    *((collections.OrderedDict(a=1), "OrderedDict", "dict(...)"), (Pretending(), "Pretending", "dict(...)")),
    *((collections.Counter("a"), "Counter", "dict(...)"), (frozenset(), "frozenset", "set(...)")),
    *((bytearray(b"a"), "bytearray", "bytes(...)"), (memoryview(b"a"), "memoryview", "bytes(...)")),
    *((object(), "value of type object", "str(...)"), (1j, "complex", "str(...)"), (len, "builtin_function", "str(")),
    *((Day(2026, 1, 1), "Day", "isoformat()"), (2**2048, "more than 2048 bits", "str(...)")),
    *((10**5000, "bits", "str(...)"), (float("nan"), "nan", "None"), (Decimal("nan"), "Decimal", "None")),
    *((Decimal("sNaN"), "Decimal", "None"), ("\ud83d\ude00", "surrogates", "surrogatepass")),
    *(({1: "a"}, "key of type int", "Use text"), ({None: 1}, "key of type NoneType", "Use text")),
    *(({True: 1}, "bool", "Use text"), ({Text("a"): 1}, "Text", "Use text"), ({Level.HIGH: 1}, "Level", "Use text")),
    *((circle(), "contains itself", "on g"), (deep(), "100 levels deep", "on g")),
    (dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), "ZoneInfo", "astimezone"),
    (dt.datetime(2026, 1, 1, tzinfo=BERLIN), "datetime.timezone", "astimezone"),
    (dt.time(1, tzinfo=dt.timezone(dt.timedelta(0), "UTC")), "datetime.timezone", "astimezone"),
]


@pytest.mark.parametrize(("value", "reason", "way_out"), REFUSED, ids=[repr(case[1:]) for case in REFUSED])
def test_what_would_not_arrive_equal_is_refused(value: t.Any, reason: str, way_out: str) -> None:
    for holder in (value, [value], (1, value), {"a": {"b": value}}):
        with pytest.raises(wire.Refused) as raised:
            wire.text_of(holder, LIMIT)
        assert reason in raised.value.reason
        assert way_out in raised.value.way_out


def test_a_value_that_refers_to_one_list_very_often_is_not_written_out() -> None:
    doubled: t.Any = ["a"]
    for _ in range(64):
        doubled = [doubled, doubled]
    long = ["a" * 1000] * 100_000
    for value in (doubled, long, "a" * (LIMIT + 1), "ä" * LIMIT, [b"a" * LIMIT]):
        with pytest.raises(wire.TooLarge):
            wire.text_of(value, LIMIT)


FROZEN = (
    '{"v": 1, "app": "shop", "later": {"$new": 1}, "g": {"user_id": "alice", "ids": {"$tuple": [1, {"$uuid":'
    ' "00000000-0000-0000-0000-000000000001"}]}, "at": {"$datetime": "2026-01-02T03:04:05.000006+00:00"},'
    ' "again": {"$datetime": ["2026-10-25T02:30:00", 1]}, "on": {"$date": "2026-01-02"},'
    ' "time": {"$time": "03:04:05"}, "for": {"$timedelta": [1, 2, 3]}, "price": {"$decimal": "1.50"},'
    ' "key": {"$bytes": "AP8="}, "set": {"$set": ["a"]}, "most": {"$float": "inf"}, "own": {"$$uuid": "mine"}}}'
).replace(', "later": {"$new": 1}', ', "later": {"new": 1}')


def test_a_message_of_version_1_is_read_by_every_later_release() -> None:
    assert wire.read(FROZEN) == {
        "v": 1,
        "app": "shop",
        "later": {"new": 1},
        "g": {
            "user_id": "alice",
            "ids": (1, uuid.UUID(int=1)),
            "at": dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
            "again": dt.datetime(2026, 10, 25, 2, 30, fold=1),
            "on": dt.date(2026, 1, 2),
            "time": dt.time(3, 4, 5),
            "for": dt.timedelta(1, 2, 3),
            "price": Decimal("1.50"),
            "key": b"\0\xff",
            "set": {"a"},
            "most": float("inf"),
            "own": {"$uuid": "mine"},
        },
    }
    # And written by this one.
    message = wire.read(FROZEN)["g"]
    assert json.loads(wire.text_of(message, LIMIT)) == json.loads(FROZEN)["g"]


def tagged(tag: str, payload: t.Any) -> str:
    return json.dumps({"v": 1, "g": {"a": {tag: payload}}})


WRONG_PAYLOADS = [None, True, 1, -1, 1.5, "", "x", "1e999999999999999999999", [], [1], ["x", 1], [[]], {}, {"a": 1}]
WRONG_PAYLOADS += [["2026-01-01T00:00:00", 2], ["2026-01-01T00:00:00", "1"], [10**10, 0, 0], [True, 0, 0], [1.5, 0, 0]]
WRONG_PAYLOADS += [["2026-01-01T00:00:00", None], "2026-13-01", "\ud800", {"$tuple": [[]]}, "9" * 5000]
TAGS = ["uuid", "datetime", "date", "time", "timedelta", "decimal", "bytes", "float", "tuple", "set"]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("payload", WRONG_PAYLOADS, ids=lambda value: ascii(value)[:30])
def test_a_wrong_payload_is_a_carrier_error_or_has_the_type_of_its_tag(tag: str, payload: t.Any) -> None:
    types = {"uuid": uuid.UUID, "decimal": Decimal, "bytes": bytes, "float": float, "tuple": tuple, "set": set}
    try:
        value = wire.read(tagged(f"${tag}", payload))["g"]["a"]
    except CarrierError as error:
        assert error.__cause__ is None
        assert error.__suppress_context__
    else:
        assert type(value) is types.get(tag, getattr(dt, tag, None))


WRONG: list[t.Any] = [
    *(None, 1, b'{"v":1}', ["v"], {"v": 1}, Text('{"v":1}'), True),
    *(" ", "x", "{", "}", '{"v":1', '{"v":1}}', '{"v":1}x', "null", "1", "[]", '"v"', "[1]", "NaN", '{"v":NaN}'),
    *("{}", '{"v":2}', '{"v":0}', '{"v":"1"}', '{"v":true}', '{"v":1.0}', '{"v":null}', '{"v":[1]}', '{"V":1}'),
    *('{"v":1,"g":{"a":Infinity}}', '{"v":1,"g":{"a":-Infinity}}', "[" * 100_000, '{"a":' * 100_000),
    *('{"v":1,"g":{"a":{"$new":1}}}', '{"v":1,"g":{"a":{"$class":"os:system"}}}', '{"v":1,"g":{"a":{"$":1}}}'),
    *('{"$tuple":[1]}', '{"$$v":1}', f'{{"v":1,"g":{"9" * 5000}}}', "\x00", "\ud800", '{"v":1,"g":"\x01"}'),
]


@pytest.mark.parametrize("text", WRONG, ids=lambda value: ascii(value)[:40])
def test_a_wrong_message_is_a_carrier_error(text: t.Any) -> None:
    with pytest.raises(CarrierError) as raised:
        wire.read(text)
    assert isinstance(raised.value, ValueError)
    assert str(raised.value).startswith("The carried context cannot be used, and the task does not run: ")


@by_no_clock
@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["v", "g", *(f"${tag}" for tag in TAGS)]) | st.text(), inner)
        ),
    ).map(lambda value: json.dumps({"v": 1, "g": value}))
)
def test_no_message_raises_another_error(text: str) -> None:
    with contextlib.suppress(CarrierError):
        assert type(wire.read(text)) is dict


def test_no_message_imports_a_module() -> None:
    before = set(sys.modules)
    wire.read(FROZEN)
    for tag in ("class", "module", "py/object", "zone", "datetime"):
        with pytest.raises(CarrierError):
            wire.read(tagged(f"${tag}", ["antigravity", "Europe/Berlin"]))
    assert set(sys.modules) == before


def test_decimal_contexts_do_not_matter() -> None:
    with decimal.localcontext(decimal.Context(prec=2, traps=[decimal.Inexact, decimal.FloatOperation])):
        assert there_and_back(Decimal("1.23456789")) == Decimal("1.23456789")
