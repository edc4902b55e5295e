"""Entries of ``g`` that are hard to look at, and a ``g`` with a store of its own."""

from __future__ import annotations

import collections
import dataclasses
import gc
import itertools
import typing as t
import weakref
from types import SimpleNamespace

import pytest
from flask import Flask, appcontext_pushed, current_app, g, request
from flask.ctx import _AppCtxGlobals

from flaskthreads_autopatch import entries, install, is_inherited, running

from .helpers import in_thread


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
