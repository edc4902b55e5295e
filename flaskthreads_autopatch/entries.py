"""The entries of ``g``: which ones are taken, how a child's ``g`` is filled, and what is hidden from its teardown."""

from __future__ import annotations

import functools
import logging
import typing as t
from collections.abc import Iterable, Mapping
from types import SimpleNamespace

from .catalogue import PLAIN_TYPES, THREAD_BOUND_NAMES
from .log import log, logger
from .names import path_of_class
from .policy import Policy

Entries = dict[str, t.Any]


class Namespace(t.NamedTuple):
    """The attributes of a `types.SimpleNamespace` on ``g``, in which extensions keep their state (H8)."""

    values: Entries
    closable: Entries
    """Those of `values` that a teardown handler could close."""


Namespaces = dict[str, Namespace]

_NO_NAMESPACES: Namespaces = {}


def take(values: Entries, policy: Policy) -> tuple[Entries, Namespaces, Mapping[str, str]]:
    """Remove from *values*, a copy of the entries of a ``g``, each one that is not inherited, and each namespace.

    Returns the entries that a teardown handler could close, the namespaces, and the reason of each entry that is not
    inherited.
    """
    not_inherited: dict[str, str] = {}
    for name in THREAD_BOUND_NAMES:
        if name in values:
            not_inherited[name] = THREAD_BOUND_NAMES[name]
    closable: Entries = {}
    namespaces = _NO_NAMESPACES
    by_type = not policy.exclude
    for name, value in values.items():
        cls = type(value)
        try:
            is_plain = cls in PLAIN_TYPES
        except Exception:
            is_plain = False  # A class may have a metaclass whose hash raises.
        if by_type and is_plain:
            continue
        if reason := policy.why_home(name, cls):
            not_inherited[name] = reason
        elif cls is SimpleNamespace:
            # Extensions keep their state in a namespace and change it, so each child has a copy (H8).
            if namespaces is _NO_NAMESPACES:
                namespaces = {}
            namespaces[name] = _attributes_of(value, policy)
        elif not is_plain:
            closable[name] = value
    for name in namespaces:
        del values[name]
    for name, reason in not_inherited.items():
        cls = type(values.pop(name))
        if logger.isEnabledFor(logging.DEBUG):
            _log_once(name, path_of_class(cls).replace(":", "."), reason)
    return closable, namespaces, not_inherited


def _attributes_of(namespace: SimpleNamespace, policy: Policy) -> Namespace:
    values = {k: v for k, v in vars(namespace).copy().items() if not policy.why_thread_bound(type(v))}
    return Namespace(values, {k: v for k, v in values.items() if not _is_plain(type(v))})


def _is_plain(cls: type) -> bool:
    try:
        return cls in PLAIN_TYPES
    except Exception:  # As in `take`, which has no time for a call.
        return False


def fill(target: Entries, values: Entries, namespaces: Namespaces) -> None:
    """Put the entries into *target*, the ``__dict__`` of a child's ``g``."""
    target.update(values)
    for name, attributes in namespaces.items():
        target[name] = namespace = SimpleNamespace()
        vars(namespace).update(attributes.values)


def without(names: Entries, entries: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return those of *entries* that are not in *names*."""
    return {name: value for name, value in entries.items() if name not in names}


def without_defaults(target: Entries, defaults: Entries) -> Entries:
    """Return *target*, the ``__dict__`` of a child's new ``g``, without what its constructor has put there."""
    return {name: value for name, value in target.items() if name not in defaults or defaults[name] is not value}


def hide(target: Entries, closable: Entries, namespaces: Namespaces) -> None:
    """Remove from *target* the entries that a teardown handler could close and that are still the identical objects."""
    for name, value in closable.items():
        if target.get(name) is value:
            target.pop(name, None)  # A thread of the task may have removed it meanwhile.
    for name, attributes in namespaces.items():
        if type(namespace := target.get(name)) is SimpleNamespace:
            hide(vars(namespace), attributes.closable, _NO_NAMESPACES)


def put_back(names: Iterable[str], defaults: Entries, target: Entries) -> None:
    """Put those of *names* that have one of the *defaults*, and are missing in *target*, into it."""
    for name in names:
        if name in defaults:
            target.setdefault(name, defaults[name])


@functools.lru_cache(maxsize=1024)
def _log_once(name: str, cls: str, reason: str) -> None:
    log(
        logging.DEBUG,
        "g.%s is not inherited because it is a %s: %s. In a thread it is an AttributeError until the thread sets its"
        " own.",
        name,
        cls,
        reason,
    )
