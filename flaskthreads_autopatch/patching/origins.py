"""The modules that the layers on an attribute come from, ours and other patchers'."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from types import FunctionType

import wrapt


def origins(chain: list[t.Any]) -> list[str]:
    """Return the module that each layer comes from, in the order of *chain*, whose last item is the original."""
    *layers, original = chain
    return [_origin(layer) for layer in layers] + [_origin(wrapper) for wrapper in _written_into(original)]


def _origin(layer: t.Any) -> str:
    if isinstance(layer, (wrapt.FunctionWrapper, wrapt.BoundFunctionWrapper)):
        layer = layer._self_wrapper
    layer = getattr(layer, "__func__", layer)
    # functools.wraps copies __module__ from the function that it wraps. The globals are the layer's own.
    return str(getattr(layer, "__globals__", {}).get("__name__") or getattr(layer, "__module__", "unknown"))


def _written_into(function: object) -> Iterator[object]:
    """Yield the wrappers that ddtrace has written into the code of *function*, the outermost first.

    The function remains the same object. Its new code has two functions among its constants, where compiled code has
    none: the wrapper, and a copy of the original function, into which another wrapper may have been written before.
    """
    while isinstance(function, FunctionType):
        constants = [constant for constant in function.__code__.co_consts if isinstance(constant, FunctionType)]
        if len(constants) != 2:
            return
        wrapper, function = constants
        yield wrapper
