"""Any sequence of switching, of others' layers coming and going, and of starting things keeps the contract.

By default the same few hundred sequences each time. More, at random, and for as long as one likes:
``HYPOTHESIS_PROFILE=long pytest tests/test_properties.py``.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import wrapt
from flask import Flask, appcontext_popped, appcontext_pushed, appcontext_tearing_down, current_app, g, has_app_context
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import flaskthreads_autopatch
from flaskthreads_autopatch import is_inherited, suppress_inheritance
from flaskthreads_autopatch.patching import layers
from flaskthreads_autopatch.patching.layers import PatchPoint
from flaskthreads_autopatch.patching.points import POINTS
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import BORN_WITH, LIMIT, attributes, changed

settings.register_profile(
    "short",
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("long", settings.get_profile("short"), max_examples=20_000, derandomize=False)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

START, SUBMIT = (point for point in POINTS if point.attribute in ("Thread.start", "ThreadPoolExecutor.submit"))
PATCH_POINT = {"start": START, "submit": SUBMIT}
SIGNALS = [signal.name for signal in (appcontext_pushed, appcontext_tearing_down, appcontext_popped)]

APPS = {name: Flask(name) for name in ("A", "B")}

apps = st.sampled_from(sorted(APPS))
places = st.sampled_from([*APPS, "outside"])
points = st.sampled_from(sorted(PATCH_POINT))
kinds = st.sampled_from(["thread", "timer", "subclass"])


class PlainLayer:
    """Somebody's function over whatever stood there. It is taken off by putting that back, whatever lies above."""

    def __init__(self, point: PatchPoint) -> None:
        self.owner, self.attribute, found = wrapt.resolve_path(point.module, point.attribute)
        below = getattr(self.owner, self.attribute)

        @functools.wraps(below)
        def layer(*args: Any, **kwargs: Any) -> Any:
            return below(*args, **kwargs)

        # Of ours, what getattr() gives: wrapt's bound form. Of a foreign wrapt layer what stands there: from under its
        # bound form it could not come off.
        self.below, self.entry = below if is_ours(found, point) else found, layer
        setattr(self.owner, self.attribute, layer)

    def take_off(self) -> None:
        setattr(self.owner, self.attribute, self.below)


