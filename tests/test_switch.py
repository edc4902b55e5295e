"""On and off: idempotent, removable, thread-safe, and forgetful."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import threading
import typing as t
import weakref
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
import wrapt
from flask import Flask, g

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    PolicyError,
    disable,
    doctor,
    enable,
    install,
    is_enabled,
    is_inherited,
    status,
    switch,
    uninstall,
)
from flaskthreads_autopatch.patching import points
from flaskthreads_autopatch.patching.layers import PatchPoint
from flaskthreads_autopatch.switch import EXTENSION

from .helpers import BORN_WITH, attributes, changed, in_thread, user


def inherits(app: Flask) -> bool:
    """Whether threads and tasks inherit from us; by itself, free-threaded Python shows them the parent's context."""
    with app.app_context(), ThreadPoolExecutor(1) as pool:
        g.user = "alice"
        seen = {in_thread(is_inherited), pool.submit(is_inherited).result(30)}
        assert len(seen) == 1
        if True in seen:
            assert in_thread(user) == pool.submit(user).result(30) == "alice"
    return seen == {True}


def test_install_and_uninstall(app: Flask) -> None:
    other = Flask("other")
    install(app)
    install(other)
    assert is_enabled()
    assert inherits(app)
    uninstall(app)
    uninstall(app)
    assert EXTENSION not in app.extensions
    assert not inherits(app)
    assert inherits(other)
    uninstall(other)
    assert not is_enabled()
    assert changed() == []


def test_enabling_twice_is_enabling_once(app: Flask) -> None:
    enable()
    enable(request=False)
    install(app)
    install(app)
    assert {point.name: [point.wrapper.__module__] for point in points.POINTS}.items() <= status().patch_points.items()
    disable()
    assert changed() == []
    disable()
    uninstall(app)
    assert not is_enabled()


def test_status_names_our_layer_below_one_that_knows_it_by_its_bound_form() -> None:
    # As Sentry's: what is read from the class is wrapt's bound form of ours, and functools.wraps keeps it.
    enable()
    ours = threading.Thread.start

    @functools.wraps(ours)
    def start(self: threading.Thread) -> None:
        ours(self)

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        assert status().patch_points["threading.Thread.start"] == [__name__, "flaskthreads_autopatch.patching.threads"]
    finally:
        threading.Thread.start = ours  # type: ignore[method-assign]


def test_the_handle_disables_at_the_end(app: Flask) -> None:
    with enable():
        assert is_enabled()
    assert not is_enabled()
    with pytest.raises(KeyError), enable():
        raise KeyError
    assert not is_enabled()


def test_disable_takes_installs_back(app: Flask) -> None:
    install(app)
    enable()
    disable()
    assert not is_enabled()
    assert app.extensions == {}
    assert not inherits(app)


def test_an_installed_app_keeps_its_policy_under_enable(app: Flask) -> None:
    def has_request(app: Flask) -> bool:
        with app.test_request_context("/"):
            return in_thread(flask.has_request_context)

    enable(request=False)
    assert not has_request(app)
    install(app)
    assert has_request(app)
    uninstall(app)
    assert not has_request(app)
    enable()
    assert has_request(app)


def test_install_takes_the_proxy(app: Flask) -> None:
    with app.app_context():
        install(flask.current_app)  # type: ignore[arg-type]
        assert in_thread(is_inherited)
        assert app.extensions[EXTENSION] == flaskthreads_autopatch.Policy()
        uninstall(flask.current_app)  # type: ignore[arg-type]
    assert app.extensions == {}


@pytest.mark.parametrize(
    "wrong", [None, "shop", flask.Blueprint("shop", __name__), Flask, object()], ids=lambda wrong: type(wrong).__name__
)
def test_what_is_no_flask_app_is_a_type_error_that_says_so(wrong: t.Any) -> None:
    for call in (install, flaskthreads_autopatch.init_app, uninstall):
        with pytest.raises(TypeError, match=r"^(un)?install\(\) takes the Flask app itself, not .+\. Call it where"):
            call(wrong)
    assert not is_enabled()
    assert changed() == []


