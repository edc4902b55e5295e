"""A task that pushes a context and never pops it: the context is torn down at the end of the task (H30, H35).

Without us a forgotten context is never torn down: a thread takes it to its end, a pool's worker keeps it for the next
task. With us on the task has a context below it, so that its end is known.
"""

from __future__ import annotations

import contextvars
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, current_app, g, has_app_context, has_request_context, request
from flask.globals import app_ctx

from flaskthreads_autopatch import AppContextThread, copy_current_app_context

from ..helpers import LIMIT, in_thread
from .helpers import Compare, NewApp, Start, in_view

OffAndOn = Callable[[t.Any], tuple[t.Any, t.Any]]
Event = tuple[t.Any, ...]
Task = Callable[[Flask, Flask], object]


def push(ctx: t.Any, name: str) -> t.Any:
    ctx.push()
    g.name = name
    return ctx


# Each leaves something pushed. ``shop`` is the app of the view, ``other`` another one.


def an_app_context(shop: Flask, other: Flask) -> None:
    """Found in scripts that became jobs, and in the documentation of many extensions: ``app.app_context().push()``."""
    push(shop.app_context(), "forgotten")


def two_app_contexts(shop: Flask, other: Flask) -> None:
    """Found where each helper of a job pushes one."""
    push(shop.app_context(), "first")
    push(shop.app_context(), "second")


def one_of_another_app(shop: Flask, other: Flask) -> None:
    """Found in jobs that make an app of their own: ``create_app().app_context().push()``."""
    push(other.app_context(), "forgotten")


def ones_of_both_apps(shop: Flask, other: Flask) -> None:
    """The same in a job that also needs the shop."""
    push(other.app_context(), "first")
    push(shop.app_context(), "second")
    push(other.app_context(), "third")


def a_request_context(shop: Flask, other: Flask) -> None:
    """Found in notebooks and jobs that build links: ``app.test_request_context().push()``."""
    push(shop.test_request_context("/forgotten"), "forgotten")


def a_request_context_of_another_app(shop: Flask, other: Flask) -> None:
    """The same with an app of the job's own."""
    push(other.test_request_context("/forgotten"), "forgotten")


def a_request_context_in_an_app_context(shop: Flask, other: Flask) -> None:
    """Found where both are pushed, and neither is popped: before Flask 3.2 both have one app context."""
    push(shop.app_context(), "first")
    push(shop.test_request_context("/forgotten"), "second")


def an_app_context_in_a_request_context(shop: Flask, other: Flask) -> None:
    """The same in the other order."""
    push(shop.test_request_context("/forgotten"), "first")
    push(shop.app_context(), "second")


def two_request_contexts(shop: Flask, other: Flask) -> None:
    """Found in loops that push one per item; before Flask 3.2 they have one app context."""
    push(shop.test_request_context("/first"), "first")
    push(shop.test_request_context("/second"), "second")


def the_same_context_twice(shop: Flask, other: Flask) -> None:
    """Found in loops that push one context per item."""
    ctx = push(shop.app_context(), "forgotten")
    ctx.push()


def one_of_two(shop: Flask, other: Flask) -> None:
    """Found where an early ``return`` skips the outer ``pop()``."""
    push(shop.app_context(), "outer")
    push(shop.app_context(), "inner").pop(None)


def one_in_a_block(shop: Flask, other: Flask) -> None:
    """Found where a helper pushes inside the caller's ``with``: Flask raises, as the block ends in the wrong order."""
    with pytest.raises((AssertionError, RuntimeError)), shop.app_context():
        g.name = "outer"
        push(shop.app_context(), "inner")


def one_and_an_error(shop: Flask, other: Flask) -> None:
    """Found in every ``push()`` without ``finally``."""
    push(shop.app_context(), "forgotten")
    raise ZeroDivisionError


def one_in_a_generator(shop: Flask, other: Flask) -> Iterator[str]:
    """Found in exports: a generator that is read in part, and kept."""

    def lines() -> Iterator[str]:
        push(shop.app_context(), "forgotten")
        yield "first"
        yield "second"

    generator = lines()
    next(generator)
    return generator


INHERITED = ("tests.field.app", "inherited", None)
FORGOTTEN = ("tests.field.app", "forgotten", None)
FIRST, SECOND = ("tests.field.app", "first", None), ("tests.field.app", "second", None)

APP_CONTEXTS: dict[Task, list[Event]] = {
    an_app_context: [FORGOTTEN],
    two_app_contexts: [SECOND, FIRST],
    one_of_another_app: [("tests.field.other", "forgotten", None)],
    ones_of_both_apps: [("tests.field.other", "third", None), SECOND, ("tests.field.other", "first", None)],
    the_same_context_twice: [FORGOTTEN],
    one_of_two: [("tests.field.app", "inner", None), ("tests.field.app", "outer", None)],
    one_and_an_error: [("tests.field.app", "forgotten", ZeroDivisionError)],
    one_in_a_generator: [FORGOTTEN],
}
"""What is torn down for each, from the innermost."""

