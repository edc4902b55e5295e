"""What lies on an attribute: its layers, from the outside in, and where each comes from."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from types import FunctionType

import wrapt


def chain(module: str, attribute: str) -> list[t.Any]:
    """The layers on an attribute from the outside in, and the original at the end."""
    return list(wrapt.wrapper_chain(wrapt.resolve_path(module, attribute)[2]))


def origins(module: str, attribute: str) -> list[str]:
    """The module that each layer comes from, from the outside in."""
    *layers, original = chain(module, attribute)
    return [_origin(layer) for layer in layers] + [_origin(wrapper) for wrapper in _written_into(original)]


def _origin(layer: t.Any) -> str:
    if isinstance(layer, wrapt.FunctionWrapper):
        layer = layer._self_wrapper
    layer = getattr(layer, "func", layer)
    # functools.wraps copies __module__ from what it wraps; the globals are the layer's own.
    return str(getattr(layer, "__globals__", {}).get("__name__") or getattr(layer, "__module__", "unknown"))


def _written_into(function: object) -> Iterator[object]:
    """The wrappers that ddtrace has written into the code of *function*, from the outside in.

    The function stays the same object. Its new code has two functions among its constants, where compiled code has
    none: the wrapper, and a copy of the function as it was, into which another wrapper may have been written before.
    """
    while isinstance(function, FunctionType):
        constants = [constant for constant in function.__code__.co_consts if isinstance(constant, FunctionType)]
        if len(constants) != 2:
            return
        wrapper, function = constants
        yield wrapper
