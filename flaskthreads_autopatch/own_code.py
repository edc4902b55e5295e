"""Own code: the application's code, as opposed to the standard library's and third parties'.

A thread inherits only if own code has a hand in it: a worker that a package happens to start during alice's request
would otherwise run bob's work as alice. The rules that tell whether a module is own code, in order:

1. It is, if its top-level package has been adopted (rule 6) or if the option ``own`` names it.
2. The standard library is not, which is judged by name and place: an app may have a ``profile.py`` of its own.
3. A module with a component ``_vendor``, ``_vendored`` or ``third_party`` in its name is not.
4. ``__main__`` is, unless ``python -m`` runs a module, which then decides.
5. A module is not own code if the folder that its top-level package was loaded from is called ``site-packages`` or
   ``dist-packages``, is an ``.egg``, holds Flask too, or has a ``.dist-info`` that provides the package, as after
   ``pip install --target``. Every other module is. Code without such a folder is judged by the path of its file.
6. ``install(app)`` adopts the distributions of the app and of the module that calls it, ``enable()`` those of each app
   that it meets. Vendored modules (rule 3) are not adopted with them.

`runs_own_code` and `is_own_class` apply them to what a thread runs, `starter.find` to the code that starts it.
"""

from __future__ import annotations

import functools
import os
import sys
import typing as t
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType

from . import catalogue
from .by_identity import Cache, remember
from .distributions import Distribution, provided
from .names import mro_of, path_of_class

Own = tuple[str, ...]
"""The value of the option ``own``: names of packages, or fnmatch patterns."""
_Globals = Mapping[str, t.Any]
"""The namespace of a module, or of the code that runs in it."""

_VENDORED = frozenset(("_vendor", "_vendored", "third_party"))
_INSTALLED = ("site-packages", "dist-packages")
_MAIN = ("__main__", "__mp_main__")  # the second one is what multiprocessing makes of the first one in a child
_DEPTH = 32
"""Ends a walk along wrappers, which may go in circles."""


def runs_own_code(own: Own, fn: t.Any) -> bool:
    """Return whether own code runs when *fn* is called: behind partials, bound methods and ``__wrapped__`` too.

    The class of a bound method's object does not count: an own subclass of a third party's pool has their worker.
    """
    for _ in range(_DEPTH):
        kind = type(fn)  # isinstance() would take a wrapt proxy for the function that it wraps
        if kind is FunctionType:
            if _is_own_function(own, fn):
                return True
            fn = fn.__dict__.get("__wrapped__") or partialmethod_of(fn)
        elif kind is MethodType:
            fn = fn.__func__
        elif issubclass(kind, functools.partial):
            fn = fn.func
        elif issubclass(kind, type):
            return is_own_class(own, fn)
        else:
            if _is_own_callable(own, fn):
                return True
            fn = getattr(fn, "__wrapped__", None)
        if fn is None:
            return False
    return False


def defines_own(own: Own, cls: type, attribute: str) -> bool:
    """Return whether the class that defines *attribute* of *cls*, which may be one of its bases, is own code."""
    return is_own_class(own, next(base for base in mro_of(cls) if attribute in base.__dict__))


def is_own_class(own: Own, cls: type) -> bool:
    """Return whether the module that defines *cls* is own code."""
    key, verdicts = (own, id(cls)), state.verdicts
    try:
        return bool(verdicts[key][0])
    except KeyError:
        code = next((fn.__code__ for fn in cls.__dict__.values() if type(fn) is FunctionType), None)
        name = path_of_class(cls).partition(":")[0]
        is_own_one = is_own(own, name, _globals_of(name), code)
        remember(verdicts, key, is_own_one, cls)
        return is_own_one


def is_own_module(own: Own, name: str) -> bool:
    """Return whether the module called *name* is own code."""
    return is_own(own, name, _globals_of(name), None)


def is_own_code(own: Own, code: CodeType, namespace: _Globals, name: object) -> bool:
    """Return whether *code*, which runs in *namespace*, is own code. *name* is its module's if *namespace* has none."""
    key, verdicts = (own, id(code)), state.verdicts
    try:
        return bool(verdicts[key][0])
    except KeyError:
        name = namespace.get("__name__", name)
        is_own_one = is_own(own, name if isinstance(name, str) else "", namespace, code)
        remember(verdicts, key, is_own_one, code)
        return is_own_one


def is_own(own: Own, name: str, namespace: _Globals, code: CodeType | None) -> bool:
    """Apply the rules to the module called *name*, which holds *namespace* and, if that is known, *code*."""
    if state.pending:
        _adopt_pending()
    if name in _MAIN:
        spec = getattr(namespace.get("__spec__"), "name", None)
        if not isinstance(spec, str) or spec in _MAIN:  # the second one is what runs in a zipped application
            return True
        name = spec.removesuffix(".__main__")
    parts = name.split(".")
    top, vendored = parts[0], not _VENDORED.isdisjoint(parts)
    if (top in state.adopted and not vendored) or _is_named(own, name) or _covers(catalogue.COUNT_AS_OWN, name):
        return True
    folder = _folder_of(name, namespace)
    if top in sys.stdlib_module_names and folder in (None, *_standard_library()):
        return False
    if "*" in own:
        return True
    if vendored or _covers(catalogue.NOT_OWN, name):
        return False
    if folder is None:
        # For code that no module holds: made by exec(), or in a module that has been taken out of sys.modules.
        folders = [] if code is None else absolute(code.co_filename).split(os.sep)[:-1]
        return os.sep.join(folders) not in _standard_library() and _VENDORED.union(_INSTALLED).isdisjoint(folders)
    return not (
        os.path.basename(folder) in _INSTALLED
        or folder.endswith(".egg")
        or folder == _folder_of("flask", {})
        or any(not distribution.is_checkout for distribution in provided(folder).get(top, ()))
    )


