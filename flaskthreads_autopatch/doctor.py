"""Is all well? The self-test, what is found wrong, and the report that a person reads."""

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
from .policy import DEFAULTS, Policy
from .replay import is_inherited
from .switch import Status, policy_for

_ENTRY = "flaskthreads_autopatch_doctor"
_PATIENCE = 60  # seconds, for a thread that hangs in a handler of the app


@dataclasses.dataclass(frozen=True)
class Check:
    """What came of one kind of thread or task, started in an app context."""

    kind: str
    inherited: bool
    """Whether it saw the app and ``g`` of the context it was started in."""
    torn_down: bool
    """Whether the teardown handlers ran exactly once in its thread."""
    left_behind: tuple[str, ...]
    """What is still there afterwards, and should not be."""

    @property
    def well(self) -> bool:
        return self.inherited and self.torn_down and not self.left_behind


def self_test(app: Flask) -> list[Check]:
    """Start one of each kind in an app context of *app*, whose handlers run as they do in production."""
    return [contextvars.Context().run(_check, app, kind, start) for kind, start in _KINDS.items()]


def problems(app: Flask, status: Status, checks: list[Check]) -> list[str]:
    """What is wrong, one sentence each. Nothing if all is well."""
    if status.kill_switch:
        return [f"{_kill_switch()} Remove the variable, or set it to 1, and restart."]
    if not status.enabled:
        return [_why_off()]
    found = [f"The threads of {name!r} inherit nothing: {error}" for name, error in status.refused]
    if policy_for(app) is not None:
        found += [*_lost_layers(status), *(sentence for check in checks for sentence in _wrong_with(check))]
    elif app.name not in dict(status.refused):
        found.append(
            f"The threads of {app.name!r} inherit nothing: it is not installed, or its configuration is wrong."
        )
    return found


def report(status: Status) -> Iterator[str]:
    """*status*, line by line."""
    versions = ", ".join(f"{name} {version}" for name, version in status.versions.items())
    yield f"{versions}, GIL {_on(status.gil)}, thread_inherit_context {_on(status.thread_inherit_context)}"
    yield f"The patches are {_on(status.enabled)}."
    if status.kill_switch:
        yield _kill_switch()
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
    """*status*, for JSON: each option of a policy with its source."""

    def options(policy: Policy) -> dict[str, t.Any]:
        return {name: {"value": getattr(policy, name), "source": policy.source(name)} for name in DEFAULTS}

    apps = [{"name": name, "policy": options(policy)} for name, policy in status.apps]
    refused = [{"name": name, "error": error} for name, error in status.refused]
    data = dataclasses.asdict(status) | {"policy": status.policy and options(status.policy)}
    return data | {"apps": apps, "refused": refused}


def views_outside(app: Flask) -> dict[str, str]:
    """By distribution, the package that holds views of *app* and is not own code.

    Nothing tells a package of views from an agent if both are installed: the option ``own`` does.
    """
    policy, found = policy_for(app), {}
    own = () if policy is None else policy.own
    for view in app.view_functions.values():
        code = getattr(view, "view_class", view)  # what View.as_view() makes is a function of Flask's
        if not own_code.runs_own_code(own, code):
            name = str(getattr(inspect.unwrap(code), "__module__", None))
            package = own_code.package_of(name)
            if package.partition(".")[0] not in ("flask", *sys.stdlib_module_names):
                found[", ".join(each.name for each in own_code.distributions_of(name)) or package] = package
    return found


def report_views(app: Flask) -> Iterator[str]:
    """What `views_outside` finds, line by line."""
    for distribution, package in sorted(views_outside(app).items()):
        yield (
            f"{distribution} has views of {app.name!r} and is not own code: what only its code starts and runs does not"
            f" inherit. If it is yours, set own=[{package!r}]."
        )


