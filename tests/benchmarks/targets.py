"""The targets, as ratios of one run: of minima, which a busy machine changes least."""

from __future__ import annotations

import typing as t

from .harness import Result

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


def _fan_out(results: Results) -> float:
    # By the medians: of the times of a request, the shortest one is a matter of chance.
    return 1 / results["request"]["ours"].ratio


def _each_entry(results: Results) -> float:
    growth = results["growth"]
    return (growth["50 plain"].of_minima - growth["10 plain"].of_minima) / 40


def _throughput(results: Results) -> float:
    columns = results["concurrency"]
    at = {n: columns[f"bare, {n}"].ratio / columns[f"ours, {n}"].ratio for n in (1, 8)}
    return at[8] / at[1]


_TARGETS: tuple[tuple[str, float, t.Callable[[Results], float], bool], ...] = (
    ("throughput of a view that fans out to 4 tasks, ours / by hand", 0.85, _fan_out, True),
    (
        "off / never on (the lower quartile; that each attribute is the original object is asserted)",
        1.0,
        lambda results: results["off"]["enable(); disable()"].low,
        False,
    ),
    ("each further plain entry of `g` / `with app.app_context(): pass`", 0.05, _each_entry, False),
    (
        "resident memory after 1,000,000 tasks / after 10,000",
        1.02,
        lambda results: results["resident"]["ours"].median,
        False,
    ),
    ("throughput at 8 submitters, ours / bare, relative to the same at 1", 0.9, _throughput, True),
)
