"""Texts of callables, classes, values and exceptions for messages, and the attributes by which classes are named."""

from __future__ import annotations

import functools
import typing as t


def printable(text: str) -> str:
    """Return *text* if all of it can be printed, else its escaped form.

    The method and the path of a request may contain anything that a client sends. Escaped, they cannot start a new line
    in a log or a table, nor control a terminal (H39).
    """
    return text if text.isprintable() else ascii(text)


def name_of_callable(fn: object) -> str:
    """Return the qualified name of a callable, or else its `str`, ready to be printed. Does not raise."""
    try:
        return printable(str(getattr(fn, "__qualname__", fn)))
    except Exception:
        return f"a {type(fn).__qualname__}"


def safe_repr(value: object) -> str:
    """Return the `repr` of *value*, ready to be printed. Does not raise."""
    try:
        return printable(repr(value))
    except Exception:
        return f"a {type(value).__qualname__}"


def text_of(error: BaseException) -> str:
    """Return type and message of an exception, ready to be printed. Does not raise."""
    try:
        return printable(f"{type(error).__name__}: {error}")
    except Exception:
        return type(error).__name__


def path_of(fn: t.Any) -> str:
    """Return a callable as ``module:qualname``: a `functools.partial` as its function, an object as its class."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return path_of_class(type(fn))
    return f"{module}:{qualname}"


def path_of_class(cls: type) -> str:
    """Return a class as ``module:qualname``. Does not raise.

    Both names are read with the descriptors of `type`, because a metaclass may define attributes of these names, which
    may raise or return something else.
    """
    try:
        module = _module_of(cls)
    except AttributeError:
        module = None  # The class was defined in code without a __name__.
    return f"{module if issubclass(type(module), str) else '?'}:{_qualname_of(cls)}"


mro_of, _module_of, _qualname_of = (
    t.cast(t.Any, vars(type)[name]).__get__ for name in ("__mro__", "__module__", "__qualname__")
)
"""Functions that read an attribute of a class with the descriptors of `type`: see `path_of_class`."""
