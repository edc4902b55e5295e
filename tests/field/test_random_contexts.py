"""Any order of contexts that a thread pushes and pops is what it was.

Found in no single place: hypothesis makes up what the other modules have not thought of. By default the same few dozen
programs each time; more, and at random, with ``HYPOTHESIS_PROFILE=long``.
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Callable

from flask import Flask, copy_current_request_context, current_app, g, has_app_context, has_request_context, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flaskthreads_autopatch import is_inherited

from ..helpers import in_thread
from .helpers import Compare, in_view

Node = tuple[str, bool, list[t.Any]]
"""A context: its kind, whether it ends with an error, and the contexts that are pushed in it, one after the other."""

KINDS = ("app", "the same app context", "other app", "request", "other request", "copy", "the same copy")


REFUSED = (AssertionError, LookupError, RuntimeError)
"""What Flask raises for a context that is popped in the wrong order; different ones in its two generations."""


class Thread:
    """What a thread pushes, and what it sees."""

    def __init__(self, app: Flask) -> None:
        self.app, self.other = app, Flask("tests.field.other")
        self.other.secret_key = "other"
        self.seen: list[object] = []
        self.numbers = iter(range(1000))
        self.refused = False
        """Whether Flask has raised. From then on it counts whether a context is active below, and nothing is noted."""
        for each in (self.app, self.other):
            each.teardown_appcontext(lambda exc: self.note("end", exc))
            each.teardown_request(lambda exc: self.note("end of request", exc))

    def in_view(self) -> None:
        """Called in the view: what is prepared there."""
        self.app_context = self.app.app_context()
        self.copy = copy_current_request_context(lambda fn: fn())

    def note(self, what: str, exc: BaseException | None = None) -> None:
        """Note what is visible here; where the user's code has no context, there is nothing to be compared."""
        if self.refused:
            return
        if not has_app_context() or is_inherited():
            self.seen.append((what, None))
            return
        path = has_request_context() and request.path
        self.seen.append((what, current_app.name, path, g.get("numbers"), exc and type(exc)))

    def enter(self, kind: str, fn: Callable[[], None]) -> None:
        """Call *fn* in a context."""
        if kind == "copy":
            copy_current_request_context(fn)() if has_request_context() and not is_inherited() else fn()
        elif kind == "the same copy":
            self.copy(fn)
        else:
            with self.make(kind):
                fn()

    def make(self, kind: str) -> t.Any:
        app = self.other if "other" in kind else self.app
        if "request" in kind:
            return app.test_request_context(f"/{next(self.numbers)}")
        return self.app_context if "same" in kind else app.app_context()

    def run(self, nodes: list[Node]) -> None:
        """Push what is nested, and look around at each step."""
        self.note("between")
        for kind, fails, children in nodes:

            def body(fails: bool = fails, children: list[Node] = children) -> None:
                if has_app_context() and not is_inherited():
                    g.numbers = (*g.get("numbers", ()), next(self.numbers))
                self.run(children)
                if fails:
                    raise ZeroDivisionError

            try:
                self.enter(kind, body)
            except ZeroDivisionError:
                self.note("error")
            except REFUSED as error:
                self.refuse(error)
            self.note("between")

    def refuse(self, error: Exception) -> None:
        self.note(type(error).__name__)
        self.refused = True

    def push_and_pop(self, steps: list[tuple[str, int]]) -> None:
        """Push, or pop by number in any order."""
        pushed: list[t.Any] = []
        for kind, number in steps:
            try:
                if kind == "pop":
                    if pushed:
                        pushed.pop(number % len(pushed)).pop(None)
                else:
                    ctx = self.make(kind)
                    pushed.append(ctx)
                    ctx.push()
                    g.numbers = (next(self.numbers),)
            except REFUSED as error:
                self.refuse(error)
            self.note(kind)


NESTED = st.recursive(
    st.tuples(st.sampled_from(KINDS), st.booleans(), st.just([])),
    lambda node: st.tuples(st.sampled_from(KINDS), st.booleans(), st.lists(node, max_size=3)),
    max_leaves=8,
)
STEPS = st.tuples(st.sampled_from(("pop", "pop", "pop", *KINDS[:5])), st.integers(0, 3))

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
bounded = settings(
    max_examples=2000 if LONG else 60,
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def observed(app: Flask, run: Callable[[Thread], None]) -> list[object]:
    thread = Thread(app)

    def work() -> list[object]:
        run(thread)
        return thread.seen.copy()

    def view() -> list[object]:
        thread.in_view()
        g.numbers = ("of the view",)
        return in_thread(work)

    return in_view(app, view)


@given(st.lists(NESTED, min_size=1, max_size=3))
@bounded
def test_nested_contexts_are_what_they_were(unchanged: Compare, nodes: list[Node]) -> None:
    """Each is seen as without us, and torn down as without us."""
    unchanged(lambda app: observed(app, lambda thread: thread.run(nodes)), "install")


@given(st.lists(STEPS, min_size=2, max_size=8))
@bounded
def test_contexts_pushed_and_popped_in_any_order_are_what_they_were(
    unchanged: Compare, steps: list[tuple[str, int]]
) -> None:
    """Up to the first pop in the wrong order, for which Flask raises the same."""
    unchanged(lambda app: observed(app, lambda thread: thread.push_and_pop(steps)), "install")
