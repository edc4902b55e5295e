"""The policy of each app, made of the keywords of `install` or `enable`, the app's config, and the environment.

Factories load their config in any order, so the config counts as it is when the first thread is started or the first
task submitted in a context of the app. From then on the policy is stored in ``app.extensions``.

Nothing here takes a lock. A finalizer or a signal handler may start a thread, and so call this module, while its own
thread is in this module or in `switch` (H32). Each change is therefore a single operation on a dictionary. Code that
reads a config stores the policy first, and then checks that the library was not switched meanwhile.
"""

from __future__ import annotations

import copy
import logging
import os
import typing as t
import weakref

from flask import Flask

from . import flask_context, own_code
from .by_identity import EXHAUSTED
from .log import log
from .names import safe_repr, text_of
from .policy import (
    CONFIG,
    CONFIG_KEYS,
    PROVIDE,
    PROVIDE_KEY,
    AppOptions,
    Options,
    Policy,
    PolicyError,
    provide_in_config,
    resolve,
)

EXTENSION = "flaskthreads_autopatch"
"""The key in ``app.extensions`` under which the policy of an app is stored, from the first capture on."""


class KnownApp(weakref.ref[Flask]):
    """An app that is installed, or that `enable` has met."""

    __slots__ = ("errors", "installed", "keywords")

    keywords: AppOptions
    installed: bool
    errors: list[str]
    """The error in the config of the app; empty until a capture has found one. Nothing of such an app is inherited."""


class _State:
    def __init__(self) -> None:
        self.keywords: Options | None = None
        """The keywords of `enable`; None unless `enable` is in force."""
        self.known: dict[int, KnownApp] = {}
        """Each known app, by its ``id()``. `policy_for` looks here at each call for an app without a stored policy."""
        self.defaults: dict[int, tuple[Policy, int, tuple[object, ...], KnownApp | None, weakref.ref[Flask]]] = {}
        """The policy that `policy_or_default` has read for an app without one, and from what; by the app's ``id()``."""


_state = _State()

providers: dict[int, t.Callable[[], Flask | None]] = {}
"""The installed apps that may have the option ``provide``, as a `KnownApp` by its ``id()``: those that have it, and
those whose config is not settled yet. The patch points look here where no app context is active: it is nearly always
empty.
"""

_ASKED_ALWAYS = 0
"""The key, in `providers`, of an entry that stands for no app."""


def ask_always(always: bool) -> None:
    """Have the patch points do their work where no app context is active, even if no app provides one there."""
    if always:
        providers[_ASKED_ALWAYS] = lambda: None
    else:
        providers.pop(_ASKED_ALWAYS, None)


def policy_for(app: Flask) -> Policy | None:
    """Return the policy of *app*; None if nothing of it is inherited."""
    policy: Policy | None = app.extensions.get(EXTENSION)
    if policy is None and (_state.keywords is not None or id(app) in _state.known):
        return _read(app)
    return policy


def policy_or_default(app: Flask) -> Policy:
    """Return the policy of *app*; if it has none, the one that its config and the environment make.

    Raises `PolicyError`.
    """
    key = id(app)
    known = _state.known.get(key)
    if (known is not None or _state.keywords is not None) and (policy := policy_for(app)) is not None:
        return policy
    # Reading config and environment takes as long as ten app contexts. So the environment is read once for each app,
    # and the config again only when one of its options has changed, or a key has been added or removed.
    config = app.config
    count = len(config)
    given = () if config.keys().isdisjoint(CONFIG_KEYS) else tuple(map(config.get, CONFIG_KEYS))
    kept = _state.defaults.get(key)
    if kept is not None and kept[1] == count and kept[2] == given and kept[3] is known:
        return kept[0]
    policy = resolve({} if known is None else known.keywords, config, os.environ)
    # A list in the config may be changed in place, so copies are kept.
    given = tuple(map(copy.copy, given))
    _state.defaults[key] = policy, count, given, known, weakref.ref(app, lambda _: _state.defaults.pop(key, None))
    return policy


def set_installed(app: Flask, keywords: AppOptions) -> KnownApp | None:
    """Note that *app* is installed, so that its next capture reads its config. Return the previous note, or None."""
    before = _state.known.get(id(app))
    _know(app, _new_known_app(app, keywords, installed=True), before)
    return before


def set_uninstalled(app: Flask, before: KnownApp | None = None) -> bool:
    """Undo `set_installed`: restore *before*, which it returned. Return whether *app* was installed."""
    known = _state.known.get(id(app))
    if known is None or not known.installed:
        return False
    if before is None:
        _forget(known)
    else:
        _know(app, before, known)
    return True


def set_enabled(keywords: Options | None) -> Options | None:
    """Note the *keywords* of `enable`, or None if it is no longer in force. Return the previous ones.

    The config of each app that is not installed is read again at its next capture.
    """
    # Set the keywords first, then forget the apps. `_meet` adds the app first, then looks at the keywords.
    before, _state.keywords = _state.keywords, keywords
    for known in _state.known.copy().values():
        if not known.installed:
            _forget(known)
    return before


def forget_all() -> None:
    """Undo `set_enabled` and each `set_installed`."""
    set_enabled(None)
    for known in _state.known.copy().values():
        _forget(known)


def is_wanted() -> bool:
    """Return whether `enable` is in force, or an app is installed."""
    return _state.keywords is not None or any(known.installed for known in _state.known.copy().values())


