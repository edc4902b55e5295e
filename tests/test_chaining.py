"""Beside other start-up files: the one that ours shadows runs as if ours were not there."""

from __future__ import annotations

import os
import py_compile
import shutil

import pytest

from flaskthreads_autopatch.launch import STARTUP_FOLDER

from .processes import EXAMPLE, IS_ON, python

WHICH = "import sys; print(getattr(sys.modules.get('sitecustomize'), '__file__', None))"


def start(code, *folders):
    return python(code, "-B", FLASKTHREADS_AUTOPATCH="1", PYTHONPATH=os.pathsep.join(map(str, folders)))


@pytest.fixture(params=["example", "startup"])
def ours(request):
    return {"example": EXAMPLE, "startup": STARTUP_FOLDER}[request.param]


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with a sitecustomize in it."""

    def make(name, text):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(text)
        return folder

    return make


PLAIN = "import sys; print('plain', 'flaskthreads_autopatch.activation' in sys.modules)"


def test_the_shadowed_one_runs_before_ours_and_stands_in_sys_modules(ours, folder):
    plain = folder("plain", PLAIN)
    done = start(f"{WHICH}; {IS_ON}", ours, plain)
    assert (done.stdout, done.stderr) == (f"plain False\n{plain / 'sitecustomize.py'}\nTrue\n", "")


def test_without_a_shadowed_one_ours_stands_in_sys_modules(ours, tmp_path):
    without = start(WHICH).stdout.strip()
    (tmp_path / "sitecustomize").mkdir()  # a folder of that name is none
    done = start(f"{WHICH}; {IS_ON}", ours, tmp_path)
    # Debian's Python has one beside its standard library.
    expected = os.path.join(ours, "sitecustomize.py") if without == "None" else without
    assert (done.stdout, done.stderr) == (f"{expected}\nTrue\n", "")


FAILURES = ["raise ValueError('broken')", "import missing_module", "1/0", "raise SystemExit(3)"]


@pytest.mark.parametrize("failure", FAILURES)
def test_what_the_shadowed_one_raises_is_reported_as_by_python(failure, ours, folder):
    plain = folder("plain", failure)
    alone, shadowed = start(WHICH, plain), start(WHICH, ours, plain)
    assert (shadowed.returncode, shadowed.stdout) == (alone.returncode, alone.stdout)
    # Of SystemExit Python shows a traceback, which has one line more for every file on the way.
    lines = alone.stderr.splitlines()
    assert shadowed.stderr.splitlines()[:2] + shadowed.stderr.splitlines()[-1:] == lines[:2] + lines[-1:] != []


def test_after_a_shadowed_one_that_raises_ours_is_active(ours, folder):
    assert start(IS_ON, ours, folder("plain", "raise ValueError('broken')")).stdout == "True\n"


LEAVES_SYS_PATH = """
import os, sys
print("agent")
folder = os.path.dirname(__file__)
sys.path.remove(folder)
itself = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
finally:
    sys.path.insert(0, folder)
"""
SEARCHES_THE_REST = """
import importlib.util, os, sys
from importlib.machinery import PathFinder
print("agent")
rest = [folder for folder in sys.path if folder != os.path.dirname(__file__)]
spec = PathFinder.find_spec("sitecustomize", rest)
module = importlib.util.module_from_spec(spec)
sys.modules["sitecustomize"] = module
spec.loader.exec_module(module)
"""


@pytest.mark.parametrize("first", ["ours", "agent's"])
@pytest.mark.parametrize("agent", [LEAVES_SYS_PATH, SEARCHES_THE_REST])
def test_beside_an_agent_that_chains_itself(agent, first, ours, folder):
    """As ddtrace does, and as New Relic does: whoever is first, each of the three runs once."""
    folders = [ours, folder("agent", agent)]
    if first != "ours":
        folders.reverse()
    done = start(IS_ON, *folders, folder("plain", "print('plain')"))
    assert (done.stdout, done.stderr) == ("agent\nplain\nTrue\n", "")


def test_two_of_ours(folder, tmp_path):
    copy = shutil.copytree(EXAMPLE, tmp_path / "copy")
    link = tmp_path / "link"
    link.symlink_to(copy)
    done = start(IS_ON, STARTUP_FOLDER, copy, link, folder("plain", "print('plain')"))
    assert (done.stdout, done.stderr) == ("plain\nTrue\n", "")


def test_two_of_ours_say_once_what_is_wrong(tmp_path):
    copy = shutil.copytree(EXAMPLE, tmp_path / "copy")
    path = os.pathsep.join([STARTUP_FOLDER, str(copy)])
    done = python(IS_ON, FLASKTHREADS_AUTOPATCH="perhaps", PYTHONPATH=path)
    assert (done.stdout, done.stderr.count("\n")) == ("False\n", 1)


def test_one_that_was_compiled_and_lost_its_source(ours, folder, tmp_path):
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    py_compile.compile(os.path.join(ours, "sitecustomize.py"), compiled / "sitecustomize.pyc", doraise=True)
    done = start(IS_ON, compiled, folder("plain", "print('plain')"))
    assert (done.stdout, done.stderr) == ("plain\nTrue\n", "")
