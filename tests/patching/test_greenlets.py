"""gevent, without its monkey-patching, in the process of the tests: who inherits, when, and what is left behind."""

from __future__ import annotations

import gc
import importlib
import logging
import typing as t
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g, has_app_context, request
from flask.signals import appcontext_pushed

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    copy_current_app_context,
    disable,
    enable,
    install,
    is_inherited,
    running,
    status,
    suppress_inheritance,
)

from ..helpers import Resource, user
from ..own_code.layouts import install as install_package
from ..own_code.layouts import unload

if t.TYPE_CHECKING:
    import gevent
    from gevent import spawn, spawn_later, spawn_raw
    from gevent.event import Event
    from gevent.lock import Semaphore
    from gevent.pool import Group, Pool

pytestmark = pytest.mark.gevent


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import gevent before the patches are applied, as a legacy app does, and only if these tests run."""
    import gevent
    import gevent.event
    import gevent.lock
    import gevent.pool

    globals().update(gevent=gevent, spawn=gevent.spawn, spawn_later=gevent.spawn_later, spawn_raw=gevent.spawn_raw)
    globals().update(Event=gevent.event.Event, Semaphore=gevent.lock.Semaphore)
    globals().update(Group=gevent.pool.Group, Pool=gevent.pool.Pool)


HOOK = "gevent.Greenlet.add_spawn_callback"

THIRD = """
import gevent
from gevent.pool import Pool

def spawn(fn, *args):
    return gevent.spawn(fn, *args)

def spawn_raw(fn, *args):
    return gevent.spawn_raw(fn, *args)

def call(fn):
    return fn()

class Greenlet(gevent.Greenlet):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def _run(self):
        return self.fn()

def start(fn):
    greenlet = Greenlet(fn)
    greenlet.start()
    return greenlet

class Quick(gevent.Greenlet):
    def start(self):
        super().start()
"""


@pytest.fixture
def alice(installed: Flask) -> Iterator[Flask]:
    with installed.test_request_context("/alice"):
        g.user = "alice"
        yield installed


@pytest.fixture
def third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[t.Any]:
    monkeypatch.syspath_prepend(
        install_package(tmp_path / "site-packages", "thirdgreen", {"thirdgreen/__init__.py": THIRD})
    )
    yield importlib.import_module("thirdgreen")
    unload("thirdgreen")


@pytest.fixture
def pushed() -> Iterator[list[Flask]]:
    """The app of each context that is entered."""
    apps: list[Flask] = []

    def note(sender: Flask, **extra: object) -> None:
        apps.append(sender)

    with appcontext_pushed.connected_to(note):
        yield apps


# Who inherits


def test_names_that_were_imported_early(alice: Flask) -> None:
    assert spawn(user).get() == spawn_later(0.001, user).get() == "alice"
    # The function itself is what was imported, and no hook is called for it.
    seen: list[str] = []
    spawn_raw(lambda: seen.append(user()))
    gevent.spawn_raw(lambda: seen.append(user()))
    gevent.sleep(0)
    assert seen == ["no context", "alice"]


def test_the_context_at_the_start_counts(installed: Flask) -> None:
    with installed.app_context():
        g.user = "alice"
        made = gevent.Greenlet(user)
        later = spawn_later(0.001, user)
    made.start()
    with installed.app_context():
        g.user = "bob"
        bobs = gevent.Greenlet(user)
        bobs.start()
        g.user = "changed since"
    assert [made.get(), later.get(), bobs.get()] == ["no context", "alice", "bob"]


def test_third_party_code_inherits_where_own_code_has_a_hand_in_it(alice: Flask, third: t.Any) -> None:
    def theirs(fn: t.Any) -> t.Any:
        """A function that is theirs, to be called without own code."""
        return eval("lambda: has_app_context()", {"__name__": "thirdgreen", "has_app_context": has_app_context})

    does = theirs(None)
    assert gevent.spawn(does).get() is True  # their function, started by own code
    assert third.spawn(lambda: has_app_context()).get() is True  # own function, started by them
    assert third.spawn(does).get() is False
    assert third.start(does).get() is False
    greenlet = third.Greenlet(does)
    greenlet.start()
    assert greenlet.get() is True
    # A start() of the class is looked through.
    quick = third.Quick(does)
    quick.start()
    assert quick.get() is True
    seen: list[bool] = []
    third.spawn_raw(lambda: seen.append(has_app_context()))
    third.spawn_raw(does)
    gevent.sleep(0)
    assert seen == [True]
    # Tasks of a pool inherit in any case.
    assert third.call(lambda: Pool(1).spawn(does)).get() is True
    assert third.Pool(1).apply(does) is True


def test_what_is_not_own_code_is_logged_once_where_it_runs(
    alice: Flask, third: t.Any, caplog: pytest.LogCaptureFixture
) -> None:
    from flaskthreads_autopatch.patching import starting

    starting._kind.cache_clear()
    caplog.set_level(logging.DEBUG, "flaskthreads_autopatch")
    greenlets = [third.spawn(third.call, third.spawn.__class__.mro) for _ in range(2)]
    assert caplog.messages == []
    gevent.joinall(greenlets)
    assert caplog.messages == [
        "A thread that runs thirdgreen:call does not inherit: neither thirdgreen:call nor thirdgreen, which starts it,"
        " is own code."
    ]


@pytest.mark.parametrize("own", [(), ("*",)])
def test_what_gevent_starts_for_itself_does_not_inherit(app: Flask, pushed: list[Flask], own: tuple[str, ...]) -> None:
    import gevent.socket
    import gevent.subprocess
    from gevent.fileobject import FileObjectThread

    install(app, own=own)
    with app.app_context():
        pushed.clear()
        assert gevent.socket.gethostbyname("localhost") == "127.0.0.1"
        shell = gevent.subprocess.Popen(["cat"], stdin=-1, stdout=-1, stderr=-1)
        assert shell.communicate(b"text") == (b"text", b"")
        with FileObjectThread(open(__file__, "rb"), "rb") as file:
            assert file.read(3) == b'"""'
        pool = gevent.get_hub().threadpool
        pool.maxsize += 1
        pool.maxsize -= 1
        pool.spawn(int).get()
        assert len(pushed) == 1  # that of the task


