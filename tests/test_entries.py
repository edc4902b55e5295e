"""Entries of ``g``: what a child has of them, what is not inherited, and a ``g`` that is hard to look at."""

from __future__ import annotations

import collections
import dataclasses
import gc
import itertools
import logging
import sqlite3
import threading
import typing as t
import weakref
from types import SimpleNamespace

import flask
import pytest
from flask import Flask, appcontext_pushed, current_app, g, request
from flask.ctx import _AppCtxGlobals

from flaskthreads_autopatch import entries, install, is_inherited, running

from .helpers import LIMIT, Resource, in_thread, snapshot_here


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("classes of this metaclass cannot be compared")


class RaisingHash(type):
    def __hash__(cls) -> int:
        raise RuntimeError("classes of this metaclass have no hash")


class RaisingAttributes(type):
    @property
    def __mro__(cls) -> t.Any:  # type: ignore[override]
        raise RuntimeError("no mro")

    @property
    def __module__(cls) -> t.Any:  # type: ignore[override]
        raise RuntimeError("no module")


class StrangeMro(type):
    def mro(cls) -> list[type]:
        return [cls, object, *(base for base in super().mro() if base not in (cls, object))]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class ModuleOfAnotherType:
    __module__ = Unprintable()  # type: ignore[assignment]


Unnamed = eval("type('Unnamed', (), {})", {})


class RaisingClass:
    @property  # type: ignore[misc]
    def __class__(self) -> t.Any:
        raise RuntimeError("no class")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __getattribute__(self, name: str) -> t.Any:
        raise RuntimeError("no attributes")


STRANGE: dict[str, object] = {
    "unhashable metaclass": Unhashable("Entry", (), {})(),
    "raising hash": RaisingHash("Entry", (), {})(),
    "raising attributes": RaisingAttributes("Entry", (), {})(),
    "strange mro": StrangeMro("Entry", (), {})(),
    "module that is no text": ModuleOfAnotherType(),
    "no module": Unnamed(),
    "raising everything": RaisingClass(),
    "a class": Unhashable("Entry", (), {}),
}
POLICIES: list[dict[str, t.Any]] = [{}, {"exclude": ["token", "some.module:*"]}]


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "exclude"])
@pytest.mark.parametrize("kind", STRANGE)
def test_an_entry_that_is_hard_to_look_at_is_inherited_with_the_rest(
    app: Flask, kind: str, policy: dict[str, t.Any], caplog: pytest.LogCaptureFixture
) -> None:
    install(app, **policy)
    seen = []

    @app.teardown_appcontext
    def teardown(exc: BaseException | None) -> None:
        if is_inherited():
            seen.append("entry" in g)

    with app.test_request_context("/alices"):
        g.before, g.entry, g.after = "alice", STRANGE[kind], "bob"
        g.namespace = SimpleNamespace(attribute=STRANGE[kind])
        found = in_thread(lambda: (g.before, g.entry, g.after, g.namespace.attribute, request.path))
        assert found[0::2] == ("alice", "bob", "/alices")
        assert found[1] is STRANGE[kind]
        assert found[3] is STRANGE[kind]
        assert seen == [False]
    assert caplog.records == []


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "exclude"])
def test_an_entry_whose_name_is_no_text_is_inherited_with_the_rest(app: Flask, policy: dict[str, t.Any]) -> None:
    install(app, **policy)
    with app.app_context():
        g.user, vars(g)[5] = "alice", "five"
        assert in_thread(lambda: (g.user, vars(g)[5])) == ("alice", "five")


def test_an_entry_that_is_hard_to_look_at_can_be_excluded(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "flaskthreads_autopatch")
    install(app, exclude=[f"{__name__}:Un*", f"{__name__}:Entry", "builtins:object"])
    with app.app_context():
        g.user = "alice"
        for number, (kind, entry) in enumerate(STRANGE.items()):
            if kind != "a class":
                setattr(g, f"entry_{number}", entry)
        assert in_thread(lambda: list(g)) == []
    assert len(caplog.records) == len(STRANGE)


# A g of a class of the app's own


class Defaults(_AppCtxGlobals):
    def __init__(self) -> None:
        self.user = None
        self.opened = itertools.count()
        self.later = "default"


@dataclasses.dataclass
class Data:
    user: str | None = None
    opened: object = dataclasses.field(default_factory=object)
    later: str = "default"


class Validating(_AppCtxGlobals):
    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or not isinstance(value, object):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Computing(_AppCtxGlobals):
    def __getattr__(self, name: str) -> t.Any:
        if name == "computed":
            return self.user.upper()
        raise AttributeError(name)