def adopt(name: str) -> None:
    """Count the distributions that provide the module called *name* as own code, or its package if none does."""
    # Reading metadata takes milliseconds, so the first verdict does it.
    state.pending.add(name)
    state.verdicts = {}


def adopted() -> tuple[str, ...]:
    """The top-level packages that count as own code because they were adopted."""
    _adopt_pending()
    return tuple(sorted(state.adopted.copy()))


def forget_adopted() -> None:
    """Take every `adopt` back."""
    state.pending, state.adopted, state.verdicts = set(), set(), {}


def distributions_of(name: str) -> tuple[Distribution, ...]:
    """The installed distributions that provide the top-level package of the module called *name*."""
    top = name.partition(".")[0]
    # A namespace package lies in several folders.
    parents = {os.path.dirname(absolute(path)) for path in _globals_of(top).get("__path__", ())}
    folders = sorted(parents | ({folder} if (folder := _folder_of(name, _globals_of(name))) else set()))
    return tuple(distribution for folder in folders for distribution in provided(folder).get(top, ()))


def package_of(name: str) -> str:
    """The package, of the module called *name*, that the option ``own`` may name: not a namespace package by itself."""
    parts = name.split(".")
    return ".".join(parts[:1] if "__file__" in _globals_of(parts[0]) else parts[:2])


def absolute(path: str) -> str:
    """Return *path* as an absolute one; as it is if the working directory has been deleted, as a deployment may do."""
    try:
        return os.path.abspath(path)
    except OSError:
        return path


def outwards(dotted: str) -> Iterator[str]:
    """``a.b.c``, ``a.b``, ``a``"""
    while dotted:
        yield dotted
        dotted = dotted.rpartition(".")[0]


def _is_own_function(own: Own, function: FunctionType) -> bool:
    return is_own_code(own, function.__code__, function.__globals__, function.__module__)


def _is_own_callable(own: Own, fn: t.Any) -> bool:
    """Do the same for an object that is called by its class, and for a function that is not written in Python."""
    call = getattr(type(fn), "__call__", None)  # noqa: B004 - its code is wanted, not whether it is there
    if type(call) is FunctionType:
        return _is_own_function(own, call)
    namespace = getattr(fn, "__globals__", None)  # of a compiled function, or of what a wrapt proxy wraps
    if type(namespace) is dict:
        return is_own_module(own, str(namespace.get("__name__", "")))
    if type(fn) is BuiltinFunctionType:
        name = fn.__module__ if isinstance(fn.__module__, str) else type(fn.__self__).__module__
        return is_own_module(own, name)
    return False


def partialmethod_of(function: t.Any) -> object:
    """Return the function behind *function*, if that is a `functools.partialmethod`, else None."""
    # A functools.partialmethod that is read from its class is a function with an attribute.
    for name in ("_partialmethod", "__partialmethod__"):
        if (partial := getattr(function, "__dict__", {}).get(name)) is not None:
            return partial.func
    return None


def _is_named(own: Own, name: str) -> bool:
    # That "*" does not cover the standard library is rule 2's business: its workers serve everybody in any case.
    return any(fnmatchcase(outer, pattern) for pattern in own if pattern != "*" for outer in outwards(name))


def _covers(names: Mapping[str, str], name: str) -> bool:
    return any(outer in names for outer in outwards(name))


def _globals_of(name: str) -> _Globals:
    found = getattr(sys.modules.get(name), "__dict__", None)
    return found if isinstance(found, dict) else {}


def _folder_of(name: str, namespace: _Globals) -> str | None:
    """Return the folder, or archive, that the top-level package of *name* was loaded from; None without one."""
    top = name.partition(".")[0]
    # A namespace package has no file of its own, but the modules in it have.
    for dotted, found in ((top, _globals_of(top)), (name, namespace)):
        file = found.get("__file__") or getattr(found.get("__spec__"), "origin", None)
        if isinstance(file, str) and file not in ("built-in", "frozen"):
            folder = os.path.dirname(absolute(file))
            for _ in range(dotted.count(".") + ("__path__" in found)):
                folder = os.path.dirname(folder)
            return folder
    return None


@functools.lru_cache(maxsize=1)
def _standard_library() -> tuple[str, ...]:
    # Extension modules lie in a folder below.
    folders = {os.path.dirname(os.path.abspath(path)) for path in (os.__file__, os.path.realpath(os.__file__))}
    return (*folders, *(os.path.join(folder, "lib-dynload") for folder in folders))


def _adopt_pending() -> None:
    # Another thread may be at the same names: both do the work, and only then are they no longer pending.
    # A copy, which is a single operation on free-threaded builds too: tuple() fails where another thread adopts.
    names = tuple(state.pending.copy())
    found: set[str] = set()
    for name in names:
        if name in _MAIN:
            spec = getattr(_globals_of(name).get("__spec__"), "name", None)
            name = spec if isinstance(spec, str) else ""
        found.add(name.partition(".")[0])
        for distribution in distributions_of(name):
            found |= distribution.packages
    state.adopted |= found - _NEVER_ADOPTED
    state.pending.difference_update(names)


_NEVER_ADOPTED = frozenset(("", *_MAIN, "flask", __name__.partition(".")[0], *sys.stdlib_module_names))


class _State:
    def __init__(self) -> None:
        self.pending: set[str] = set()
        self.adopted: set[str] = set()
        self.verdicts: Cache[tuple[object, ...], t.Any] = {}
        """What has been found, by the option ``own`` and the id of code or of a class; `who_inherits` adds its own.

        Replaced by every `adopt`, so that a verdict that is being made meanwhile does not stay.
        """


state = _State()
