"""Enable and disable the library, for one app or for the whole process. Holds the applied patches."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import threading
import typing as t
from types import TracebackType

from flask import Flask

from . import __version__, app_policies, own_code
from .app_policies import EXTENSION as EXTENSION
from .app_policies import policy_for as policy_for
from .app_policies import policy_or_default as policy_or_default
from .environment import is_kill_switch_on, print_to_stderr
from .names import safe_repr
from .policy import Options, Policy, PolicyError, resolve
from .suppression import THREADS_INHERIT_CONTEXT
from .visibility import dump_signal, parents

if t.TYPE_CHECKING:
    from typing_extensions import Unpack

    from .patching.layers import Layers


@dataclasses.dataclass(frozen=True)
class Status:
    """What is on. Returned by `status`."""

    enabled: bool
    """Whether any patch is applied."""
    policy: Policy | None
    """The policy for apps that are not installed, before their own config; None unless `enable` was called."""
    apps: tuple[tuple[str, Policy], ...]
    """The name and the policy of each app that is installed, or that `enable` has met: names may be the same. The
    config counts as it is at the app's first capture. Until then, this is the policy that the config makes now."""
    own: tuple[str, ...]
    """The top-level packages that count as own code because they belong to an app: see `install`."""
    patch_points: dict[str, list[str]]
    """By patch point, where each layer that lies on it comes from (a module), from the outside in."""
    versions: dict[str, str]
    """Of this library, Python, Flask and wrapt."""
    gil: bool
    """Whether this Python runs one thread at a time."""
    thread_inherit_context: bool
    """Whether its threads start with their starter's context variables."""
    refused: tuple[tuple[str, str], ...]
    """Of each app whose config has a wrong option: its name, and what is wrong. Its threads inherit nothing."""
    kill_switch: bool
    """Whether ``FLASKTHREADS_AUTOPATCH=0`` in the environment has `install` and `enable` do nothing."""


class Handle:
    """What `enable` returns: ``with enable(): ...`` calls `disable` at the end."""

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, exc_type: type | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        disable()


def install(app: Flask, **options: Unpack[Options]) -> None:
    """Have every thread, timer and pool task that is started in a context of *app* inherit that context.

    The options, with their defaults:

    - ``share=False``: The thread works on the parent's own ``g``, not on a snapshot of it.
    - ``request=True``: Lend the request and the session.
    - ``preload=False``: Read the request's body before the thread starts.
    - ``exclude=()``: More entries of ``g`` that are not inherited: ``"name"`` or ``"module:Class"``, fnmatch patterns.
    - ``ignore=()``: More threads and callables that do not inherit: ``"module:qualname"`` or ``"module"``, fnmatch
      patterns.
    - ``own=()``: More packages that count as own code: ``"acme_common"``, fnmatch patterns; ``"*"`` for all that are
      installed.
    - ``contextvars=False``: Also carry a copy of all other context variables.
    - ``warn_after=None``: Log a warning for a thread that is still running this many seconds after its parent's context
      ended.

    An option that is not given is read from ``app.config`` (``FLASKTHREADS_AUTOPATCH_SHARE``), or else from the
    environment (under the same name), when the first thread is started in a context of *app*. If an option in the
    config is wrong, an error is logged then, and nothing of *app* is inherited.

    Raises `TypeError` if *app* is not a Flask app, and `PolicyError` for a wrong keyword. A wrong option in the
    environment is reported in one line on stderr. In all three cases nothing is patched. Installing again replaces the
    options, and has the config read again. *app* is held weakly. With ``FLASKTHREADS_AUTOPATCH=0`` in the environment,
    nothing happens.

    A thread inherits only if own code starts it, or runs in it: `Policy.why_thread_not_inherited` has the rule. The
    distributions that contain the module ``app.import_name``, or the module that calls this, count as own code.
    """
    app = _flask_app(app, "install")
    if _resolved(options) is None:
        return
    own_code.adopt(app.import_name)
    own_code.adopt(str(sys._getframe(1).f_globals.get("__name__")))
    _state.patches.watch_imports()
    with _state.lock:
        before = app_policies.set_installed(app, options)
        try:
            _settle()
        except BaseException:
            app_policies.set_uninstalled(app, before)
            raise


init_app = install
"""`install`, under the name that factories call which loop over extensions."""


def uninstall(app: Flask) -> None:
    """Take `install` back for *app*; nothing happens if it is not installed. Raises `TypeError` if it is no Flask app.

    While `enable` is in force, *app* falls back to that. With the last app the patches are taken out, as by `disable`.
    """
    app = _flask_app(app, "uninstall")
    with _state.lock:
        if app_policies.set_uninstalled(app):
            _settle()