def test_servers_do_not_inherit(alice: Flask) -> None:
    from urllib.request import urlopen

    from gevent.pywsgi import WSGIServer

    def app(environ: t.Any, start_response: t.Any) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{user()} {is_inherited()}".encode()]

    def get(server: t.Any) -> bytes:
        client = gevent.get_hub().threadpool.spawn(lambda: urlopen(f"http://127.0.0.1:{server.server_port}").read())
        return t.cast(bytes, client.get())

    started = WSGIServer(("127.0.0.1", 0), app, log=None)
    started.start()
    forever = WSGIServer(("127.0.0.1", 0), app, log=None)
    spawned = gevent.spawn(forever.serve_forever)
    pooled = WSGIServer(("127.0.0.1", 0), app, log=None, spawn=Pool(2))
    in_pool = Pool(1).spawn(pooled.serve_forever)
    gevent.sleep(0)
    assert [r.callable for r in running()] == []
    assert [get(each) for each in (started, forever, pooled)] == [b"no context False"] * 3
    for server in (started, forever, pooled):
        server.stop()
    gevent.joinall([spawned, in_pool], raise_error=True)


def test_links_stay_clean(alice: Flask) -> None:
    seen: list[str] = []
    greenlet = gevent.spawn(user)
    greenlet.link(lambda _: seen.append(user()))
    greenlet.link_value(lambda _: seen.append(user()))
    greenlet.rawlink(lambda _: seen.append(user()))
    failed = gevent.spawn(lambda: None)
    failed.link_exception(lambda _: seen.append("never"))
    gevent.joinall([greenlet, failed])
    gevent.idle()
    assert seen == ["no context"] * 3


def test_suppressed_and_explicit(alice: Flask) -> None:
    with suppress_inheritance():
        assert gevent.spawn(user).get() == Group().spawn(user).get() == "no context"
        assert gevent.spawn(copy_current_app_context(user)).get() == "alice"
        # The suppression is not inherited: what the greenlet starts in a context of its own inherits.
        assert gevent.spawn(lambda: gevent.spawn(user).get()).get() == "no context"
    copied = copy_current_app_context(lambda: len(running()))
    assert gevent.spawn(copied).get() == 1


def test_ignored(app: Flask) -> None:
    install(app, ignore=[f"{__name__}:test_ignored.*"])

    def ignored(*args: object) -> str:
        return user()

    with app.app_context():
        g.user = "alice"
        assert gevent.spawn(ignored).get() == Pool(1).spawn(ignored).get() == "no context"
        assert [Pool(1).apply_async(ignored).get()] == Pool(1).map(ignored, [1]) == ["no context"]
        assert gevent.spawn(user).get() == "alice"


# One request and another


