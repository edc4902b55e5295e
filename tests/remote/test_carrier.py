"""`Carrier`: what is injected, what is extracted, and what a forged or a broken message can do."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import gc
import json
import threading
import time
import typing as t
import uuid
import weakref
from collections.abc import Iterator

import flask
import hypothesis.strategies as st
import pytest
from flask import Flask, current_app, g, request, session
from flask.globals import app_ctx
from hypothesis import given

import flaskthreads_autopatch
from flaskthreads_autopatch import Carrier, CarrierError, NotPortableError, suppress_inheritance
from flaskthreads_autopatch.carrier import KEY

from . import shop
from .generated import by_no_clock

NAMED: dict[str, t.Any] = {"g": ("user_id", "request_id"), "headers": ("X-Request-ID",)}
TASK = ("send_invoice", "4711")


def create_app(**config: t.Any) -> Flask:
    app = shop.create_app(install=False)
    app.teardown_appcontext_funcs.clear()
    app.config.update(config)
    return app


@pytest.fixture
def worker() -> Flask:
    """The worker's own instance of the app, which notes its teardowns."""
    app = create_app()
    app.extensions["torn down"] = seen = []

    @app.teardown_appcontext
    def note(error: BaseException | None) -> None:
        seen.append((g.get("user_id"), error))

    @app.teardown_request
    def never(error: BaseException | None) -> None:
        seen.append("request")

    return app


def torn_down(app: Flask) -> list[t.Any]:
    seen = app.extensions["torn down"]
    left, seen[:] = list(seen), []
    return left


def sent(app: Flask, carrier: Carrier, context: tuple[str, ...] = (), **entries: t.Any) -> dict[str, str]:
    with app.app_context():
        vars(g).update(entries)
        return carrier.inject({}, context)


def message(**content: t.Any) -> dict[str, str]:
    """A message as an attacker would write it."""
    return {KEY: json.dumps({"v": 1, **content})}


REQUEST = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "SERVER_NAME": "shop", "SERVER_PORT": "80"}
REQUEST |= {"PATH_INFO": "/orders/7"}


def active() -> tuple[object, object]:
    """The active app context, and the active request."""
    ctx = app_ctx._get_current_object() if app_ctx else None  # type: ignore[attr-defined]
    return ctx, request._get_current_object() if request else None  # type: ignore[attr-defined]


def test_what_is_named_arrives_and_nothing_else(app: Flask, worker: Flask) -> None:
    for carrier_there in (Carrier(worker, **NAMED), Carrier(shop.APP, **NAMED)):
        with shop.in_request(app):
            shop.preprocess(app)
            headers = Carrier(app, **NAMED).inject({"theirs": 1})
        assert set(headers) == {"theirs", KEY}
        with carrier_there.extract(headers):
            seen = shop.look()
        assert seen["g"] == {"user_id": "alice", "request_id": "r-1"}
        assert seen["headers"] == {"Host": "shop.example", "X-Request-Id": "r-1"}
        assert (seen["endpoint"], seen["root"], seen["session"]) == ("order", "/mounted", {})
        assert active() == (None, None)
    assert torn_down(worker) == [("alice", None)]


def test_the_header_of_one_user_id_is_small(app: Flask) -> None:
    headers = sent(app, Carrier(app, g=("user_id",)), user_id="alice")
    assert headers == {KEY: '{"v":1,"app":"shop","g":{"user_id":"alice"}}'}
    headers = sent(app, Carrier(app, g=("user_id",)), user_id=uuid.UUID(int=1))
    assert len(KEY) + len(headers[KEY]) <= 120