REQUEST_CONTEXTS: tuple[Task, ...] = (
    a_request_context,
    a_request_context_of_another_app,
    a_request_context_in_an_app_context,
    an_app_context_in_a_request_context,
    two_request_contexts,
)


class Report(t.NamedTuple):
    torn_down: list[Event]
    ended_requests: list[str]
    left: object
    """Whether an app context and a request context are active in the worker after the task."""


def run(app: Flask, task: Task, in_request: bool) -> Report:
    """Have a pool's worker run *task* for a view or command of *app*."""
    other = Flask("tests.field.other")
    other.secret_key = "other"
    torn_down: list[Event] = []
    ended_requests: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(threading.get_ident).result(LIMIT)

        def teardown(exc: BaseException | None) -> None:
            if threading.get_ident() == worker:
                torn_down.append((current_app.name, g.get("name"), exc and type(exc)))

        def end_of_request(exc: BaseException | None) -> None:
            if threading.get_ident() == worker:
                ended_requests.append(request.path)

        for each in (app, other):
            each.teardown_appcontext(teardown)
            each.teardown_request(end_of_request)

        def view() -> None:
            g.name = "inherited"
            future = pool.submit(task, app, other)
            assert isinstance(future.exception(LIMIT), ZeroDivisionError | None)

        if in_request:
            in_view(app, view)
        else:
            with app.app_context():
                view()
        left = pool.submit(lambda: (has_app_context(), has_request_context())).result(LIMIT)
    return Report(torn_down, ended_requests, left)


@pytest.fixture(params=[True, False], ids=["in a request", "in a command"])
def in_request(request: pytest.FixtureRequest) -> bool:
    """Whether the task is submitted in a request, or in an app context alone."""
    return t.cast(bool, request.param)


@pytest.mark.parametrize("task", APP_CONTEXTS, ids=lambda task: task.__name__)
def test_h30_a_forgotten_app_context_is_torn_down_once_when_the_task_ends(
    off_and_on: OffAndOn, task: Task, in_request: bool
) -> None:
    """Found as each of the functions says."""
    off, on = off_and_on(lambda app: run(app, task, in_request))
    # Without us nobody tears it down, and the worker keeps it.
    assert off.torn_down == (APP_CONTEXTS[task][:1] if task is one_of_two else [])
    assert off.left == (True, False)
    error = ZeroDivisionError if task is one_and_an_error else None
    assert on == Report([*APP_CONTEXTS[task], (*INHERITED[:2], error)], [], (False, False))


@pytest.mark.parametrize("task", REQUEST_CONTEXTS, ids=lambda task: task.__name__)
def test_h30_so_is_a_forgotten_request_context(off_and_on: OffAndOn, task: Task, in_request: bool) -> None:
    """Found as each of the functions says."""
    off, on = off_and_on(lambda app: run(app, task, in_request))
    assert (off.torn_down, off.ended_requests) == ([], [])
    assert off.left == (True, True) or task is an_app_context_in_a_request_context
    assert on.torn_down[-1] == INHERITED
    names = [event[1] for event in on.torn_down[:-1]]
    # Before Flask 3.2 an app context of the same app is shared with what is pushed in it.
    if task in (a_request_context, a_request_context_of_another_app):
        assert names == ["forgotten"]
        assert on.ended_requests == ["/forgotten"]
    elif task is two_request_contexts:
        assert names in (["second", "first"], ["second"])
        assert on.ended_requests == ["/second", "/first"]
    else:
        assert names in (["second", "first"], ["second"])
        assert on.ended_requests == ["/forgotten"]
    assert on.left == (False, False)


def test_h30_so_is_one_forgotten_in_a_block_of_another_one(off_and_on: OffAndOn, in_request: bool) -> None:
    """Found where a helper pushes inside the caller's ``with``; Flask raises, with us and without."""
    off, on = off_and_on(lambda app: run(app, one_in_a_block, in_request))
    *torn_down, last = on.torn_down
    # Before Flask 3.2 the end of the block tears down once, with the inner context active, and drops that one: then
    # there is nothing left to be found. 3.2 pops nothing, and both are forgotten.
    assert torn_down == (off.torn_down or [("tests.field.app", "inner", None), ("tests.field.app", "outer", None)])
    assert last == INHERITED
    assert on.left == (False, False)


