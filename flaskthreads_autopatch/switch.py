"""Enable and disable the library, for one app or for the whole process. Holds the applied patches."""

from __future__ import annotations

import os
import platform
import sys
import threading
import typing as t
from types import TracebackType

from flask import Flask

from . import app_policies, own_code, provide
from .app_policies import EXTENSION as EXTENSION
from .app_policies import policy_for as policy_for
from .app_policies import policy_or_default as policy_or_default
from .audit import recorder
from .distributions import version_of
from .environment import audit_folder, is_kill_switch_on, is_observing_by_environment, print_to_stderr
from .names import safe_repr
from .policy import KEYWORD, AppOptions, Options, Policy, PolicyError, resolve
from .process_status import Status
from .suppression import THREADS_INHERIT_CONTEXT
from .visibility import dump_signal, parents

if t.TYPE_CHECKING:
    from typing_extensions import Unpack

    from .patching.layers import Layers


class Handle:
    """A context manager, returned by `enable`, that calls `disable` at its end."""

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, exc_type: type | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        disable()


def install(app: Flask, **options: Unpack[AppOptions]) -> None:
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
    - ``provide=()``: Threads and callables that get an app context of the app where none is
      active: ``"module:qualname"`` or ``"module"``, fnmatch patterns.
    - ``contextvars=False``: Also carry a copy of all other context variables.
    - ``origins=False``: Record where each thread and task was started.
    - ``warn_after=None``: Log a warning for a thread that is still running this many seconds after its parent's context
      ended.

    An option that is not given is read from ``app.config`` (``FLASKTHREADS_AUTOPATCH_SHARE``), or else from the
    environment (under the same name), when the first thread is started in a context of *app*. If an option in the
    config is wrong, an error is logged then, and nothing of *app* is inherited.

    Raises `TypeError` if *app* is not a Flask app, and `PolicyError` for a wrong keyword, such as a pattern of
    ``provide`` that another installed app has too. A wrong option in the
    environment is reported in one line on stderr. In all three cases nothing is patched. Installing again replaces the
    options, and has the config read again. *app* is held weakly. With ``FLASKTHREADS_AUTOPATCH=0`` in the environment,
    nothing happens.

    A thread inherits only if own code starts it, or runs in it: `Policy.why_thread_not_inherited` has the rule. The
    distributions that contain the module ``app.import_name``, or the module that calls this, count as own code.
    """
    app = _flask_app(app, "install")
    if _resolve_if_allowed(options) is None:
        return
    provide.check_install(app, options)
    own_code.adopt(app.import_name)
    own_code.adopt(str(sys._getframe(1).f_globals.get("__name__")))
    _state.patches.watch_imports()
    with _state.lock:
        before = app_policies.set_installed(app, options)
        try:
            _update_patches()
        except BaseException:
            app_policies.set_uninstalled(app, before)
            raise


init_app = install
"""`install` under the name that Flask's extensions use, for factories that call it for each extension in a list."""


def uninstall(app: Flask) -> None:
    """Undo `install` for *app*. Nothing happens if it is not installed. Raises `TypeError` if it is not a Flask app.

    If `enable` is in force, its options apply to *app* from now on. Otherwise, the patches are removed with the last
    app, as by `disable`.
    """
    app = _flask_app(app, "uninstall")
    with _state.lock:
        if app_policies.set_uninstalled(app):
            _update_patches()


def enable(*, observe: bool = False, **options: Unpack[Options]) -> Handle:
    """Have every thread, timer and pool task inherit the app context in which it is started, whatever the app.

    With ``observe=True``, or ``FLASKTHREADS_AUTOPATCH=observe`` in the environment, nothing is inherited, by installed
    apps neither. Instead, `observed` returns what would be inherited at each place that starts a thread or task, and
    what happened to it.

    The options are those of `install`, without ``provide``, which is about one app. An option that is not given is read
    from the config of each app, or else from the environment, when the first thread is started in a context of that
    app. If an option in the config is wrong, an error is logged then, and nothing of that app is inherited. An app that
    is installed keeps its own options.

    Raises `PolicyError` for a wrong keyword. A wrong option in the environment is reported in one line on stderr. In
    both cases nothing is patched. With ``FLASKTHREADS_AUTOPATCH=0`` in the environment, nothing happens.

    Enabling again replaces the options. The returned handle is a context manager: at its end, it calls `disable`.
    """
    if not isinstance(observe, bool):
        raise PolicyError(f"observe must be True or False, not {safe_repr(observe)} (set by keyword).", KEYWORD)
    provide.check_enable(options)
    resolved = _resolve_if_allowed(t.cast(AppOptions, options))
    if resolved is not None:
        _state.patches.watch_imports()
        with _state.lock:
            before = app_policies.set_enabled(options), _state.policy, _state.observes
            _state.policy, _state.observes = resolved, observe
            try:
                _update_patches()
            except BaseException:
                app_policies.set_enabled(before[0])
                _state.policy, _state.observes = before[1:]
                raise
    return Handle()


