"""The options: where they are read, what is allowed, and which values, threads and tasks they exclude."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import threading
import typing as t
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from . import catalogue, own_code, who_inherits
from .by_identity import Cache, remember
from .environment import AUDIT_FOLDER_VARIABLE, BOOLEAN_WORDS, DUMP_SIGNAL_VARIABLE, VARIABLE, one_of
from .names import mro_of, path_of_class, safe_repr

PREFIX = f"{VARIABLE}_"
"""The name of an option in Flask's config and in the environment is this, and then the option in capitals."""

PROVIDE = "provide"
"""The option that only an installed app can have."""
PROVIDE_KEY = f"{PREFIX}{PROVIDE.upper()}"

KEYWORD, CONFIG, ENVIRONMENT, DEFAULT = "keyword", "Flask config", "environment", "default"
_WHERE_SET = {KEYWORD: "by keyword", CONFIG: "in the Flask config", ENVIRONMENT: "in the environment"}


class PolicyError(ValueError):
    """A wrong option. The message names the option or the variable, what is allowed, the value, and where it was set.

    ``source`` is where the option was read: ``"keyword"``, ``"Flask config"`` or ``"environment"``.
    """

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """The options of one app, or of the process.

    An option is read from the first of these places in which it is set: a keyword of `install` or `enable`, Flask's
    config (``FLASKTHREADS_AUTOPATCH_SHARE``), the environment (under the same name). Raises `PolicyError`.
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
    provide: tuple[str, ...] = ()
    """Threads and callables that get an app context of the app where none is active: ``"module:qualname"`` or
    ``"module"``, fnmatch patterns.

    Only a keyword of `install` and the config of an installed app can set it.
    """
    contextvars: bool = False
    """Also carry a copy of all other context variables."""
    origins: bool = False
    """Record where each thread and task was started."""
    warn_after: float | None = None
    """Log a warning for a thread that is still running this many seconds after its parent's context ended."""

    _sources: Mapping[str, str] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for option in DEFAULTS:
            object.__setattr__(self, option, _parse(option, getattr(self, option), KEYWORD))

    def source(self, option: str) -> str | None:
        """Return where *option* was read, as in `PolicyError`, or ``"default"``; None if nothing was read."""
        return self._sources.get(option)

    def why_entry_not_inherited(self, name: str, cls: type) -> str | None:
        """Return why the entry of ``g`` called *name*, of class *cls*, is not inherited; None if it is."""
        if name in catalogue.THREAD_BOUND_NAMES:
            return catalogue.THREAD_BOUND_NAMES[name]
        if not self.exclude:
            return _why_in_catalogue(cls)
        for pattern in self.exclude:
            # The __dict__ of g may have keys that are not strings.
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

        *fn_or_class* is the thread's target, a timer's function, or a class of threads. *starter* is the name of the
        module whose code calls ``start()``; without it, only the code that the thread runs counts.

        A thread inherits if own code has a hand in it: if its starter is own code, or if the code that it runs is. The
        code that it runs is the function behind partials, bound methods and ``__wrapped__``, or the class that defines
        its ``run()``. Own code is every module that belongs neither to the standard library nor to an installed
        distribution. The distributions that contain the app (by ``app.import_name``) and the code that calls
        ``install()`` are own code too, and so are the packages that the option ``own`` names. Vendored modules
        (``_vendor``, ``_vendored``, ``third_party``) and modules in one folder with Flask are not, unless ``own`` names
        them.

        Some threads do not inherit in any case: a thread that the option ``ignore`` names or that the catalogue lists
        as a service, a thread that carries context variables of its own, and a thread that is started inside a pool's
        ``submit()`` or constructor, because it is a worker, whose tasks inherit one by one. `AppContextThread` always
        inherits.
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
    """The options as keywords of `enable`: those of `Policy`, with any collection of patterns."""

    share: bool
    request: bool
    preload: bool
    exclude: Patterns
    ignore: Patterns
    own: Patterns
    contextvars: bool
    origins: bool
    warn_after: float | None


class AppOptions(Options, total=False):
    """The options as keywords of `install`, which has one that `enable` has not."""

    provide: Patterns


def resolve(keywords: Mapping[str, t.Any], config: Mapping[str, t.Any], environ: Mapping[str, str]) -> Policy:
    """Return the policy that keywords, config and environment make together. Raises `PolicyError`."""
    by_source = {
        ENVIRONMENT: _read_options(environ, ENVIRONMENT),
        CONFIG: _read_options(config, CONFIG),
        KEYWORD: {option: _parse(option, value, KEYWORD) for option, value in keywords.items()},
    }
    options: dict[str, t.Any] = {}
    sources = dict.fromkeys(DEFAULTS, DEFAULT)
    for source, values in by_source.items():
        options |= values
        sources |= dict.fromkeys(values, source)
    policy = Policy(**options)
    object.__setattr__(policy, "_sources", sources)
    return policy