def wrong_order(shop: Flask, other: Flask) -> None:
    """Found in hand-written callbacks that pop what they have pushed, in the order in which they come."""
    outer, inner = push(shop.app_context(), "outer"), push(shop.app_context(), "inner")
    for ctx in (outer, inner):
        try:
            ctx.pop(None)
        except (AssertionError, LookupError, RuntimeError):
            continue


def test_h30_contexts_popped_in_the_wrong_order_are_torn_down_once_each(off_and_on: OffAndOn, in_request: bool) -> None:
    """Found as the function says. Flask before 3.2 pops them even so, and leaves the outer one active; 3.2 refuses."""
    off, on = off_and_on(lambda app: run(app, wrong_order, in_request))
    assert len(off.torn_down) in (1, 2)
    assert len(on.torn_down) == 3
    assert on.torn_down[-1] == INHERITED
    assert on.left == (False, False)


@pytest.mark.parametrize("then", [None, an_app_context, one_of_another_app, a_request_context])
def test_h35_a_task_that_pops_what_it_inherits_leaves_the_worker_clean(
    off_and_on: OffAndOn, in_request: bool, then: Task | None
) -> None:
    """Found in clean-up code that pops whatever is active: ``while has_app_context(): app_ctx.pop()``."""

    def task(shop: Flask, other: Flask) -> None:
        while has_app_context():
            app_ctx._get_current_object().pop(None)  # type: ignore[attr-defined]
        if then is not None:
            then(shop, other)

    off, on = off_and_on(lambda app: run(app, task, in_request))
    assert off.torn_down == []
    names = [event[1] for event in on.torn_down]
    assert names == ["inherited"] + ["forgotten"] * (then is not None)
    assert on.left == (False, False)


def test_h30_a_context_that_is_popped_in_copied_context_variables_is_no_outcome_of_the_task(
    off_and_on: OffAndOn, in_request: bool
) -> None:
    """Found in code that enters a context in a thread and leaves it in a callback of an event loop."""

    def task(shop: Flask, other: Flask) -> None:
        ctx = push(shop.app_context(), "forgotten")
        with pytest.raises(ValueError, match="was created in a different Context"):
            contextvars.copy_context().run(ctx.pop, None)

    off, on = off_and_on(lambda app: run(app, task, in_request))
    assert off.torn_down == [FORGOTTEN]
    assert off.left == (True, False)
    assert on == Report([FORGOTTEN, INHERITED], [], (False, False))


def test_h30_however_the_task_was_started(new_app: NewApp, off_and_on: OffAndOn, start: Start[t.Any]) -> None:
    """Found in threads, timers and pools alike."""

    def scenario(app: Flask) -> list[object]:
        torn_down: list[object] = []
        app.teardown_appcontext(lambda exc: torn_down.append(g.get("name")))

        def view() -> None:
            g.name = "view"
            start(lambda: push(app.app_context(), "forgotten") and None)
            torn_down.append("view goes on")

        in_view(app, view)
        return torn_down

    off, on = off_and_on(scenario)
    assert off == ["view goes on", "view"]
    # A pool hands the result over after the teardown; a thread may be waited for by its result alone.
    assert on == ["forgotten", "view", "view goes on", "view"]


@pytest.mark.parametrize("explicit", ["thread", "copy"])
def test_h30_the_explicit_api_tears_a_forgotten_one_down_too(new_app: NewApp, explicit: str) -> None:
    """Found in code that uses `AppContextThread` or `copy_current_app_context`: with us only, patches off."""
    app = new_app()
    torn_down: list[object] = []
    app.teardown_appcontext(lambda exc: torn_down.append((g.get("name"), has_request_context())))

    def task() -> None:
        push(app.app_context(), "forgotten")

    with app.test_request_context("/"):
        g.name = "view"
        if explicit == "thread":
            thread = AppContextThread(target=task)
            thread.start()
            thread.join(LIMIT)
        else:
            copy_current_app_context(task)()
            # Called in the view's own thread, it leaves the view's context as it was.
            assert (g.name, request.path) == ("view", "/")
    assert [name for name, _ in torn_down] == ["forgotten", "view", "view"]


def test_h30_a_handler_that_raises_keeps_no_other_one_from_being_torn_down(
    off_and_on: OffAndOn, caplog: pytest.LogCaptureFixture
) -> None:
    """Found in every close that can fail; the error is logged and is not the outcome of the task."""

    def scenario(app: Flask) -> list[object]:
        torn_down: list[object] = []

        @app.teardown_appcontext
        def teardown(exc: BaseException | None) -> None:
            torn_down.append(g.get("name"))
            if g.get("name") == "second":
                raise ZeroDivisionError

        def task() -> str:
            two_app_contexts(app, app)
            return "result"

        with ThreadPoolExecutor(1) as pool:

            def view() -> None:
                g.name = "view"
                torn_down.append(pool.submit(task).result(LIMIT))

            in_view(app, view)
            torn_down.append(pool.submit(has_app_context).result(LIMIT))
        return torn_down

    off, on = off_and_on(scenario)
    assert off == ["result", "view", True]
    assert on == ["second", "first", "view", "result", "view", False]
    # From Flask 3.2 on in an ExceptionGroup.
    assert ["ZeroDivisionError" in (record.exc_text or "") for record in caplog.records] == [True]


