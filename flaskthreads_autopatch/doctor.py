"""The doctor: a self-test, the problems that it and the status show, and a report for people."""

from __future__ import annotations

import contextvars
import dataclasses
import gc
import inspect
import os
import sys
import threading
import typing as t
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError, wait

from flask import Flask, current_app, g, has_app_context

from . import own_code
from .environment import VARIABLE
from .names import text_of
from .policy import DEFAULTS, Policy, PolicyError, resolve
from .process_status import Status
from .replay import is_inherited
from .switch import policy_for

_ENTRY = "flaskthreads_autopatch_doctor"
_TIMEOUT = 60
"""The seconds after which a thread counts as hanging, for example in a teardown handler of the app."""


_OBSERVES = (
    f"The library observes, by {VARIABLE}=observe or enable(observe=True): nothing is inherited, and the self-test"
    " shows what happens without it."
)


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of the self-test for one kind of thread or task."""

    kind: str
    inherited: bool
    """Whether the task saw the app and the ``g`` of the context in which it was started."""
    torn_down: bool
    """Whether the teardown handlers ran exactly once in the task's thread."""
    left_behind: tuple[str, ...]
    """The things that still exist after the task and should not, such as a reference to the parent's ``g``."""

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return self.inherited and self.torn_down and not self.left_behind


def self_test(app: Flask) -> list[Check]:
    """Start a thread or task of each kind in an app context of *app*. Its teardown handlers run, as in production."""
    return [contextvars.Context().run(_check, app, kind, start) for kind, start in _KINDS.items()]


def problems(app: Flask, status: Status, checks: list[Check]) -> list[str]:
    """Return a sentence for each problem. The list is empty if nothing is wrong."""
    if status.kill_switch:
        return [f"{_kill_switch()} Remove the variable, or set it to 1, and restart."]
    if not status.enabled:
        return [_why_off()]
    if status.observes:
        return [f"{_OBSERVES} Set {VARIABLE}=1 or remove the variable, and restart, to have threads inherit."]
    found = [f"The threads of {name!r} inherit nothing: {error}" for name, error in status.refused]
    if policy_for(app) is not None:
        found += [*_lost_layers(status), *(sentence for check in checks for sentence in _wrong_with(check))]
    elif app.name not in dict(status.refused):
        found.append(
            f"The threads of {app.name!r} inherit nothing: it is not installed, or its configuration is wrong."
        )
    return found


def report(status: Status) -> Iterator[str]:
    """Yield the lines of a report on *status*."""
    versions = ", ".join(f"{name} {version}" for name, version in status.versions.items())
    yield f"{versions}, GIL {_on(status.gil)}, thread_inherit_context {_on(status.thread_inherit_context)}"
    yield f"The patches are {_on(status.enabled)}."
    if status.kill_switch:
        yield _kill_switch()
    if status.observes:
        yield _OBSERVES
    if status.policy is not None:
        yield from _policy_lines("every app, by enable()", status.policy)
    for name, policy in status.apps:
        yield from _policy_lines(f"app {name!r}", policy)
    for name, error in status.refused:
        yield f"Configuration of app {name!r}, whose threads inherit nothing: {error}"
    yield f"Own code, because it belongs to an app: {', '.join(status.own) or 'nothing'}"
    yield "Layers, from the outside in:"
    for name, origins in status.patch_points.items():
        yield f"  {name}: {', '.join(origins) or 'none'}"


def as_data(status: Status) -> dict[str, t.Any]:
    """Return *status* as data for JSON, in which each option of a policy has its source."""

    def options(policy: Policy) -> dict[str, t.Any]:
        return {name: {"value": getattr(policy, name), "source": policy.source(name)} for name in DEFAULTS}

    apps = [{"name": name, "policy": options(policy)} for name, policy in status.apps]
    refused = [{"name": name, "error": error} for name, error in status.refused]
    data = dataclasses.asdict(status) | {"policy": status.policy and options(status.policy)}
    return data | {"apps": apps, "refused": refused}


def views_outside(app: Flask) -> dict[str, str]:
    """Return the packages that have views of *app* and are not own code, by the names of their distributions.

    An installed package of views cannot be told from an agent's. The user can name it in the option ``own``.
    """
    policy, found = policy_for(app), {}
    own = () if policy is None else policy.own
    for view in app.view_functions.values():
        code = getattr(view, "view_class", view)  # View.as_view() returns a function of Flask's.
        if not own_code.runs_own_code(own, code):
            name = str(getattr(inspect.unwrap(code), "__module__", None))
            package = own_code.package_of(name)
            if package.partition(".")[0] not in ("flask", *sys.stdlib_module_names):
                found[", ".join(each.name for each in own_code.distributions_of(name)) or package] = package
    return found


def report_views(app: Flask) -> Iterator[str]:
    """Yield a line for each package that `views_outside` finds."""
    for distribution, package in sorted(views_outside(app).items()):
        yield (
            f"{distribution} has views of {app.name!r} and is not own code: threads that only its code starts and runs"
            f" do not inherit. If it is yours, set own=[{package!r}]."
        )


