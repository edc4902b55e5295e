"""Each README and the docs as programs: what each code block is, and a run of a whole page.

The first words after the fence say what a block is:

* ``python`` is run; the blocks of one page make one script, in one process;
* ``python NAME.py`` is written to the page's folder under that name; a later block imports it, or runs it;
* ``sh`` is run in that folder, and has to succeed;
* ``sh ci`` needs the network or the whole clone: ``.ci/run`` runs it as it stands;
* ``output`` is what the block before it has printed; ``...`` stands for anything;
* ``text`` is no code; any language and ``illustration`` (``sh illustration``) is code that is not run;
* a name in braces is a directive of Sphinx.

``python tests/pages.py README.md`` runs one page in a new, empty folder.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("[!.]*/README.md")), *sorted(ROOT.glob("docs/*.md"))]

RUN_HERE = {"python", "sh", "output"}
NOT_RUN_HERE = {"sh ci", "text", "illustration", "directive"}


class Block(t.NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    """The line of its fence."""
    kind: str
    file: str | None
    code: str


def blocks(page: Path) -> list[Block]:
    """The fenced and the indented blocks of *page*, in their order. An indented one is of no kind."""
    tokens = MarkdownIt().parse(page.read_text())
    return [
        _block(page, (token.map or [0])[0] + 1, token.info.split(), token.content)
        for token in tokens
        if token.type in ("fence", "code_block")
    ]


def _block(page: Path, line: int, words: list[str], code: str) -> Block:
    if words[:1] == ["python"] and len(words) == 2 and words[1].endswith(".py"):
        return Block(page, line, "python", words[1], code)
    if words[1:] == ["illustration"]:
        return Block(page, line, "illustration", None, code)
    if words and words[0].startswith("{") and page.name != "README.md":
        return Block(page, line, "directive", None, code)
    return Block(page, line, " ".join(words), None, code)


def run(page: Path) -> None:
    """Run the blocks of *page*, in the current folder. Raises what a block raises."""
    namespace: dict[str, t.Any] = {"__name__": "__main__"}
    printed = ""
    to_do = blocks(page)
    while to_do:
        block = to_do.pop(0)
        where = f"{page.name}, line {block.line}"
        if block.kind == "output":
            _compare(where, block.code, printed)
        elif block.kind == "sh":
            printed = _run_commands(where, block.code)
        elif block.file is not None:
            if not any(Path(block.file).stem in later.code for later in to_do if later.kind in ("python", "sh")):
                raise AssertionError(f"{where}: nothing imports or runs {block.file}")
            Path(block.file).write_text(block.code)
            importlib.invalidate_caches()
        elif block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                # An error points to its line in the page.
                exec(compile("\n" * block.line + block.code, block.page, "exec"), namespace)
            printed = out.getvalue()


def _run_commands(where: str, commands: str) -> str:
    if "pip install" in commands:
        raise AssertionError(f"{where}: what installs needs the network, and is of kind 'sh ci'")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    if result.returncode:
        raise AssertionError(f"{where}: exit status {result.returncode} from\n{commands}\n{result.stdout}")
    return result.stdout


def _compare(where: str, expected: str, printed: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(expected, printed, doctest.ELLIPSIS):
        raise AssertionError(f"{where}: the block before it has printed\n{printed}")


if __name__ == "__main__":
    page = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        # Not the folder of this file, which python has put there.
        sys.path[0] = folder
        os.chdir(folder)
        run(page)
        os.chdir(ROOT)
