"""Who inherits: what the options ``own`` and ``ignore`` and the catalogue say of a task, and of a thread.

A task inherits unless it is ignored. A thread has to have own code's hand in it as well (`own_code`).
"""

from __future__ import annotations

import contextvars
import functools
import threading
import typing as t
from collections.abc import Callable
from fnmatch import fnmatchcase
from types import FrameType, FunctionType, MethodType

from . import catalogue, own_code, starter
from .by_identity import Cache, remember
from .names import mro_of, path_of, path_of_class

Patterns = tuple[str, ...]
Caller = Callable[[], "FrameType | None"]
"""Returns the innermost frame that may be the one that starts a thread."""

# Classes are compared by identity, since a metaclass may have no hash.
_Thread, _Timer = threading.Thread, threading.Timer


def why_thread_not_inherited(
    own: Patterns, ignore: Patterns, cls: type, fn: object, args: object, caller: Caller | None, explain: bool
) -> str | None:
    """Return why a thread of class *cls*, whose target or function is *fn*, does not inherit; None if it does.

    Its starter is found from *caller* upwards; None stands for own code. Unless *explain* is true, the reason may be an
    empty text.
    """
    # Any iterable may be given; one that is an iterator can be read only once, and by the thread.
    if reason := why_thread_ignored(ignore, cls, fn, tuple(args) if isinstance(args, (tuple, list)) else ()):
        return reason
    if runs_own_code(own, cls, fn):
        if fn is None:
            remember(own_code.state.verdicts, (own, ignore, id(cls)), True, cls)
        return None
    if caller is None:
        return None
    frame = starter.find(cls, caller())
    if frame is not None and own_code.is_own_code(own, frame.f_code, frame.f_globals, None):
        return None
    if frame is not None and frame is caller() and (code := _code_of(fn)) is not None:
        key = own, ignore, id(cls), id(code), id(frame.f_code)
        remember(own_code.state.verdicts, key, False, cls, code, frame.f_code)
    if not explain:
        return ""
    name = "what is above it on the stack" if frame is None else str(frame.f_globals.get("__name__"))
    return no_hand(path_of_thread(cls, fn), name)


def is_known_to_inherit(own: Patterns, ignore: Patterns, cls: type, fn: object) -> bool:
    """Return whether the same function, or class of threads, was found to be own code before, and is not ignored."""
    if cls is _Thread or cls is _Timer:
        if ignore or type(fn) is not FunctionType:
            return False
        known = own_code.state.verdicts.get((own, id(fn.__code__)))
    else:
        known = own_code.state.verdicts.get((own, ignore, id(cls))) if fn is None else None
    return known is not None and known[0]


def is_known_not_to_inherit(own: Patterns, ignore: Patterns, cls: type, fn: object, caller: Caller) -> bool:
    """Return whether own code was found to have no hand in a thread of the same kind before."""
    code, frame = _code_of(fn), caller()
    key = own, ignore, id(cls), id(code), id(None if frame is None else frame.f_code)
    return code is not None and key in own_code.state.verdicts


def runs_own_code(own: Patterns, cls: type, fn: object) -> bool:
    """Return whether a thread of class *cls*, whose target or function is *fn* or None, runs own code."""
    if cls is not _Thread and cls is not _Timer and own_code.defines_own(own, cls, "run"):
        return True
    return fn is not None and own_code.runs_own_code(own, fn)


def why_thread_ignored(ignore: Patterns, cls: type, fn: object, args: tuple[t.Any, ...]) -> str | None:
    """Return why a thread does not inherit, whatever code has a hand in it; None if that decides."""
    if cls is not _Thread and (reason := _why_class_ignored(ignore, cls)):
        return reason
    return None if fn is None else why_task_ignored(ignore, fn, args)


def why_task_ignored(ignore: Patterns, fn: object, args: tuple[t.Any, ...]) -> str | None:
    """Return why a task that calls *fn* with *args* does not inherit; None if it does."""
    fn, args = _called(fn, args)
    if type(fn) is not FunctionType and type(getattr(fn, "__self__", None)) is contextvars.Context:
        return "carries context variables of its own"
    module, _, qualname = path_of(fn).partition(":")
    if module == "asyncio.runners" and args and hasattr(args[0], "cr_code"):
        # The coroutine is what runs. It is asgiref's own if asgiref submits it, and the user's if the user does.
        module, qualname = _module_of_coroutine(args[0]), args[0].__qualname__
    return _why_path_ignored(ignore, module, qualname)


def path_of_thread(cls: type, fn: object) -> str:
    """Return what a thread runs, written as in the option ``ignore``: *fn*, or its class *cls* if that is None."""
    return path_of_class(cls) if fn is None else path_of(fn)


def no_hand(what: str, starter: str) -> str:
    """Return the reason for a thread that runs *what* and is started by the module *starter*."""
    return f"neither {what} nor {starter}, which starts it, is own code"


_ignored: Cache[tuple[Patterns, int], str | None] = {}
"""By the option ``ignore`` and the id of a class of threads."""


def _why_class_ignored(ignore: Patterns, cls: type) -> str | None:
    key = ignore, id(cls)
    try:
        return _ignored[key][0]
    except KeyError:
        # A class that other code has put in the place of Thread says nothing of the thread: it may be any base.
        stand_ins = [base for base in (threading.Thread, threading.Timer) if base.__module__ != "threading"]
        bases = [base for base in mro_of(cls) if not any(base is each for each in stand_ins)]
        paths = [path_of_class(base).partition(":") for base in bases]
        reasons = (_why_path_ignored(ignore, module, qualname) for module, _, qualname in paths)
        return remember(_ignored, key, next(filter(None, reasons), None), cls)


@functools.lru_cache(maxsize=4096)
def _why_path_ignored(ignore: Patterns, module: str, qualname: str) -> str | None:
    names = [f"{module}:{outer}" for outer in own_code.outwards(qualname)] + list(own_code.outwards(module))
    for name in names:
        if reason := catalogue.IGNORED.get(name):
            return reason
        for pattern in ignore:
            if fnmatchcase(name, pattern):
                return f"ignored by {pattern!r}"
    return None


def _code_of(fn: object) -> object:
    """Return the code that alone decides whether *fn* is own code; None if more than that has to be looked at."""
    if type(fn) is MethodType:
        fn = fn.__func__
    return fn.__code__ if type(fn) is FunctionType and not fn.__dict__ else None


def _called(fn: object, args: tuple[t.Any, ...]) -> tuple[object, tuple[t.Any, ...]]:
    while issubclass(type(fn), functools.partial):
        partial = t.cast("functools.partial[t.Any]", fn)
        args, fn = partial.args + args, partial.func
    return fn, args


def _module_of_coroutine(coroutine: t.Any) -> str:
    frame = coroutine.cr_frame
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))
