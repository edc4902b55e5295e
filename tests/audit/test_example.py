"""``examples/audit_me.py``: one place of each verdict, in the table that the docs show, and what becomes of each."""

from __future__ import annotations

import doctest
import json
import os
import re
import sys
from pathlib import Path

import pytest

from flaskthreads_autopatch.audit.verdicts import NAMES, STILL_FAILS

from ..pages import ROOT, blocks
from ..processes import run
from .test_command import AUDIT

EXAMPLE = ROOT / "examples" / "audit_me.py"
VERDICTS = {
    "__main__:load_rates": "does not inherit",
    "__main__:IndexWorker": "outlives its request",
    "__main__:send_receipt": "fixed by the library",
    "__main__:count_order": "inherits",
    "__main__:send_report": "provides its own context",
    "concurrent.futures.thread:_worker": "does not inherit",
    "logging.handlers:QueueListener._monitor": "does not inherit",
}


def verdicts(file: Path) -> dict[str, str]:
    return {place["callable"]: place["verdict"] for place in json.loads(file.read_text())["places"]}


def test_it_has_a_place_of_each_verdict_and_the_verdicts_hold(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    command = [sys.executable, EXAMPLE]
    assert run(*AUDIT, "--json", before, "--", *command).returncode == 0
    assert verdicts(before) == VERDICTS
    assert set(VERDICTS.values()) == {*NAMES} - {STILL_FAILS}

    done = run(*AUDIT, "--on", "--compare", before, "--json", after, "--", *command)
    assert done.returncode == 0
    changed = {"__main__:send_receipt": "inherits", "__main__:load_rates": "still fails"}
    assert verdicts(after) == VERDICTS | changed
    assert "since the earlier audit (observe): failed 3 -> 0" in done.stderr


@pytest.mark.docs
def test_the_docs_show_its_table() -> None:
    [shown] = [block.code for block in blocks(ROOT / "docs" / "audit.md") if block.kind == "text"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run(*AUDIT, "--", "python", "examples/audit_me.py", cwd=ROOT, PATH=path)
    assert done.stdout == ""
    assert doctest.OutputChecker().check_output(shown, done.stderr.lstrip("\n"), doctest.ELLIPSIS), done.stderr


def test_its_commands_are_those_of_the_readme_and_the_docs() -> None:
    commands = re.findall(r"^    (flaskthreads-autopatch .*)$", EXAMPLE.read_text(), re.MULTILINE)
    readme = (ROOT / "examples" / "README.md").read_text()
    [line] = [line for line in readme.splitlines() if line.startswith("- [audit_me.py](audit_me.py): ")]
    assert re.findall(r"`(flaskthreads-autopatch .*?)`", line) == commands
    assert f"{commands[0]}\n" in (ROOT / "docs" / "audit.md").read_text()
