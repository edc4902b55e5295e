"""The entries of ``g``: which ones are taken, how a child's ``g`` is filled, and what is hidden from its teardown."""

from __future__ import annotations

import functools
import logging
import typing as t
import weakref
from collections.abc import Iterable, Mapping
from itertools import compress
from types import SimpleNamespace

from .catalogue import PLAIN_TYPES, THREAD_BOUND_NAMES
from .log import log_in_child, logger
from .names import path_of_class
from .policy import Policy

Entries = dict[str, t.Any]


class Namespace(t.NamedTuple):
    """The attributes of a `types.SimpleNamespace` on ``g``, in which extensions keep their state (H8)."""

    values: Entries
    closable: Entries
    """Those of `values` that a teardown handler could close."""


Namespaces = dict[str, Namespace]

_NO_ENTRIES: Entries = {}
_NO_NAMESPACES: Namespaces = {}


def take(values: Entries, policy: Policy) -> tuple[Entries, Namespaces, Mapping[str, str]]:
    """Remove from *values*, a copy of the entries of a ``g``, each one that is not inherited, and each namespace.

    Returns the entries that a teardown handler could close, the namespaces, and the reason of each entry that is not
    inherited.
    """
    not_inherited: dict[str, str] = {}
    for name in THREAD_BOUND_NAMES:
        if name in values:
            _leave_out(name, values, THREAD_BOUND_NAMES[name], not_inherited)
    if policy.exclude:
        plan = _plan_for(values, policy)
    else:
        # Without exclude, only the classes of the values count. Often all of them are plain.
        try:
            for value in values.values():
                if type(value) not in PLAIN_TYPES:
                    break
            else:
                return _NO_ENTRIES, _NO_NAMESPACES, not_inherited
        except Exception:
            pass  # A class may have a metaclass whose hash raises.
        # A view puts the same classes on g at each request.
        ids = tuple([id(type(value)) for value in values.values()])
        plan = _plans.get(ids) or _kept_plan(ids, values, policy)
    if plan.is_plain:
        return _NO_ENTRIES, _NO_NAMESPACES, not_inherited
    closable = dict(compress(values.items(), plan.closable))
    namespaces = _NO_NAMESPACES
    if plan.has_exceptions:
        namespaces = {}
        for name, reason in zip(list(values), plan.reasons, strict=True):
            if reason is not None:
                _leave_out(name, values, reason, not_inherited)
            elif type(values[name]) is SimpleNamespace:
                # Extensions keep their state in a namespace and change it, so each child has a copy (H8).
                namespaces[name] = _attributes_of(values.pop(name), policy)
    return closable, namespaces, not_inherited


class _Plan(t.NamedTuple):
    """What happens to the entries of a ``g``, in their order."""

    closable: tuple[bool, ...]
    """For each entry, whether it is inherited and a teardown handler could close it."""
    reasons: tuple[str | None, ...]
    """For each entry, why it is not inherited; None if it is."""
    has_exceptions: bool
    """Whether at least one entry is not inherited or is a namespace."""
    is_plain: bool
    """Whether all entries are inherited and none could be closed. There is nothing left to do for such a ``g``."""
    forgetting: tuple[weakref.ref[type], ...] = ()
    """References to the classes of the values. A plan in `_plans` is deleted as soon as one of the classes is."""


def _plan_for(values: Entries, policy: Policy) -> _Plan:
    classes = [type(value) for value in values.values()]
    plain = [_is_plain(cls) for cls in classes]
    # Without exclude, a plain value is always inherited.
    reasons = [
        None if is_plain and not policy.exclude else policy.why_entry_not_inherited(name, cls)
        for name, cls, is_plain in zip(values, classes, plain, strict=True)
    ]
    closable = [
        not is_plain and reason is None and cls is not SimpleNamespace
        for cls, is_plain, reason in zip(classes, plain, reasons, strict=True)
    ]
    has_exceptions = any(reason is not None for reason in reasons) or any(cls is SimpleNamespace for cls in classes)
    return _Plan(tuple(closable), tuple(reasons), has_exceptions, not has_exceptions and not any(closable))


_plans: dict[tuple[int, ...], _Plan] = {}
"""Plans by the ids of the classes of the values, in their order. They keep no class alive, because an app may create
one for each request. When a class is deleted, its plans are deleted before another class can have the same id."""
_MOST_PLANS = 1024


def _kept_plan(ids: tuple[int, ...], values: Entries, policy: Policy) -> _Plan:
    """Return the plan for *values*, whose classes have these *ids*, and keep it."""

    def forget(ref: object) -> None:
        _plans.pop(ids, None)

    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    references = tuple(weakref.ref(type(value), forget) for value in values.values())
    plan = _plans[ids] = _plan_for(values, policy)._replace(forgetting=references)
    return plan


def _leave_out(name: str, values: Entries, reason: str, not_inherited: dict[str, str]) -> None:
    not_inherited[name] = reason
    cls = type(values.pop(name))
    if logger.isEnabledFor(logging.DEBUG):
        _log_once(name, path_of_class(cls).replace(":", "."), reason)


def _attributes_of(namespace: SimpleNamespace, policy: Policy) -> Namespace:
    values = {k: v for k, v in vars(namespace).copy().items() if not policy.why_thread_bound(type(v))}
    return Namespace(values, {k: v for k, v in values.items() if not _is_plain(type(v))})


def _is_plain(cls: type) -> bool:
    try:
        return cls in PLAIN_TYPES
    except Exception:
        return False  # A class may have a metaclass whose hash raises.


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
        try:
            if target[name] is value:
                del target[name]
        except KeyError:
            pass  # The task has removed it, or a thread of the task is just removing it.
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
    log_in_child(
        logging.DEBUG,
        "g.%s is not inherited because it is a %s: %s. In a thread it is an AttributeError until the thread sets its"
        " own.",
        name,
        cls,
        reason,
    )
