"""Who inherits: what the options ``own`` and ``ignore`` and the catalogue say of a task, and of a thread.

A task inherits unless it is ignored. A thread has to have own code's hand in it as well (`own_code`).
"""

from __future__ import annotations

import contextlib
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


def inherits(own: Patterns, ignore: Patterns, cls: type, fn: object, args: object, caller: Caller | None) -> bool:
    """Return whether a thread of class *cls* inherits, whose target or function is *fn* and is called with *args*.

    Its starter is found from *caller* upwards; None stands for own code. What is found is remembered: by the code that
    runs, and by the code that starts the thread, which is only looked at if the first one does not decide.
    """
    key: tuple[object, ...] | None = None
    function = fn if type(fn) is FunctionType else _function_of(fn)
    module = qualname = None
    if function is not None:
        # The functions that a factory makes have one code, and each may be given the name of another function, which
        # the catalogue or the option ``ignore`` may name. The names are compared, and are no part of the key: a name
        # that is made for each function would fill the cache.
        module, qualname = function.__module__, function.__qualname__
        key = own, ignore, id(cls), id(function.__code__)
    elif fn is None:
        key = own, ignore, id(cls)
    known: t.Any = None if key is None else own_code.state.verdicts.get(key)
    does: bool | None
    if known is not None and known[0][1] is module and known[0][2] is qualname:
        does = known[0][0]
    else:
        does = _inherits_by_what_runs(own, ignore, cls, fn, args, function, key)
    if does is not None:
        return does
    return caller is None or _is_own_starter(own, cls, caller())


def why_thread_not_inherited(
    own: Patterns, ignore: Patterns, cls: type, fn: object, args: object, caller: Caller
) -> str | None:
    """Return why a thread for which `inherits` is false does not inherit, as a text that is worth logging."""
    if reason := why_thread_ignored(ignore, cls, fn, args):
        return reason
    frame = starter.find(cls, caller())
    name = "what is above it on the stack" if frame is None else str(frame.f_globals.get("__name__"))
    return no_hand(path_of_thread(cls, fn), name)


def runs_own_code(own: Patterns, cls: type, fn: object) -> bool:
    """Return whether a thread of class *cls*, whose target or function is *fn* or None, runs own code."""
    if cls is not _Thread and cls is not _Timer and own_code.defines_own(own, cls, "run"):
        return True
    return fn is not None and own_code.runs_own_code(own, fn)


def why_thread_ignored(ignore: Patterns, cls: type, fn: object, args: object) -> str | None:
    """Return why a thread does not inherit, whatever code has a hand in it; None if that decides."""
    if cls is not _Thread and (reason := _why_class_ignored(ignore, cls)):
        return reason
    return None if fn is None else why_task_ignored(ignore, fn, args)


def why_task_ignored(ignore: Patterns, fn: object, args: object) -> str | None:
    """Return why a task that calls *fn* with *args* does not inherit; None if it does."""
    if type(fn) is FunctionType and type(fn.__module__) is str and fn.__module__ != "asyncio.runners":
        return _why_path_ignored(ignore, fn.__module__, fn.__qualname__)
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
        paths = [path_of_class(base).partition(":") for base in bases_of(cls)]
        reasons = (_why_path_ignored(ignore, module, qualname) for module, _, qualname in paths)
        return remember(_ignored, key, next(filter(None, reasons), None), cls)


def bases_of(cls: type) -> list[type]:
    """Return *cls*, a class of threads, and its bases, as far as they say something of the thread."""
    # A class by which other code has replaced Thread says nothing, because it may be a base of any thread.
    stand_ins = [base for base in (threading.Thread, threading.Timer) if base.__module__ != "threading"]
    return [base for base in mro_of(cls) if not any(base is each for each in stand_ins)]


def names_of(module: str, qualname: str) -> list[str]:
    """Return the names of a callable that a pattern may match: its own, and those of what it is defined in."""
    return [f"{module}:{outer}" for outer in own_code.outwards(qualname)] + list(own_code.outwards(module))


@functools.lru_cache(maxsize=4096)
def _why_path_ignored(ignore: Patterns, module: str, qualname: str) -> str | None:
    for name in names_of(module, qualname):
        if reason := catalogue.IGNORED.get(name):
            return reason
        for pattern in ignore:
            if fnmatchcase(name, pattern):
                return f"ignored by {pattern!r}"
    return None


def _function_of(fn: object) -> FunctionType | None:
    """Return the function behind partials and a bound method, if *fn* is that; else None."""
    while issubclass(type(fn), functools.partial):
        fn = t.cast("functools.partial[t.Any]", fn).func
    fn = fn.__func__ if type(fn) is MethodType else fn
    return fn if type(fn) is FunctionType else None


def _inherits_by_what_runs(
    own: Patterns,
    ignore: Patterns,
    cls: type,
    fn: object,
    args: object,
    function: FunctionType | None,
    key: tuple[object, ...] | None,
) -> bool | None:
    """Return whether a thread inherits, as far as what it runs decides; None if it needs own code as its starter."""
    verdicts = own_code.state.verdicts
    is_ignored = why_thread_ignored(ignore, cls, fn, args)
    does = False if is_ignored else True if runs_own_code(own, cls, fn) else None
    if function is None:
        if key is not None:
            remember(verdicts, key, (does, None, None), cls)
    elif _decides_each_time(own, function):
        names = function.__module__, function.__qualname__
        remember(verdicts, t.cast("tuple[object, ...]", key), (does, *names), cls, function.__code__)
    return does


def _decides_each_time(own: Patterns, function: FunctionType) -> bool:
    """Return whether the code of *function* and its name decide, and not what is on it, or its arguments."""
    if type(function.__module__) is not str or function.__module__ == "asyncio.runners":
        return False
    code, namespace = function.__code__, function.__globals__
    return not function.__dict__ or own_code.is_own_code(own, code, namespace, function.__module__)


def _is_own_starter(own: Patterns, cls: type, frame: FrameType | None) -> bool:
    """Return whether own code starts a thread of class *cls*, as far as can be seen from *frame* upwards."""
    if frame is None:
        return False
    verdicts = own_code.state.verdicts
    # gevent's Thread, which takes the place of Thread, has no start() of its own.
    of_thread = _Thread.__dict__.get("start")
    start = (of_thread if cls is _Thread else None) or starter.outermost(cls, "start")
    # A layer that is put around start() later, or around the one that it calls, may be the very code that called it
    # directly before.
    key = own, id(cls), id(start), id(of_thread), id(frame.f_code)
    known = verdicts.get(key)
    if known is not None:
        return known[0] is True
    found = starter.find(cls, frame)
    is_own = found is not None and own_code.is_own_code(own, found.f_code, found.f_globals, None)
    if found is frame:
        with contextlib.suppress(TypeError):  # A layer may not allow weak references.
            remember(verdicts, key, is_own, cls, start, of_thread or start, frame.f_code)
    return is_own


def _called(fn: object, args: object) -> tuple[object, tuple[t.Any, ...]]:
    # A thread may be given any iterable. One that is an iterator can be read only once, and by the thread.
    args = tuple(args) if isinstance(args, (tuple, list)) else ()
    while issubclass(type(fn), functools.partial):
        partial = t.cast("functools.partial[t.Any]", fn)
        args, fn = partial.args + args, partial.func
    return fn, args


def _module_of_coroutine(coroutine: t.Any) -> str:
    frame = coroutine.cr_frame
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))