def report_checks(app: Flask, checks: list[Check]) -> Iterator[str]:
    """Yield the lines of a report on the self-test."""
    yield f"Self-test in an app context of {app.name!r}:"
    for check in checks:
        outcome = "inherited" if check.inherited else "NOT inherited"
        torn_down = "torn down" if check.torn_down else "NOT torn down"
        yield f"  {check.kind}: {outcome}, {torn_down}, left behind: {', '.join(check.left_behind) or 'nothing'}"


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _policy_lines(title: str, policy: Policy) -> Iterator[str]:
    yield f"Configuration of {title}:"
    for option in DEFAULTS:
        yield f"  {option} = {getattr(policy, option)!r} ({policy.source(option)})"


def _kill_switch() -> str:
    value = os.environ.get(VARIABLE, "")
    return f"{VARIABLE}={value!r} in the environment disables the library: install() and enable() do nothing."


def _why_off() -> str:
    try:
        resolve({}, {}, os.environ)
    except PolicyError as error:
        return f"The library is not enabled: {error} Correct the variable, and restart."
    if os.environ.get(VARIABLE):
        return (
            f"The library is not enabled, although {VARIABLE}={os.environ[VARIABLE]!r}: the value was rejected (see"
            " stderr), or no sitecustomize has read it (python -E and -I ignore it). Start the process with"
            " 'flaskthreads-autopatch run'."
        )
    return (
        "The library is not enabled. Call flaskthreads_autopatch.install(app) where the app is created, or start the"
        " process with 'flaskthreads-autopatch run'."
    )


def _lost_layers(status: Status) -> Iterator[str]:
    for name, origins in status.patch_points.items():
        if not any(origin.startswith(f"{__package__}.") for origin in origins):
            found = ", ".join(origins) or "none"
            yield (
                f"Other code has removed our layer from {name}. The layers there now: {found}. Call install() or"
                " enable() after that code."
            )


def _wrong_with(check: Check) -> Iterator[str]:
    if not check.inherited:
        yield f"A {check.kind} did not inherit the app context in which it was started."
    elif not check.torn_down:
        yield f"The app context of a {check.kind} was not torn down exactly once."
    for leftover in check.left_behind:
        yield f"A {check.kind} left something behind: {leftover}."


class _Entry:
    """An entry of ``g``. If it is still referred to after the task, the parent's context or a snapshot is leaked."""


class _Task:
    """The callable that each kind of thread runs. It notes in which context it is called."""

    def __init__(self, app: Flask, entry: _Entry) -> None:
        self.app = app
        self.entry = weakref.ref(entry)
        self.inherited = False
        self.thread: int | None = None
        self.teardowns = 0

    def __call__(self) -> None:
        self.thread = threading.get_ident()
        # To type checkers, current_app is a Flask app and not a proxy.
        same_app = has_app_context() and current_app._get_current_object() is self.app  # type: ignore[attr-defined]
        self.inherited = same_app and is_inherited() and g.get(_ENTRY) is self.entry()

    def count_teardown(self, exc: BaseException | None) -> None:
        self.teardowns += self.thread == threading.get_ident()


_Leftovers = Callable[[], Iterator[str]]
"""A function that yields what the task has left behind. It is called after the task, outside of the context."""


def _check(app: Flask, kind: str, start: Callable[[_Task], _Leftovers]) -> Check:
    entry = _Entry()
    task = _Task(app, entry)
    left_behind: list[str] = []
    ended = False
    app.teardown_appcontext_funcs.append(task.count_teardown)
    try:
        with app.app_context():
            setattr(g, _ENTRY, entry)
            leftovers = start(task)
            # The app's own handlers may raise at the end of this block.
            ended = True
    except Exception as error:
        if not ended:
            raise
        left_behind.append(f"an error in a teardown handler of the app, outside of threads too: {text_of(error)}")
    finally:
        app.teardown_appcontext_funcs.remove(task.count_teardown)
    del entry
    left_behind += leftovers()
    gc.collect()
    if task.entry() is not None:
        left_behind.append("a reference to the entries of the parent's g")
    return Check(kind, task.inherited, task.teardowns == 1, tuple(left_behind))


def _start(thread: threading.Thread) -> _Leftovers:
    thread.start()
    thread.join(_TIMEOUT)

    def leftovers() -> Iterator[str]:
        if thread.is_alive():
            yield f"the thread, which still runs after {_TIMEOUT} seconds"

    return leftovers


class _Subclass(threading.Thread):
    def __init__(self, task: _Task) -> None:
        super().__init__()
        self.task = task

    def run(self) -> None:
        self.task()


def _start_pool_task(task: _Task) -> _Leftovers:
    pool = ThreadPoolExecutor(1)
    wait([pool.submit(task)], _TIMEOUT)

    def leftovers() -> Iterator[str]:
        try:
            if pool.submit(has_app_context).result(_TIMEOUT):
                yield "an app context, active in the pool's worker"
        except TimeoutError:
            yield f"the pool's worker, which is still busy after {_TIMEOUT} seconds"
        finally:
            pool.shutdown(wait=False)

    return leftovers


_KINDS: dict[str, Callable[[_Task], _Leftovers]] = {
    "thread": lambda task: _start(threading.Thread(target=task)),
    "timer": lambda task: _start(threading.Timer(0, task)),
    "subclass": lambda task: _start(_Subclass(task)),
    "pool task": _start_pool_task,
}
