"""Observations: what is bound to a thread or task instead of a snapshot while the library observes.

An observation says where the thread or task was started, and what it inherits or would inherit. It is bound as a
snapshot is, by the same patch points. `replay` then counts the run, and replays the snapshot that the observation has.
In observe mode it has none: the thread or task runs as it would without this library, and no value of ``g`` and no
request is kept. With ``audit --on`` it has the snapshot of what is inherited.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import typing as t
import weakref
from collections.abc import Mapping
from types import SimpleNamespace

from flask import Flask
from flask.ctx import AppContext

from . import flask_context
from .audit.record import BY_A_RUN, Key
from .audit.recorder import Run, outer_run, recording
from .capture import capture
from .log import log
from .names import path_of, path_of_class, printable
from .place import place_of_origin
from .policy import Policy
from .snapshot import NO_ENTRIES, NONE_LEFT_OUT, Snapshot
from .suppression import WORKERS
from .visibility import parents
from .visibility.registry import Kind

NO_CONTEXT = "no app context is active where it is started"
NO_POLICY = "nothing of this app is inherited: it is not installed, or one of its options is wrong"
_SUPPRESSED = "it is started inside suppress_inheritance()"
_WORKER = "it is a worker of a pool, whose tasks inherit one by one"
_ENDING = "it is started by a teardown handler"


class Observation(Snapshot):
    """Stands in for a snapshot, and counts each run that it is replayed for."""

    __slots__ = ("app_name", "app_ref", "endpoint", "names", "place", "reason", "replayed")

    app_ref: weakref.ref[Flask] | None
    """The app; None where no context is active. Held weakly, since the worker of a pool keeps its observation."""
    place: str
    app_name: str
    endpoint: str
    reason: str
    """Why nothing is inherited; empty if something is."""
    names: tuple[Mapping[str, str], Mapping[str, str]]
    """What is inherited, and what is not, as in a `Record`."""
    replayed: Snapshot | None
    """The snapshot that is replayed; None if nothing is."""

    @property
    def app(self) -> t.Any:  # type: ignore[override]  # a slot of the class above, which is set
        """The app; None where no context is active, and once the app is gone."""
        return None if self.app_ref is None else self.app_ref()


def is_only_observing() -> bool:
    """Return whether the library observes, and nothing is inherited."""
    return (recorder := recording()) is not None and not recorder.replays


def _replays() -> bool:
    return (recorder := recording()) is not None and recorder.replays


def observe_capture(ctx: AppContext, policy: Policy, contextvars: bool = True) -> Observation:
    """Do what `capture` does, and return it as an observation. In observe mode, do it without a trace."""
    observation = _new(ctx, policy, "")
    replays = _replays()
    snapshot = capture(ctx, policy if replays else _without_trace(policy), contextvars and replays)
    if snapshot is None:
        observation.reason = _ENDING
        return observation
    inherited = {f"g.{name}": path_of_class(type(value)) for name, value in _values(snapshot)}
    if policy.request and flask_context.active_request(ctx) is not None:
        inherited = {"request": "", "session": "", **inherited}
    observation.names = inherited, {f"g.{name}": reason for name, reason in snapshot.not_inherited.items()}
    observation.replayed = snapshot if replays else None
    return observation


def observe_nothing(ctx: AppContext | None, policy: Policy | None, suppressed: object, reason: str) -> Observation:
    """Return the observation of a thread or task that inherits nothing of *ctx*, the active app context.

    *reason* says why, unless one of the others does: *suppressed* is the value of `is_suppressed`.
    """
    if ctx is None:
        if (outer := outer_run()) is not None:
            return _observe_nested(*outer, suppressed, reason)
        reason = reason or NO_CONTEXT
    elif policy is None:
        reason = NO_POLICY
    elif suppressed:
        reason = _WORKER if suppressed == WORKERS else _SUPPRESSED
    elif flask_context.is_ending(ctx):
        reason = _ENDING
    return _new(ctx, policy, reason)


def _observe_nested(outer: Key, app: Flask, suppressed: object, reason: str) -> Observation:
    """Return the observation of a thread or task that is started by a run, which *outer* describes, and would inherit.

    No context is active here only because nothing is replayed while the library observes.
    """
    if suppressed:
        reason = _WORKER if suppressed == WORKERS else _SUPPRESSED
    observation = _new(None, None, reason or BY_A_RUN)
    observation.app_ref, observation.app_name, observation.endpoint = weakref.ref(app), outer.app, outer.endpoint
    return observation


def observe_provided(snapshot: Snapshot) -> Observation:
    """Return the observation of a thread or task that is started where no context is active, and provided with one."""
    observation = _new(None, None, "")
    observation.app_ref, observation.app_name = weakref.ref(snapshot.app), printable(snapshot.app.name)
    observation.replayed = snapshot if _replays() else None
    return observation


def begin_run(observation: Observation, shown: object, kind: Kind) -> Run | None:
    """Count a run of *shown* that begins in this thread. Returns what `end_run` takes."""
    try:
        if (recorder := recording()) is None:
            return None  # It has been switched off meanwhile.
        # What runs in a thread may be the run() of its class; the option ignore takes the class.
        what = path_of(shown)
        what = printable(what.removesuffix(".run") if kind == "thread" else what)
        key = Key(observation.place, what, kind, observation.app_name, observation.endpoint, observation.reason)
        return recorder.begin(key, observation.app, observation.parent, observation.names)
    except Exception:
        log(logging.ERROR, "The audit could not count a run of a %s.", kind, exc_info=True)
        return None


def end_run(run: Run | None, error: BaseException | None) -> None:
    """Count the end of *run*, with *error* if it raised."""
    try:
        if run is not None:
            run.leave()
            run.recorder.end(run, error)
    except Exception:
        log(logging.ERROR, "The audit could not count the end of a run.", exc_info=True)


def _new(ctx: AppContext | None, policy: Policy | None, reason: str) -> Observation:
    observation = Observation()
    observation.app_ref = None if ctx is None else weakref.ref(ctx.app)
    observation.values = observation.closable = observation.namespaces = NO_ENTRIES
    observation.not_inherited = NONE_LEFT_OUT
    observation.shared_g = observation.lent = observation.variables = observation.origin = None
    observation.warn_after = observation.replayed = None
    observation.parent = parents.NOWHERE if ctx is None else parents.watched(ctx)
    place = place_of_origin(() if policy is None else policy.own)
    observation.place = "" if place is None else printable(str(place))
    observation.app_name = "" if ctx is None else printable(ctx.app.name)
    observation.endpoint = "" if ctx is None else _endpoint(ctx)
    observation.reason = reason
    observation.names = NONE_LEFT_OUT, NONE_LEFT_OUT
    return observation


def _endpoint(ctx: AppContext) -> str:
    try:
        request: t.Any = flask_context.active_request(ctx)
        return "" if request is None else printable(str(request.endpoint or ""))
    except Exception:
        return ""  # The request may be of a class of the app's own.


@functools.lru_cache(maxsize=64)
def _without_trace(policy: Policy) -> Policy:
    """Return *policy* without the options that read, keep or watch something, for a snapshot that is dropped."""
    off: t.Any = {"request": False, "preload": False, "contextvars": False, "origins": False, "warn_after": None}
    return dataclasses.replace(policy, **off)


def _values(snapshot: Snapshot) -> list[tuple[str, object]]:
    values = snapshot.values
    if snapshot.shared_g is not None:
        state = getattr(snapshot.shared_g, "__dict__", {})
        values = {name: state.get(name) for name in snapshot.inherited}
    return [*values.items(), *dict.fromkeys(snapshot.namespaces, SimpleNamespace()).items()]