def report_checks(app: Flask, checks: list[Check]) -> Iterator[str]:
    """The outcome of the self-test, line by line."""
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
    if os.environ.get(VARIABLE):
        return (
            f"Nothing is switched on, though {VARIABLE}={os.environ[VARIABLE]!r}: a line on stderr has said what is"
            " wrong, or no start-up file has read it (python -E and -I do not). Start the process with"
            " 'flaskthreads-autopatch run'."
        )
    return (
        "Nothing is switched on. Call flaskthreads_autopatch.install(app) where the app is made, or start the process"
        " with 'flaskthreads-autopatch run'."
    )


def _lost_layers(status: Status) -> Iterator[str]:
    for name, origins in status.patch_points.items():
        if not any(origin.startswith(f"{__package__}.") for origin in origins):
            found = ", ".join(origins) or "none"
            yield f"Somebody has taken our layer off {name}; the layers there now: {found}."


def _wrong_with(check: Check) -> Iterator[str]:
    if not check.inherited:
        yield f"A {check.kind} did not inherit the app context it was started in."
    elif not check.torn_down:
        yield f"The app context of a {check.kind} was not torn down exactly once."
    for leftover in check.left_behind:
        yield f"A {check.kind} left something behind: {leftover}."


class _Entry:
    """Put on ``g``: whoever still has it afterwards has kept the parent's context, or a snapshot of it."""


class _Task:
    """What each kind of thread runs. Looks at the context it finds itself in."""

    def __init__(self, app: Flask, entry: _Entry) -> None:
        self.app = app
        self.entry = weakref.ref(entry)
        self.inherited = False
        self.thread: int | None = None
        self.teardowns = 0

    def __call__(self) -> None:
        self.thread = threading.get_ident()
        # Flask's annotations call a proxy what it stands for.
        same_app = has_app_context() and current_app._get_current_object() is self.app  # type: ignore[attr-defined]
        self.inherited = same_app and is_inherited() and g.get(_ENTRY) is self.entry()

    def count_teardown(self, exc: BaseException | None) -> None:
        self.teardowns += self.thread == threading.get_ident()


_Leftovers = Callable[[], Iterator[str]]
"""Called outside the context, when the task has run: names what was left behind."""


def _check(app: Flask, kind: str, start: Callable[[_Task], _Leftovers]) -> Check:
    entry = _Entry()
    task = _Task(app, entry)
    app.teardown_appcontext_funcs.append(task.count_teardown)
    try:
        with app.app_context():
            setattr(g, _ENTRY, entry)
            leftovers = start(task)
        del entry
        left_behind = [*leftovers()]
    finally:
        app.teardown_appcontext_funcs.remove(task.count_teardown)
    gc.collect()
    if task.entry() is not None:
        left_behind.append("a reference to the entries of the parent's g")
    return Check(kind, task.inherited, task.teardowns == 1, tuple(left_behind))


def _start(thread: threading.Thread) -> _Leftovers:
    thread.start()
    thread.join(_PATIENCE)

    def leftovers() -> Iterator[str]:
        if thread.is_alive():
            yield f"the thread, which still runs after {_PATIENCE} seconds"

    return leftovers


class _Subclass(threading.Thread):
    def __init__(self, task: _Task) -> None:
        super().__init__()
        self.task = task

    def run(self) -> None:
        self.task()


def _start_pool_task(task: _Task) -> _Leftovers:
    pool = ThreadPoolExecutor(1)
    wait([pool.submit(task)], _PATIENCE)

    def leftovers() -> Iterator[str]:
        try:
            if pool.submit(has_app_context).result(_PATIENCE):
                yield "an app context, active in the pool's worker"
        except TimeoutError:
            yield f"the pool's worker, which is still busy after {_PATIENCE} seconds"
        finally:
            pool.shutdown(wait=False)

    return leftovers


_KINDS: dict[str, Callable[[_Task], _Leftovers]] = {
    "thread": lambda task: _start(threading.Thread(target=task)),
    "timer": lambda task: _start(threading.Timer(0, task)),
    "subclass": lambda task: _start(_Subclass(task)),
    "pool task": _start_pool_task,
}