def provide_of(app: Flask, known: KnownApp) -> tuple[str, ...]:
    """Return the option ``provide`` of *app*, one of `providers`, as its keyword or its config has it now.

    The config is only looked at, not settled. Once the app has served a request without it, it is not looked at again
    before a capture settles it. Raises `PolicyError`.
    """
    policy: Policy | None = app.extensions.get(EXTENSION)
    if policy is not None:
        return policy.provide
    if PROVIDE in known.keywords:
        if not (patterns := tuple(known.keywords["provide"])):
            providers.pop(id(known), None)
        return patterns
    if known.errors or (given := app.config.get(PROVIDE_KEY)) is None:
        if known.errors or flask_context.has_served(app):
            providers.pop(id(known), None)
        return ()
    return provide_in_config(given)


def describe() -> tuple[tuple[tuple[str, Policy], ...], tuple[tuple[str, str], ...]]:
    """Return name and policy of each known app; and name and error of each one whose config is wrong.

    An app in whose context nothing has been captured yet has the policy that its config makes now.
    """
    policies: list[tuple[str, Policy]] = []
    refused: list[tuple[str, str]] = []
    for known in _state.known.copy().values():
        app = known()
        if app is None:
            continue
        policy, errors = app.extensions.get(EXTENSION), known.errors[:1]
        if policy is None and not errors:
            try:
                policy = _resolve(app, known)
            except Exception as error:
                errors = [text_of(error)]
        if errors:
            refused.append((app.name, errors[0]))
        else:
            policies.append((app.name, t.cast(Policy, policy)))
    # Sort by the name alone, because several apps may have the same name, and policies cannot be compared.
    return tuple(sorted(policies, key=lambda each: each[0])), tuple(sorted(refused))


def _know(app: Flask, known: KnownApp, before: KnownApp | None) -> None:
    """Replace the note *before* by *known*, and have the config of *app* read again."""
    _state.known[id(app)] = known
    if before is not None:
        providers.pop(id(before), None)
    if known.installed:
        providers[id(known)] = known
    app.extensions.pop(EXTENSION, None)


def _new_known_app(app: Flask, keywords: AppOptions, installed: bool) -> KnownApp:
    key = id(app)

    def forget(known: KnownApp) -> None:
        _state.known.pop(key, None)
        providers.pop(id(known), None)

    known = KnownApp(app, forget)
    known.keywords, known.installed, known.errors = keywords, installed, []
    return known


def _forget(known: KnownApp) -> None:
    app = known()
    if app is not None and _state.known.get(id(app)) is known:
        _state.known.pop(id(app), None)
        providers.pop(id(known), None)
        app.extensions.pop(EXTENSION, None)


def _read(app: Flask) -> Policy | None:
    """Read the config of *app*. Return the policy that it makes, from now on the app's; None if the config is wrong."""
    while True:
        known = _state.known.get(id(app)) or _meet(app)
        if known is None or known.errors:
            return None
        try:
            policy = _resolve(app, known)
        except Exception:
            # Any error is caught, not only a `PolicyError`, because the config may hold any objects of the application.
            # It is not raised, because it would come out of a start().
            try:
                policy = _resolve(app, known)  # The error may have been an asynchronous exception (H41).
            except EXHAUSTED as error:
                log(logging.ERROR, "The config of %s could not be read: %s", safe_repr(app), text_of(error))
                return None  # It is read again at the next start (H42).
            except Exception as error:
                _refuse(app, known, text_of(error))
                return None
        # If another thread was faster, use its policy, which is equal.
        policy = t.cast(Policy, app.extensions.setdefault(EXTENSION, policy))
        if policy.provide:
            providers[id(known)] = known
        else:
            providers.pop(id(known), None)
        if _state.known.get(id(app)) is known:
            return policy
        # Another thread, or a signal handler in this one, has switched the library meanwhile. Read the config again.
        providers.pop(id(known), None)
        if app.extensions.get(EXTENSION) is policy:
            app.extensions.pop(EXTENSION, None)


def _resolve(app: Flask, known: KnownApp) -> Policy:
    policy = resolve(known.keywords, app.config, os.environ)
    if policy.provide and not known.installed:
        raise PolicyError(
            f"{PROVIDE_KEY} needs install(app), because enable() does not know an app before its first context"
            f" (set to {safe_repr(app.config[PROVIDE_KEY])} in the Flask config).",
            CONFIG,
        )
    return policy


def _meet(app: Flask) -> KnownApp | None:
    """Note that `enable` applies to *app*, and return the note; None if `enable` is not in force."""
    keywords = _state.keywords
    while keywords is not None:
        known = _state.known.setdefault(id(app), _new_known_app(app, t.cast(AppOptions, keywords), installed=False))
        if known.installed or _state.keywords is keywords:
            own_code.adopt(app.import_name)
            return known
        # enable() or disable() was called meanwhile, and may not have seen this app.
        _forget(known)
        keywords = _state.keywords
    return None


def _refuse(app: Flask, known: KnownApp, error: str) -> None:
    known.errors.append(error)
    if known.errors[0] is error:  # Otherwise another thread has logged it.
        log(
            logging.ERROR,
            "The threads of %s do not inherit its context: %s Correct the option, and restart or install again.",
            safe_repr(app),
            error,
        )
