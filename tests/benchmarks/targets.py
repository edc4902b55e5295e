"""The targets, as ratios of one run: of minima, which a busy machine changes least."""

from __future__ import annotations

import typing as t

from .harness import Result
from .micro import PASS_THROUGH_POINTS

Results = dict[str, dict[str, Result]]
"""By scenario and column."""


class Target(t.NamedTuple):
    """A ratio that must not be exceeded, or not fallen short of."""

    name: str
    limit: float
    measured: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def judge(results: Results) -> list[Target]:
    """The targets whose scenarios have been measured."""
    targets = []
    for name, limit, measure, at_least in _TARGETS:
        try:
            targets.append(Target(name, limit, measure(results), at_least))
        except KeyError:
            continue  # not measured in this run
    return targets


def _ratio(scenario: str, column: str) -> t.Callable[[Results], float]:
    return lambda results: results[scenario][column].of_minima


def _between(scenario: str, column: str, other: str) -> t.Callable[[Results], float]:
    return lambda results: results[scenario][column].of_minima / results[scenario][other].of_minima


def _pass_through(results: Results) -> float:
    return max(results[f"pass-through {point}"]["ours, no context"].of_minima for point in PASS_THROUGH_POINTS)


def _each_entry(results: Results) -> float:
    growth = results["growth"]
    return (growth["50 plain"].of_minima - growth["10 plain"].of_minima) / 40


def _throughput(results: Results) -> float:
    columns = results["concurrency"]
    at = {n: columns[f"bare, {n}"].ratio / columns[f"ours, {n}"].ratio for n in (1, 8)}
    return at[8] / at[1]


def _register(results: Results) -> float:
    parts = results["parts"]
    price = parts["the register of running()"].of_minima - parts["nothing, called in a worker"].of_minima
    return price / parts["replay, request + session + 5 plain"].of_minima


_OURS = "ours, in a request"
_TARGETS: tuple[tuple[str, float, t.Callable[[Results], float], bool], ...] = (
    (
        "capture + replay, app context only / `with app.app_context(): pass`",
        1.3,
        _ratio("replay", "ours, app context only"),
        False,
    ),
    (
        "capture + replay, request + session + 5 entries / `with app.app_context(): pass`",
        1.7,
        _ratio("replay", "ours, request + session + 5 entries"),
        False,
    ),
    (
        "round trip in a request, ours / `copy_current_request_context`",
        0.45,
        _between("round trip", _OURS, "copy_current_request_context"),
        False,
    ),
    (
        "round trip in a request, ours / Flask-Executor",
        0.25,
        _between("round trip", _OURS, "Flask-Executor"),
        False,
    ),
    ("thread start + join in a request, ours / bare", 1.12, _ratio("thread", _OURS), False),
    ("pass-through / bare wrapt wrapper (the worst patch point)", 1.15, _pass_through, False),
    (
        "off / never on (the lower quartile; that each attribute is the original object is asserted)",
        1.0,
        lambda results: results["off"]["enable(); disable()"].low,
        False,
    ),
    ("the register of `running()` / replay, request + session + 5 entries", 0.05, _register, False),
    ("each further plain entry of `g` / `with app.app_context(): pass`", 0.05, _each_entry, False),
    (
        "resident memory after 1,000,000 tasks / after 10,000",
        1.02,
        lambda results: results["resident"]["ours"].median,
        False,
    ),
    ("throughput at 8 submitters, ours / bare, relative to the same at 1", 0.9, _throughput, True),
)
