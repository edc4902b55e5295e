"""What is inherited, and by whom: the options, where they come from, and the questions they answer."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import math
import threading
import typing as t
import weakref
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import FunctionType

from . import catalogue
from .environment import DUMP_SIGNAL, VARIABLE, WORDS
from .names import mro_of, path_of_class

PREFIX = f"{VARIABLE}_"
"""Before an option's name, in capitals, in Flask's config and in the environment."""

KEYWORD, CONFIG, ENVIRONMENT, DEFAULT = "keyword", "Flask config", "environment", "default"


class PolicyError(ValueError):
    """An option is wrong. The message names the option, its value, and what is allowed.

    ``source`` says where the option was read: ``"keyword"``, ``"Flask config"`` or ``"environment"``.
    """

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """The settings for one app, or for the process.

    Each is read, in this order, from a keyword of `install` or `enable`, from Flask's config
    (``FLASKTHREADS_AUTOPATCH_SHARE``), from the environment (under the same name). Raises `PolicyError`.
    """

    share: bool = False
    """The thread works on the parent's own ``g``, not on a snapshot of it."""
    request: bool = True
    """Lend the request and the session."""
    preload: bool = False
    """Read the request's body before the thread starts."""
    exclude: tuple[str, ...] = ()
    """More entries of ``g`` that are not inherited: ``"name"`` or ``"module:Class"``, fnmatch patterns."""
    ignore: tuple[str, ...] = ()
    """More threads and callables that do not inherit: ``"module:qualname"`` or ``"module"``, fnmatch patterns."""
    contextvars: bool = False
    """Also carry a copy of all other context variables."""
    warn_after: float | None = None
    """Log a warning for a thread that is still running this many seconds after its parent's context ended."""

    _sources: Mapping[str, str] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in OPTIONS:
            object.__setattr__(self, name, _parse(name, getattr(self, name), KEYWORD))

    def source(self, option: str) -> str | None:
        """Where *option* was read, as `PolicyError.source`, or ``"default"``; None in a policy that was not read."""
        return self._sources.get(option)

    def why_home(self, name: str, cls: type) -> str | None:
        """Why the entry of ``g`` called *name*, of class *cls*, stays home; None if it is inherited."""
        if name in catalogue.THREAD_BOUND_NAMES:
            return catalogue.THREAD_BOUND_NAMES[name]
        if not self.exclude:
            return _why_in_catalogue(cls)
        for pattern in self.exclude:
            # A key of g's __dict__ may be no text.
            if ":" not in pattern and isinstance(name, str) and fnmatchcase(name, pattern):
                return f"excluded by {pattern!r}"
        return self.why_thread_bound(cls)

    def why_thread_bound(self, cls: type) -> str | None:
        """Why values of class *cls* stay home; None if they are inherited."""
        for pattern in self.exclude:
            if ":" in pattern and any(fnmatchcase(path, pattern) for path in _class_paths(cls)):
                return f"excluded by {pattern!r}"
        return _why_in_catalogue(cls)

    def why_ignored(self, fn: object, args: tuple[t.Any, ...] = ()) -> str | None:
        """Why the callable *fn*, called with *args*, does not inherit; None if it does."""
        if type(fn) is not FunctionType:
            while isinstance(fn, functools.partial):
                args, fn = fn.args + args, fn.func
            if type(getattr(fn, "__self__", None)) is contextvars.Context:
                return "carries context variables of its own"
        module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualname, str):
            module, qualname = type(fn).__module__, type(fn).__qualname__
        if module == "asyncio.runners" and args and hasattr(args[0], "cr_code"):
            # What runs is the coroutine: asgiref's own if asgiref submits it, the user's if a user does.
            return _why_path_ignored(self.ignore, _module_of_coroutine(args[0]), args[0].__qualname__)
        return _why_path_ignored(self.ignore, module, qualname)

    def why_class_ignored(self, cls: type) -> str | None:
        """Why threads of class *cls* do not inherit; None if they do."""
        # A class that somebody has put in the place of Thread says nothing of who starts it: it may be anybody's base.
        stand_ins = {base for base in (threading.Thread, threading.Timer) if base.__module__ != "threading"}
        bases = [base for base in cls.__mro__ if base not in stand_ins]
        reasons = (_why_path_ignored(self.ignore, base.__module__, base.__qualname__) for base in bases)
        return next(filter(None, reasons), None)


Patterns: t.TypeAlias = tuple[str, ...] | list[str] | set[str] | frozenset[str]