def test_init_app_is_install(app: Flask) -> None:
    """What factories do that keep their extensions in a list."""
    assert flaskthreads_autopatch.init_app is install
    for extension in [flaskthreads_autopatch]:
        extension.init_app(app)
    assert inherits(app)
    uninstall(app)
    assert not inherits(app)


# The app's config


def switch_on(way: str, app: Flask, **policy: t.Any) -> None:
    if way == "install":
        install(app, **policy)
    else:
        enable(**policy)


WAYS = pytest.mark.parametrize("way", ["install", "enable"])
SHARE, EXCLUDE = "FLASKTHREADS_AUTOPATCH_SHARE", "FLASKTHREADS_AUTOPATCH_EXCLUDE"


def names(app: Flask) -> list[str]:
    """The entries of ``g`` that a thread sees."""
    with app.app_context():
        g.user, g.token = "alice", "s3cret"
        return in_thread(lambda: sorted(g))


@WAYS
def test_the_config_counts_as_it_is_at_the_first_capture(app: Flask, way: str) -> None:
    switch_on(way, app)
    app.config[EXCLUDE] = "token"
    assert names(app) == ["user"]
    # From then on it is settled, until the app is switched on again.
    app.config[EXCLUDE] = "user"
    assert names(app) == ["user"]
    assert dict(status().apps)[app.name].exclude == ("token",)
    switch_on(way, app)
    assert names(app) == ["token"]
    assert dict(status().apps)[app.name].source("exclude") == "Flask config"


def test_before_the_first_capture_status_shows_what_the_config_makes_now(app: Flask) -> None:
    install(app, preload=True)
    app.config[EXCLUDE] = "token"
    assert status().apps == (("tests", flaskthreads_autopatch.Policy(preload=True, exclude=("token",))),)
    # Looking settles nothing.
    app.config[EXCLUDE] = "user"
    assert status().apps == (("tests", flaskthreads_autopatch.Policy(preload=True, exclude=("user",))),)
    app.config[SHARE] = "maybe"
    assert status().apps == ()
    assert [name for name, _ in status().refused] == ["tests"]
    app.config[SHARE] = False
    assert names(app) == ["token"]