def disable() -> None:
    """Undo `enable` and every `install`, and remove the patches. Nothing happens if the library is not enabled.

    Exactly our layers are removed from the patch points, in whatever order other packages have patched them. If a layer
    that was not made with wrapt wraps ours, ours stays and does nothing. The next call removes it, once the other layer
    is gone. Threads and tasks that have inherited a context keep it.
    """
    with _state.lock:
        _state.policy, _state.observes = None, False
        app_policies.forget_all()
        _update_patches()


def is_enabled() -> bool:
    """Return whether the patches are applied."""
    return _state.has_patches() and _state.patches.applied


def status() -> Status:
    """Return whether the library is enabled, for which apps, with which options, and the layers of each patch point."""
    patches = _state.patches
    with _state.lock:
        apps, refused = app_policies.describe()
        return Status(
            enabled=patches.applied,
            policy=_state.policy,
            apps=apps,
            own=own_code.adopted(),
            patch_points=patches.describe(),
            versions={
                # The package is imported before its modules, and the import statement would make a circle: to a type
                # checker the package imports this module.
                "flaskthreads_autopatch": sys.modules["flaskthreads_autopatch"].__version__,
                "python": platform.python_version(),
                **{name: version_of(name) for name in ("flask", "wrapt")},
            },
            gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
            thread_inherit_context=THREADS_INHERIT_CONTEXT,
            refused=refused,
            kill_switch=is_kill_switch_on(),
            observes=patches.applied and _observes(),
        )


def _update_patches() -> None:
    """Apply the patches if they are wanted, else revert them. The caller holds the lock.

    A signal handler or a finalizer may call this while its own thread is in here, because the lock is reentrant. Its
    call only sets `is_up_to_date` to False, and the interrupted call then does the work (H32).
    """
    _state.is_up_to_date = False
    while not (_state.is_up_to_date or _state.is_updating):
        _state.is_updating = True
        try:
            _state.is_up_to_date = True
            if app_policies.is_wanted():
                _update_recorder()
                _state.patches.apply()
                dump_signal.install()
            elif _state.has_patches():
                _state.patches.revert()
                app_policies.ask_always(False)
                recorder.stop()
                own_code.forget_adopted()
                dump_signal.uninstall()
                parents.stop_watching()
        finally:
            _state.is_updating = False


def _update_recorder() -> None:
    """Record what is started, if that is wanted. Before the patches are applied: in observe mode nothing is inherited.

    ``audit --on`` records too, with inheritance: it names a folder.
    """
    folder = audit_folder()
    app_policies.ask_always(_observes() or bool(folder))
    if _observes() or folder:
        recorder.start(folder, replays=not _observes())
    else:
        recorder.stop()


def _observes() -> bool:
    return _state.observes or is_observing_by_environment()


def _resolve_if_allowed(keywords: AppOptions) -> Policy | None:
    """Return the policy that *keywords* and the environment make; None if the environment keeps the library off."""
    resolve(keywords, {}, {})  # A wrong keyword is a mistake in the program: it is raised even with the kill switch.
    if is_kill_switch_on():
        return None
    try:
        return resolve(keywords, {}, os.environ)
    except PolicyError as error:
        # A typo in the environment must not take a process down.
        print_to_stderr(f"{error} Nothing is patched.")
        return None


def _flask_app(app: Flask, called: str) -> Flask:
    found: object = unwrap_proxy(app)
    if not isinstance(found, Flask):
        raise TypeError(
            f"{called}() takes the Flask app itself, not {safe_repr(found)}. Call it where the app is made."
        )
    return found


def unwrap_proxy(app: Flask) -> Flask:
    """Return *app*, or the app behind it if it is the proxy `current_app`."""
    get = getattr(app, "_get_current_object", None)
    return app if get is None else t.cast(Flask, get())


class _State:
    patches: Layers

    def __init__(self) -> None:
        self.policy: Policy | None = None
        """The policy of the keywords of `enable` and the environment; None unless `enable` is in force."""
        self.observes = False
        """Whether `enable` was called with ``observe=True``."""
        self.is_updating = False
        self.is_up_to_date = True
        self.renew_lock()

    def renew_lock(self) -> None:
        self.lock = threading.RLock()
        if self.has_patches():
            self.patches.lock = self.lock

    def has_patches(self) -> bool:
        return "patches" in vars(self)

    def __getattr__(self, name: str) -> Layers:
        # The patches are made when they are first needed, because they import wrapt. With the kill switch that never
        # happens, so that it helps even against a fault in them.
        if name != "patches":
            raise AttributeError(name)
        from .patching.layers import Layers
        from .patching.points import HOOKS, LATE_POINTS, POINTS

        made = Layers(POINTS, LATE_POINTS, policy_for, self.lock, HOOKS)
        # Another thread, or a signal handler in this one, may have made them meanwhile.
        return t.cast("Layers", vars(self).setdefault("patches", made))


_state = _State()
if hasattr(os, "register_at_fork"):
    # Threads other than the forking one do not exist in the child. So the fork waits until no thread holds the lock.
    os.register_at_fork(
        before=lambda: _state.lock.acquire(),
        after_in_parent=lambda: _state.lock.release(),
        after_in_child=_state.renew_lock,
    )
