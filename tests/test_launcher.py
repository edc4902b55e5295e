"""``flaskthreads-autopatch run``: the command is switched on, and is otherwise what it is without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flaskthreads_autopatch.launch import STARTUP_FOLDER, launch_environment

from .processes import IS_ON, LAUNCHER, environment, run

AS_MODULE = (sys.executable, "-m", "flaskthreads_autopatch", "run")
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['PYTHONPATH'], os.getpid()]))"


@pytest.mark.parametrize("launcher", [LAUNCHER, AS_MODULE])
def test_the_command_is_switched_on(launcher):
    done = run(*launcher, sys.executable, "-c", IS_ON)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


@pytest.mark.parametrize("launcher", [LAUNCHER, AS_MODULE, (sys.executable, "-I", *AS_MODULE[1:])])
@pytest.mark.parametrize("word", ["0", " Off "])
def test_the_kill_switch_wins_and_the_command_runs_without_us(launcher, word):
    code = f"{IS_ON}; import os; print(repr(os.environ['FLASKTHREADS_AUTOPATCH']), os.environ.get('PYTHONPATH'))"
    done = run(*launcher, sys.executable, "-c", f"{code}; sys.exit(7)", FLASKTHREADS_AUTOPATCH=word)
    assert (done.stdout, done.stderr, done.returncode) == (f"False\n{word!r} None\n", "", 7)


def test_the_kill_switch_wins_over_a_launcher_further_out():
    inner = ("env", "FLASKTHREADS_AUTOPATCH=0", *LAUNCHER, sys.executable, "-c", IS_ON)
    done = run(*LAUNCHER, *inner)
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)


def test_the_kill_switch_wins_over_the_code_of_the_command():
    code = "import flask, flaskthreads_autopatch as f; f.install(flask.Flask('x')); f.enable(); print(f.is_enabled())"
    assert run(*LAUNCHER, sys.executable, "-c", code, FLASKTHREADS_AUTOPATCH="no").stdout == "False\n"
    assert run(*LAUNCHER, sys.executable, "-c", code).stdout == "True\n"


@pytest.mark.parametrize("word", ["", "1", "offf"])
def test_any_other_value_is_none(word):
    done = run(*LAUNCHER, sys.executable, "-c", IS_ON, FLASKTHREADS_AUTOPATCH=word)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


@pytest.mark.parametrize("before, after", [(None, []), ("", []), ("a b", ["a b"]), ("x::y:", ["x", "", "y", ""])])
def test_the_start_up_folder_comes_first_on_pythonpath(before, after):
    environ = {} if before is None else {"PYTHONPATH": before}
    launched = launch_environment(environ)
    assert launched == {"FLASKTHREADS_AUTOPATCH": "1", "PYTHONPATH": os.pathsep.join([STARTUP_FOLDER, *after])}
    assert launch_environment(launched) == launched


def test_what_is_launched_twice_is_on_once():
    done = run(*LAUNCHER, *LAUNCHER, sys.executable, "-c", f"{IS_ON}; {SHOW}", PYTHONPATH="elsewhere")
    is_on, shown = done.stdout.splitlines()
    assert is_on == "True"
    assert json.loads(shown)[1] == f"{STARTUP_FOLDER}{os.pathsep}elsewhere"


def test_arguments_are_the_commands_own():
    arguments = ["", "a b", "--help", "-x", "--app", "--", "*", "ü"]
    done = run(*LAUNCHER, sys.executable, "-c", SHOW, *arguments)
    assert json.loads(done.stdout)[0] == arguments


def test_it_becomes_the_command():
    command = [*LAUNCHER, sys.executable, "-c", SHOW]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        assert json.load(process.stdout)[2] == process.pid


def test_the_exit_status_is_the_commands_own():
    assert run(*LAUNCHER, "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGPIPE", "SIGXFSZ"])
def test_signals_are_the_commands_own(name):
    number = getattr(signal, name)
    # What runs in the background of a shell has SIGINT ignored, and its children too; what has a handler is reset.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(*LAUNCHER, "sh", "-c", f"kill -{int(number)} $$; exit 0").returncode == -number
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_launching_process_imports_neither_flask_nor_wrapt():
    done = run(sys.executable, "-X", "importtime", *AS_MODULE[1:], "true")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "flaskthreads_autopatch.cli" in imported
    assert not imported & {"flask", "wrapt"}


@pytest.fixture
def executable(tmp_path):
    """Makes an executable file of some text."""

    def make(text):
        path = tmp_path / "command"
        path.write_text(text)
        path.chmod(0o755)
        return path

    return make


def test_a_missing_command():
    done = run(*LAUNCHER, "no-such-command", "-x")
    assert (done.stdout, done.returncode) == ("", 127)
    assert done.stderr == "flaskthreads-autopatch: cannot run 'no-such-command': No such file or directory.\n"


def test_a_command_that_is_only_beside_the_launcher_is_named(tmp_path):
    beside = Path(LAUNCHER[0]).with_name("python")
    done = run(*LAUNCHER, "python", "-c", "pass", PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        127,
        "flaskthreads-autopatch: cannot run 'python': No such file or directory. It is not on PATH, but beside the"
        f" launcher: run {str(beside)!r}, or activate its environment.\n",
    )


def test_a_file_that_is_not_executable(executable):
    path = executable("exit 0")
    path.chmod(0o644)
    done = run(*LAUNCHER, path)
    assert (done.stderr, done.returncode) == (f"flaskthreads-autopatch: cannot run '{path}': Permission denied.\n", 126)


def test_a_folder(tmp_path):
    assert run(*LAUNCHER, tmp_path).returncode == 126


def test_a_file_that_the_system_cannot_run(executable):
    path = executable("no program")
    done = run(*LAUNCHER, path)
    assert (done.stderr, done.returncode) == (f"flaskthreads-autopatch: cannot run '{path}': Exec format error.\n", 126)


def test_a_script_whose_interpreter_is_missing(executable):
    path = executable("#!/no/such/interpreter\n")
    done = run(*LAUNCHER, path)
    reason = "the interpreter that its first line names was not found"
    assert (done.stderr, done.returncode) == (f"flaskthreads-autopatch: cannot run '{path}': {reason}.\n", 126)


def test_no_command():
    done = run(*LAUNCHER)
    assert done.returncode == 2
    assert "Missing argument 'COMMAND...'" in done.stderr
