"""The doctor: what is on, since which setting, what lies on each patch point, and whether it works."""

from __future__ import annotations

import json
import platform
import sys
import threading
from importlib.metadata import version

import pytest
from flask import Flask, g
from flask.ctx import AppContext

import flaskthreads_autopatch
from flaskthreads_autopatch import doctor, flask_context, unused_options
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .processes import DOCTOR, LAUNCHER, LEGACY, run, script

KINDS = ["thread", "timer", "subclass", "pool task"]


def problems(app):
    return doctor.problems(app, flaskthreads_autopatch.status(), doctor.self_test(app))


@pytest.mark.parametrize("options", [{}, {"share": True}, {"request": False, "preload": True, "contextvars": True}])
def test_all_is_well(app, options):
    flaskthreads_autopatch.install(app, **options)
    checks = doctor.self_test(app)
    assert checks == [doctor.Check(kind, inherited=True, torn_down=True, left_behind=()) for kind in KINDS]
    assert problems(app) == []


def test_inside_a_context_all_is_as_well(installed):
    with installed.test_request_context():
        assert problems(installed) == []


def test_the_self_test_leaves_the_app_as_it_was(installed):
    handlers = list(installed.teardown_appcontext_funcs)
    doctor.self_test(installed)
    assert installed.teardown_appcontext_funcs == handlers


def test_nothing_is_switched_on(app):
    checks = doctor.self_test(app)
    assert [(check.kind, check.inherited, check.torn_down) for check in checks] == [(k, False, False) for k in KINDS]
    if not THREADS_INHERIT_CONTEXT:  # else they show the parent's context itself
        assert [check.left_behind for check in checks] == [()] * len(KINDS)
    assert [line.partition(". ")[0] for line in problems(app)] == ["The library is not enabled"]


def test_the_app_is_not_the_one_that_is_installed(installed):
    assert problems(Flask("other")) == [
        "The threads of 'other' inherit nothing: it is not installed, or its configuration is wrong."
    ]


def test_a_layer_of_ours_that_somebody_has_taken_off(installed):
    layered = vars(threading.Thread)["start"]
    threading.Thread.start = layered.__wrapped__
    try:
        first = problems(installed)[0]
    finally:
        threading.Thread.start = layered
    assert first == (
        "Other code has removed our layer from threading.Thread.start. The layers there now: none. Call install() or"
        " enable() after that code."
    )
    assert problems(installed) == []


def test_what_does_not_inherit(app):
    flaskthreads_autopatch.install(app, ignore=("threading:Timer", "flaskthreads_autopatch.doctor:_Subclass"))
    assert problems(app) == [
        f"A {kind} did not inherit the app context in which it was started." for kind in ("timer", "subclass")
    ]


def test_what_is_not_torn_down():
    class NeverTornDown(Flask):
        def do_teardown_appcontext(self, ctx, *args, **kwargs):
            pass

    app = NeverTornDown("tests")
    flaskthreads_autopatch.install(app)
    assert problems(app) == [f"The app context of a {kind} was not torn down exactly once." for kind in KINDS]


def test_what_is_left_behind(installed):
    kept = []
    installed.teardown_appcontext(lambda exc: kept.append(g._get_current_object()))
    left = "a reference to the entries of the parent's g"
    assert problems(installed) == [f"A {kind} left something behind: {left}." for kind in KINDS]


@pytest.mark.skipif(not flask_context.REUSES_APP_CONTEXT, reason="Flask 3.2: what such a pop() pushes does not stay")
def test_a_worker_that_keeps_a_context():
    class Forgetful(AppContext):
        def pop(self, *args, **kwargs):
            super().pop(*args, **kwargs)
            if threading.current_thread() is not threading.main_thread():
                Flask("forgotten").app_context().push()

    class App(Flask):
        def app_context(self):
            return Forgetful(self)

    app = App("tests")
    flaskthreads_autopatch.install(app)
    assert problems(app) == ["A pool task left something behind: an app context, active in the pool's worker."]


def test_a_teardown_handler_that_raises_is_a_problem_and_no_traceback(installed):
    @installed.teardown_appcontext
    def close(error):
        g.pop("db").close()

    found = problems(installed)
    error = "an error in a teardown handler of the app, outside of threads too: KeyError: 'db'"
    assert found == [f"A {kind} left something behind: {error}." for kind in KINDS]


def test_an_option_in_the_environment_that_is_rejected_is_the_reason(app, monkeypatch):
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_PROVIDE", "shop")
    [problem] = problems(app)
    assert problem.startswith("The library is not enabled: FLASKTHREADS_AUTOPATCH_PROVIDE cannot be set in the env")
    assert problem.endswith(" Correct the variable, and restart.")


