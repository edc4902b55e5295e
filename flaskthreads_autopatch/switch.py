"""On and off. The only mutable state of the library lives here: which apps, which policy, the patches."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import sys
import threading
import typing as t
import weakref
from importlib import metadata
from types import TracebackType

from flask import Flask

from . import __version__
from .environment import say
from .layers import Layers
from .log import log
from .points import LATE_POINTS, POINTS
from .policy import ENVIRONMENT, Policy, PolicyError, resolve
from .suppression import THREADS_INHERIT_CONTEXT
from .visibility import dump_signal, parents

EXTENSION = "flaskthreads_autopatch"
"""Under this name an app's policy stands in ``app.extensions``."""


@dataclasses.dataclass(frozen=True)
class Status:
    """What is on. Returned by `status`."""

    enabled: bool
    """Whether any patch is applied."""
    policy: Policy | None
    """The policy for apps that are not installed, before their own config; None unless `enable` was called."""
    apps: tuple[tuple[str, Policy], ...]
    """The name and the policy of each app that is installed, or that `enable` has met: names may be the same."""
    patch_points: dict[str, list[str]]
    """By patch point, where each layer that lies on it comes from (a module), from the outside in."""
    versions: dict[str, str]
    """Of this library, Python, Flask and wrapt."""
    gil: bool
    """Whether this Python runs one thread at a time."""
    thread_inherit_context: bool
    """Whether its threads start with their starter's context variables."""


class Handle:
    """What `enable` returns: ``with enable(): ...`` calls `disable` at the end."""

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, exc_type: type | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        disable()


def install(app: Flask, **policy: t.Any) -> None:
    """Have every thread, timer and pool task that is started in a context of *app* inherit that context.

    *policy*: the options of `Policy`; what is not given is read from ``app.config`` and from the environment, now.
    Raises `PolicyError` for a wrong option, and patches nothing; a wrong option in the environment is one line on
    stderr instead, and nothing is patched. Installing again replaces the policy. *app* is held weakly.
    """
    app = real(app)
    resolved = _resolve_or_say(policy, app.config)
    if resolved is None:
        return
    with _state.lock:
        _state.patches.apply()
        dump_signal.install()
        app.extensions[EXTENSION] = resolved
        _state.apps.add(app)
        _state.installed.add(app)


def uninstall(app: Flask) -> None:
    """Take `install` back for *app*; nothing happens if it is not installed.

    While `enable` is in force, *app* falls back to that. With the last app the patches are taken out, as by `disable`.
    """
    app = real(app)
    with _state.lock:
        if app in _state.installed:
            _state.installed.discard(app)
            _forget(app)
            if not _state.installed and _state.keywords is None:
                _revert()


def enable(**policy: t.Any) -> Handle:
    """Have every thread, timer and pool task inherit the app context in which it is started, whatever the app.

    *policy*: the options of `Policy`; what is not given is read from the environment, and from each app's config
    when the first thread is started in a context of it. An app that is installed keeps its own policy. Raises
    `PolicyError` for a wrong keyword, and patches nothing; a wrong option in the environment is one line on stderr,
    and nothing is patched; a wrong one in an app's config is logged, and that app is left alone.

    Enabling again replaces the policy. The handle can be used as a context manager, which disables at the end.
    """
    resolved = _resolve_or_say(policy, {})
    if resolved is not None:
        with _state.lock:
            _state.patches.apply()
            dump_signal.install()
            _state.keywords, _state.policy = policy, resolved
            _state.refused.clear()
            for app in _state.apps - _state.installed:
                _forget(app)
    return Handle()


def disable() -> None:
    """Revert everything: what `enable` did and every `install`. Nothing happens if all is off.

    Our layers are taken out of the patch points, in whatever order others came and went; where a foreign layer that is
    not wrapt's lies on top, ours stays below it, inert, and is taken out by the next call after that one has gone.
    Threads and tasks that inherited before keep what they have.
    """
    with _state.lock:
        _state.keywords = _state.policy = None
        _state.installed.clear()
        for app in list(_state.apps):
            _forget(app)
        _revert()


def is_enabled() -> bool:
    """Whether the patches are applied."""
    return _state.patches.applied


def status() -> Status:
    """What is on, and what lies on each patch point."""
    with _state.lock:
        return Status(
            enabled=_state.patches.applied,
            policy=_state.policy,
            apps=tuple((app.name, app.extensions[EXTENSION]) for app in sorted(_state.apps, key=lambda app: app.name)),
            patch_points=_state.patches.describe(),
            versions={
                "flaskthreads_autopatch": __version__,
                "python": platform.python_version(),
                **{name: _version(name) for name in ("flask", "wrapt")},
            },
            gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
            thread_inherit_context=THREADS_INHERIT_CONTEXT,
        )


def policy_for(app: Flask) -> Policy | None:
    """The policy of *app*; None if nothing of it is inherited."""
    policy: Policy | None = app.extensions.get(EXTENSION)
    if policy is None and _state.keywords is not None:
        return _adopt(app)
    return policy


def policy_or_default(app: Flask) -> Policy:
    """The policy of *app*, or what its config and the environment say if it has none. Raises `PolicyError`."""
    return policy_for(app) or resolve({}, app.config, os.environ)


def _adopt(app: Flask) -> Policy | None:
    """The policy of an app that is met for the first time since `enable`."""
    with _state.lock:
        if _state.keywords is None or app in _state.refused:
            return None
        try:
            policy = app.extensions[EXTENSION] = resolve(_state.keywords, app.config, os.environ)
        except PolicyError:
            _state.refused.add(app)
            log(logging.ERROR, "The threads of %r do not inherit its context.", app, exc_info=True)
            return None
        _state.apps.add(app)
        return policy


def _revert() -> None:
    _state.patches.revert()
    dump_signal.uninstall()
    parents.stop_watching()


def _forget(app: Flask) -> None:
    app.extensions.pop(EXTENSION, None)
    _state.apps.discard(app)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"  # bundled without its metadata


def real(app: Flask) -> Flask:
    """*app* itself, where it may be the proxy `current_app`."""
    get = getattr(app, "_get_current_object", None)
    return app if get is None else t.cast(Flask, get())


def _resolve_or_say(keywords: dict[str, t.Any], config: t.Mapping[str, t.Any]) -> Policy | None:
    try:
        return resolve(keywords, config, os.environ)
    except PolicyError as error:
        if error.source != ENVIRONMENT:
            raise
        # A typo in the environment must not take a process down.
        say(f"{error} Nothing is patched.")
        return None


class _State:
    def __init__(self) -> None:
        self.patches = Layers(POINTS, LATE_POINTS, policy_for)
        self.keywords: dict[str, t.Any] | None = None
        """What `enable` was called with; None unless it is in force."""
        self.policy: Policy | None = None
        """What that makes, with the environment."""
        self.apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        """The apps that have a policy: installed ones, and those met since `enable`."""
        self.installed: weakref.WeakSet[Flask] = weakref.WeakSet()
        self.refused: weakref.WeakSet[Flask] = weakref.WeakSet()
        """Apps met since `enable` whose config has a wrong option."""
        self.renew_lock()

    def renew_lock(self) -> None:
        self.lock = self.patches.lock = threading.RLock()


_state = _State()
if hasattr(os, "register_at_fork"):
    # Another thread may be switching, and does not exist in the child: the fork waits until it is done.
    os.register_at_fork(
        before=lambda: _state.lock.acquire(),
        after_in_parent=lambda: _state.lock.release(),
        after_in_child=_state.renew_lock,
    )
