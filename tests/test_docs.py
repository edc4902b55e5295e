"""README and docs: every block is run, or is marked as not to be, and the docs can be built."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import pydoc
import re
import subprocess
import sys
import typing as t
from itertools import pairwise
from pathlib import Path

import pytest

import flaskthreads_autopatch
from flaskthreads_autopatch import Policy, catalogue, environment, policy

from . import pages


@pytest.mark.parametrize(
    "block",
    [block for page in pages.PAGES for block in pages.blocks(page)],
    ids=lambda block: f"{block.page.relative_to(pages.ROOT)}:{block.line}",
)
def test_every_block_is_of_a_known_kind(block: pages.Block) -> None:
    assert block.kind in pages.RUN_HERE | pages.NOT_RUN_HERE, "tests/pages.py says which kinds there are"


RUN = [
    # The docs speak of the newest Flask, and of other people's packages. README holds for all.
    pytest.param(
        page, id=str(page.relative_to(pages.ROOT)), marks=[] if page.name == "README.md" else [pytest.mark.docs]
    )
    for page in pages.PAGES
    if any(block.kind in pages.RUN_HERE for block in pages.blocks(page))
]


@pytest.mark.parametrize("page", RUN)
def test_page_runs(page: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASK")}
    # Flask 2.2 itself calls what newer Pythons say is deprecated.
    command = [sys.executable, "-W", "error", "-W", "default::DeprecationWarning", pages.__file__, str(page)]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_every_command_of_ci_is_run_there() -> None:
    ci = (pages.ROOT / ".ci" / "run").read_text()
    for page in pages.PAGES:
        if any(block.kind == "sh ci" for block in pages.blocks(page)):
            assert f" {page.relative_to(pages.ROOT)} " in ci


def test_readme_has_the_two_commands() -> None:
    quickstart, tests = (block.code for block in pages.blocks(pages.ROOT / "README.md") if block.kind == "sh ci")
    assert re.fullmatch(r"python3 -m venv .* examples/quickstart\.py\n", quickstart)
    assert re.fullmatch(r"python3 -m venv .*pytest -n auto\n", tests)


def fields_of_policy() -> list[tuple[str, str, str]]:
    """Name, default and meaning of each option, as the source of `Policy` has them."""
    body = t.cast(ast.ClassDef, ast.parse(inspect.getsource(Policy)).body[0]).body
    found = {}
    for node, below in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr):
            found[ast.unparse(node.target)] = ast.literal_eval(below.value).partition("\n\n")[0]
    fields = [field for field in dataclasses.fields(Policy) if field.init]
    return [(field.name, repr(field.default), " ".join(found[field.name].split())) for field in fields]


def test_the_page_of_options_has_every_option() -> None:
    page = (pages.ROOT / "docs" / "options.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(name, default, meaning.replace("``", "`")) for name, default, meaning in fields_of_policy()]
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) >= {name for name, _, _ in rows}


def test_help_lists_every_option() -> None:
    text = pydoc.plain(pydoc.render_doc(flaskthreads_autopatch.install))
    rows = re.findall(r"^ +- ``(\w+)=(.*?)``: (.*(?:\n +\w.*)*)", text, re.MULTILINE)
    assert [(name, default, " ".join(meaning.split())) for name, default, meaning in rows] == fields_of_policy()


def test_type_checkers_know_every_option() -> None:
    fields = [field for field in dataclasses.fields(Policy) if field.init]
    accepted = {field.name: str(field.type).replace("tuple[str, ...]", "Patterns") for field in fields}
    known = {name: annotation.__forward_arg__ for name, annotation in policy.AppOptions.__annotations__.items()}
    assert known == accepted
    assert set(known) - set(policy.Options.__annotations__) == {"provide"}


@pytest.mark.parametrize("name", ["context_inherited", "context_released"])
def test_help_explains_a_signal(name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(getattr(flaskthreads_autopatch, name)))
    assert "Signal that a replay" in text
    assert "``replay``, " in text


def test_every_environment_variable_is_listed_in_one_place() -> None:
    rows = re.findall(r"^\| `(FLASK\w+)` \|", (pages.ROOT / "docs" / "options.md").read_text(), re.MULTILINE)
    options = [f"{policy.PREFIX}{name.upper()}" for name in policy.DEFAULTS if name != "provide"]
    others = [environment.AUDIT_FOLDER_VARIABLE, environment.DUMP_SIGNAL_VARIABLE]
    assert rows == [environment.VARIABLE, *options, *others]


def test_every_test_that_a_page_names_is_there() -> None:
    named = {name for page in pages.PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    tests = "".join(file.read_text() for file in Path(__file__).parent.rglob("*.py"))
    assert sorted(name for name in named if f"def {name}(" not in tests) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("```console\nls\n```", "console"),
        ("```\nls\n```", ""),
        ("- a\n\n  ~~~sh x\n  ls\n  ~~~", "sh x"),
        ("a\n\n    ls\n", ""),
    ],
)
def test_a_block_of_another_kind_is_found(tmp_path: Path, text: str, kind: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert [block.kind for block in pages.blocks(page)] == [kind]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nprint(1)\n```\n```output\n2\n```", "line 4: the block before it has printed\n1"),
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("```python a_shop.py\n1 / 0\n```\n```python\nimport a_shop\n```", "ZeroDivisionError"),
        ("```python a_shop.py\n1 / 0\n```", "line 1: nothing imports or runs a_shop.py"),
        ("```sh\nfalse; true\n```", "exit status 1"),
        ("```sh\npip install anything\n```", "is of kind 'sh ci'"),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((AssertionError, ZeroDivisionError)) as raised:
        pages.run(page)
    assert complaint in f"{raised.type.__name__}: {raised.value}"


@pytest.mark.docs
def test_docs_can_be_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", pages.ROOT / "docs", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")

    # Where a name may be broken, on a narrow screen, is no part of it.
    rendered = (tmp_path / "catalogue.html").read_text().replace('</span><wbr><span class="pre">', "")
    entries = [*catalogue.THREAD_BOUND_TYPES, *catalogue.THREAD_BOUND_NAMES, *catalogue.IGNORED]
    entries += [*catalogue.COUNT_AS_OWN, *catalogue.NOT_OWN]
    assert [entry for entry in entries if f">{entry}<" not in rendered] == []

    reference = (tmp_path / "api.html").read_text()
    names = flaskthreads_autopatch.__all__
    assert [name for name in names if f'id="flaskthreads_autopatch.{name}"' not in reference] == []