class Property(_AppCtxGlobals):
    @property
    def user(self) -> str:
        return t.cast(str, self._user)

    @user.setter
    def user(self, value: str) -> None:
        self._user = value


INHERITS = [Defaults, Data, Validating, Computing, Property]


@pytest.mark.parametrize("cls", INHERITS)
def test_a_g_that_keeps_its_entries_in_its_dict_inherits(
    app: Flask, cls: type, caplog: pytest.LogCaptureFixture
) -> None:
    app.app_ctx_globals_class = cls  # type: ignore[assignment]
    install(app)
    with app.app_context():
        g.user = "alice"
        assert in_thread(lambda: (g.user, type(g._get_current_object()))) == ("alice", cls)  # type: ignore[attr-defined]
        in_thread(lambda: setattr(g, "user", "bob"))
        assert g.user == "alice"
        if cls is Computing:
            assert in_thread(lambda: g.computed) == "ALICE"
    assert caplog.records == []


@pytest.mark.parametrize("cls", [Defaults, Data])
def test_the_defaults_of_a_g_do_not_win_over_the_parents_entries(app: Flask, cls: type) -> None:
    app.app_ctx_globals_class = cls  # type: ignore[assignment]
    install(app)
    at_the_end: list[t.Any] = []

    @app.teardown_appcontext
    def teardown(exc: BaseException | None) -> None:
        if is_inherited():
            at_the_end.append((g.user, g.opened, g.later))

    def receiver(sender: Flask, **extra: object) -> None:
        g.later = "default" if is_inherited() else "the parent's"
        if is_inherited():
            g.later = "from a receiver"

    with appcontext_pushed.connected_to(receiver, app), app.app_context():
        g.user = "alice"
        opened = g.opened
        found = in_thread(lambda: (g.user, g.opened, g.later))
        assert found == ("alice", opened, "from a receiver")
        assert found[1] is opened
        # In the teardown an entry that is hidden has its default again, and no handler fails for want of it.
        ((user, default, later),) = at_the_end
        assert (user, later) == ("alice", "from a receiver")
        assert type(default) is type(opened)
        assert default is not opened
        # What the thread has opened in its place, the handlers see.
        in_thread(lambda: setattr(g, "opened", "the thread's"))
        assert at_the_end[1][1] == "the thread's"


@pytest.mark.parametrize("cls", [Defaults, Data])
def test_the_defaults_of_a_g_in_a_thread_of_a_thread(app: Flask, cls: type) -> None:
    app.app_ctx_globals_class = cls  # type: ignore[assignment]
    install(app)
    with app.test_request_context("/alices"):
        opened = g.opened
        assert in_thread(lambda: in_thread(lambda: g.opened)) is opened


