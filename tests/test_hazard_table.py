"""docs/hazards.md: it explains each number that is named anywhere, and each row names a test that exists."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest

from .pages import ROOT

TABLE = ROOT / "docs" / "hazards.md"
NO_TEST = "none yet"


class Row(t.NamedTuple):
    """A row of the table; its test is *file* and *name*, or there is none yet."""

    number: int
    symptom: str
    cause: str
    remedy: str
    test: str

    @property
    def file(self) -> Path | None:
        link = re.match(r"\[(\S+)\]\(\.\./\1\) `", self.test)
        return ROOT / link[1] if link else None

    @property
    def name(self) -> str:
        return self.test.rpartition(" ")[2].strip("`")


def rows() -> list[Row]:
    cells = [
        re.split(r"\s*\|\s*", line.strip("| ")) for line in TABLE.read_text().splitlines() if line.startswith("| H")
    ]
    return [Row(int(number[1:]), *others) for number, *others in cells]


def searched() -> list[Path]:
    """The files in which a hazard may be named: the package, the tests and the pages."""
    found = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for folder in ("flaskthreads_autopatch", "tests", "examples", "sitecustomize_example"):
        found += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.md")]
    return found


def carriers_of(number: int) -> list[str]:
    """The tests that carry *number* in their name, as arguments of pytest."""
    pattern = re.compile(rf"^ *(?:async )?def (test_(?:\w+_)?h{number}(?:_\w+)?)\(", re.MULTILINE)
    return [
        f"{file.relative_to(ROOT)}::{name}"
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in pattern.findall(file.read_text())
    ]


def test_the_rows_are_in_order_and_complete() -> None:
    assert [row.number for row in rows()] == list(range(1, len(rows()) + 1))
    for row in rows():
        assert all((row.symptom, row.cause, row.remedy, row.test)), f"H{row.number} has an empty cell"


def test_every_number_that_is_named_anywhere_is_explained() -> None:
    explained = {row.number for row in rows()}
    missing = [
        f"H{number} in {file.relative_to(ROOT)}"
        for file in searched()
        for pair in re.findall(r"\bH(\d{1,3})\b|\bdef test_(?:\w+_)?h(\d{1,3})(?=[_(])", file.read_text())
        if (number := int(pair[0] or pair[1])) not in explained
    ]
    assert missing == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"H{row.number}")
def test_the_row_names_a_test_of_its_hazard(row: Row) -> None:
    there = carriers_of(row.number)
    if row.test == NO_TEST:
        pytest.skip(f"H{row.number} has no test in docs/hazards.md yet; there are {there}")
    assert row.file is not None, f"H{row.number}: the test must be written as [tests/file.py](../tests/file.py) `name`"
    assert f"{row.file.relative_to(ROOT)}::{row.name}" in there
