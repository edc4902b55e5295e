"""From the environment to `enable`: a process per case."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import flaskthreads_autopatch
from flaskthreads_autopatch.environment import is_enabled_by_environment
from flaskthreads_autopatch.launch import STARTUP_FOLDER

from .processes import EXAMPLE, IS_ON, environment, python, run

ON = {"FLASKTHREADS_AUTOPATCH": "1", "PYTHONPATH": str(EXAMPLE)}
HEAVY = {"flask", "wrapt", "asyncio", "inspect", "typing", "threading", "importlib.util", "dataclasses"}


def test_the_start_up_file_is_of_this_version():
    assert (
        f'\nVERSION = "{flaskthreads_autopatch.__version__}"\n' in Path(STARTUP_FOLDER, "sitecustomize.py").read_text()
    )


def test_both_start_up_files_chain_alike():
    def chain(folder):
        text = Path(folder, "sitecustomize.py").read_text()
        return text[text.index("def run_shadowed()") : text.index("def activate()")]

    assert chain(STARTUP_FOLDER) == chain(EXAMPLE)


@pytest.mark.parametrize("word", ["1", "true", "YES", " On "])
def test_a_yes(word, monkeypatch):
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", word)
    assert is_enabled_by_environment(default=False)


@pytest.mark.parametrize("word", ["0", "False", "no", " OFF "])
def test_a_no(word, monkeypatch, capsys):
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", word)
    assert not is_enabled_by_environment(default=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["", " "])
def test_neither(word, monkeypatch):
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", word)
    assert is_enabled_by_environment(default=True)
    assert not is_enabled_by_environment(default=False)


@pytest.mark.parametrize("word, on", [("Yes", True), ("off", False), ("", False)])
def test_the_variable_switches(word, on):
    done = python(IS_ON, **ON | {"FLASKTHREADS_AUTOPATCH": word})
    assert (done.stdout, done.stderr) == (f"{on}\n", "")


def test_without_the_variable_nothing_happens():
    done = python(IS_ON, PYTHONPATH=EXAMPLE)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("FLASKTHREADS_AUTOPATCH", "perhaps", "1, true, yes, on, 0, false, no, off or observe, "),
        ("FLASKTHREADS_AUTOPATCH_SHARE", "so-so", "1, true, yes, on, 0, false, no or off, "),
    ],
)
def test_a_wrong_value_is_one_line_and_nothing_is_patched(name, value, allowed):
    done = python(IS_ON, **ON | {name: value})
    assert (done.stdout, done.returncode) == ("False\n", 0)
    assert done.stderr.startswith(f"flaskthreads_autopatch: {name} must be {allowed}")
    assert done.stderr.endswith(f"not '{value}' (set in the environment). Nothing is patched.\n")
    assert done.stderr.count("\n") == 1


def test_a_wrong_value_without_a_stderr_to_say_so():
    command = 'exec "$0" -c "$1" 2>&-'
    assert (
        run("sh", "-c", command, sys.executable, IS_ON, **ON | {"FLASKTHREADS_AUTOPATCH": "perhaps"}).stdout
        == "False\n"
    )


def test_options_are_read_from_the_environment():
    options = {"SHARE": "yes", "REQUEST": "off", "PRELOAD": "", "EXCLUDE": "a, b*", "CONTEXTVARS": "1"}
    variables = {f"FLASKTHREADS_AUTOPATCH_{name}": value for name, value in options.items()}
    done = python("import flask, flaskthreads_autopatch as f; print(f.status().policy)", **ON, **variables)
    expected = flaskthreads_autopatch.Policy(share=True, request=False, exclude=("a", "b*"), contextvars=True)
    assert done.stdout == f"{expected}\n"


def modules(code, **variables):
    """What is in sys.modules after *code*."""
    return set(python(f"{code}\nimport sys; print(*sys.modules)", **variables).stdout.split())


@pytest.mark.parametrize("folder", [EXAMPLE, STARTUP_FOLDER])
def test_a_process_that_never_imports_flask_gets_nothing_heavy(folder):
    without = modules("pass", FLASKTHREADS_AUTOPATCH="1")
    got = modules("pass", FLASKTHREADS_AUTOPATCH="1", PYTHONPATH=folder) - without
    assert not got & HEAVY
    # The launcher's start-up file waits for Flask by itself; the example leaves that to the package.
    ours = {"flaskthreads_autopatch", "flaskthreads_autopatch.activation", "flaskthreads_autopatch.environment"}
    expected = set() if folder == STARTUP_FOLDER else ours
    assert {name for name in got if name.startswith("flaskthreads_autopatch")} == expected


def test_importing_the_package_imports_nothing_heavy():
    got = modules("import flaskthreads_autopatch") - modules("pass")
    assert "flaskthreads_autopatch" in got
    assert not got & HEAVY


def test_the_watch_waits_for_flask_and_steps_aside():
    code = """