def test_any_mutable_mapping_will_do(app: Flask, worker: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        for mapping in (collections.OrderedDict(), collections.UserDict(), collections.ChainMap()):
            assert Carrier(app, **NAMED).inject(mapping) is mapping
            with Carrier(worker, **NAMED).extract(mapping):
                assert g.user_id == "alice"


def test_what_is_there_is_kept(app: Flask) -> None:
    headers = {KEY: "of the first attempt"}
    with app.app_context():
        g.user_id = "bob"
        assert Carrier(app, **NAMED).inject(headers) == {KEY: "of the first attempt"}
        headers[KEY] = ""
        assert Carrier(app, **NAMED).inject(headers) == {KEY: ""}


def test_without_a_message_there_is_an_app_context(worker: Flask) -> None:
    for headers in ({}, None, {KEY: ""}, {KEY: None}, {"theirs": 1}):
        for signed in (False, True):
            with Carrier(worker, **NAMED, signed=signed).extract(headers):
                assert shop.look() == {"app": "shop", "g": {}}
            assert torn_down(worker) == [(None, None)]


def test_nothing_is_injected_where_nothing_is_active_or_named(app: Flask) -> None:
    for carrier in (Carrier(app, **NAMED), Carrier(shop.APP, **NAMED)):
        assert carrier.inject({}) == {}
        with app.app_context():
            g.other = 1
            assert carrier.inject({}) == {}


def test_h40_a_carrier_of_one_app_carries_nothing_of_another(app: Flask, worker: Flask) -> None:
    other = Flask("another")
    assert sent(other, Carrier(app, **NAMED), user_id=object()) == {}
    headers = sent(other, Carrier(shop.APP, **NAMED), user_id="mallory")
    with Carrier(worker, **NAMED).extract(headers):
        assert shop.look() == {"app": "shop", "g": {}}
    with other.app_context(), other.test_request_context("/", headers=shop.HEADERS), app.app_context():
        g.user_id = "alice"
        assert "request" not in json.loads(Carrier(app, **NAMED).inject({})[KEY])


@pytest.mark.parametrize(
    ("content", "allowed"),
    [
        ({"g": {"is_admin": True, "_login_user": "root", "user_id": "mallory"}}, {"user_id": "mallory"}),
        ({"g": {"is_admin": True}, "request": {**REQUEST, "REMOTE_USER": "root"}}, {}),
        ({"request": {**REQUEST, "HTTP_COOKIE": "session=forged", "HTTP_AUTHORIZATION": "Bearer forged"}}, {}),
        ({"request": {**REQUEST, "wsgi.input": "forged", "werkzeug.request": "forged", "REMOTE_ADDR": "::1"}}, {}),
        (
            {"request": {**REQUEST, "CONTENT_TYPE": "text/forged", "CONTENT_LENGTH": "7", "HTTP_X_FORWARDED_FOR": "x"}},
            {},
        ),
    ],
)
def test_a_forged_message_sets_nothing_that_the_receiver_has_not_named(
    worker: Flask, content: dict[str, t.Any], allowed: dict[str, t.Any]
) -> None:
    with Carrier(worker, **NAMED).extract(message(**content)):
        assert vars(g) == allowed
        assert "forged" not in repr(request.environ if request else "")
        if request:
            assert (request.remote_user, request.remote_addr, dict(request.cookies)) == (None, None, {})
            assert (request.authorization, request.content_type, request.get_data()) == (None, None, b"")


def test_what_the_sender_has_named_is_not_enough(app: Flask, worker: Flask) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        headers = Carrier(app, g=("user_id", "secret"), headers=("Cookie", "X-Request-ID")).inject({})
    with Carrier(worker, **NAMED).extract(headers):
        assert vars(g) == {"user_id": "alice"}
        assert dict(request.headers) == {"Host": "shop.example", "X-Request-Id": "r-1"}
    with Carrier(worker, **NAMED, request=False).extract(headers):
        assert not request
    with Carrier(worker, **NAMED, request="path").extract(headers):
        assert (request.path, request.query_string) == ("/orders/7", b"")


def test_the_query_string_is_left_out_on_demand(app: Flask, worker: Flask) -> None:
    with shop.in_request(app):
        assert "QUERY_STRING" not in Carrier(app, request="path").inject({})[KEY]
        headers = Carrier(app, request="path").inject({})
        assert Carrier(app, request=False).inject({}) == {}
    with Carrier(worker).extract(headers):
        assert request.url == "https://shop.example/mounted/orders/7"


@pytest.mark.parametrize(
    "content",
    [
        *({"g": None}, {"g": []}, {"g": "user_id"}, {"g": 1}, {"g": {"$tuple": []}}, {"app": 1}, {"app": ["shop"]}),
        *({"request": 1}, {"request": []}, {"request": {}}, {"request": "GET"}, {"request": {"REQUEST_METHOD": "GET"}}),
        *({"request": {**REQUEST, name: value}} for name in REQUEST for value in (None, 1, ["x"], "\u0100", "\ud800")),
        {"request": {**REQUEST, "HTTP_X_REQUEST_ID": 1}},
    ],
    ids=repr,
)
def test_a_message_of_wrong_types_is_a_carrier_error(worker: Flask, content: dict[str, t.Any]) -> None:
    with pytest.raises(CarrierError), Carrier(worker, **NAMED).extract(message(**content)):
        pytest.fail("the task has run")
    assert active() == (None, None)
    assert torn_down(worker) == []


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["/", "[::1", "\0"])
tags = st.sampled_from(
    ["$uuid", "$datetime", "$date", "$time", "$timedelta", "$decimal", "$bytes", "$tuple", "$set", "$"]
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(tags | st.text(), inner, max_size=2), max_leaves=8
)
environs = st.dictionaries(
    st.sampled_from([*REQUEST, "HTTP_HOST", "QUERY_STRING", "HTTP_X_REQUEST_ID", "REMOTE_USER"]), leaves
).map(lambda changed: {**REQUEST, **changed})
messages = st.fixed_dictionaries(
    {"v": st.just(1)},
    optional={
        "app": st.sampled_from(["shop", ".shop", ""]) | anything,
        "g": st.dictionaries(st.sampled_from(["user_id", "request_id", "other"]), anything) | anything,
        "request": environs | anything,
        "sig": anything,
    },
)