def test_h30_its_signals_are_sent_once(off_and_on: OffAndOn) -> None:
    """Found in agents and toolbars that count contexts by Flask's signals."""
    pytest.importorskip("blinker")
    from flask.signals import appcontext_popped, appcontext_pushed, appcontext_tearing_down

    def scenario(app: Flask) -> list[str]:
        sent: list[str] = []

        def note(name: str) -> Callable[..., None]:
            def receive(sender: Flask, **_: object) -> None:
                if threading.current_thread() is not threading.main_thread():
                    sent.append(name)

            return receive

        receivers = [
            (appcontext_pushed, note("pushed")),
            (appcontext_tearing_down, note("tearing down")),
            (appcontext_popped, note("popped")),
        ]
        for signal, receiver in receivers:
            signal.connect(receiver, app)
        in_view(app, lambda: in_thread(two_app_contexts, app, app))
        return sent

    off, on = off_and_on(scenario)
    assert off == ["pushed"] * 2
    assert on == ["pushed"] * 3 + ["tearing down", "popped"] * 3


def test_h30_what_was_active_before_the_task_is_not_ours_to_pop(unchanged: Compare) -> None:
    """Found in workers that push a context once, in their initializer: it lasts as long as the worker."""

    def scenario(app: Flask) -> list[object]:
        torn_down: list[object] = []
        app.teardown_appcontext(lambda exc: torn_down.append(g.get("name")))

        with ThreadPoolExecutor(1, initializer=lambda: push(app.app_context(), "worker") and None) as pool:
            pool.submit(int).result(LIMIT)

            def view() -> None:
                g.name = "view"
                pool.submit(int).result(LIMIT)

            in_view(app, view)
            kept = pool.submit(lambda: g.get("name")).result(LIMIT)
        return [kept, "worker" in torn_down]

    assert unchanged(scenario) == ["worker", False]


def test_h30_where_no_context_is_active_nothing_is_torn_down(unchanged: Compare) -> None:
    """Found in scripts: a task that was submitted without a context keeps what it pushes, as without us."""

    def scenario(app: Flask) -> list[object]:
        torn_down: list[object] = []
        app.teardown_appcontext(lambda exc: torn_down.append(g.get("name")))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(an_app_context, app, app).result(LIMIT)
            return [pool.submit(lambda: g.get("name")).result(LIMIT), *torn_down]

    assert unchanged(scenario) == ["forgotten"]


@pytest.mark.parametrize("kind", ["app", "request"])
def test_h30_a_stranger_is_not_served_the_session_of_a_forgotten_context(off_and_on: OffAndOn, kind: str) -> None:
    """Found in jobs with Flask-SQLAlchemy, whose sessions are keyed by the ``id()`` of the app context."""

    def scenario(app: Flask) -> dict[str, object]:
        from flask_sqlalchemy import SQLAlchemy

        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///tests.sqlite"
        db = SQLAlchemy(app)

        class Draft(db.Model):  # type: ignore[name-defined, misc]
            id = db.Column(db.Integer, primary_key=True)
            text = db.Column(db.String)

        with app.app_context():
            db.create_all()
        sessions = db.session.registry.registry
        kept: list[int] = []

        def task() -> None:
            ctx = app.app_context() if kind == "app" else app.test_request_context("/")
            ctx.push()
            db.session.add(Draft(text="alice's"))

        @app.get("/alice")
        def alice() -> str:
            in_thread(task)
            kept.append(len(sessions))
            return "done"

        @app.get("/bob")
        def bob() -> str:
            db.session.commit()
            return "done"

        client = app.test_client()
        for _ in range(30):
            client.get("/alice")
            client.get("/bob")
        outcome = {"kept": sum(kept)}
        with app.app_context():
            outcome["committed"] = db.session.query(Draft).count()
            outcome["checked out"] = db.engine.pool.checkedout() - 1
            db.session.remove()
            db.engine.dispose()
        for session in list(sessions.values()):
            session.close()
        return outcome

    off, on = off_and_on(scenario)
    assert off["kept"] > 0  # without us, what is forgotten is kept
    assert on == {"kept": 0, "committed": 0, "checked out": 0}