class Own(_AppCtxGlobals):
    """The values of its entries lie in a dictionary of its own."""

    def __init__(self) -> None:
        object.__setattr__(self, "_data", {})

    def __getattr__(self, name: str) -> t.Any:
        try:
            return self.__dict__["_data"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__["_data"][name] = value

    def __iter__(self) -> t.Iterator[str]:
        return iter(self.__dict__["_data"])


class LateOwn(Own):
    def __init__(self) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__.setdefault("_data", {})[name] = value


class OfADict(dict[str, t.Any]):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__  # type: ignore[assignment]
    __delattr__ = dict.__delitem__  # type: ignore[assignment]


class WithItems(dict[str, t.Any]):
    """Attributes are in the ``__dict__``, and inherited. Items are not."""


class UserDict(collections.UserDict[str, t.Any]):
    pass


class WithSlots(_AppCtxGlobals):
    __slots__ = ("in_a_slot",)


class Outside(_AppCtxGlobals):
    stores: t.ClassVar[t.Any] = weakref.WeakKeyDictionary()

    def __getattr__(self, name: str) -> t.Any:
        try:
            return self.stores[self][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self.stores.setdefault(self, {})[name] = value


class Refusing(_AppCtxGlobals):
    """It has its entries in its dictionary, but that cannot be tried out."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "user":
            raise AttributeError(name)
        super().__setattr__(name, value)


class Hiding:
    """It lets nobody see its dictionary."""

    def __getattribute__(self, name: str) -> t.Any:
        if name == "__dict__":
            raise RuntimeError(name)
        return object.__getattribute__(self, name)


class OfAnotherType:
    __slots__ = ("user",)

    @property
    def __dict__(self) -> t.Any:  # type: ignore[override]
        return 5


WARNED: dict[type, bool] = {
    Own: False,
    LateOwn: False,
    OfADict: False,
    Outside: False,
    Hiding: False,
    OfAnotherType: False,
    WithItems: True,
    UserDict: True,
    WithSlots: True,
    Refusing: True,
}
"""Classes that are named in a warning, and whether attributes are inherited all the same."""


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("cls", WARNED)
def test_a_g_with_a_store_of_its_own_is_named_once(
    app: Flask, cls: type, share: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app.app_ctx_globals_class = cls  # type: ignore[assignment]
    install(app, share=share)
    inherits = share or WARNED[cls]

    def look() -> object:
        found = getattr(g, "user", None) if cls is not OfADict else g._get_current_object().get("user")  # type: ignore[attr-defined]
        g.user = "bob"
        return found, current_app.name, request.path, [replay.app for replay in running()]

    with app.test_request_context("/alices"):
        for _ in range(3):
            g.user = "alice"
            assert in_thread(look) == ("alice" if inherits else None, "tests", "/alices", ["tests"])
            assert g.user == ("bob" if share else "alice")
    named = [record for record in caplog.records if cls.__qualname__ in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in named] == ([] if share else [("WARNING", None)])
    assert len(caplog.records) == len(named)


def test_what_is_known_of_a_class_goes_with_it(installed: Flask) -> None:
    def use() -> weakref.ref[type]:
        cls = type("Made", (), {})
        with installed.app_context():
            g.user, g.made = "alice", cls()
            assert in_thread(lambda: sorted(g)) == ["made", "user"]
        return weakref.ref(cls)

    before = len(entries._plans)
    for _ in range(3):
        ref = use()
        gc.collect()
        assert ref() is None
    assert len(entries._plans) == before


def test_plans_are_bounded(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_MOST_PLANS", 3)
    entries._plans.clear()
    classes = [type(f"Made{number}", (), {}) for number in range(9)]
    for cls in classes:
        with installed.app_context():
            g.made = cls()
            assert in_thread(lambda: type(g.made)) is cls
        assert len(entries._plans) <= 3


def test_g_is_taken_at_start_and_writes_stay_in_the_child(installed: Flask) -> None:
    go_on = threading.Event()
    seen: list[object] = []

    def work() -> None:
        go_on.wait(LIMIT)
        seen.append((g.name, "late" in g))
        g.name = "child"
        g.mine = True

    with installed.app_context():
        g.name = "parent"
        thread = threading.Thread(target=work)
        g.name = "parent at start"
        thread.start()
        g.name, g.late = "parent after start", True
        go_on.set()
        thread.join(LIMIT)
        assert seen == [("parent at start", False)]
        assert (g.name, "mine" in g) == ("parent after start", False)


def test_entries_are_inherited_by_reference(installed: Flask) -> None:
    with installed.app_context():
        g.items = []
        in_thread(lambda: g.items.append("from the child"))
        assert g.items == ["from the child"]


def test_h8_a_namespace_on_g_is_copied_one_level(installed: Flask) -> None:
    def force_locale() -> str:
        before = g._babel.locale
        g._babel.locale = "de"
        g._babel.cache["x"] = 1
        return t.cast(str, before)

    with installed.app_context():
        g._babel = SimpleNamespace(locale="en", cache={})
        assert in_thread(force_locale) == "en"
        assert g._babel.locale == "en"
        assert g._babel.cache == {"x": 1}  # one level: its attributes are inherited by reference


def test_a_namespace_is_named_once_among_what_is_inherited(installed: Flask) -> None:
    with installed.app_context():
        g.user, g._state = "alice", SimpleNamespace(locale="de")
        assert sorted(snapshot_here().inherited) == ["_state", "user"]


def test_h8_a_namespace_is_hidden_attribute_by_attribute(installed: Flask) -> None:
    parents, childs = Resource(), Resource()

    @installed.teardown_appcontext
    def close(exc: BaseException | None) -> None:
        if is_inherited():
            for value in list(vars(g._state).values()):
                if isinstance(value, Resource):
                    value.close()
            seen.append(sorted(vars(g._state)))

    def work() -> None:
        assert g._state.parents is parents
        g._state.childs = childs

    seen: list[list[str]] = []
    with installed.app_context():
        g._state = SimpleNamespace(parents=parents, name="plain")
        in_thread(work)
        assert vars(g._state) == {"parents": parents, "name": "plain"}
    assert seen == [["childs", "name"]]
    assert (len(parents.closed_in), len(childs.closed_in)) == (0, 1)


def test_a_pushed_receivers_entry_wins_and_is_torn_down(installed: Flask) -> None:
    shared = Resource()
    torn_down: list[list[str]] = []

    def prepare(sender: Flask) -> None:
        g.tenant = "from the receiver"
        g.shared = shared

    @installed.teardown_appcontext
    def note(exc: BaseException | None) -> None:
        torn_down.append(sorted(g))

    with appcontext_pushed.connected_to(prepare, installed), installed.app_context():
        g.tenant = "from the parent"
        g.other = Resource()
        assert in_thread(lambda: (g.tenant, "other" in g)) == ("from the receiver", True)
    # What the receiver put on the child's g is the child's, even where it is the very object that the parent has.
    assert torn_down == [["shared", "tenant"], ["other", "shared", "tenant"]]


def test_share_gives_the_parents_own_g(app: Flask) -> None:
    install(app, share=True)
    seen_by_teardown: list[tuple[bool, list[str]]] = []

    @app.teardown_appcontext
    def note(exc: BaseException | None) -> None:
        seen_by_teardown.append((is_inherited(), sorted(g)))

    def work() -> bool:
        g.by_child = Resource()
        return g._get_current_object() is parent

    with app.app_context():
        parent = g._get_current_object()
        g.by_parent = Resource()
        assert in_thread(work)
        assert "by_child" in g
    assert seen_by_teardown == [(True, []), (False, ["by_child", "by_parent"])]


def test_h7_a_sqlite_connection_stays_home_and_the_child_opens_its_own(installed: Flask) -> None:
    def get_db() -> sqlite3.Connection:
        if "db" not in g:
            g.db = sqlite3.connect(":memory:")
        return t.cast(sqlite3.Connection, g.db)

    closed: list[int] = []

    @installed.teardown_appcontext
    def close_db(exc: BaseException | None) -> None:
        if (db := g.pop("db", None)) is not None:
            db.close()  # sqlite3 raises if this is another thread's
            closed.append(threading.get_ident())

    with installed.app_context():
        mine = get_db()
        mine.execute("create table here (x)")
        other, ident = in_thread(lambda: (get_db(), threading.get_ident()))
        assert other is not mine
        assert closed == [ident]
        assert mine.execute("select count(*) from here").fetchone() == (0,)
    assert closed == [ident, threading.get_ident()]


def test_thread_bound_values_stay_home_inside_a_namespace_too(installed: Flask) -> None:
    with installed.app_context():
        db = sqlite3.connect(":memory:")
        g.state = SimpleNamespace(db=db, name="x")
        assert in_thread(lambda: vars(g.state).copy()) == {"name": "x"}
        db.close()


def test_flask_logins_user_stays_home_by_name(installed: Flask) -> None:
    with installed.app_context():
        g._login_user = "an ORM object of the parent's session"
        assert in_thread(lambda: "_login_user" in g) is False


def test_excluded_entries_stay_home(app: Flask) -> None:
    install(app, exclude=("secret_*", "tests.helpers:Res*"))
    with app.app_context():
        g.secret_key, g.resource, g.state = "x", Resource(), SimpleNamespace(resource=Resource(), a=1)
        g.user = "alice"
        assert in_thread(lambda: (sorted(g), vars(g.state).copy())) == (["state", "user"], {"a": 1})


def test_what_stays_home_is_said_once_at_debug_level(installed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with installed.app_context():
        g.db_for_this_test = sqlite3.connect(":memory:")
        for level in (logging.INFO, logging.DEBUG, logging.DEBUG):
            caplog.set_level(level, "flaskthreads_autopatch")
            with pytest.raises(AttributeError, match="db_for_this_test"):
                in_thread(lambda: g.db_for_this_test)
        g.db_for_this_test.close()
    (message,) = [record.getMessage() for record in caplog.records if "db_for_this_test" in record.getMessage()]
    assert message.startswith("g.db_for_this_test is not inherited because it is a sqlite3.Connection: ")


@pytest.mark.parametrize("share", [False, True])
def test_a_g_without_a_dict_stays_home_and_is_said_once(
    app: Flask, share: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Slotted:
        __slots__ = ("user",)

    app.app_ctx_globals_class = Slotted  # type: ignore[assignment]
    install(app, share=share)
    with app.test_request_context("/alices"):
        g.user = "alice"
        for _ in range(2):
            assert in_thread(lambda: (flask.current_app.name, request.path, is_inherited())) == (
                "tests",
                "/alices",
                True,
            )
            assert in_thread(lambda: hasattr(g, "user")) is share
            assert in_thread(lambda: [replay.inherited for replay in running()]) == [()]
    said = [(record.levelname, record.exc_info) for record in caplog.records if Slotted.__qualname__ in record.message]
    assert said == ([] if share else [("WARNING", None)])
    assert len(caplog.records) == len(said)