@by_no_clock
@given(messages, st.booleans())
def test_whatever_is_forged_the_task_runs_or_it_is_a_carrier_error(content: dict[str, t.Any], signed: bool) -> None:
    app = create_app()
    with contextlib.suppress(CarrierError), Carrier(app, **NAMED, signed=signed).extract({KEY: json.dumps(content)}):
        assert set(vars(g)) <= {"user_id", "request_id"}
    assert active() == (None, None)


@pytest.mark.parametrize("depth", [90, 900, 5_000, 50_000, 500_000])
@pytest.mark.parametrize(
    ("opens", "closes"), [("[", "]"), ('{"a":', "}"), ('{"$tuple":[', "]}"), ('{"$set":[{"$tuple":[', "]}]}")]
)
def test_a_deep_message_is_read_or_is_a_carrier_error(worker: Flask, opens: str, closes: str, depth: int) -> None:
    text = f'{{"v":1,"g":{{"user_id":{opens * depth}1{closes * depth}}}}}'
    with contextlib.suppress(CarrierError), Carrier(worker, **NAMED).extract({KEY: text}):
        assert set(vars(g)) == {"user_id"}


def test_a_forged_name_of_an_app_does_not_fill_the_log(worker: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with Carrier(worker, **NAMED).extract(message(app="forged" * 100_000, g={"user_id": "mallory"})):
        assert vars(g) == {}
    [text] = caplog.messages
    assert len(text) < 500


class RaisingMeta(type):
    def __hash__(cls) -> int:
        raise ValueError

    def __eq__(cls, other: object) -> bool:
        raise ValueError


class Raising(metaclass=RaisingMeta): ...


def test_a_value_that_cannot_be_looked_at_is_refused_by_name(app: Flask) -> None:
    for value in (Raising(), [Raising()]):
        with pytest.raises(
            NotPortableError, match=r"^g.user_id \(.*\) cannot be carried.*: writing it raised ValueError"
        ):
            sent(app, Carrier(app, **NAMED), user_id=value)


@pytest.mark.parametrize("text", [b"{}", 1, ["x"], {}.keys(), "{", "null", '{"v":2}', "x" * 100_000])
def test_a_malformed_message_is_a_carrier_error(worker: Flask, text: t.Any) -> None:
    for signed in (False, True):
        with pytest.raises(CarrierError), Carrier(worker, **NAMED, signed=signed).extract({KEY: text}):
            pytest.fail("the task has run")


@pytest.mark.parametrize(
    "value", ["", " ", "\0", "\r\n", "ä", "/../..", "[::1", "a b", "%zz", "x" * 5000, "." * 300, "*"]
)
@pytest.mark.parametrize("name", [*REQUEST, "HTTP_HOST", "SERVER_PROTOCOL", "SCRIPT_NAME", "QUERY_STRING"])
def test_whatever_text_a_request_has_the_task_runs(worker: Flask, name: str, value: str) -> None:
    with Carrier(worker, **NAMED).extract(message(request={**REQUEST, name: value})):
        assert flask.has_request_context()
    assert torn_down(worker) == [(None, None)]


def test_the_largest_entry_is_named_if_the_message_is_too_large(app: Flask, worker: Flask) -> None:
    carrier = Carrier(app, g=("user_id", "cart", "list"), headers=("X-Long",), max_size=1000)
    entries = {"user_id": "alice", "list": ["a"] * 100}
    for cart in ("a" * 600, "a" * 5000, ["a" * 100] * 20, {"a": "ä" * 400}):
        with pytest.raises(
            NotPortableError, match=rf"^g.cart \({type(cart).__name__}\) cannot be carried.*max_size=1000"
        ):
            sent(app, carrier, cart=cart, **entries)
    assert len(sent(app, carrier, cart="a" * 400, **entries)[KEY]) <= 1000
    with app.test_request_context("/", headers={"X-Long": "a" * 1000}):
        g.user_id = "alice"
        with pytest.raises(NotPortableError, match=r"^the request's HTTP_X_LONG cannot be carried.* with 1000 bytes"):
            carrier.inject({})


def test_a_message_has_64_kib_if_nothing_else_is_said(app: Flask) -> None:
    carrier = Carrier(app, g=("text",))
    room = 64 * 1024 - len(sent(app, carrier, text="")[KEY])
    assert len(sent(app, carrier, text="a" * room)[KEY]) == 64 * 1024
    with pytest.raises(NotPortableError, match=r"^g.text \(str\)"):
        sent(app, carrier, text="a" * (room + 1))


SIGNED: dict[str, t.Any] = {**NAMED, "signed": True}


def test_the_signature_counts(app: Flask) -> None:
    room = 1000 - len(sent(app, Carrier(app, **SIGNED), TASK, user_id="")[KEY])
    carrier = Carrier(app, **SIGNED, max_size=1000)
    assert len(sent(app, carrier, TASK, user_id="a" * room)[KEY]) == 1000
    with pytest.raises(NotPortableError, match=r"^g.user_id \(str\).* longer than max_size=1000"):
        sent(app, carrier, TASK, user_id="a" * (room + 1))


def test_what_is_signed_arrives(app: Flask, worker: Flask) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        headers = Carrier(app, **SIGNED).inject({}, TASK)
    for carrier in (Carrier(worker, **SIGNED), Carrier(worker, **NAMED)):
        # A reader that does not ask for signatures reads it all the same.
        with carrier.extract(headers, TASK):
            assert (g.user_id, request.path) == ("alice", "/orders/7")


@pytest.mark.parametrize("context", [(), ("send_invoice",), ("other", "4711"), ("send_invoice", "4712"), (*TASK, "")])
def test_a_message_for_another_task_is_refused(app: Flask, worker: Flask, context: tuple[str, ...]) -> None:
    headers = sent(app, Carrier(app, **SIGNED), TASK, user_id="alice")
    with pytest.raises(CarrierError, match="signature"), Carrier(worker, **SIGNED).extract(headers, context):
        pytest.fail("the task has run")
    assert torn_down(worker) == []


def test_the_context_cannot_be_cut_at_another_place(app: Flask, worker: Flask) -> None:
    headers = sent(app, Carrier(app, **SIGNED), ("ab", "c"), user_id="alice")
    for context in (("a", "bc"), ("abc",), ("abc", ""), ("ab", "c", ""), ('ab", "c',), ("ab\0c",), ("ab,c",)):
        with pytest.raises(CarrierError):
            Carrier(worker, **SIGNED).extract(headers, context)


def forgeries(text: str) -> Iterator[str]:
    """Whatever somebody may do to a signed message without the key."""
    yield text.replace("alice", "mallory")
    yield text.replace('"g"', '"g" ')
    yield text.partition(',"sig"')[0] + "}"
    yield text.replace('"sig":"', '"sig":"A')
    yield text.replace('"sig":', '"sig" :')
    yield text.replace('"sig":"', '"sig":"ä')
    yield text[:-2] + '","g":{"user_id":"mallory"}}'
    yield '{"v":1,"g":{"user_id":"mallory"},' + text[1:]
    yield text + text
    yield text + " "
    yield '{"v":1,"g":{"user_id":"mallory"},"sig":""}'
    yield '{"v":1,"g":{"user_id":"mallory"},"sig":null}'
    yield json.dumps({"v": 1, "g": {"user_id": text}})


def test_a_forged_message_is_refused(app: Flask, worker: Flask) -> None:
    text = sent(app, Carrier(app, **SIGNED), TASK, user_id="alice")[KEY]
    forged = list(forgeries(text))
    assert text not in forged
    for each in forged:
        with pytest.raises(CarrierError), Carrier(worker, **SIGNED).extract({KEY: each}, TASK):
            pytest.fail(f"the task has run with {each}")


def test_a_value_cannot_pretend_to_be_the_signature(app: Flask, worker: Flask) -> None:
    value = '"},"sig":"AAAA"}'
    headers = sent(app, Carrier(app, **SIGNED), TASK, user_id=value)
    with Carrier(worker, **SIGNED).extract(headers, TASK):
        assert g.user_id == value


def test_a_message_of_another_key_is_refused_and_old_keys_are_honoured(app: Flask) -> None:
    old, new = create_app(SECRET_KEY="old"), create_app(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "old"])
    of_old, of_new = (sent(each, Carrier(each, **SIGNED), TASK, user_id="alice") for each in (old, new))
    with Carrier(new, **SIGNED).extract(of_old, TASK):
        assert g.user_id == "alice"
    with Carrier(new, **SIGNED).extract(of_new, TASK):
        assert g.user_id == "alice"
    # The new key signs.
    for carrier in (Carrier(old, **SIGNED), Carrier(app, **SIGNED)):
        with pytest.raises(CarrierError):
            carrier.extract(of_new, TASK)