def _read_options(mapping: Mapping[str, t.Any], source: str) -> dict[str, t.Any]:
    # A config may have keys that are not strings.
    keys = [key for key in list(mapping) if isinstance(key, str) and key.startswith(PREFIX) and mapping[key] != ""]
    if source == ENVIRONMENT:
        # These are read elsewhere, and are not options.
        keys = [key for key in keys if key not in (AUDIT_FOLDER_VARIABLE, DUMP_SIGNAL_VARIABLE)]
    return {(option := key.removeprefix(PREFIX).lower()): _parse(option, mapping[key], source, key) for key in keys}


def _nearest(option: str, key: str | None) -> str:
    found = difflib.get_close_matches(option, DEFAULTS, 1)
    return f" Did you mean {PREFIX + found[0].upper() if key else found[0]}?" if found else ""


def _parse(option: str, given: t.Any, source: str, key: str | None = None) -> t.Any:
    """Return what the policy stores for the *given* value of *option*. Raises `PolicyError`.

    Text in the config and in the environment is converted. *key* is the name of the option there.
    """
    if option not in DEFAULTS:
        raise PolicyError(
            f"{key or option} is not an option (set to {safe_repr(given)} {_WHERE_SET[source]})."
            f"{_nearest(option, key)} The options are {', '.join(sorted(DEFAULTS))}.",
            source,
        )
    if option == PROVIDE and source == ENVIRONMENT:
        raise PolicyError(
            f"{key} cannot be set in the environment, because it is about one app: pass provide= to install(app), or"
            f" set it in the config of an installed app (set to {safe_repr(given)} in the environment).",
            source,
        )
    is_text = source != KEYWORD and isinstance(given, str)
    if isinstance(DEFAULTS[option], bool):
        value = given if source == KEYWORD else BOOLEAN_WORDS.get(str(given).strip().lower(), given)
        if isinstance(value, bool):
            return value
        allowed = _BOOLEANS[source]
    elif DEFAULTS[option] is None:
        seconds = _seconds(given, is_text)
        if given is None or seconds is not None:
            return seconds
        allowed = "a number of seconds above 0" + (" or None" if source != ENVIRONMENT else "")
    else:
        patterns = [part.strip() for part in given.split(",") if part.strip()] if is_text else given
        description, regex, examples = _PATTERNS[option]
        if isinstance(patterns, (tuple, list, set, frozenset)) and all(
            isinstance(pattern, str) and regex.fullmatch(pattern) for pattern in patterns
        ):
            return tuple(patterns)
        if source == KEYWORD:
            allowed = f"a list or tuple of {description} (such as {examples})"
        else:
            allowed = f"{description} with commas between them (such as {', '.join(examples)})"
    raise PolicyError(f"{key or option} must be {allowed}, not {safe_repr(given)} (set {_WHERE_SET[source]}).", source)


def provide_in_config(given: object) -> tuple[str, ...]:
    """Return what the option ``provide`` is if Flask's config has *given*. Raises `PolicyError`."""
    # An empty text counts as not set.
    return () if given == "" else t.cast("tuple[str, ...]", _parse(PROVIDE, given, CONFIG, PROVIDE_KEY))


def _seconds(given: t.Any, is_text: bool) -> float | None:
    """Return *given* as a number of seconds above 0; None if it is not such a number."""
    if isinstance(given, bool) or not (is_text or isinstance(given, (int, float))):
        return None
    try:
        seconds = float(given)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 and math.isfinite(seconds) else None


DEFAULTS: dict[str, t.Any] = {field.name: field.default for field in dataclasses.fields(Policy) if field.init}
"""The default of each option."""

CONFIG_KEYS = tuple(f"{PREFIX}{option.upper()}" for option in DEFAULTS)
"""The name of each option in Flask's config, and in the environment."""

_BOOLEANS = {
    KEYWORD: "True or False",
    CONFIG: one_of(["True", "False", *BOOLEAN_WORDS]),
    ENVIRONMENT: one_of([*BOOLEAN_WORDS]),
}
"""The allowed values of an option that is True or False."""

_ANY_TEXT = re.compile(r"(?s).+")
_PACKAGE = re.compile(r"([\w.*?]|\[!?[\w-]+\])+")  # Neither ``module:qualname`` nor the name of a file.
_PATTERNS = {
    "exclude": ("patterns", _ANY_TEXT, ["token", "shop.models:Cart"]),
    "ignore": ("patterns", _ANY_TEXT, ["shop.monitor", "shop.jobs:Watch"]),
    "provide": ("patterns", _ANY_TEXT, ["shop.jobs", "apscheduler.executors.base:run_job"]),
    "own": ("import names of packages", _PACKAGE, ["acme_common", "acme_*"]),
}
"""For each option that is a list of patterns: a description, what each pattern must match, and examples."""

_thread_bound_reasons: Cache[int, str | None] = {}
"""The reasons that the catalogue has for classes, by their ``id()``. They are looked up for each entry of ``g``."""


def _why_in_catalogue(cls: type) -> str | None:
    try:
        return _thread_bound_reasons[id(cls)][0]
    except KeyError:
        reasons = (catalogue.THREAD_BOUND_TYPES.get(path) for path in _class_paths(cls))
        return remember(_thread_bound_reasons, id(cls), next(filter(None, reasons), None), cls)


def _class_paths(cls: type) -> Iterator[str]:
    return map(path_of_class, mro_of(cls))