class WraptLayer:
    """Somebody's wrapt wrapper. It is taken out from where it lies, if wrapt can reach it there."""

    def __init__(self, point: PatchPoint) -> None:
        def layer(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
            return wrapped(*args, **kwargs)

        self.owner, self.attribute, _ = wrapt.resolve_path(point.module, point.attribute)
        self.entry = wrapt.wrap_function_wrapper(self.owner, self.attribute, layer)

    def take_off(self) -> None:
        with suppress(wrapt.WrapperNotOutermostError, wrapt.WrapperNotFoundError):
            wrapt.unwrap_object(self.owner, self.attribute, self.entry)


Foreign = PlainLayer | WraptLayer


def chain(point: PatchPoint) -> list[Any]:
    """What lies on a patch point, from the outside in."""
    return list(wrapt.wrapper_chain(wrapt.resolve_path(point.module, point.attribute)[2]))


def lies_on(point: PatchPoint, layer: Foreign) -> bool:
    return any(layer.entry is x or layer.entry is getattr(x, "_self_parent", None) for x in chain(point))


def is_ours(entry: Any, point: PatchPoint) -> bool:
    is_layer = issubclass(type(entry), (wrapt.FunctionWrapper, wrapt.BoundFunctionWrapper))
    wrapper = entry._self_wrapper if is_layer else None
    return getattr(wrapper, "__func__", None) is point.wrapper


def ours_alive(point: PatchPoint) -> int:
    """How many of our own layers work there."""
    gates = [entry._self_enabled for entry in chain(point) if is_ours(entry, point)]
    return sum((gate.func, gate.args) != (layers._CLOSED, ()) for gate in gates)


class Machine(RuleBasedStateMachine):
    """Beside the library it keeps what should be on, and checks each thing that is started against that."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = False
        self.installed: set[str] = set()
        self.foreign: list[tuple[PatchPoint, Foreign]] = []
        self.made: list[tuple[threading.Thread, list[object], object]] = []
        self.users = itertools.count()
        self.signals: list[tuple[str, str]] = []
        self.end = ExitStack()
        self.pool = self.end.enter_context(ThreadPoolExecutor(1))
        for signal in (appcontext_pushed, appcontext_tearing_down, appcontext_popped):
            receiver = functools.partial(self.receive, signal.name)
            self.end.enter_context(signal.connected_to(receiver))

    def receive(self, signal: str, sender: Flask, **extra: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.signals.append((signal, sender.name))

    # On and off

    @rule()
    def enable(self) -> None:
        flaskthreads_autopatch.enable()
        self.enabled = True
        self.check_switch()

    @rule()
    def disable(self) -> None:
        flaskthreads_autopatch.disable()
        self.enabled, self.installed = False, set()
        self.check_switch()

    @rule(app=apps)
    def install(self, app: str) -> None:
        flaskthreads_autopatch.install(APPS[app])
        self.installed.add(app)
        self.check_switch()

    @rule(app=apps)
    def uninstall(self, app: str) -> None:
        flaskthreads_autopatch.uninstall(APPS[app])
        was_on = self.enabled or bool(self.installed)
        self.installed.discard(app)
        if was_on and not self.enabled and not self.installed:
            self.check_switch()

    def check_switch(self) -> None:
        on = self.enabled or bool(self.installed)
        assert flaskthreads_autopatch.is_enabled() is on
        alive = {point.name: ours_alive(point) for point in POINTS}
        # One on each, also where somebody had thrown ours out together with theirs; or none.
        assert alive == dict.fromkeys(BORN_WITH, int(on))
        if not on:
            assert flaskthreads_autopatch.status().apps == ()
            covered = {point.name for point, layer in self.foreign if lies_on(point, layer)}
            changed = {name for name, found in attributes().items() if found is not BORN_WITH[name]}
            assert changed == covered

    # Layers of others

    @rule(point=points, kind=st.sampled_from([PlainLayer, WraptLayer]))
    def foreign_on(self, point: str, kind: type[Foreign]) -> None:
        self.foreign.append((PATCH_POINT[point], kind(PATCH_POINT[point])))

    @precondition(lambda self: self.foreign)
    @rule(data=st.data())
    def foreign_off(self, data: st.DataObject) -> None:
        point, layer = data.draw(st.sampled_from(self.foreign))
        if lies_on(point, layer):
            layer.take_off()

    # Things that are started

    def should_inherit(self, place: str) -> bool:
        return place in APPS and (self.enabled or place in self.installed)

    @contextmanager
    def at(self, place: str, suppressed: bool) -> Iterator[object]:
        """In a context of that app. Yields what is inherited there, or None."""
        with ExitStack() as stack:
            if place in APPS:
                stack.enter_context(APPS[place].app_context())
                g.user = next(self.users)
            if suppressed:
                stack.enter_context(suppress_inheritance())
            inherits = self.should_inherit(place) and not suppressed
            yield (place, g.user) if inherits else None

    def look(self, seen: list[object]) -> None:
        seen.append((current_app.name, g.user) if has_app_context() and is_inherited() else has_app_context() or None)

    def check(self, seen: list[object], expected: object) -> None:
        # A second task in the same worker: nothing of the first is left there. (Where threads inherit context variables
        # by themselves, they show the starter's context itself where we do not see to it that they are clean.)
        assert seen in ([[None], [True]] if expected is None and THREADS_INHERIT_CONTEXT else [[expected]])
        signals, self.signals = self.signals, []
        assert signals == ([(name, expected[0]) for name in SIGNALS] if isinstance(expected, tuple) else [])

    def make(self, kind: str) -> tuple[threading.Thread, list[object]]:
        seen: list[object] = []
        if kind == "timer":
            return threading.Timer(0, self.look, (seen,)), seen
        if kind == "subclass":
            return type("Own", (threading.Thread,), {"run": lambda thread: self.look(seen)})(), seen
        return threading.Thread(target=self.look, args=(seen,)), seen

    @rule(place=places, kind=kinds, suppressed=st.booleans())
    def thread(self, place: str, kind: str, suppressed: bool) -> None:
        with self.at(place, suppressed) as expected:
            thread, seen = self.make(kind)
            thread.start()
            thread.join(LIMIT)
        self.check_thread(seen, expected)

    def check_thread(self, seen: list[object], expected: object) -> None:
        # Where somebody has thrown our layer out together with theirs, nothing is left to inherit by.
        self.check(seen, expected if ours_alive(START) else None)

    @rule(place=places, suppressed=st.booleans())
    def task(self, place: str, suppressed: bool) -> None:
        seen: list[object] = []
        with self.at(place, suppressed) as expected:
            self.pool.submit(self.look, seen).result(LIMIT)
        self.check(seen, expected if ours_alive(SUBMIT) else None)  # as in check_thread

    @rule(place=places, kind=kinds, suppressed=st.booleans())
    def make_for_later(self, place: str, kind: str, suppressed: bool) -> None:
        with self.at(place, suppressed) as expected:
            self.made.append((*self.make(kind), expected))

    @precondition(lambda self: self.made)
    @rule(place=places, suppressed=st.booleans())
    def start_what_was_made(self, place: str, suppressed: bool) -> None:
        thread, seen, made_in = self.made.pop()
        # The context at the start is the one that counts; where there is none, that in which the thread was made.
        if isinstance(made_in, tuple) and not self.should_inherit(made_in[0]):
            made_in = None
        with self.at(place, suppressed) as expected:
            if not (suppressed or self.should_inherit(place)):
                expected = made_in
            thread.start()
            thread.join(LIMIT)
        self.check_thread(seen, expected)

    def teardown(self) -> None:
        self.end.close()
        try:
            # The last one on comes off first; with each that is off, another may have come to light.
            for _ in self.foreign:
                for point, layer in reversed(self.foreign):
                    if lies_on(point, layer):
                        layer.take_off()
                flaskthreads_autopatch.disable()
            flaskthreads_autopatch.disable()
            assert changed() == []
        finally:
            force_as_born()


def force_as_born() -> None:
    """So that a sequence that has failed spoils none of those that are tried after it."""
    for point in POINTS:
        owner, attribute, _ = wrapt.resolve_path(point.module, point.attribute)
        if BORN_WITH[point.name] is not None:
            setattr(owner, attribute, BORN_WITH[point.name])
        elif attribute in vars(owner):
            delattr(owner, attribute)


TestMachine = Machine.TestCase
TestMachine.settings = PROFILE


def test_enable_puts_back_a_layer_that_somebody_threw_out_together_with_theirs() -> None:
    machine = Machine()
    theirs = PlainLayer(SUBMIT)
    machine.enable()
    theirs.take_off()
    machine.task("A", suppressed=False)
    machine.enable()
    machine.task("A", suppressed=False)
    machine.teardown()


def test_a_thread_inherits_nothing_where_somebody_threw_our_layer_out_together_with_theirs() -> None:
    machine = Machine()
    theirs = PlainLayer(START)
    machine.enable()
    machine.make_for_later("A", "thread", suppressed=False)
    theirs.take_off()
    machine.thread("A", "thread", suppressed=False)
    machine.start_what_was_made("A", suppressed=False)
    machine.enable()
    machine.thread("A", "thread", suppressed=False)
    machine.teardown()


def test_what_was_made_before_disable_does_not_inherit_after_it() -> None:
    machine = Machine()
    machine.enable()
    machine.make_for_later("A", "thread", suppressed=False)
    machine.disable()
    machine.start_what_was_made("outside", suppressed=False)
    machine.teardown()


def test_what_is_started_with_inheritance_suppressed_does_not_inherit_what_it_was_made_in() -> None:
    machine = Machine()
    machine.enable()
    machine.make_for_later("A", "thread", suppressed=False)
    machine.start_what_was_made("outside", suppressed=True)
    machine.teardown()
