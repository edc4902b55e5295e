"""What is inherited, and by whom: the options, where they come from, and the questions they answer."""

from __future__ import annotations

import dataclasses
import math
import re
import threading
import typing as t
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from . import catalogue, own_code, who_inherits
from .by_identity import Cache, remember
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
    own: tuple[str, ...] = ()
    """More packages that count as own code: ``"acme_common"``, fnmatch patterns; ``"*"`` for all that are installed.

    A name covers its submodules. `why_thread_not_inherited` says what own code is.
    """
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

    def why_entry_not_inherited(self, name: str, cls: type) -> str | None:
        """Return why the entry of ``g`` called *name*, of class *cls*, is not inherited; None if it is."""
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
        """Return why values of class *cls* are not inherited; None if they are."""
        for pattern in self.exclude:
            if ":" in pattern and any(fnmatchcase(path, pattern) for path in _class_paths(cls)):
                return f"excluded by {pattern!r}"
        return _why_in_catalogue(cls)

    def why_task_not_inherited(self, fn: object, args: tuple[t.Any, ...] = ()) -> str | None:
        """Return why a pool's task or a callback that calls *fn* with *args* does not inherit; None if it does.

        A task inherits, whether its code is own code or not, unless *fn* carries context variables of its own, is
        named by the option ``ignore``, or is the service of a package that the catalogue lists.
        """
        return who_inherits.why_task_ignored(self.ignore, fn, args)

    def why_thread_not_inherited(self, fn_or_class: object, starter: str | None = None) -> str | None:
        """Return why a thread does not inherit the app context that is active where it is started; None if it does.

        *fn_or_class* is what runs: the thread's target, a timer's function, or a class of threads. *starter* is the
        name of the module whose code calls ``start()``; without it, only what runs counts.

        A thread inherits if own code has a hand in it, that is, if its starter is own code, or if what runs is: the
        function behind partials, bound methods and ``__wrapped__``, or the class that defines the thread's ``run()``.
        Own code is every module that belongs neither to the standard library nor to an installed distribution, and
        also the distributions that contain the app (by ``app.import_name``) and the code that calls ``install()``,
        and what the option ``own`` names. Vendored modules (``_vendor``, ``_vendored``, ``third_party``) and whatever
        lies in one folder with Flask are not, unless they are named.

        In any case a thread does not inherit that the option ``ignore`` names or the catalogue lists as a service, that
        carries context variables of its own, or that is started inside a pool's ``submit()`` or constructor: that one
        is a worker, whose tasks inherit one by one. `AppContextThread` always inherits.
        """
        is_class = issubclass(type(fn_or_class), type) and issubclass(t.cast(type, fn_or_class), threading.Thread)
        cls, fn = (t.cast(type, fn_or_class), None) if is_class else (threading.Thread, fn_or_class)
        reason = who_inherits.why_thread_ignored(self.ignore, cls, fn, ())
        if reason or who_inherits.runs_own_code(self.own, cls, fn):
            return reason
        what = who_inherits.path_of_thread(cls, fn)
        if starter is None:
            return f"{what} is not own code, so that it needs own code to start it"
        return None if own_code.is_own_module(self.own, starter) else who_inherits.no_hand(what, starter)


Patterns: t.TypeAlias = tuple[str, ...] | list[str] | set[str] | frozenset[str]


class Options(t.TypedDict, total=False):
    """The options as keywords of `install` and `enable`: those of `Policy`, with any collection of patterns."""

    share: bool
    request: bool
    preload: bool
    exclude: Patterns
    ignore: Patterns
    own: Patterns
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
        is_list = isinstance(value, (tuple, list, set, frozenset)) and all(isinstance(x, str) and x for x in value)
        if is_list and (name != "own" or all(map(_MODULE.fullmatch, value))):
            return tuple(value)
        if name == "own":
            example = "own=['acme_common']" if source == KEYWORD else f"{PREFIX}OWN=acme_common"
            raise PolicyError(
                f"own must be a list of the names of packages as they are imported, with * and ?, not {value!r} (set by"
                f" {source}). Write for example {example}.",
                source,
            )
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


_MODULE = re.compile(r"([\w.*?]|\[!?[\w-]+\])+")
"""The name of a module, or an fnmatch pattern for one; neither ``module:qualname`` nor the name of a file."""

OPTIONS: dict[str, t.Any] = {field.name: field.default for field in dataclasses.fields(Policy) if field.init}
"""The defaults, by name."""
CONFIG_KEYS = tuple(f"{PREFIX}{name.upper()}" for name in OPTIONS)
"""The keys of the options in Flask's config, and in the environment."""

_catalogued: Cache[int, str | None] = {}
"""By the id of a class: asked for each entry of ``g``. (An app factory may make a class for every app.)"""


def _why_in_catalogue(cls: type) -> str | None:
    try:
        return _catalogued[id(cls)][0]
    except KeyError:
        known = (catalogue.THREAD_BOUND_TYPES.get(path) for path in _class_paths(cls))
        return remember(_catalogued, id(cls), next(filter(None, known), None), cls)


def _class_paths(cls: type) -> Iterator[str]:
    return map(path_of_class, mro_of(cls))