import sys
from flaskthreads_autopatch.activation import _finder
waiting = _finder in sys.meta_path, "wrapt" in sys.modules
import flask
loaders = type(flask.__loader__).__name__, type(flask.__spec__.loader).__name__
print(*waiting, _finder in sys.meta_path, *loaders)
"""
    assert python(code, **ON).stdout == "True False False SourceFileLoader SourceFileLoader\n"


@pytest.mark.parametrize("name", ["AppContextThread", "Policy", "install", "is_inherited"])
def test_any_public_name_may_be_imported_before_flask(name):
    code = f"""
from flaskthreads_autopatch import {name}
import sys
print(sys.modules["flaskthreads_autopatch.switch"].is_enabled())
"""
    done = python(code, **ON)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("name", ["switch", "explicit", "doctor"])
def test_a_module_of_the_package_may_be_imported_before_flask(name):
    code = f"""
import flaskthreads_autopatch.{name}, sys
print(sys.modules["flaskthreads_autopatch.switch"].is_enabled())
"""
    done = python(code, **ON)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_activated_after_flask_was_imported():
    code = f"import flask, flaskthreads_autopatch.activation as a; a.activate(); {IS_ON}"
    assert python(code, FLASKTHREADS_AUTOPATCH="1").stdout == "True\n"


def test_activated_again_it_leaves_the_policy_alone():
    code = """
from flaskthreads_autopatch import activation
activation.activate()
activation.activate()
import flask, flaskthreads_autopatch, sys
flaskthreads_autopatch.enable(share=True)
activation.activate()
print(flaskthreads_autopatch.status().policy.share, activation._finder in sys.meta_path)
"""
    assert python(code, **ON).stdout == "True False\n"


def test_a_wrapt_that_fails_is_one_line_and_flask_is_imported(tmp_path):
    (tmp_path / "wrapt.py").write_text("raise ImportError('no such luck')")
    done = python("import flask; print(flask.Flask)", **ON | {"PYTHONPATH": f"{EXAMPLE}{os.pathsep}{tmp_path}"})
    assert done.stdout == "<class 'flask.app.Flask'>\n"
    line = "flaskthreads_autopatch: The library cannot be enabled: ImportError: no such luck. Nothing is patched.\n"
    assert done.stderr == line


def test_a_switch_that_fails_is_one_line_and_flask_is_imported(tmp_path):
    code = """
import sys
sys.modules["flaskthreads_autopatch.patching.futures"] = None
import flask
print(flask.Flask)
"""
    done = python(code, **ON)
    assert done.stdout == "<class 'flask.app.Flask'>\n"
    assert done.stderr.startswith("flaskthreads_autopatch: The library cannot be enabled: ")
    assert done.stderr.count("\n") == 1


def test_flask_that_is_not_installed_is_missed_as_ever(tmp_path):
    code = """
import sys, wrapt
sys.path.clear()
try:
    import flask
except ModuleNotFoundError as error:
    print(error)
