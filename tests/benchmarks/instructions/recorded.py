"""The ratios that are recorded in the repository, so that a change that makes one worse is seen when it is made."""

from __future__ import annotations

import json
import platform
import typing as t
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
TOLERANCE = 0.02
"""How much a ratio may be above the recorded one: four times what round trips between threads vary by."""

_PYTHON = ".".join(platform.python_version_tuple()[:2])
_ADVICE = (
    "--compare REV shows which case takes more, and --profile CASE where. If that is worth its price, record the new"
    " ratios with --record, and explain it in the commit."
)


def faults(ratios: dict[str, float]) -> dict[str, str]:
    """The rows whose ratio is too high, each with a sentence about it."""
    recorded = _read().get(_PYTHON, {"ratios": {}})["ratios"]
    found = {}
    for name, ratio in ratios.items():
        limit = recorded.get(name)
        if limit is None:
            found[name] = f"{name}: {FILE.name} has no ratio for Python {_PYTHON}; add it with --record."
        elif ratio > limit * (1 + TOLERANCE):
            found[name] = (
                f"{name}: the ratio {ratio:.3f} is {ratio / limit - 1:.1%} above the {limit:.3f} in {FILE.name};"
                f" {TOLERANCE:.0%} is allowed."
            )
    return found


def explain(found: dict[str, str], versions: str) -> str:
    """What `faults` has found, and what to do about it."""
    recorded = _read().get(_PYTHON, {"versions": versions})["versions"]
    other = [] if recorded == versions else [f"The recorded ratios are of {recorded}, not of {versions}."]
    return "\n".join((*found.values(), *other, _ADVICE))


def write(ratios: dict[str, float], versions: str) -> None:
    """Record *ratios*. Rows that were not counted keep theirs, as other versions of Python do."""
    known = _read()
    before = known.get(_PYTHON, {"ratios": {}})["ratios"]
    known[_PYTHON] = {"versions": versions, "ratios": before | {name: round(x, 4) for name, x in ratios.items()}}
    FILE.write_text(json.dumps(known, indent=2) + "\n")


def _read() -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(FILE.read_text())) if FILE.exists() else {}
