"""The option ``provide``: an app context, with nothing in it, for work that is started where none is active.

A job of a scheduler, a consumer that is started at import, and a timer at start-up have nothing to inherit. If the
option names what they run, they get a `Snapshot` that has the app and no entries, which is replayed like any other.

The patch points call this only while `providers` is not empty and no app context is active.
"""

from __future__ import annotations

import functools
import gc
import logging
import threading
import typing as t
from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import CellType, FunctionType, MethodType

from flask import Flask

from . import own_code, who_inherits
from .app_policies import KnownApp, policy_for, provide_of, providers
from .by_identity import Cache, remember
from .log import log
from .names import path_of, path_of_class, safe_repr
from .observation import is_only_observing
from .place import place_of_origin
from .policy import KEYWORD, PROVIDE, AppOptions, Options, Policy, PolicyError
from .snapshot import NO_ENTRIES, NONE_LEFT_OUT, Snapshot
from .visibility import parents
from .visibility.overdue import watch

_DEPTH = 32
"""Ends a walk along wrappers, which may go in circles."""


class _Match(t.NamedTuple):
    """An app whose option ``provide`` names what is started."""

    app: Flask
    policy: Policy
    pattern: str


def provided(fn: object, args: object = (), cls: type | None = None) -> Snapshot | None:
    """Return what a task that calls *fn* with *args*, or a thread of class *cls* that does, is provided with.

    *cls* is None for a task. Returns None if no app provides for it, or more than one, which is logged.
    """
    paths = [path.partition(":")[::2] for path in _paths(fn, cls)]
    found = _matches(paths, fn, args, cls)
    if len(found) > 1:
        key = (paths[0], *(id(match.app) for match in found))
        if key in _refused:
            return None
        # An app that is garbage does not count: tests make one after the other.
        del found
        gc.collect()
        found = _matches(paths, fn, args, cls)
        if len(found) > 1:
            remember(_refused, key, None, *(match.app for match in found))
            log(
                logging.ERROR,
                "No app context is provided for %s: provide names it for %s. Name it for one app only, or uninstall"
                " the others.",
                ":".join(paths[0]),
                " and for ".join(f"{safe_repr(match.app)} ({match.pattern!r})" for match in found),
            )
    return _empty(*found[0][:2]) if len(found) == 1 else None


def check_enable(keywords: Options) -> None:
    """Raise `PolicyError` if the *keywords* of `enable` have the option ``provide``."""
    if (given := t.cast("dict[str, object]", keywords).get(PROVIDE)) is not None:
        raise PolicyError(
            "provide is an option of one app: pass it to install(app), not to enable() (set to"
            f" {safe_repr(given)} by keyword).",
            KEYWORD,
        )


def check_install(app: Flask, keywords: AppOptions) -> None:
    """Raise `PolicyError` if the option ``provide`` in *keywords* has a pattern that another installed app has too."""
    patterns = frozenset(keywords.get("provide", ()))
    if patterns and _others_with(patterns, app):
        gc.collect()  # As in `provided`.
        for other, pattern in _others_with(patterns, app):
            raise PolicyError(
                f"provide must name each callable for one app only, not {pattern!r} for {safe_repr(app)} and for"
                f" {safe_repr(other)}. Name another one, or uninstall the other app first (set by keyword).",
                KEYWORD,
            )


_refused: Cache[tuple[t.Any, ...], None] = {}
"""What more than one app provides for, and has been logged: the path, and the ids of the apps."""


def _matches(paths: list[tuple[str, str]], fn: object, args: object, cls: type | None) -> list[_Match]:
    return [match for known in providers.copy().values() if (match := _match(known, paths, fn, args, cls)) is not None]


def _match(
    known: t.Callable[[], Flask | None], paths: list[tuple[str, str]], fn: object, args: object, cls: type | None
) -> _Match | None:
    app = known()
    if app is None or not isinstance(known, KnownApp):
        return None
    try:
        patterns = provide_of(app, known)
    except PolicyError:
        policy_for(app)  # Logs it.
        return None
    if not patterns:
        return None
    pattern = next(filter(None, (_pattern_for(patterns, module, qualname) for module, qualname in paths)), None)
    if pattern is None or (policy := policy_for(app)) is None:
        return None
    if who_inherits.why_thread_ignored(policy.ignore, cls or threading.Thread, fn, args):
        return None
    return _Match(app, policy, pattern)


@functools.lru_cache(maxsize=4096)
def _pattern_for(patterns: tuple[str, ...], module: str, qualname: str) -> str | None:
    names = who_inherits.names_of(module, qualname)
    return next((pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)), None)


def _paths(fn: t.Any, cls: type | None) -> Iterator[str]:
    """Yield as ``module:qualname`` what *fn* is, behind partials, bound methods and ``__wrapped__`` too, and *cls*."""
    for _ in range(_DEPTH):
        if fn is None:
            break
        yield path_of(fn)
        while isinstance(fn, functools.partial):
            fn = fn.func
        fn = getattr(fn, "__func__", fn)
        inner = getattr(fn, "__wrapped__", None) or own_code.partialmethod_of(fn)
        fn = inner or (_in_closure(fn) if cls is None else None)
    if cls is not None and cls is not threading.Thread:
        yield from map(path_of_class, who_inherits.bases_of(cls))


def _in_closure(fn: object) -> object:
    """Return the callable that *fn* encloses, if *fn* is a third party's; else None.

    An agent that has patched a pool after us puts such a function, without a ``__wrapped__``, around each task.
    """
    if type(fn) is not FunctionType or own_code.runs_own_code((), fn):
        return None
    # A cell that is still empty has no contents, and says so by a ValueError.
    values = [cell.cell_contents for cell in fn.__closure__ or () if cell != CellType()]
    enclosed = [value for value in values if type(value) in (FunctionType, MethodType, functools.partial)]
    return enclosed[0] if len(enclosed) == 1 else None


def _others_with(patterns: frozenset[str], app: Flask) -> list[tuple[Flask, str]]:
    found = []
    for known in providers.copy().values():
        other = known()
        if other is not None and other is not app and isinstance(known, KnownApp):
            try:
                found += [(other, pattern) for pattern in provide_of(other, known) if pattern in patterns]
            except PolicyError:
                continue  # A wrong option in the config of that app is reported when its first thread is started.
    return found


def _empty(app: Flask, policy: Policy) -> Snapshot:
    snapshot = Snapshot()
    snapshot.app = app
    snapshot.values = snapshot.closable = snapshot.namespaces = NO_ENTRIES
    snapshot.not_inherited = NONE_LEFT_OUT
    snapshot.shared_g = snapshot.lent = snapshot.variables = None
    snapshot.parent = parents.NOWHERE
    snapshot.warn_after = policy.warn_after
    snapshot.origin = place_of_origin(policy.own) if policy.origins or policy.warn_after is not None else None
    if policy.warn_after is not None and not is_only_observing():
        watch(snapshot)
    return snapshot
