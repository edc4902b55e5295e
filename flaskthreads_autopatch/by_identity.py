"""Caches that are keyed by the identity of objects which they do not keep alive.

A look-up takes 30 ns, in a WeakKeyDictionary 250. Identity is also what is wanted: two equal code objects may come from
different files, and a class may have a metaclass that is not hashable.
"""

from __future__ import annotations

import typing as t
import weakref
from collections.abc import Hashable

Key = t.TypeVar("Key", bound=Hashable)
Value = t.TypeVar("Value")
Cache = dict[Key, tuple[Value, list["weakref.ref[t.Any]"]]]

EXHAUSTED = MemoryError, RecursionError
"""These errors say nothing of what is asked, but of the moment in which it is: no answer may be remembered (H42)."""


def remember(cache: Cache[Key, Value], key: Key, value: Value, *things: object) -> Value:
    """Put *value* into *cache* and return it. *key* has the ids of *things*: with the first of these it is removed.

    Raises `TypeError` if one of them cannot be referred to weakly.
    """

    def forget(_: object) -> None:
        # Called before another object can have the id.
        cache.pop(key, None)

    cache[key] = value, [weakref.ref(thing, forget) for thing in things]
    return value