def test_a_thousand_overlapping_greenlets_of_a_hundred_requests(installed: Flask) -> None:
    waiting, together = Semaphore(0), Event()
    seen: list[tuple[str, bool]] = []

    def work(name: str, depth: int) -> None:
        for _ in range(3):
            gevent.sleep(0)
            seen.append((name, (g.user, request.args["user"], g.steps) == (name, name, ["view"])))
        g.mine = depth
        waiting.release()
        together.wait()
        seen.append((name, (g.user, g.mine) == (name, depth)))
        if depth:
            gevent.spawn(work, name, depth - 1).get()

    @installed.get("/user")
    def view() -> str:
        g.user, g.steps = request.args["user"], ["view"]
        before, pool = dict(vars(g._get_current_object())), Pool(3)
        greenlets = [gevent.spawn(work, g.user, 1), *(pool.spawn(work, g.user, 1) for _ in range(3))]
        for _ in range(2):
            gevent.spawn_raw(work, g.user, 0)
        gevent.joinall(greenlets, raise_error=True)
        assert vars(g._get_current_object()) == before
        return t.cast(str, g.user)

    def get(name: str) -> str:
        return installed.test_client().get(f"/user?user={name}").text

    names = [f"user{number}" for number in range(100)]
    requests = [gevent.spawn(get, name) for name in names]
    for _ in range(600):
        waiting.acquire()
    assert len(running()) == 600
    together.set()
    gevent.joinall(requests, raise_error=True)
    gevent.idle()
    assert [each.value for each in requests] == names
    assert Counter(seen) == {(name, True): 10 * 4 for name in names}
    assert running() == []


def test_context_variables_are_the_greenlets_own(alice: Flask) -> None:
    def inner() -> object:
        return has_app_context(), is_inherited()

    assert gevent.spawn(inner).get() == (True, True)
    with suppress_inheritance():
        assert gevent.spawn(inner).get() == (False, False)
    assert user() == "alice"


# Maps


def test_a_map_inherits_what_was_active_at_its_call(installed: Flask, pushed: list[Flask]) -> None:
    def items() -> Iterator[int]:
        g.user = "the generator"
        yield 1
        g.item = "opened by the generator"
        yield 2

    for pool in (Pool(1), Group(), gevent.get_hub().threadpool):
        for method in ("map", "imap", "imap_unordered"):
            with installed.app_context():
                g.user = "alice"
                mapped = getattr(pool, method)(lambda _: (g.user, "item" in g), items())
                with installed.app_context():
                    g.user = "bob"
                    assert list(mapped) == [("alice", False)] * 2
        with installed.app_context():
            g.user = "alice"
            later = pool.map_async(lambda _: g.user, [1, 2])
        assert later.get() == ["alice"] * 2


def test_the_items_of_a_map_may_start_work_themselves(alice: Flask) -> None:
    def items() -> Iterator[str]:
        g.user = "the generator"
        yield gevent.spawn(user).get()
        other = Flask("other")
        install(other)
        with other.app_context():
            g.user = "in the other app"
            yield Pool(1).spawn(user).get()

    assert Pool(2).map(lambda item: (item, user()), items()) == [
        ("the generator", "alice"),
        ("in the other app", "alice"),
    ]


def test_a_map_in_a_greenlet_and_in_a_pool(alice: Flask) -> None:
    assert gevent.spawn(Pool(2).map, lambda _: user(), [1]).get() == ["alice"]
    assert Pool(1).spawn(Pool(2).map, lambda _: user(), [1]).get() == ["alice"]
    assert Pool(1).apply(lambda: Pool(2).map(lambda _: user(), [1])) == ["alice"]


def test_an_error_in_a_map(alice: Flask, pushed: list[Flask]) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("items")

    for pool in (Pool(2), gevent.get_hub().threadpool):
        with pytest.raises(ZeroDivisionError):
            pool.map(lambda item: 1 / item, [1, 0])
        with pytest.raises(KeyError, match="items"):
            pool.map(user_of, items())
        with pytest.raises(KeyError, match="items"):
            list(pool.imap(user_of, items()))
        pool.join()
    assert running() == []


def user_of(_: object) -> str:
    return user()