def test_without_a_secret_key_nothing_is_signed_and_no_signature_is_accepted(app: Flask, worker: Flask) -> None:
    headers = sent(app, Carrier(app, **SIGNED), TASK, user_id="alice")
    for key in (None, ""):
        app.secret_key = worker.secret_key = key
        with pytest.raises(NotPortableError, match=r"signed=True needs a secret key.*SECRET_KEY"):
            sent(app, Carrier(app, **SIGNED), TASK, user_id="alice")
        with pytest.raises(CarrierError, match=r"signed=True needs a secret key.*SECRET_KEY"):
            Carrier(worker, **SIGNED).extract(headers, TASK)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"app": shop.create_app}, r"^app=<function .*: allowed is a Flask app, or where a worker"),
        *(({"app": app}, rf"^app={app!r}: allowed is a Flask app") for app in ("", None)),
        *(({"g": names}, r"^g=.*: allowed is a tuple of names") for names in ("user_id", None, (1,))),
        ({"headers": "X-Request-ID"}, "^headers='X-Request-ID': allowed is a tuple of names"),
        *(({"request": value}, r"^request=.*: allowed are True, False and \"path\"") for value in (None, 1, "url")),
        *(({"signed": value}, r"^signed=.*: allowed are True and False") for value in (None, 1, "yes")),
        *(
            ({"max_size": value}, r"^max_size=.*: allowed is a number of bytes")
            for value in (0, -1, True, 1.5, "1k", None)
        ),
    ],
)
def test_wrong_options_are_named(app: Flask, options: dict[str, t.Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        Carrier(**{"app": app, **options})


@pytest.mark.parametrize("context", ["send_invoice", ["send_invoice"], (1,), None, (None,)])
def test_a_wrong_context_is_named(app: Flask, context: t.Any) -> None:
    for method in (Carrier(app).inject, Carrier(app).extract):
        with pytest.raises(TypeError, match=r"^context=.*: allowed is a tuple of strings"):
            method({}, context)


def test_the_app_may_be_given_as_current_app(app: Flask) -> None:
    with app.app_context():
        carrier = Carrier(flask.current_app, **NAMED)  # type: ignore[arg-type]
    with carrier.extract(sent(app, carrier, user_id="alice")):
        assert g.user_id == "alice"


def around(app: Flask, how: str) -> t.Any:
    """Something that is active already."""
    other = Flask("another")
    return {
        "app context": app.app_context,
        "request": lambda: shop.in_request(app),
        "another app's request": lambda: other.test_request_context("/"),
    }[how]()


@pytest.mark.parametrize("carried", ["nothing", "entries", "request"])
@pytest.mark.parametrize("how", ["app context", "request", "another app's request"])
def test_it_is_a_new_context_where_one_is_active(app: Flask, worker: Flask, how: str, carried: str) -> None:
    content = {"nothing": {}, "entries": {"g": {"user_id": "alice"}}, "request": {"request": REQUEST}}[carried]
    for here in (worker, app):
        with around(here, how):
            g.mine = 1
            before = active()
            with Carrier(worker, **NAMED).extract(message(**content)):
                inside = active()
                assert inside[0] is not before[0]
                assert vars(g) == content.get("g", {})
                assert flask.has_request_context() is (carried == "request")
                if carried == "request":
                    assert (inside[1] is before[1], request.path) == (False, "/orders/7")
                    session["mine"] = 1
                else:
                    with pytest.raises(RuntimeError, match=r"outside of request context|no request in this context"):
                        request.path  # noqa: B018
            assert active() == before
            assert (g.mine, "mine" in session if request else False) == (1, False)
            assert len(torn_down(worker)) == 1
        assert active() == (None, None)
        torn_down(worker)


def test_a_request_around_it_is_ended_as_ever(app: Flask) -> None:
    ended: list[str] = []
    app.teardown_request(lambda error: ended.append("request"))
    app.teardown_appcontext(lambda error: ended.append("app"))
    with shop.in_request(app) as ctx, ctx:
        with Carrier(app).extract(message(g={})), app.app_context():
            pass
        assert ended == ["app", "app"]
        assert request.path == "/orders/7"
    assert (ended, active()) == (["app", "app", "request", "app"], (None, None))


def test_it_is_a_new_context_in_a_thread_that_inherits(installed: Flask) -> None:
    seen: list[t.Any] = []
    app = create_app()

    def work() -> None:
        before = active()
        with Carrier(app, **NAMED).extract(message(g={"user_id": "bob"})):
            seen.append((vars(g).copy(), flask.has_request_context()))
        assert active() == before
        seen.append((g.user_id, request.path))

    with installed.test_request_context("/of-alice"):
        g.user_id = "alice"
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
    assert seen == [({"user_id": "bob"}, False), ("alice", "/of-alice")]


def test_threads_that_the_block_starts_inherit_it_even_where_inheritance_is_suppressed(worker: Flask) -> None:
    flaskthreads_autopatch.install(worker)
    with suppress_inheritance():
        with Carrier(worker, **NAMED).extract(message(g={"user_id": "alice"})):
            assert shop.user_in_thread() == "alice"
            with suppress_inheritance():
                assert shop.user_in_thread() is None
        assert shop.user_in_thread() is None


def test_an_exception_goes_to_the_handlers_and_on(worker: Flask) -> None:
    for error in (KeyError("in the task"), SystemExit(), KeyboardInterrupt()):
        with pytest.raises(type(error)), Carrier(worker).extract(message(request=REQUEST)):
            raise error
        assert torn_down(worker) == [(None, error)]
        assert active() == (None, None)


def test_a_handler_that_raises_does_not_replace_the_outcome(worker: Flask, caplog: pytest.LogCaptureFixture) -> None:
    worker.teardown_appcontext(lambda error: 1 / 0)
    with Carrier(worker).extract({}, ("send_invoice",)):
        pass
    with pytest.raises(KeyError), Carrier(worker).extract({}):
        raise KeyError
    assert [len(torn_down(worker)), active()] == [2, (None, None)]
    assert "inherited by send_invoice in thread" in caplog.messages[0]
    assert f"inherited by {test_a_handler_that_raises_does_not_replace_the_outcome.__name__} in" in caplog.messages[1]


def test_a_receiver_that_raises_leaves_nothing(worker: Flask) -> None:
    def fail(sender: Flask, **_: object) -> None:
        raise LookupError

    with shop.in_request(worker):
        torn_down(worker)
        before = active()
        flask.appcontext_pushed.connect(fail, worker)
        try:
            with pytest.raises(LookupError), Carrier(worker).extract(message(request=REQUEST)):
                pytest.fail("the task has run")
        finally:
            flask.appcontext_pushed.disconnect(fail, worker)
        assert active() == before


def test_it_is_entered_once(worker: Flask) -> None:
    extracted = Carrier(worker, **NAMED).extract(message(g={"user_id": "alice"}))
    with extracted, pytest.raises(RuntimeError, match=r"can be entered once\. Call extract\(\) again"), extracted:
        pytest.fail("entered twice")
    with pytest.raises(RuntimeError, match="entered once"):
        extracted.__enter__()
    assert (torn_down(worker), active()) == ([("alice", None)], (None, None))


def test_one_message_can_be_extracted_any_number_of_times_by_many_threads(worker: Flask) -> None:
    carrier, all_in = Carrier(worker, **NAMED), threading.Barrier(8)
    seen: list[t.Any] = []

    def work(number: int) -> None:
        with carrier.extract(message(g={"user_id": ["alice"]}, request=REQUEST)):
            all_in.wait(30)
            g.user_id.append(number)
            session["number"] = number
            all_in.wait(30)
            seen.append(g.user_id[1:] == [number] == [session["number"]])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [True] * 8
    assert len(torn_down(worker)) == 8


def test_asyncio_tasks_have_each_their_own(worker: Flask) -> None:
    carrier = Carrier(worker, **NAMED)

    async def work(user: str) -> str:
        with carrier.extract(message(g={"user_id": user})):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return t.cast(str, g.user_id)

    async def main() -> list[str]:
        return await asyncio.gather(*map(work, ["alice", "bob", "carol"]))

    assert asyncio.run(main()) == ["alice", "bob", "carol"]
    assert [user for user, _ in torn_down(worker)] == ["alice", "bob", "carol"]


def test_a_generator_may_hold_it_as_it_holds_an_app_context(worker: Flask) -> None:
    def work() -> Iterator[str]:
        with Carrier(worker, **NAMED).extract(message(g={"user_id": "alice"})):
            yield g.user_id
            yield current_app.name

    assert (list(work()), active()) == (["alice", "shop"], (None, None))
    generator = work()
    next(generator)
    generator.close()
    assert [type(error) for _, error in torn_down(worker)] == [type(None), GeneratorExit]
    assert active() == (None, None)


def test_contexts_that_the_block_forgets_are_torn_down(worker: Flask) -> None:
    with Carrier(worker, **NAMED).extract(message(g={"user_id": "alice"})):
        worker.app_context().push()
        g.user_id = "forgotten"
        worker.test_request_context().push()
    assert [each for each in torn_down(worker) if each != "request"][-1] == ("alice", None)
    assert active() == (None, None)
    with Carrier(worker, **NAMED).extract(message(request=REQUEST)):
        app_ctx.pop()
    assert active() == (None, None)


def test_nothing_holds_the_context_afterwards(worker: Flask) -> None:
    def run(fail: bool) -> weakref.ref[t.Any]:
        with Carrier(worker, **NAMED).extract(message(g={"user_id": "alice"}, request=REQUEST)):
            ref = weakref.ref(app_ctx._get_current_object())  # type: ignore[attr-defined]
            if fail:
                refs.append(ref)
                raise KeyError
            return ref

    worker.teardown_appcontext_funcs.clear()
    refs: list[weakref.ref[t.Any]] = [run(False)]
    with pytest.raises(KeyError) as kept:
        run(True)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert kept.value.__traceback__


def test_a_request_that_was_pushed_in_other_context_variables_is_not_seen(app: Flask, worker: Flask) -> None:
    def look() -> bool:
        with Carrier(worker).extract({}):
            return flask.has_request_context()

    with shop.in_request(app):
        assert contextvars.copy_context().run(look) is False
        assert request.path == "/orders/7"


def test_what_a_receiver_has_put_on_g_wins(worker: Flask) -> None:
    def greet(sender: Flask, **_: object) -> None:
        g.user_id = "of the worker"

    flask.appcontext_pushed.connect(greet, worker)
    with Carrier(worker, **NAMED).extract(message(g={"user_id": "alice", "request_id": 1})):
        assert vars(g) == {"user_id": "of the worker", "request_id": 1}
    flask.appcontext_pushed.disconnect(greet, worker)


def test_the_signals_of_flask_are_sent_once(worker: Flask) -> None:
    seen: list[str] = []
    names = ("appcontext_pushed", "appcontext_tearing_down", "appcontext_popped", "request_tearing_down")
    receivers = [(getattr(flask, name), lambda sender, name=name, **_: seen.append(name)) for name in names]
    for signal, receiver in receivers:
        signal.connect(receiver, worker)
    for content in ({}, {"request": REQUEST}):
        with Carrier(worker).extract(message(**content)):
            seen.append("task")
        assert seen == [names[0], "task", *names[1:3]]
        seen.clear()


def test_a_carried_context_appears_in_running(worker: Flask) -> None:
    with Carrier(worker, **NAMED).extract(
        message(g={"user_id": "alice"}, request=REQUEST | {"PATH_INFO": "/\xc3\xa4"})
    ):
        [replay] = flaskthreads_autopatch.running()
        here = f"{__name__}:{test_a_carried_context_appears_in_running.__name__}"
        assert (replay.callable, replay.kind, replay.app, replay.inherited) == (here, "task", "shop", ("user_id",))
        assert (replay.method, replay.path, request.path) == ("GET", "/ä", "/ä")
        assert replay.parent_is_over
        assert flaskthreads_autopatch.is_inherited()
    with Carrier(worker).extract({}, TASK):
        [replay] = flaskthreads_autopatch.running()
        assert (replay.callable, replay.method, replay.path) == (f"{__name__}:send_invoice", None, None)
    with Carrier(shop.APP).extract({}), shop.in_request(worker):
        carried = flaskthreads_autopatch.carry(flaskthreads_autopatch.running, shop.APP)
        assert [replay.callable for replay in carried()][1:] == ["flaskthreads_autopatch.visibility.registry:running"]
    assert flaskthreads_autopatch.running() == []


def test_the_signals_of_a_replay_are_sent(worker: Flask) -> None:
    seen: list[t.Any] = []

    def begun(sender: Flask, replay: t.Any) -> None:
        seen.append((sender, replay.callable, g.user_id))

    def ended(sender: Flask, replay: t.Any, error: str | None, outlived: float) -> None:
        seen.append((sender, replay.inherited, error, 0 < outlived < 30))

    flaskthreads_autopatch.context_inherited.connect(begun)
    flaskthreads_autopatch.context_released.connect(ended)
    try:
        with pytest.raises(KeyError), Carrier(worker, **NAMED).extract(message(g={"user_id": "alice"}), TASK):
            raise KeyError
    finally:
        flaskthreads_autopatch.context_inherited.disconnect(begun)
        flaskthreads_autopatch.context_released.disconnect(ended)
    path = f"{__name__}:send_invoice"
    assert seen == [(worker, path, "alice"), (worker, ("user_id",), "builtins:KeyError", True)]


def test_a_carried_task_that_runs_on_is_warned_of(worker: Flask, caplog: pytest.LogCaptureFixture) -> None:
    flaskthreads_autopatch.install(worker, warn_after=0.01)
    end = time.monotonic() + 30
    with Carrier(worker, **NAMED).extract(message(request=REQUEST), TASK):
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.01)
    thread = threading.current_thread().name
    for text, what in zip(caplog.messages, ("still runs", "has finished"), strict=True):
        assert text.startswith(f"Thread {thread!r} {what} {__name__}:send_invoice, a task of app 'shop', ")
        assert text.endswith(" s after the task began. If it may take that long, raise warn_after.")
