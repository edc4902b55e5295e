"""The class of an app's ``g``: whether its instances keep their entries in their ``__dict__``, where they are taken."""

from __future__ import annotations

import logging
import types
import typing as t

from .by_identity import EXHAUSTED, Cache, remember
from .entries import Entries
from .log import log
from .names import mro_of, path_of_class, text_of
from .snapshot import NO_ENTRIES

_known: Cache[int, bool] = {}
"""By the id of a class: whether its entries are taken."""

_PROBE = "flaskthreads_autopatch"


def entries_of(g: object, make: t.Callable[[], object]) -> Entries:
    """Return the entries of *g*, of a class of the app's own that *make* makes instances of.

    Empty, if the class keeps them elsewhere than in the ``__dict__`` of an instance. What cannot be taken is logged,
    once for each class.
    """
    cls, key = type(g), id(type(g))
    if key not in _known:
        are_taken, problem = _examine(g, make)
        remember(_known, key, are_taken, cls)
        if problem:
            log(
                logging.WARNING,
                "Not all entries of g are inherited: app_ctx_globals_class is %s, %s. The app and the request are. Keep"
                " entries in the __dict__ of its instances, or set share=True.",
                path_of_class(cls).replace(":", "."),
                problem,
            )
    return g.__dict__ if _known[key][0] else NO_ENTRIES


def _examine(g: object, make: t.Callable[[], object]) -> tuple[bool, str | None]:
    """Return whether the entries in the ``__dict__`` are taken, and why these are not all entries; None if they are."""
    try:
        if type(getattr(g, "__dict__", None)) is not dict:
            return False, "whose instances have no dictionary as their __dict__"
    except EXHAUSTED:
        raise
    except Exception as error:
        return False, f"which refuses to show its __dict__ ({text_of(error)})"
    try:
        # An attribute is set on an instance of its own: a class can keep attributes anywhere.
        probe = make()
        setattr(probe, _PROBE, None)
        if _PROBE not in vars(probe):
            return False, "which keeps them elsewhere than in the __dict__ of its instances"
    except EXHAUSTED:
        raise
    except Exception as error:
        return True, f"which refuses an attribute, so that it is not known where it keeps them ({text_of(error)})"
    attributes = [attribute for base in mro_of(type(g)) for attribute in vars(base).items()]
    if any(type(value) is types.MemberDescriptorType for _, value in attributes):
        return True, "which keeps some of them in __slots__"
    if any(name == "__setitem__" for name, _ in attributes):
        return True, "whose items are not attributes"
    return True, None