@WAYS
@pytest.mark.parametrize("option, value", [("SHARE", "maybe"), ("SHAIR", 1), ("EXCLUDE", 5)])
def test_a_wrong_option_in_the_config_is_logged_once_and_that_app_inherits_nothing(
    app: Flask, way: str, option: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    other = Flask("other")
    install(other)
    switch_on(way, app)
    app.config[f"FLASKTHREADS_AUTOPATCH_{option}"] = value
    for _ in range(3):
        assert not inherits(app)
    [record] = [record for record in caplog.records if record.name == "flaskthreads_autopatch"]
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    error = f"PolicyError: FLASKTHREADS_AUTOPATCH_{option} "
    assert record.getMessage().startswith(f"The threads of {app!r} do not inherit its context: {error}")
    [(name, refused)] = status().refused
    assert name == "tests" and refused.startswith(error) and f"{value!r} " in refused
    assert [name for name, _ in status().apps] == ["other"]
    assert inherits(other)
    # Correcting it is not enough: what is on does not change behind anybody's back.
    del app.config[f"FLASKTHREADS_AUTOPATCH_{option}"]
    assert not inherits(app)
    switch_on(way, app)
    assert inherits(app)
    assert status().refused == ()


@WAYS
def test_what_a_config_raises_is_not_raised_from_start_or_submit(
    app: Flask, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Unreadable:
        def __str__(self) -> str:
            raise LookupError("no text")

    app.config[SHARE] = Unreadable()
    switch_on(way, app)
    assert not inherits(app)
    [record] = caplog.records
    assert "LookupError: no text" in record.getMessage()


@WAYS
def test_the_explicit_api_raises_for_a_wrong_option_in_the_config(
    app: Flask, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    switch_on(way, app, exclude=["token"])
    app.config[SHARE] = "maybe"
    with app.app_context():
        g.user, g.token = "alice", "s3cret"
        for _ in range(2):
            with pytest.raises(PolicyError, match=r"^FLASKTHREADS_AUTOPATCH_SHARE must be .* not 'maybe' "):
                flaskthreads_autopatch.AppContextThread()
            with pytest.raises(PolicyError, match=r"^FLASKTHREADS_AUTOPATCH_SHARE must be .* not 'maybe' "):
                flaskthreads_autopatch.copy_current_app_context(user)
        assert len(caplog.records) == 1
        # Corrected, it works, with the keywords that the app was given.
        app.config[SHARE] = False
        assert flaskthreads_autopatch.copy_current_app_context(lambda: sorted(g))() == ["user"]


def test_a_wrong_option_in_the_environment_at_the_first_capture(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(app)
    monkeypatch.setenv(SHARE, "maybe")
    assert not inherits(app)
    assert caplog.text.count("PolicyError: FLASKTHREADS_AUTOPATCH_SHARE must be 1, ") == 1
    assert "not 'maybe' (set in the environment)" in caplog.text


def test_a_refused_app_is_held_weakly(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("short-lived")
    app.config[SHARE] = "maybe"
    install(app)
    with app.app_context():
        assert not in_thread(is_inherited)
    [record] = caplog.records  # kept
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None and "short-lived" in record.getMessage()
    assert status().refused == ()


def test_two_threads_that_meet_an_app_first_agree_on_its_policy(app: Flask) -> None:
    read, both = [], threading.Barrier(2)

    class Config(flask.Config):
        def __iter__(self) -> t.Iterator[str]:
            read.append(threading.get_ident())
            if len(read) <= 2:
                both.wait(30)
            return super().__iter__()

    app.config = Config(app.root_path, app.config)
    install(app)
    read.clear()

    def meet() -> bool:
        with app.app_context():
            return in_thread(is_inherited)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: meet(), range(2))) == [True, True]
    policy = app.extensions[EXTENSION]
    assert len(set(read)) == 2 and inherits(app)
    assert app.extensions[EXTENSION] is policy


class Interrupted(flask.Config):
    """Does something once while it is read, as a signal handler may."""

    then: t.Callable[[], object] | None = None

    def __iter__(self) -> t.Iterator[str]:
        then, self.then = self.then, None
        if then is not None:
            then()
        return super().__iter__()


@WAYS
def test_of_two_captures_that_read_the_config_the_first_to_end_settles_it(
    app: Flask, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    app.config = config = Interrupted(app.root_path, app.config)

    def capture_and_change(option: str, value: object) -> None:
        inner.append(names(app))
        config[option] = value

    inner: list[list[str]] = []
    switch_on(way, app)
    config[EXCLUDE] = "token"
    config.then = lambda: capture_and_change(EXCLUDE, "user")
    assert (names(app), inner) == (["user"], [["user"]])
    assert app.extensions[EXTENSION].exclude == ("token",)

    def refused() -> bool:
        with app.app_context():
            return not in_thread(is_inherited)

    switch_on(way, app)
    config[SHARE] = "maybe"
    config.then = refused
    assert refused()
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_disabled_while_the_config_is_read_nothing_is_left_on(app: Flask) -> None:
    app.config = config = Interrupted(app.root_path, app.config)
    for way in ("install", "enable"):
        switch_on(way, app)
        config.then = disable
        assert not inherits(app)
        assert app.extensions == {} and status().apps == ()
        switch_on(way, app)
        config.then = lambda: install(app, request=False)
        assert inherits(app)
        assert app.extensions[EXTENSION] == flaskthreads_autopatch.Policy(request=False)
        disable()


# The kill switch


KILLS = pytest.mark.parametrize("word", ["0", "False", " no ", "OFF"])


@KILLS
def test_the_kill_switch_wins_over_install_and_enable(
    app: Flask, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", word)
    install(app, share=True)
    flaskthreads_autopatch.init_app(app)
    with enable(exclude=["token"]):
        assert not is_enabled()
        assert not inherits(app)
    assert changed() == []
    assert app.extensions == {}
    found = status()
    assert (found.kill_switch, found.enabled, found.policy, found.apps) == (True, False, None, ())
    assert capsys.readouterr().err == ""
    uninstall(app)
    disable()
    monkeypatch.delenv("FLASKTHREADS_AUTOPATCH")
    assert not inherits(app)
    assert not status().kill_switch


def test_with_the_kill_switch_a_mistake_in_the_program_is_still_one(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", "0")
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_PRELOAD", "maybe")
    with pytest.raises(PolicyError, match=r"^share must be .* not 'maybe' "):
        install(app, share="maybe")
    with pytest.raises(PolicyError, match="shair"):
        enable(shair=True)
    with pytest.raises(TypeError, match="Flask app"):
        install(None)  # type: ignore[arg-type]
    # What is wrong in the environment changes nothing, and is not reported.
    enable()
    assert not is_enabled() and capsys.readouterr().err == ""


def test_with_the_kill_switch_the_explicit_api_works(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", "off")
    install(app)
    app.config[EXCLUDE] = "token"
    with app.app_context(), flaskthreads_autopatch.ThreadPoolWithAppContextExecutor(1) as pool:
        g.user, g.token = "alice", "s3cret"
        assert pool.submit(lambda: sorted(g)).result(30) == ["user"]
        assert flaskthreads_autopatch.copy_current_app_context(user)() == "alice"
        seen: list[str] = []
        thread = flaskthreads_autopatch.AppContextThread(target=lambda: seen.append(user()))
        thread.start()
        thread.join(30)
    assert seen == ["alice"] and app.extensions == {}


@pytest.mark.parametrize("word", ["", " ", "1", "offf", "of", "none", "00", "-1", "disable"])
def test_no_other_value_is_a_kill_switch(app: Flask, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", word)
    install(app)
    assert inherits(app) and not status().kill_switch
    disable()
    enable()
    assert inherits(app)


def test_the_kill_switch_is_read_by_each_call_and_reverts_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    install(app)
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", "0")
    assert inherits(app)
    assert (status().enabled, status().kill_switch) == (True, True)
    install(app, share=True)
    assert not app.extensions[EXTENSION].share
    disable()
    install(app)
    assert not inherits(app)
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", "1")
    install(app)
    assert inherits(app)


def test_status(app: Flask) -> None:
    off = status()
    assert (off.enabled, off.policy, off.apps) == (False, None, ())
    # Another test may have imported gevent, whose points come then.
    assert {name for name in off.patch_points if not name.startswith("gevent.")} == set(BORN_WITH)
    enable(share=True)
    install(app, preload=True)
    on = status()
    assert on.enabled
    assert on.policy == flaskthreads_autopatch.Policy(share=True)
    assert on.apps == (("tests", flaskthreads_autopatch.Policy(preload=True)),)


def test_status_has_each_of_two_apps_of_one_name(app: Flask) -> None:
    same_name, another = Flask(app.name), Flask("another")
    install(app, preload=True)
    install(same_name)
    install(another)
    apps = status().apps
    assert [name for name, _ in apps] == ["another", "tests", "tests"]
    assert {policy.preload for _, policy in apps[1:]} == {True, False}
    data = doctor.as_data(status())["apps"]
    assert [each["name"] for each in data] == ["another", "tests", "tests"]
    assert sorted(each["policy"]["preload"]["value"] for each in data) == [False, False, True]
    assert sum(line.startswith("Configuration of app 'tests'") for line in doctor.report(status())) == 2


def test_apps_are_held_weakly() -> None:
    refs = []
    for number in range(1000):
        app = Flask(f"app {number}")
        install(app)
        with app.app_context():
            if number % 100 == 0:
                assert in_thread(flask.has_app_context)
        refs.append(weakref.ref(app))
    del app
    gc.collect()
    assert [ref for ref in refs if ref() is not None] == []


# Others above and below


def plain_layer(owner: type, name: str) -> t.Callable[[], None]:
    """A layer as agents write it: a closure around the method, and one around the callable. Returns its off switch."""
    below = vars(owner)[name]

    def layer(self: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        closures = [lambda *a, fn=fn, **kw: fn(*a, **kw) for fn in args[:1]]
        return below.__get__(self, owner)(*closures, *args[1:], **kwargs)

    setattr(owner, name, layer)
    return lambda: setattr(owner, name, below)


def wraps_layer(owner: type, name: str) -> t.Callable[[], None]:
    below = vars(owner)[name]

    @functools.wraps(below)
    def layer(self: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        return below.__get__(self, owner)(*args, **kwargs)

    setattr(owner, name, layer)
    return lambda: setattr(owner, name, below)


def wrapt_layer(owner: type, name: str) -> t.Callable[[], None]:
    handle = wrapt.wrap_function_wrapper(owner, name, lambda wrapped, instance, args, kwargs: wrapped(*args, **kwargs))
    return lambda: t.cast(None, wrapt.unwrap_object(owner, name, handle))


LAYERS = [plain_layer, wraps_layer, wrapt_layer]


@pytest.mark.parametrize("layer", LAYERS)
def test_h22_off_while_a_foreign_layer_lies_above(app: Flask, layer: t.Callable[..., t.Callable[[], None]]) -> None:
    install(app)
    removers = [layer(threading.Thread, "start"), layer(ThreadPoolExecutor, "submit")]
    assert inherits(app)
    disable()
    assert not inherits(app)
    for remove in removers:
        remove()
    assert not inherits(app)
    disable()  # a layer that lay buried is taken out now
    assert changed() == []


@pytest.fixture
def nothing_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that the switches of other tests have thrown out stay noted: nobody can see that they are gone."""
    monkeypatch.setattr(switch._state.patches, "_buried", [])


@pytest.mark.usefixtures("nothing_buried")
@pytest.mark.parametrize("layer", LAYERS)
def test_h22_on_again_while_a_foreign_layer_lies_above(
    app: Flask, layer: t.Callable[..., t.Callable[[], None]]
) -> None:
    replays: list[bool] = []
    app.teardown_appcontext(lambda exc: replays.append(True) if is_inherited() else None)
    install(app)
    removers = [layer(threading.Thread, "start"), layer(ThreadPoolExecutor, "submit")]
    for _ in range(3):
        disable()
        assert not inherits(app)
        install(app)
        replays.clear()
        assert inherits(app)
        assert len(replays) == 4  # two for two threads, two for two tasks
        assert ours_on("threading.Thread.start") == ours_on("concurrent.futures.thread.ThreadPoolExecutor.submit") == 1
    disable()
    for remove in removers:
        remove()
    disable()
    assert changed() == [] and switch._state.patches._buried == []


def ours_on(point: str) -> int:
    layers = status().patch_points[point]
    return sum(layer.startswith("flaskthreads_autopatch.") for layer in layers)


@pytest.mark.usefixtures("nothing_buried")
def test_h22_on_twice_where_a_foreign_layer_hides_ours(app: Flask) -> None:
    install(app)
    remove = plain_layer(ThreadPoolExecutor, "submit")
    install(app)
    assert inherits(app)
    assert [layer.gate() for _, layer in switch._state.patches._buried] == [False]
    disable()
    assert not inherits(app)
    remove()
    assert not inherits(app)
    disable()
    assert changed() == [] and switch._state.patches._buried == []


@pytest.mark.parametrize("layer", LAYERS)
def test_h22_a_foreign_layer_below(app: Flask, layer: t.Callable[..., t.Callable[[], None]]) -> None:
    removers = [layer(threading.Thread, "start"), layer(ThreadPoolExecutor, "submit")]
    between = attributes()
    install(app)
    assert inherits(app)
    disable()
    assert all(found is between[name] for name, found in attributes().items())
    assert not inherits(app)
    for remove in removers:
        remove()


def test_a_foreign_start_that_bypasses_ours(app: Flask) -> None:
    """As OpenTelemetry's, which puts the start() that it found in Thread into Timer."""
    threading.Timer.start = threading.Thread.start  # type: ignore[method-assign]
    try:
        install(app)
        seen: list[str] = []
        with app.app_context():
            g.user = "alice"
            timer = threading.Timer(0.001, lambda: seen.append(user()))
            timer.start()
            timer.join(30)
        assert seen == ["alice"]
    finally:
        del threading.Timer.start


class Entry:
    """Can be referred to weakly."""


def test_a_run_that_is_called_through_func_as_sentry_does(app: Flask) -> None:
    below = threading.Thread.start
    replays: list[bool] = []
    app.teardown_appcontext(lambda exc: replays.append(True) if is_inherited() else None)

    def start(self: threading.Thread) -> None:
        run = getattr(self.run, "__func__", self.run)
        self.run = lambda: run(threading.current_thread())  # type: ignore[method-assign]
        below(self)

    def both() -> None:
        seen: list[str] = []
        with app.app_context():
            g.user = "alice"
            g.entry = entry = Entry()
            thread = threading.Thread(target=lambda: seen.append(user()))
            thread.start()
            thread.join(30)
        assert (seen, replays) == (["alice"], [True])
        replays.clear()
        dead = weakref.ref(entry)
        del entry
        assert dead() is None  # though the thread, and in its run our binding, live on

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        install(app)  # above it
        both()
        disable()
        threading.Thread.start = below  # type: ignore[method-assign]
        install(app)
        below = threading.Thread.start
        threading.Thread.start = start  # type: ignore[method-assign]  # below it
        both()
    finally:
        threading.Thread.start = below  # type: ignore[method-assign]


def test_patches_that_fail_half_way_leave_what_was_on(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    other, bogus = Flask("other"), PatchPoint("threading", "Thread.no_such_method", lambda *args: None)
    install(app, request=False)
    enable(share=True)
    on = attributes()
    for switch_on in (enable, lambda: install(app), lambda: install(other)):
        with monkeypatch.context() as patch, pytest.raises(wrapt.PathResolutionError):
            patch.setattr(switch._state.patches, "points", (*points.POINTS, bogus))
            switch_on()
        assert is_enabled() and all(found is on[name] for name, found in attributes().items())
        assert status().policy == flaskthreads_autopatch.Policy(share=True)
        assert [name for name, _ in status().apps] == ["tests"]
    assert inherits(app)
    disable()
    assert not inherits(app)


def test_patches_that_fail_half_way_are_taken_back(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    bogus = PatchPoint("threading", "Thread.no_such_method", lambda *args: None)
    for switch_on in (enable, lambda: install(app)):
        with monkeypatch.context() as patch, pytest.raises(wrapt.PathResolutionError):
            patch.setattr(switch._state.patches, "points", (*points.POINTS, bogus))
            switch_on()
        assert changed() == []
        assert not is_enabled()
        assert not inherits(app)


# Threads and processes


def test_on_and_off_from_many_threads_at_once(app: Flask) -> None:
    errors: list[BaseException] = []

    def hammer() -> None:
        try:
            for _ in range(20):
                enable()
                install(app)
                status()
                disable()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    disable()
    assert changed() == []


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_with_the_kill_switch_wrapt_is_not_imported() -> None:
    code = """
import os, sys
os.environ["FLASKTHREADS_AUTOPATCH"] = "0"
from flask import Flask
import flaskthreads_autopatch
app = Flask("killed")
flaskthreads_autopatch.install(app)
with flaskthreads_autopatch.enable():
    pass
flaskthreads_autopatch.uninstall(app)
print(flaskthreads_autopatch.is_enabled(), "wrapt" in sys.modules)
"""
    assert run_python(code) == "False False\n"


def test_importing_the_package_imports_neither_flask_nor_wrapt() -> None:
    code = "import sys, flaskthreads_autopatch; print(sys.modules.keys() & {'flask', 'wrapt', 'asyncio', 'inspect'})"
    assert run_python(code) == "set()\n"


def test_every_public_name_is_there() -> None:
    for name in flaskthreads_autopatch.__all__:
        assert getattr(flaskthreads_autopatch, name).__doc__
    assert set(flaskthreads_autopatch.__all__) <= set(dir(flaskthreads_autopatch))
    with pytest.raises(AttributeError, match="no_such_name"):
        flaskthreads_autopatch.no_such_name  # noqa: B018