"""
    done = python(code, **ON)
    assert (done.stdout, done.stderr) == ("No module named 'flask'\n", "")


@pytest.mark.parametrize("option", ["-E", "-I"])
def test_an_option_that_ignores_the_environment(option):
    done = python(IS_ON, option, **ON)
    assert (done.stdout, done.stderr) == ("False\n", "")


ENABLE = "import flask, flaskthreads_autopatch as f; f.enable(); print(f.is_enabled(), f.status().kill_switch)"


@pytest.mark.parametrize("option, seen", [("-B", "False True\n"), ("-E", "True False\n"), ("-I", "True False\n")])
def test_an_option_that_ignores_the_environment_ignores_the_kill_switch_too(option, seen):
    done = python(ENABLE, option, FLASKTHREADS_AUTOPATCH="0")
    assert (done.stdout, done.stderr) == (seen, "")


@pytest.mark.parametrize("word, on", [("0", False), ("1", True), ("", True)])
def test_the_kill_switch_wins_over_code_where_a_start_up_file_reads_it(word, on):
    done = python(ENABLE, **ON | {"FLASKTHREADS_AUTOPATCH": word})
    assert (done.stdout, done.stderr) == (f"{on} {not on}\n", "")


def test_a_misspelt_kill_switch_is_one_line_where_it_is_read_and_wins_over_nothing():
    done = python(ENABLE, **ON | {"FLASKTHREADS_AUTOPATCH": "offf"})
    assert done.stdout == "True False\n"
    assert done.stderr.startswith("flaskthreads_autopatch: FLASKTHREADS_AUTOPATCH must be ")
    assert "not 'offf' (set in the environment)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_site():
    done = python("import sys; print('flaskthreads_autopatch' in sys.modules, len(sys.meta_path))", "-S", **ON)
    assert (done.stdout, done.stderr) == ("False 3\n", "")


def test_an_empty_pythonpath():
    done = python(IS_ON, FLASKTHREADS_AUTOPATCH="1", PYTHONPATH="")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_pythonpath_with_spaces_and_a_folder_that_does_not_exist(tmp_path):
    folder = tmp_path / "a folder with spaces"
    shutil.copytree(EXAMPLE, folder)
    path = os.pathsep.join([str(tmp_path / "none"), "", str(folder)])
    done = python(IS_ON, FLASKTHREADS_AUTOPATCH="1", PYTHONPATH=path)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.fixture
def bare(tmp_path):
    """A virtual environment with nothing in it: its Python, and its folder of packages."""
    venv.create(tmp_path / "venv", symlinks=True)
    python_there = tmp_path / "venv" / "bin" / "python"
    packages = run(python_there, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    return python_there, Path(packages)


@pytest.mark.parametrize("option", ["-s", "-E", "-I"])
def test_copied_into_a_virtual_environment(bare, option):
    python_there, packages = bare
    shutil.copy(EXAMPLE / "sitecustomize.py", packages)
    here = Path(flaskthreads_autopatch.__file__).parent.parent
    (packages / "here.pth").write_text(f"{sysconfig.get_path('purelib')}\n{here}\n")
    # A Python that brings a sitecustomize beside its standard library, as Debian's does, runs that one.
    shadowed = Path(sysconfig.get_path("stdlib"), "sitecustomize.py").exists()
    done = run(python_there, option, "-c", IS_ON, FLASKTHREADS_AUTOPATCH="1")
    assert (done.stdout, done.stderr) == (f"{option == '-s' and not shadowed}\n", "")


@pytest.mark.parametrize("folder", [EXAMPLE, STARTUP_FOLDER])
def test_a_python_in_which_the_package_is_not_installed(bare, folder):
    done = run(bare[0], "-c", "print('runs on')", **ON | {"PYTHONPATH": folder})
    assert (done.stdout, done.stderr) == ("runs on\n", "")


def test_another_version_is_left_alone(tmp_path):
    other = tmp_path / "flaskthreads_autopatch"
    other.mkdir()
    (other / "__init__.py").write_text('__version__ = "of another time"')
    (other / "activation.py").write_text("def activate():\n    print('activated')")

    def start():
        path = os.pathsep.join([STARTUP_FOLDER, str(tmp_path)])
        return python("import sys; sys.path.remove(''); import flask; print('runs on')", **ON | {"PYTHONPATH": path})

    assert (start().stdout, start().stderr) == ("runs on\n", "")
    (other / "__init__.py").write_text(f"__version__ = {flaskthreads_autopatch.__version__!r}")
    assert start().stdout == "activated\nruns on\n"


INTERPRETERS = ["python2.7", "python3.6", "python3.8", "python3.9"]


@pytest.mark.otherpython
@pytest.mark.parametrize("importable", [False, True])
@pytest.mark.parametrize("folder", [EXAMPLE, STARTUP_FOLDER])
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_an_older_python_runs_on_and_its_own_sitecustomize_too(interpreter, folder, importable, tmp_path):
    ours = shutil.copytree(folder, tmp_path / "ours")
    (tmp_path / "sitecustomize.py").write_text("print('shadowed')")
    path = [str(ours), str(tmp_path)]
    if importable:
        path.append(str(Path(flaskthreads_autopatch.__file__).parent.parent))
    code = "import sys; print(sys.modules['sitecustomize'].__file__); print('flaskthreads_autopatch' in sys.modules)"
    for _ in range(2):  # the second time it is compiled
        done = run(interpreter, "-c", code, **ON | {"PYTHONPATH": os.pathsep.join(path)})
        assert done.stderr == ""
        assert done.stdout.replace(".pyc", ".py") == f"shadowed\n{tmp_path / 'sitecustomize.py'}\nFalse\n"


@pytest.mark.otherpython
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_an_older_python_reports_its_own_sitecustomize_that_fails(interpreter, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("raise ValueError('broken')")

    def start(*folders):
        done = run(interpreter, "-B", "-c", "print('runs on')", PYTHONPATH=os.pathsep.join(map(str, folders)))
        # Python 2.7 shows where in the file that it ran first.
        return done.returncode, done.stdout, done.stderr.splitlines()[-1:]

    assert start(STARTUP_FOLDER, tmp_path) == start(tmp_path)


IN_A_SUBINTERPRETER = """
try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as _interpreters
interpreter = _interpreters.create()
_interpreters.run_string(interpreter, {code!r})
_interpreters.destroy(interpreter)
"""


def test_in_a_subinterpreter(tmp_path):
    if python(IN_A_SUBINTERPRETER.format(code="import flask")).returncode < 0:
        pytest.skip("this Python, as 3.12.1, aborts when flask is imported in a subinterpreter, without this package")
    inside = f"{IS_ON.replace('print', 'on = ')}; open({str(tmp_path / 'out')!r}, 'w').write(str(on))"
    done = python(f"{IN_A_SUBINTERPRETER.format(code=inside)}{IS_ON}", **ON)
    assert done.stdout == "True\n"
    assert (tmp_path / "out").read_text() == "True"
    assert "flaskthreads_autopatch" not in done.stderr


AUTOWRAPT = "import wrapt; wrapt.discover_post_import_hooks('flaskthreads_autopatch')"


@pytest.mark.parametrize("variables, on", [({}, True), ({"FLASKTHREADS_AUTOPATCH": "off"}, False), (ON, True)])
def test_the_entry_points_for_autowrapt(variables, on):
    """What autowrapt does at interpreter start, with the group that AUTOWRAPT_BOOTSTRAP names."""
    done = python(f"{AUTOWRAPT}; {IS_ON}", **variables)
    assert (done.stdout, done.stderr) == (f"{on}\n", "")


def test_the_entry_points_for_autowrapt_when_the_switch_comes_first():
    done = python(f"{AUTOWRAPT}; import flaskthreads_autopatch.switch; {IS_ON}")
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.autowrapt
def test_autowrapt():
    done = python(IS_ON, AUTOWRAPT_BOOTSTRAP="flaskthreads_autopatch")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_child_process_is_switched_on_too():
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {IS_ON!r}]))"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment(**ON), text=True) == "True\n"