def test_status_is_the_same_data(monkeypatch):
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_PRELOAD", "1")
    app = Flask("tests")
    app.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = "no"
    flaskthreads_autopatch.install(app, share=True)
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_PRELOAD", "0")

    status = flaskthreads_autopatch.status()
    policy = dict(status.apps)["tests"]
    sources = {option: policy.source(option) for option in ("share", "request", "preload", "exclude")}
    assert sources == {"share": "keyword", "request": "Flask config", "preload": "environment", "exclude": "default"}
    assert flaskthreads_autopatch.Policy(share=True).source("share") is None
    assert status.versions == {
        "flaskthreads_autopatch": flaskthreads_autopatch.__version__,
        "python": platform.python_version(),
        "flask": version("flask"),
        "wrapt": version("wrapt"),
    }
    assert status.gil is getattr(sys, "_is_gil_enabled", lambda: True)()
    assert status.thread_inherit_context is bool(getattr(sys.flags, "thread_inherit_context", False))


def test_status_after_the_environment_has_gone_wrong(monkeypatch):
    flaskthreads_autopatch.enable(share=True)
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_SHARE", "perhaps")
    assert flaskthreads_autopatch.status().policy == flaskthreads_autopatch.Policy(share=True)
    flaskthreads_autopatch.disable()
    assert flaskthreads_autopatch.status().policy is None


APP = """
from flask import Flask
import flaskthreads_autopatch

def create_app():
    app = Flask("kiosk")
    app.config["FLASKTHREADS_AUTOPATCH_REQUEST"] = False
    flaskthreads_autopatch.install(app, share=True)
    return app
"""


def ask(*command, cwd=LEGACY, **variables):
    """The doctor's exit status, and its JSON."""
    done = run(*command, "--json", cwd=cwd, **variables)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_the_command_with_an_app_that_is_installed(tmp_path):
    (tmp_path / "kiosk.py").write_text(APP)
    command = (*DOCTOR, "--app", "kiosk:create_app")
    exit_status, found = ask(*command, cwd=tmp_path, FLASKTHREADS_AUTOPATCH_PRELOAD=1)
    assert (exit_status, found["well"], found["problems"]) == (0, True, [])
    assert [check["kind"] for check in found["self_test"]] == KINDS
    assert found["status"]["policy"] is None
    (kiosk,) = found["status"]["apps"]
    assert kiosk["name"] == "kiosk"
    assert kiosk["policy"] == {
        "share": {"value": True, "source": "keyword"},
        "request": {"value": False, "source": "Flask config"},
        "preload": {"value": True, "source": "environment"},
        "exclude": {"value": [], "source": "default"},
        "ignore": {"value": [], "source": "default"},
        "own": {"value": [], "source": "default"},
        "provide": {"value": [], "source": "default"},
        "contextvars": {"value": False, "source": "default"},
        "origins": {"value": False, "source": "default"},
        "warn_after": {"value": None, "source": "default"},
    }
    assert found["status"]["patch_points"]["threading.Thread.start"] == ["flaskthreads_autopatch.patching.threads"]


def test_the_command_with_a_legacy_app():
    command = (*DOCTOR, "--app", "shop:create_app")
    exit_status, found = ask(*command)
    assert (exit_status, found["well"], found["status"]["enabled"]) == (1, False, False)
    assert found["problems"][0].startswith("The library is not enabled. Call ")
    assert ask(*LAUNCHER, *command)[0] == 0


@pytest.mark.parametrize("way", [(), LAUNCHER])
def test_the_command_with_the_kill_switch(tmp_path, way):
    (tmp_path / "kiosk.py").write_text(APP)
    command = (*way, *DOCTOR, "--app", "kiosk:create_app")
    exit_status, found = ask(*command, cwd=tmp_path, FLASKTHREADS_AUTOPATCH="Off")
    assert (exit_status, found["well"]) == (1, False)
    [problem] = found["problems"]
    assert problem.startswith("FLASKTHREADS_AUTOPATCH='Off' in the environment disables the library: ")
    status = found["status"]
    assert (status["kill_switch"], status["enabled"], status["apps"]) == (True, False, [])
    shown = run(*way, script("flaskthreads-autopatch"), "status", FLASKTHREADS_AUTOPATCH="Off")
    assert shown.returncode == 0
    assert problem.split(" Remove ")[0] in shown.stdout.splitlines()


