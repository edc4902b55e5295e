"""The code that starts a thread, found on the stack of the thread that calls ``start()``.

It is the first frame that is not a *layer*. Layers are the ``start`` and ``__init__`` of the thread's class and of its
bases, and what other patchers have put around them: all code that can be reached from there through ``__wrapped__``,
wrapt's ``_self_wrapper``, partials, default values, the cells of closures, and the attributes of callable
objects and descriptors. Frames of wrapt itself are skipped too.
No other frame is: if those of the standard library were, the threads of its own services would be own code's.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import typing as t
import weakref
from types import CodeType, FrameType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType

from .by_identity import EXHAUSTED, Cache, remember
from .names import mro_of

_METHODS = ("start", "__init__")
_CALLING = ("__call__", "__get__")
"""The methods by which an object can be a layer."""
_MOST = 200
"""Ends a walk that meets more functions than any patcher would write."""


def find(cls: type, frame: FrameType | None) -> FrameType | None:
    """Return the first frame from *frame* upwards that starts, or makes, a thread of class *cls*."""
    layers = _layers_of(cls)
    while frame is not None:
        # Locals are never read: up to Python 3.12, frame.f_locals keeps alive what the frame has deleted meanwhile.
        if id(frame.f_code) not in layers and not _is_wrapt(frame.f_globals.get("__name__")):
            return frame
        frame = frame.f_back
    return None


def outermost(cls: type, method: str) -> object:
    """Return the outermost layer of *method* of *cls*, as the class that defines it has it."""
    return next(base.__dict__[method] for base in mro_of(cls) if method in base.__dict__)


@functools.lru_cache(maxsize=1024)
def _is_wrapt(name: object) -> bool:
    # The wrapper of _thread.start_new_thread is no layer of start().
    return "wrapt" in str(name).split(".") or name == "flaskthreads_autopatch.patching.low_level"


# The code objects by id, since equal ones may come from different files. They refer to no function and no class.
_Layers = dict[int, CodeType]
_known: Cache[int, tuple[list[weakref.ref[t.Any]], _Layers]] = {}
"""By the id of a class: the outermost layers of its methods, and what was found in them."""


def _layers_of(cls: type) -> _Layers:
    outermost = [base.__dict__[name] for base in mro_of(cls)[:-1] for name in _METHODS if name in base.__dict__]
    known = _known.get(id(cls))
    if known is not None and _are_the_same([ref() for ref in known[0][0]], outermost):
        return known[0][1]
    layers = _reachable_from(outermost)
    with contextlib.suppress(TypeError):  # A layer that cannot be referred to weakly is looked at each time.
        remember(_known, id(cls), ([weakref.ref(each) for each in outermost], layers), cls)
    return layers


def _are_the_same(before: list[t.Any], now: list[t.Any]) -> bool:
    # Compared by identity: a wrapt proxy equals what it wraps.
    return len(before) == len(now) and all(map(operator.is_, before, now))


def _reachable_from(functions: list[t.Any]) -> _Layers:
    layers: _Layers = {}
    seen: dict[int, object] = {}
    waiting = list(functions)
    while waiting and len(seen) < _MOST:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if type(each) is MethodType:
            waiting.append(each.__func__)
        elif type(each) is FunctionType:
            layers[id(each.__code__)] = each.__code__
            waiting += filter(_may_be_layer, _held_by(each))
        elif isinstance(each, (functools.partial, functools.partialmethod)):
            waiting += filter(_may_be_layer, (each.func, *each.args))
        elif not isinstance(each, type):
            for method in map(functools.partial(_method, type(each)), _CALLING):
                if method is not None:
                    layers[id(method.__code__)] = method.__code__
                    waiting += _calls_of_classes(method)
            waiting += filter(_may_be_layer, _attributes_of(each))
        waiting += _inside(each)
    return layers


def _method(cls: type, name: str) -> FunctionType | None:
    method = getattr(cls, name, None)
    return method if type(method) is FunctionType else None


def _calls_of_classes(method: FunctionType) -> t.Iterator[FunctionType]:
    """Yield the ``__call__`` of each class that *method*, as that of a descriptor, may make an object of."""
    for name in method.__code__.co_names:
        value = method.__globals__.get(name)
        if isinstance(value, type) and (call := _method(value, "__call__")) is not None:
            yield call


def _attributes_of(layer: object) -> t.Iterator[object]:
    """Yield what *layer* holds in its ``__dict__`` and its slots, without running code of its own."""
    for base in mro_of(type(layer))[:-1]:
        for name, member in base.__dict__.items():
            if type(member) is GetSetDescriptorType and name == "__dict__":
                yield from member.__get__(layer).values()
            elif type(member) is MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # It may not be set.
                    yield member.__get__(layer)


def _inside(wrapper: t.Any) -> t.Iterator[object]:
    for name in ("__wrapped__", "_self_wrapper"):
        try:
            inner = getattr(wrapper, name, None)
        except EXHAUSTED:
            raise
        except Exception:
            continue  # A proxy whose object is not at hand, as Flask's `request` can be, is no layer.
        if inner is not None:
            yield inner


def _held_by(function: FunctionType) -> t.Iterator[object]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # It may still be empty.
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    # A patcher may keep what it has wrapped in a global variable.
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if type(value) is not FunctionType or "__wrapped__" in value.__dict__:
            yield value


def _may_be_layer(value: object) -> bool:
    kind = type(value)
    if kind in (FunctionType, MethodType, functools.partial) or hasattr(kind, "__wrapped__"):
        return True
    return any(_method(kind, name) is not None for name in _CALLING)