class Options(t.TypedDict, total=False):
    """The options as keywords of `install` and `enable`: those of `Policy`, with any collection of patterns."""

    share: bool
    request: bool
    preload: bool
    exclude: Patterns
    ignore: Patterns
    contextvars: bool
    warn_after: float | None


def resolve(keywords: Mapping[str, t.Any], config: Mapping[str, t.Any], environ: Mapping[str, str]) -> Policy:
    """The policy that the three places make together. Raises `PolicyError`."""
    read = {
        ENVIRONMENT: _prefixed(environ, ENVIRONMENT),
        CONFIG: _prefixed(config, CONFIG),
        KEYWORD: {name: _parse(name, value, KEYWORD) for name, value in keywords.items()},
    }
    options: dict[str, t.Any] = {}
    sources = dict.fromkeys(OPTIONS, DEFAULT)
    for source, found in read.items():
        options |= found
        sources |= dict.fromkeys(found, source)
    policy = Policy(**options)
    object.__setattr__(policy, "_sources", sources)
    return policy


def _prefixed(mapping: Mapping[str, t.Any], source: str) -> dict[str, t.Any]:
    # A config may have keys that are no text.
    keys = [key for key in list(mapping) if isinstance(key, str) and key.startswith(PREFIX) and mapping[key] != ""]
    if source == ENVIRONMENT:
        keys = [key for key in keys if key != DUMP_SIGNAL]  # of the process, and no option
    return {(name := key.removeprefix(PREFIX).lower()): _parse(name, mapping[key], source, key) for key in keys}


def _parse(name: str, value: t.Any, source: str, shown: str | None = None) -> t.Any:
    """The value of one option as the policy holds it. A keyword is taken as it is; text is read."""
    if name not in OPTIONS:
        allowed = f"the options are {', '.join(sorted(OPTIONS))}"
    elif isinstance(OPTIONS[name], bool):
        if source != KEYWORD:
            value = WORDS.get(str(value).strip().lower(), value)
        if isinstance(value, bool):
            return value
        allowed = "allowed are True and False" if source == KEYWORD else f"allowed are {' '.join(WORDS)}"
    elif OPTIONS[name] is None:
        number = _number(value, source)
        if value is None or number is not None:
            return number
        allowed = "allowed is a number of seconds above 0" + (", or None" if source != ENVIRONMENT else "")
    else:
        if source != KEYWORD and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, (tuple, list, set, frozenset)) and all(isinstance(x, str) and x for x in value):
            return tuple(value)
        allowed = "allowed is a tuple of patterns" if source == KEYWORD else "allowed are patterns, comma separated"
    raise PolicyError(f"{shown or name}={value!r} ({source}): {allowed}.", source)


def _number(value: t.Any, source: str) -> float | None:
    """*value* as a number of seconds; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float) if source == KEYWORD else (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 and math.isfinite(number) else None


OPTIONS: dict[str, t.Any] = {field.name: field.default for field in dataclasses.fields(Policy) if field.init}
"""The defaults, by name."""
CONFIG_KEYS = tuple(f"{PREFIX}{name.upper()}" for name in OPTIONS)
"""The keys of the options in Flask's config, and in the environment."""

# By the id of a class: this is asked for each entry of g, and costs 30 ns, in a WeakKeyDictionary 250. The class is not
# kept alive (an app factory may make one anew for every app), and its id is forgotten before another can have it.
_catalogued: dict[int, tuple[str | None, weakref.ref[type]]] = {}


def _why_in_catalogue(cls: type) -> str | None:
    try:
        return _catalogued[id(cls)][0]
    except KeyError:
        known = (catalogue.THREAD_BOUND_TYPES.get(path) for path in _class_paths(cls))
        reason, key = next(filter(None, known), None), id(cls)
        _catalogued[key] = reason, weakref.ref(cls, lambda _: _catalogued.pop(key, None))
        return reason


def _class_paths(cls: type) -> Iterator[str]:
    return map(path_of_class, mro_of(cls))


@functools.lru_cache(maxsize=4096)
def _why_path_ignored(patterns: tuple[str, ...], module: str, qualname: str) -> str | None:
    names = [f"{module}:{outer}" for outer in _outwards(qualname)] + list(_outwards(module))
    for name in names:
        if reason := catalogue.IGNORED.get(name):
            return reason
        for pattern in patterns:
            if fnmatchcase(name, pattern):
                return f"ignored by {pattern!r}"
    return None


def _outwards(dotted: str) -> Iterator[str]:
    """``a.b.c``, ``a.b``, ``a``"""
    while dotted:
        yield dotted
        dotted = dotted.rpartition(".")[0]


def _module_of_coroutine(coroutine: t.Any) -> str:
    frame = coroutine.cr_frame
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))
