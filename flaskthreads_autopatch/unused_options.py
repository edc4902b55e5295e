"""Options that were set and are not used: by a later one of the three places, or because nothing asks for them."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Mapping

from flask import Flask

from .names import safe_repr
from .policy import CONFIG, DEFAULTS, ENVIRONMENT, KEYWORD, PREFIX, Policy, PolicyError, resolve
from .switch import policy_for

_WHERE = {CONFIG: "in the Flask config", ENVIRONMENT: "in the environment"}
_WINNERS = {
    KEYWORD: "a keyword of install() or enable() wins",
    CONFIG: "the Flask config of the app wins",
}


def find(app: Flask, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each option that is set in the config of *app* or in *environ*, and is not used for it."""
    return [*_in(CONFIG, app.config, app), *_in(ENVIRONMENT, environ, app)]


def _in(source: str, places: Mapping[str, t.Any], app: Flask) -> Iterator[str]:
    policy = policy_for(app)
    for option in DEFAULTS:
        key = f"{PREFIX}{option.upper()}"
        if places.get(key, "") != "" and (reason := _why_unused(option, key, source, places, policy, app.name)):
            yield f"{key}={safe_repr(places[key])} {_WHERE[source]} is not used: {reason}."


def _why_unused(
    option: str, key: str, source: str, places: Mapping[str, t.Any], policy: Policy | None, name: str
) -> str | None:
    if policy is None:
        return f"the threads of {name!r} inherit nothing"
    winner = t.cast(str, policy.source(option))
    if winner == source:
        try:
            given = resolve({}, *(({key: places[key]}, {}) if source == CONFIG else ({}, {key: places[key]})))
        except PolicyError:
            given = None
        # The options of an app are settled by its first thread.
        is_settled = given is None or getattr(given, option) != getattr(policy, option)
        return "it was changed after the first thread of the app was started" if is_settled else None
    return _WINNERS.get(winner, "it was set after the first thread of the app was started")
