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
    disable,
    doctor,
    enable,
    install,
    is_enabled,
    is_inherited,
    points,
    status,
    switch,
    uninstall,
)
from flaskthreads_autopatch.layers import PatchPoint
from flaskthreads_autopatch.switch import EXTENSION

from .conftest import BORN_WITH, attributes, changed, in_thread
from .test_patches import user


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
        assert status().patch_points["threading.Thread.start"] == [__name__, "flaskthreads_autopatch.patches"]
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
        assert app.extensions[EXTENSION] == flaskthreads_autopatch.Policy()
        uninstall(flask.current_app)  # type: ignore[arg-type]
    assert app.extensions == {}


def test_a_wrong_option_in_the_config_of_an_app_met_later(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_SHARE"] = "maybe"
    enable()
    assert not inherits(app)
    assert not inherits(app)
    assert caplog.text.count("PolicyError: FLASKTHREADS_AUTOPATCH_SHARE='maybe' (Flask config)") == 1
    assert inherits(Flask("other"))
    app.config["FLASKTHREADS_AUTOPATCH_SHARE"] = True
    enable()
    assert inherits(app)


def test_status(app: Flask) -> None:
    off = status()
    assert (off.enabled, off.policy, off.apps) == (False, None, ())
    assert set(off.patch_points) == set(BORN_WITH)
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
    return status().patch_points[point].count("flaskthreads_autopatch.patches")


@pytest.mark.usefixtures("nothing_buried")
def test_h22_on_twice_where_a_foreign_layer_hides_ours(app: Flask) -> None:
    install(app)
    remove = plain_layer(ThreadPoolExecutor, "submit")
    install(app)
    assert inherits(app)
    assert [layer.alive for _, layer in switch._state.patches._buried] == [[]]
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


def test_importing_the_package_imports_neither_flask_nor_wrapt() -> None:
    code = "import sys, flaskthreads_autopatch; print(sys.modules.keys() & {'flask', 'wrapt', 'asyncio', 'inspect'})"
    assert run_python(code) == "set()\n"


def test_every_public_name_is_there() -> None:
    for name in flaskthreads_autopatch.__all__:
        assert getattr(flaskthreads_autopatch, name).__doc__
    assert set(flaskthreads_autopatch.__all__) <= set(dir(flaskthreads_autopatch))
    with pytest.raises(AttributeError, match="no_such_name"):
        flaskthreads_autopatch.no_such_name  # noqa: B018


def test_nothing_of_flasks_private_names_outside_flask_context() -> None:
    from pathlib import Path

    package = Path(flaskthreads_autopatch.__file__).parent
    private = ("_cv_app", "_cv_request", "_cv_token", "_push_count", "._request", "._session", "_get_session")
    files = [path for path in package.rglob("*.py") if path.parent.name != "flask_context"]
    assert len(files) >= 8
    assert [path.name for path in files if any(name in path.read_text() for name in private)] == []
