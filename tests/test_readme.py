"""The README's Python blocks run, one after the other, as one script."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flaskthreads_autopatch import Policy

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[int, str]]:
    """The blocks in *language*: the number of lines before each, and its text."""
    found = BLOCK.finditer(TEXT)
    return [(TEXT.count("\n", 0, block.start(2)), block[2]) for block in found if block[1] == language]


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = ModuleType("readme")
    script.__file__ = str(README)
    monkeypatch.setitem(sys.modules, "readme", script)

    assert len(blocks("python")) == TEXT.count("```python") > 0
    for lines_before, code in blocks("python"):
        # An error points to its line in the README.
        exec(compile("\n" * lines_before + code, README, "exec"), vars(script))

    status, user, error = capsys.readouterr().out.splitlines()
    assert status.startswith("Status(enabled=True, ")
    assert user == "bob"
    assert error.startswith("share='perhaps' (keyword): ")


def test_has_the_command_lines() -> None:
    quickstart, tests = (command for _, command in blocks("sh"))
    assert re.fullmatch(r"python3 -m venv .* examples/quickstart\.py\n", quickstart)
    assert re.fullmatch(r"python3 -m venv .*pytest\n", tests)


def test_has_every_option() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", TEXT, re.MULTILINE)
    assert rows == [(field.name, repr(field.default)) for field in dataclasses.fields(Policy)]
