"""mypy and pyright see every public name as it is, and a wrong option as an error."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

import flaskthreads_autopatch
from flaskthreads_autopatch.policy import AppOptions

pytestmark = pytest.mark.lint

PROGRAM = Path(__file__).with_name("program.py")
PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": True,
    "reportWildcardImportFromLibrary": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the program, which finds the package installed, and with one that imports all of it by ``*``."""
    shutil.copy(PROGRAM, tmp_path)
    uses = "".join(f"print({name})\n" for name in flaskthreads_autopatch.__all__)
    (tmp_path / "star.py").write_text(f"from flaskthreads_autopatch import *\n{uses}")
    return tmp_path


def output(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300).stdout


def test_mypy_accepts_what_is_right_and_reports_what_is_wrong(folder: Path) -> None:
    printed = output(folder, "mypy", "--config-file=", "--strict", "--warn-unused-ignores", PROGRAM.name, "star.py")
    assert printed == "Success: no issues found in 2 source files\n"


def test_pyright_accepts_what_is_right_and_reports_what_is_wrong(folder: Path) -> None:
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    found = json.loads(output(folder, "pyright", "--outputjson", f"--pythonpath={sys.executable}"))
    assert (found["generalDiagnostics"], found["summary"]["filesAnalyzed"]) == ([], 2)


def test_the_right_half_runs(app: Flask) -> None:
    pytest.importorskip("blinker")
    from .program import right

    right(app)


def test_both_halves_use_every_public_name_and_every_option() -> None:
    functions = [node for node in ast.parse(PROGRAM.read_text()).body if isinstance(node, ast.FunctionDef)]
    wrong = [function for function in functions if function.name == "wrong"]
    for half in (wrong, [function for function in functions if function not in wrong]):
        nodes = [node for function in half for node in ast.walk(function)]
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert set(flaskthreads_autopatch.__all__) - names == set()
        installs = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "install"]
        options = {keyword.arg for call in installs for keyword in call.keywords}
        assert set(AppOptions.__annotations__) - options == set()