# What is left behind


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent does not print the errors of greenlets."""
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *args: None)


def test_nothing_keeps_the_snapshot(installed: Flask, quiet: None) -> None:
    def fail(*args: object) -> None:
        raise ValueError("kept")

    pool, threads = Pool(2), gevent.get_hub().threadpool
    with installed.app_context():
        g.resource = resource = Resource()
        kept = [
            gevent.spawn(user),
            gevent.spawn(fail),
            gevent.spawn_later(0.001, user),
            pool.spawn(fail),
            pool.apply_async(user, callback=fail),
            pool.map_async(user_of, [1, 2]),
            pool.map_async(fail, [1, 2]),
            pool.imap(fail, [1, 2]),
            threads.spawn(fail),
            threads.apply_async(fail, callback=fail),
            threads.map_async(fail, (x for x in [1, 2])),
        ]
        killed = gevent.spawn(user)
        killed.kill()
        gevent.wait(kept)
        errors: list[BaseException] = []
        for failing in (lambda: pool.map(fail, [1, 2]), lambda: list(pool.imap(fail, [1])), lambda: pool.apply(fail)):
            try:
                failing()
            except ValueError as error:
                errors.append(error)
    assert len(errors) == 3
    gevent.idle()
    alive = weakref.ref(resource)
    del resource
    gc.collect()
    assert alive() is None


def test_a_greenlet_that_is_killed_is_torn_down_once(alice: Flask, quiet: None) -> None:
    outcomes: list[type] = []

    @alice.teardown_appcontext
    def note(error: BaseException | None) -> None:
        outcomes.append(type(error))

    waiting = gevent.spawn(Event().wait)
    never_run = gevent.spawn(Event().wait)
    never_run.kill()
    gevent.sleep(0)
    waiting.kill()
    failing = gevent.spawn(Event().wait)
    gevent.sleep(0)
    failing.kill(KeyError)
    assert outcomes == [gevent.GreenletExit, KeyError]
    assert running() == []


def test_a_greenlet_that_is_killed_in_its_teardown(alice: Flask) -> None:
    ran: list[str] = []

    @alice.teardown_appcontext
    def last(error: BaseException | None) -> None:
        ran.append("last")

    @alice.teardown_appcontext
    def waits(error: BaseException | None) -> None:
        ran.append("first")
        if is_inherited():
            Event().wait()

    greenlet = gevent.spawn(int)
    gevent.sleep(0)
    assert ran == ["first"]
    greenlet.kill()
    assert greenlet.dead
    assert running() == []


def test_a_start_that_fails_and_a_second_one(installed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    greenlet = gevent.Greenlet(user)
    with installed.app_context():
        g.user = "alice"
        with monkeypatch.context() as patch:
            patch.setattr(gevent.get_hub(), "loop", None)
            with pytest.raises(AttributeError):
                greenlet.start()
    with installed.app_context():
        g.user = "bob"
        greenlet.start()
        greenlet.start()
    assert greenlet.get() == "bob"


# On and off


def test_disable_takes_it_back(alice: Flask) -> None:
    opened = Event()

    def work() -> str:
        opened.wait()
        return user()

    waiting = gevent.spawn(work)
    gevent.sleep(0)
    assert status().patch_points[HOOK] == ["flaskthreads_autopatch.patching.greenlets"]
    disable()
    assert status().patch_points[HOOK] == []
    opened.set()
    assert (waiting.get(), gevent.spawn(work).get()) == ("alice", "no context")
    enable()
    assert gevent.spawn(work).get() == "alice"
    disable()
    assert gevent.spawn(work).get() == "no context"


def test_disable_while_a_greenlet_is_being_started(app: Flask) -> None:
    """The body is read at the start, and other greenlets run meanwhile. gevent iterates over the callbacks."""

    class Body:
        def read(self, *args: object) -> bytes:
            gevent.sleep(0)
            disabled.get()
            return b""

    disabled = gevent.spawn(disable)
    install(app, preload=True)
    environ = {"CONTENT_LENGTH": "3", "wsgi.input": Body(), "wsgi.input_terminated": True}
    with app.test_request_context("/", method="POST", environ_overrides=environ):
        g.user = "alice"
        assert gevent.spawn(user).get() == "alice"
    assert not status().enabled
    install(app)
    with app.app_context():
        g.user = "bob"
        assert gevent.spawn(user).get() == "bob"
    disable()
    with app.app_context():
        assert gevent.spawn(user).get() == "no context"


def test_a_greenlet_looks_as_it_does_without_the_patches(alice: Flask) -> None:
    for fn in (user, [].clear, Resource().close, copy_current_app_context(user)):
        inherits, made = gevent.spawn(fn), gevent.Greenlet(fn)
        assert repr(inherits).partition(": ")[2] == repr(made).partition(": ")[2]
        assert (inherits.args, inherits.kwargs) == ((), {})
        inherits.kill()


def test_running_says_greenlet(alice: Flask) -> None:
    opened = Event()
    greenlets = [gevent.spawn(opened.wait), Pool(1).spawn(opened.wait)]
    gevent.sleep(0)
    assert [(replay.kind, replay.path) for replay in running()] == [("greenlet", "/alice"), ("task", "/alice")]
    opened.set()
    gevent.joinall(greenlets)


def test_provided(app: Flask) -> None:
    install(app, provide=[f"{__name__}:app_name"])
    seen: list[str] = []
    gevent.spawn_raw(app_name, seen)
    pool, threads = Pool(1), gevent.get_hub().threadpool
    names = [
        *(gevent.spawn(app_name).get(), pool.spawn(app_name).get(), threads.spawn(app_name).get()),
        *(pool.apply_async(app_name).get(), threads.apply_async(app_name).get()),
        *(*pool.map(app_name, [[]]), *threads.imap(app_name, [[]]), *seen),
    ]
    assert names == ["tests"] * 8
    assert gevent.spawn(has_app_context).get() is False


def app_name(seen: list[str] | None = None) -> str:
    name = flaskthreads_autopatch.is_inherited() and flaskthreads_autopatch.running()[0].app
    if seen is not None:
        seen.append(str(name))
    return str(name)