def enable(**options: Unpack[Options]) -> Handle:
    """Have every thread, timer and pool task inherit the app context in which it is started, whatever the app.

    The options are those of `install`. An option that is not given is read from the config of each app, or else from
    the environment, when the first thread is started in a context of that app. If an option in the config is wrong, an
    error is logged then, and nothing of that app is inherited. An app that is installed keeps its own options.

    Raises `PolicyError` for a wrong keyword. A wrong option in the environment is reported in one line on stderr. In
    both cases nothing is patched. With ``FLASKTHREADS_AUTOPATCH=0`` in the environment, nothing happens.

    Enabling again replaces the options. The returned handle is a context manager: at its end, it calls `disable`.
    """
    resolved = _resolved(options)
    if resolved is not None:
        _state.patches.watch_imports()
        with _state.lock:
            before = app_policies.set_enabled(options), _state.policy
            _state.policy = resolved
            try:
                _settle()
            except BaseException:
                app_policies.set_enabled(before[0])
                _state.policy = before[1]
                raise
    return Handle()


def disable() -> None:
    """Revert everything: what `enable` did and every `install`. Nothing happens if all is off.

    Our layers are taken out of the patch points, in whatever order others came and went; where a foreign layer that is
    not wrapt's lies on top, ours stays below it, inert, and is taken out by the next call after that one has gone.
    Threads and tasks that inherited before keep what they have.
    """
    with _state.lock:
        _state.policy = None
        app_policies.forget_all()
        _settle()


def is_enabled() -> bool:
    """Whether the patches are applied."""
    return _state.has_patches() and _state.patches.applied


def status() -> Status:
    """What is on, and what lies on each patch point."""
    patches = _state.patches
    with _state.lock:
        apps, refused = app_policies.found()
        return Status(
            enabled=patches.applied,
            policy=_state.policy,
            apps=apps,
            own=own_code.adopted(),
            patch_points=patches.describe(),
            versions={
                "flaskthreads_autopatch": __version__,
                "python": platform.python_version(),
                **{name: _version(name) for name in ("flask", "wrapt")},
            },
            gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
            thread_inherit_context=THREADS_INHERIT_CONTEXT,
            refused=refused,
            kill_switch=is_kill_switch_on(),
        )


def _settle() -> None:
    """Apply the patches if they are wanted, else revert them. Called with the lock held.

    A signal handler or a finalizer may switch while its own thread is in here. Its call then only notes that there is
    more to do, which the interrupted call does (H32).
    """
    _state.is_settled = False
    while not (_state.is_settled or _state.is_settling):
        _state.is_settling = True
        try:
            _state.is_settled = True
            if app_policies.is_wanted():
                _state.patches.apply()
                dump_signal.install()
            elif _state.has_patches():
                _state.patches.revert()
                own_code.forget_adopted()
                dump_signal.uninstall()
                parents.stop_watching()
        finally:
            _state.is_settling = False


def _resolved(keywords: Options) -> Policy | None:
    """Return the policy that *keywords* and the environment make; None if the environment keeps the library off."""
    resolve(keywords, {}, {})  # A wrong keyword is the program's mistake: it is raised whatever the environment says.
    if is_kill_switch_on():
        return None
    try:
        return resolve(keywords, {}, os.environ)
    except PolicyError as error:
        # A typo in the environment must not take a process down.
        print_to_stderr(f"{error} Nothing is patched.")
        return None


def _flask_app(app: Flask, called: str) -> Flask:
    found: object = real(app)
    if not isinstance(found, Flask):
        raise TypeError(
            f"{called}() takes the Flask app itself, not {safe_repr(found)}. Call it where the app is made."
        )
    return found


def _version(name: str) -> str:
    from importlib import metadata  # 80 ms

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"  # bundled without its metadata


def real(app: Flask) -> Flask:
    """*app* itself, where it may be the proxy `current_app`."""
    get = getattr(app, "_get_current_object", None)
    return app if get is None else t.cast(Flask, get())


class _State:
    patches: Layers

    def __init__(self) -> None:
        self.policy: Policy | None = None
        """What the keywords of `enable` and the environment make; None unless it is in force."""
        self.is_settling = False
        self.is_settled = True
        self.renew_lock()

    def renew_lock(self) -> None:
        self.lock = threading.RLock()
        if self.has_patches():
            self.patches.lock = self.lock

    def has_patches(self) -> bool:
        return "patches" in vars(self)

    def __getattr__(self, name: str) -> Layers:
        # Made when they are first asked for, because they import wrapt. With the kill switch nobody asks, in case the
        # fault lies there.
        if name != "patches":
            raise AttributeError(name)
        from .patching.layers import Layers
        from .patching.points import LATE_POINTS, POINTS

        made = Layers(POINTS, LATE_POINTS, policy_for, self.lock)
        # Another thread, or a signal handler in this one, may have been faster.
        return t.cast("Layers", vars(self).setdefault("patches", made))


_state = _State()
if hasattr(os, "register_at_fork"):
    # Another thread may be switching, and does not exist in the child: the fork waits until it is done.
    os.register_at_fork(
        before=lambda: _state.lock.acquire(),
        after_in_parent=lambda: _state.lock.release(),
        after_in_child=_state.renew_lock,
    )
