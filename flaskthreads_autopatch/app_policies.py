"""The policy of each app: what `install` or `enable` was given, and what the app's config says at the first capture.

Factories load their config in any order, so the config counts as it is when the first thread is started or the first
task submitted in a context of the app. From then on the policy is found in ``app.extensions``.

Nothing here takes a lock. A finalizer or a signal handler may start a thread, and so come here, while its own thread is
here or is switching (H32). Every change is a single operation on a dictionary instead. Code that has read the config
publishes the policy first, and checks afterwards that nothing was switched meanwhile.
"""

from __future__ import annotations

import copy
import logging
import os
import typing as t
import weakref

from flask import Flask

from . import own_code
from .log import log
from .names import shown, text_of
from .policy import CONFIG_KEYS, Options, Policy, resolve

EXTENSION = "flaskthreads_autopatch"
"""Under this name an app's policy stands in ``app.extensions``, from the first capture on."""


class Known(weakref.ref[Flask]):
    """An app that is installed, or that `enable` has met."""

    __slots__ = ("errors", "installed", "keywords")

    keywords: Options
    installed: bool
    errors: list[str]
    """What is wrong in its config; empty until a capture has found that. Nothing of such an app is inherited."""


class _State:
    def __init__(self) -> None:
        self.keywords: Options | None = None
        """The keywords of `enable`; None unless it is in force."""
        self.known: dict[int, Known] = {}
        """By the ``id()`` of the app: what `policy_for` asks for an app without a policy, at every call."""
        self.defaults: dict[int, tuple[Policy, tuple[object, ...], Known | None, weakref.ref[Flask]]] = {}
        """By the ``id()`` of an app without a policy: the policy that `policy_or_default` has read, and from what."""


_state = _State()


def policy_for(app: Flask) -> Policy | None:
    """Return the policy of *app*; None if nothing of it is inherited."""
    policy: Policy | None = app.extensions.get(EXTENSION)
    if policy is None and (_state.keywords is not None or id(app) in _state.known):
        return _read(app)
    return policy


def policy_or_default(app: Flask) -> Policy:
    """Return the policy of *app*, or what its config and the environment say if it has none. Raises `PolicyError`."""
    policy = policy_for(app)
    if policy is None:
        # Reading config and environment takes as long as ten app contexts. The environment is read once for each app,
        # and the config again when one of its options has changed, or a key has been added or removed.
        key, config, known = id(app), app.config, _state.known.get(id(app))
        given = len(config), *map(config.get, CONFIG_KEYS)
        kept = _state.defaults.get(key)
        if kept is not None and kept[1] == given and kept[2] is known:
            return kept[0]
        policy = resolve({} if known is None else known.keywords, config, os.environ)
        # Copies, because a list in the config may be changed in place.
        given = tuple(map(copy.copy, given))
        _state.defaults[key] = policy, given, known, weakref.ref(app, lambda _: _state.defaults.pop(key, None))
    return policy


def set_installed(app: Flask, keywords: Options) -> Known | None:
    """Note that *app* is installed, and have its config read at the next capture. Return what was known of it."""
    before = _state.known.get(id(app))
    _state.known[id(app)] = _known(app, keywords, installed=True)
    app.extensions.pop(EXTENSION, None)
    return before


def set_uninstalled(app: Flask, before: Known | None = None) -> bool:
    """Take `set_installed` back, to what it has returned. Return whether *app* was installed."""
    known = _state.known.get(id(app))
    if known is None or not known.installed:
        return False
    if before is None:
        _forget(known)
    else:
        _state.known[id(app)] = before
        app.extensions.pop(EXTENSION, None)
    return True


def set_enabled(keywords: Options | None) -> Options | None:
    """Note the *keywords* of `enable`, or None if it is not in force. Return those before.

    The config of each app that is not installed is read again at its next capture.
    """
    # First the keywords, then the apps: `_read` works in the opposite order.
    before, _state.keywords = _state.keywords, keywords
    for known in _state.known.copy().values():
        if not known.installed:
            _forget(known)
    return before


def forget_all() -> None:
    """Take `set_enabled` and each `set_installed` back."""
    set_enabled(None)
    for known in _state.known.copy().values():
        _forget(known)


def is_wanted() -> bool:
    """Return whether `enable` is in force, or an app is installed."""
    return _state.keywords is not None or any(known.installed for known in _state.known.copy().values())


def found() -> tuple[tuple[tuple[str, Policy], ...], tuple[tuple[str, str], ...]]:
    """Return name and policy of each app that is known; and, of those whose config is wrong, name and error.

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
                policy = resolve(known.keywords, app.config, os.environ)
            except Exception as error:
                errors = [text_of(error)]
        if errors:
            refused.append((app.name, errors[0]))
        else:
            policies.append((app.name, t.cast(Policy, policy)))
    # By name alone: several apps may have the same one, and a policy cannot be compared.
    return tuple(sorted(policies, key=lambda each: each[0])), tuple(sorted(refused))


def _known(app: Flask, keywords: Options, installed: bool) -> Known:
    key = id(app)
    known = Known(app, lambda _: _state.known.pop(key, None))
    known.keywords, known.installed, known.errors = keywords, installed, []
    return known


def _forget(known: Known) -> None:
    app = known()
    if app is not None and _state.known.get(id(app)) is known:
        _state.known.pop(id(app), None)
        app.extensions.pop(EXTENSION, None)


def _read(app: Flask) -> Policy | None:
    """Return the policy that the config of *app* makes now, which is its policy from now on; None if it is wrong."""
    while True:
        known = _state.known.get(id(app)) or _meet(app)
        if known is None or known.errors:
            return None
        try:
            policy = resolve(known.keywords, app.config, os.environ)
        except Exception as error:
            # Not only a `PolicyError`: what a config returns is the user's. Nothing may be raised from a start().
            _refuse(app, known, text_of(error))
            return None
        # Another thread may have been faster: its result is the same.
        policy = t.cast(Policy, app.extensions.setdefault(EXTENSION, policy))
        if _state.known.get(id(app)) is known:
            return policy
        # The library was switched meanwhile, by another thread or by a signal handler in this one.
        if app.extensions.get(EXTENSION) is policy:
            app.extensions.pop(EXTENSION, None)


def _meet(app: Flask) -> Known | None:
    """Return what is known of *app*, which `enable` meets for the first time; None if that is not in force."""
    keywords = _state.keywords
    while keywords is not None:
        known = _state.known.setdefault(id(app), _known(app, keywords, installed=False))
        if known.installed or _state.keywords is keywords:
            own_code.adopt(app.import_name)
            return known
        # enable() or disable() was called meanwhile, and may have missed this app.
        _forget(known)
        keywords = _state.keywords
    return None


def _refuse(app: Flask, known: Known, error: str) -> None:
    known.errors.append(error)
    if known.errors[0] is error:  # else another thread has said so
        log(
            logging.ERROR,
            "The threads of %s do not inherit its context: %s Correct the option, and restart or install again.",
            shown(app),
            error,
        )
