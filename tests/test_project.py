"""pyproject.toml: extras are for users, groups for developers, and both are explained where they are needed."""

from __future__ import annotations

import re
import typing as t

import pytest

from .pages import PAGES, ROOT

tomllib = pytest.importorskip("tomllib", reason="came with Python 3.11")


@pytest.fixture
def project() -> dict[str, t.Any]:
    return t.cast(dict[str, t.Any], tomllib.loads((ROOT / "pyproject.toml").read_text()))


def text_of_pages() -> str:
    return " ".join(" ".join(page.read_text() for page in PAGES).split())


def test_every_extra_is_one_that_a_page_tells_users_to_install(project: dict[str, t.Any]) -> None:
    text = text_of_pages()
    extras = project["project"]["optional-dependencies"]
    assert [name for name in extras if f"[{name}]" not in text and f"extra `{name}`" not in text] == [], (
        "what only developers need belongs under [dependency-groups]"
    )
    assert set(re.findall(r'pip install [^`\n]*"\.\[([\w,-]+)\]"', text)) <= set(extras)


def test_every_group_that_is_named_exists(project: dict[str, t.Any]) -> None:
    groups = set(project["dependency-groups"])
    assert set(re.findall(r"--group ([a-z][\w-]*)", text_of_pages())) <= groups
    environments = [project["tool"]["tox"]["env_run_base"], *project["tool"]["tox"]["env"].values()]
    assert {name for env in environments for name in env.get("dependency_groups", [])} <= groups


def test_every_marker_names_a_group_that_exists(project: dict[str, t.Any]) -> None:
    options = project["tool"]["pytest"]["ini_options"]
    markers = dict(line.split(": ", 1) for line in options["markers"])
    left_out = set(re.findall(r"[a-z]\w+", options["addopts"].partition("not (")[2].partition(")")[0])) - {"or"}
    assert left_out <= set(markers)
    needed = [re.search(r"needs the groups? ([\w-]+)(?: and ([\w-]+))?", text) for text in markers.values()]
    named = {name for match in needed if match for name in match.groups() if name}
    assert named <= set(project["dependency-groups"])


def test_there_is_a_classifier_for_every_python_that_tox_knows(project: dict[str, t.Any]) -> None:
    pythons = project["tool"]["tox"]["env_list"][0]["product"][0]
    versions = {f"3.{python[3:].rstrip('t')}" for python in pythons}
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in project["project"]["classifiers"]]
    assert {match[1] for match in found if match} == versions


def test_the_workflows_run_what_is_run_here(project: dict[str, t.Any]) -> None:
    workflows = ROOT / ".github" / "workflows"
    assert re.search(r"^ +- run: \.ci/run$", (workflows / "ci.yml").read_text(), re.MULTILINE)
    factors = re.findall(r"factor: (\w+)", (workflows / "tox.yml").read_text())
    assert factors == project["tool"]["tox"]["env_list"][0]["product"][0]