def test_the_command_in_observe_mode(tmp_path):
    (tmp_path / "kiosk.py").write_text(APP)
    exit_status, found = ask(*DOCTOR, "--app", "kiosk:create_app", cwd=tmp_path, FLASKTHREADS_AUTOPATCH="observe")
    assert (exit_status, found["well"], found["status"]["observes"]) == (1, False, True)
    [problem] = found["problems"]
    assert problem.startswith("The library observes, by FLASKTHREADS_AUTOPATCH=observe or enable(observe=True): ")


def test_the_command_with_a_wrong_option_in_the_config(tmp_path):
    # It is set after install(), as by a factory that loads its config last.
    wrong = APP.replace("    return app", "    app.config['FLASKTHREADS_AUTOPATCH_PRELOAD'] = 'maybe'\n    return app")
    (tmp_path / "kiosk.py").write_text(wrong)
    error = "PolicyError: FLASKTHREADS_AUTOPATCH_PRELOAD must be "
    done = run(*DOCTOR, "--app", "kiosk:create_app", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith(f"The threads of 'kiosk' inherit nothing: {error}")
    assert done.stderr.startswith(f"The threads of <Flask 'kiosk'> do not inherit its context: {error}")
    assert done.stderr.count("\n") == 1

    # Status starts no thread, and shows it all the same.
    command = (script("flaskthreads-autopatch"), "status", "--app", "kiosk:create_app")
    exit_status, status = ask(*command, cwd=tmp_path)
    assert (exit_status, status["enabled"], status["apps"]) == (0, True, [])
    [refused] = status["refused"]
    assert refused["name"] == "kiosk" and refused["error"].startswith(error)
    assert any(error in line for line in run(*command, cwd=tmp_path).stdout.splitlines())


def test_the_wrong_config_of_another_app_is_a_problem_too(installed):
    other = Flask("other")
    other.config["FLASKTHREADS_AUTOPATCH_SHARE"] = "maybe"
    flaskthreads_autopatch.install(other)
    [problem] = problems(installed)
    assert problem.startswith("The threads of 'other' inherit nothing: PolicyError: ")


def test_the_command_where_the_variable_is_set_and_nobody_reads_it():
    exit_status, found = ask(*DOCTOR, FLASKTHREADS_AUTOPATCH=1)
    assert exit_status == 1
    assert found["problems"][0].startswith("The library is not enabled, although FLASKTHREADS_AUTOPATCH='1': ")


def test_the_report_that_a_person_reads():
    done = run(*LAUNCHER, *DOCTOR, FLASKTHREADS_AUTOPATCH_IGNORE="threading:Timer")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[1].startswith(f"flaskthreads_autopatch {flaskthreads_autopatch.__version__}, python ")
    assert "  ignore = ('threading:Timer',) (environment)" in lines
    assert "  threading.Thread.start: flaskthreads_autopatch.patching.threads" in lines
    assert "  thread: inherited, torn down, left behind: nothing" in lines
    assert "  timer: NOT inherited, NOT torn down, left behind: nothing" in lines
    assert lines[-1] == "A timer did not inherit the app context in which it was started."


BROKEN = {
    "no_such_module:app": "Could not import 'no_such_module'",
    "kiosk:no_such_factory": "Failed to find attribute 'no_such_factory' in 'kiosk'",
    "kiosk:create_app('x')": "The factory \"create_app('x')\" in module 'kiosk' could not be called",
    "raises": "KeyError: 'DATABASE_URL'",
    "imports": "While importing 'imports', an ImportError was raised: ModuleNotFoundError: No module named 'not_there'",
    "ends": "SystemExit: 3",
}


@pytest.fixture
def broken(tmp_path):
    """A folder with modules that cannot be loaded, each in its own way, and one that can."""
    (tmp_path / "kiosk.py").write_text(APP)
    (tmp_path / "raises.py").write_text("import os\nurl = os.environ['DATABASE_URL']\n")
    (tmp_path / "imports.py").write_text("import not_there\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    return tmp_path


@pytest.mark.parametrize("command", ["doctor", "status"])
@pytest.mark.parametrize("name", BROKEN)
def test_an_app_that_cannot_be_loaded_is_one_line_and_status_2(broken, command, name):
    done = run(script("flaskthreads-autopatch"), command, "--app", name, cwd=broken)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"flaskthreads-autopatch: The app {name!r} could not be loaded: {BROKEN[name]}")
    assert done.stderr.endswith(". -v shows the traceback.\n")
    shown = run(script("flaskthreads-autopatch"), command, "--app", name, "--json", cwd=broken)
    assert shown.returncode == 2
    found = json.loads(shown.stdout)
    assert found["well"] is False and found["problems"][0] in done.stderr


@pytest.mark.parametrize("name", ["raises", "imports"])
def test_an_app_that_cannot_be_loaded_shows_the_traceback_if_asked(broken, name):
    done = run(*DOCTOR, "--app", name, "-v", cwd=broken)
    assert done.returncode == 2
    assert "Traceback" in done.stderr and f"{name}.py" in done.stderr


def test_flasks_own_command_says_so_too(broken):
    done = run(script("flask"), "--app", "raises", "autopatch", "doctor", "--json", cwd=broken)
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"] == ["The app 'raises' could not be loaded: KeyError: 'DATABASE_URL'."]


@pytest.mark.parametrize("way", ["FLASK_APP", "app.py", "wsgi.py"])
def test_the_app_is_found_as_flask_finds_it(tmp_path, way):
    module = "kiosk.py" if way == "FLASK_APP" else way
    (tmp_path / module).write_text(APP)
    variables = {"FLASK_APP": "kiosk:create_app"} if way == "FLASK_APP" else {}
    exit_status, found = ask(*DOCTOR, cwd=tmp_path, **variables)
    assert (exit_status, [app["name"] for app in found["status"]["apps"]]) == (0, ["kiosk"])


def test_where_there_is_no_app_an_empty_one_is_tested(tmp_path):
    done = run(*LAUNCHER, *DOCTOR, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("No app was found (--app, FLASK_APP, wsgi.py, app.py), so an empty one is tested.\n")


def test_options_that_are_set_and_not_used_are_named(tmp_path):
    (tmp_path / "kiosk.py").write_text(APP)
    command = (*DOCTOR, "--app", "kiosk:create_app")
    variables = {f"FLASKTHREADS_AUTOPATCH_{name}": "1" for name in ("SHARE", "REQUEST", "PRELOAD")}
    exit_status, found = ask(*command, cwd=tmp_path, **variables)
    assert exit_status == 0
    start = "FLASKTHREADS_AUTOPATCH_"
    unused = [
        f"{start}SHARE='1' in the environment is not used: a keyword of install() or enable() wins.",
        f"{start}REQUEST='1' in the environment is not used: the Flask config of the app wins.",
    ]
    assert found["unused_options"] == unused
    shown = run(*command, cwd=tmp_path, **variables).stdout.splitlines()
    assert [line for line in shown if "is not used" in line] == unused


def test_an_option_is_not_used_where_the_threads_of_the_app_inherit_nothing():
    _, found = ask(*DOCTOR, "--app", "shop:create_app", FLASKTHREADS_AUTOPATCH_SHARE="1")
    assert found["unused_options"] == [
        "FLASKTHREADS_AUTOPATCH_SHARE='1' in the environment is not used: the threads of 'shop' inherit nothing."
    ]


def test_a_config_that_was_changed_too_late_is_not_used(app):
    flaskthreads_autopatch.install(app)
    app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = "token"
    assert unused_options.find(app, {}) == []
    app.config["FLASKTHREADS_AUTOPATCH_EXCLUDE"] = ["token", "key"]
    app.config["FLASKTHREADS_AUTOPATCH_SHARE"] = True
    late = "the first thread of the app was started"
    assert unused_options.find(app, {}) == [
        f"FLASKTHREADS_AUTOPATCH_SHARE=True in the Flask config is not used: it was set after {late}.",
        "FLASKTHREADS_AUTOPATCH_EXCLUDE=['token', 'key'] in the Flask config is not used:"
        f" it was changed after {late}.",
    ]


@pytest.mark.parametrize("name", ["flaskthreads-autopatch", "flask"])
def test_no_help_text_is_cut(name):
    command = (script(name),) if name != "flask" else (script("flask"), "--app", "shop", "autopatch")
    for options in (["--help"], ["doctor", "--help"], ["status", "--help"]):
        done = run(*command, *options, cwd=LEGACY, COLUMNS="80")
        assert done.returncode == 0
        assert "..." not in done.stdout.replace("[OPTIONS] COMMAND [ARGS]...", "")


def test_flasks_own_command_line():
    command = (script("flask"), "--app", "shop", "autopatch")
    assert ask(*command, "doctor")[0] == 1
    assert ask(*LAUNCHER, *command, "doctor")[0] == 0
    exit_status, status = ask(*LAUNCHER, *command, "status")
    assert (exit_status, status["enabled"]) == (0, True)


def test_the_status_command():
    exit_status, status = ask(script("flaskthreads-autopatch"), "status")
    assert (exit_status, status["enabled"]) == (0, False)
    done = run(*LAUNCHER, script("flaskthreads-autopatch"), "status", "--app", "shop", cwd=LEGACY)
    assert "The patches are on." in done.stdout.splitlines()
