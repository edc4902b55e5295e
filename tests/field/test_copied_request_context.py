"""A thread that pushes a request context per item has a ``g``, a session and a teardown of its own per item (H29).

The copy of `flask.copy_current_request_context` and the one made by hand, a test request context, the request context
of an environ, and the test client. Without us nothing else was active in the thread, and each push came with a new app
context.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import flask
import pytest
from flask import (
    Flask,
    Response,
    copy_current_request_context,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    session,
    stream_with_context,
)

from ..helpers import LIMIT, in_thread
from .helpers import FLASK_3_2, Compare, in_view

Handle = Callable[[int], None]
Loop = Callable[[Handle], None]
Make = Callable[[Flask, Handle], Loop]
Event = tuple[t.Any, ...]

ITEMS = (1, 2, 3)


def active_request_context() -> t.Any:
    """The request context that is active, by the name that Flask has for it: its generations differ."""
    name = "app_ctx" if FLASK_3_2 else "request_ctx"
    return getattr(flask.globals, name)._get_current_object()


def one_after_the_other(call: Handle) -> None:
    """Each item in turn; one that fails is logged, and the loop goes on."""
    for item in ITEMS:
        with contextlib.suppress(ZeroDivisionError):
            call(item)


# Each is called in the view, and returns what handles all items in the background.


def copied(app: Flask, handle: Handle) -> Loop:
    """Found in the documentation of Flask: a function under ``@copy_current_request_context``, called in a loop."""
    call = copy_current_request_context(handle)
    return lambda _: in_thread(one_after_the_other, call)


def copied_and_mapped(app: Flask, handle: Handle) -> Loop:
    """Found in answers on how to have ``request`` in ``executor.map``."""
    call = copy_current_request_context(handle)

    def loop(_: Handle) -> None:
        with ThreadPoolExecutor(1) as pool:
            results = pool.map(quietly(call), ITEMS)
            assert list(results) == [None] * 3

    return loop


def copied_and_mapped_by_a_thread_pool(app: Flask, handle: Handle) -> Loop:
    """Found in older answers to the same question, with ``multiprocessing.pool.ThreadPool``."""
    call = copy_current_request_context(handle)

    def loop(_: Handle) -> None:
        with ThreadPool(1) as pool:
            assert pool.map(quietly(call), ITEMS) == [None] * 3

    return loop


def copied_and_submitted(app: Flask, handle: Handle) -> Loop:
    """Found in the source of Flask-Executor's and other wrappers: a copy per task."""

    def loop(_: Handle) -> None:
        with ThreadPoolExecutor(1) as pool:
            for item in ITEMS:
                future = pool.submit(copy_current_request_context(handle), item)
                with contextlib.suppress(ZeroDivisionError):
                    future.result(LIMIT)

    return loop


def quietly(call: Handle) -> Handle:
    def wrapper(item: int) -> None:
        with contextlib.suppress(ZeroDivisionError):
            call(item)

    return wrapper


def copied_by_hand(app: Flask, handle: Handle) -> Loop:
    """Found in code from before the decorator, and around gevent: ``_request_ctx_stack.top.copy()``."""
    ctx = active_request_context().copy()

    def call(item: int) -> None:
        with ctx:
            handle(item)

    return lambda _: in_thread(one_after_the_other, call)


def copied_by_hand_per_item(app: Flask, handle: Handle) -> Loop:
    """The same with ``push()``, ``pop()`` and a copy per item."""
    ctx = active_request_context().copy()

    def call(item: int) -> None:
        own = ctx.copy()
        own.push()
        try:
            handle(item)
        except BaseException as error:
            own.pop(error)
            raise
        own.pop(None)

    return lambda _: in_thread(one_after_the_other, call)


def test_request_context(app: Flask, handle: Handle) -> Loop:
    """Found in tutorials on rendering templates in jobs: ``with app.test_request_context():``."""

    def call(item: int) -> None:
        with app.test_request_context("/view"):
            handle(item)

    return lambda _: in_thread(one_after_the_other, call)


test_request_context.__test__ = False  # type: ignore[attr-defined]


def from_an_environ(app: Flask, handle: Handle) -> Loop:
    """Found in middleware that replays requests: ``with app.request_context(environ):``."""
    environ = {name: value for name, value in request.environ.items() if not name.startswith(("werkzeug.", "flask."))}

    def call(item: int) -> None:
        with app.request_context(environ.copy()):
            handle(item)

    return lambda _: in_thread(one_after_the_other, call)


def by_the_test_client(app: Flask, handle: Handle) -> Loop:
    """Found in cache warmers and report jobs that call their own app: ``app.test_client().get()`` in a thread."""

    def call(item: int) -> None:
        app.test_client().get(f"/view/{item}")

    return lambda _: in_thread(one_after_the_other, call)


COPIES = [copied, copied_and_mapped, copied_and_mapped_by_a_thread_pool, copied_and_submitted, copied_by_hand]
COPIES += [copied_by_hand_per_item]
ONE_COPY = [copied, copied_and_mapped, copied_and_mapped_by_a_thread_pool, copied_by_hand]
OTHERS = [test_request_context, from_an_environ, by_the_test_client]


def observed(app: Flask, make: Make) -> list[Event]:
    """What the handling of three items in the background observes, the second of which raises."""
    events: list[Event] = []
    threads: set[int] = set()

    @app.teardown_request
    def teardown_request(exc: BaseException | None) -> None:
        if threading.get_ident() in threads:
            events.append(("end of request", g.get("item"), exc and type(exc)))

    @app.teardown_appcontext
    def teardown_appcontext(exc: BaseException | None) -> None:
        if threading.get_ident() in threads:
            events.append(("teardown", g.get("item"), exc and type(exc)))

    def handle(item: int) -> None:
        threads.add(threading.get_ident())
        events.append(("begin", item, sorted(g), current_app.name, request.path.partition("/view")[1]))
        g.item = item
        if item == 2:
            raise ZeroDivisionError

    @app.get("/view/<int:item>")
    def view_of_item(item: int) -> str:
        handle(item)
        return "done"

    def view() -> list[Event]:
        g.user, session["cart"] = "alice", "1 book"
        make(app, handle)(handle)
        # With us on the thread or task has a teardown of its own, too.
        return [event for event in events if event[:2] != ("teardown", None)]

    return in_view(app, view)


EVENTS = [
    ("begin", 1, [], "tests.field.app", "/view"),
    ("end of request", 1, None),
    ("teardown", 1, None),
    ("begin", 2, [], "tests.field.app", "/view"),
    ("end of request", 2, ZeroDivisionError),
    ("teardown", 2, ZeroDivisionError),
    ("begin", 3, [], "tests.field.app", "/view"),
    ("end of request", 3, None),
    ("teardown", 3, None),
]


@pytest.mark.parametrize("make", [*COPIES, *OTHERS], ids=lambda make: make.__name__)
def test_h29_each_item_has_a_g_and_a_teardown_of_its_own(unchanged: Compare, make: Make) -> None:
    """Found as each of the functions says. From Flask 3.2 on a copy that is pushed again keeps its ``g``."""
    events = unchanged(lambda app: observed(app, make))
    if FLASK_3_2 and make in ONE_COPY:
        events = [(*event[:2], [], *event[3:]) if event[2] == ["item"] else event for event in events]
    assert events == EVENTS


@pytest.mark.parametrize("make", COPIES, ids=lambda make: make.__name__)
def test_h29_the_copy_has_the_request_and_the_session_of_the_view(unchanged: Compare, make: Make) -> None:
    """Found in the documentation of Flask: the copy refers to the view's own request and session."""

    def scenario(app: Flask) -> list[Event]:
        seen: list[Event] = []

        def view() -> list[Event]:
            mine = request._get_current_object()  # type: ignore[attr-defined]
            session["cart"] = "1 book"

            def handle(item: int) -> None:
                session[str(item)] = item
                same = request._get_current_object() is mine  # type: ignore[attr-defined]
                seen.append((item, same, session["cart"], g.get("user")))

            g.user = "alice"
            make(app, handle)(handle)
            return [*seen, tuple(sorted(session))]

        return in_view(app, view)

    expected = [(item, True, "1 book", None) for item in ITEMS]
    assert unchanged(scenario) == [*expected, ("1", "2", "3", "cart")]


@pytest.mark.parametrize("make", [*COPIES, *OTHERS], ids=lambda make: make.__name__)
def test_h29_each_item_has_a_database_session_of_its_own(unchanged: Compare, make: Make) -> None:
    """Found in import jobs with Flask-SQLAlchemy: one broken row is skipped, and its transaction with it."""

    def scenario(app: Flask) -> dict[str, object]:
        from flask_sqlalchemy import SQLAlchemy
        from sqlalchemy.exc import IntegrityError

        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///tests.sqlite"
        db = SQLAlchemy(app)

        class Row(db.Model):  # type: ignore[name-defined, misc]
            id = db.Column(db.Integer, primary_key=True)
            item = db.Column(db.Integer, nullable=False)

        with app.app_context():
            db.create_all()
        sessions: list[object] = []  # kept, so that no id is used twice
        found: list[object] = []

        def handle(item: int) -> None:
            sessions.append(db.session())
            # What another item has added and not committed must not be there.
            found.append(([row.item for row in db.session.query(Row)], db.engine.pool.checkedout()))
            db.session.add(Row(item=item))
            db.session.flush()
            if item == 1:
                db.session.commit()
            if item == 2:
                try:
                    db.session.add(Row(item=None))
                    db.session.commit()
                except IntegrityError:
                    raise ZeroDivisionError from None  # and nobody rolls back
            if item == 3:
                db.session.commit()

        @app.get("/view/<int:item>")
        def view_of_item(item: int) -> str:
            handle(item)
            return "done"

        def view() -> dict[str, object]:
            make(app, handle)(handle)
            return {
                "sessions": len({id(each) for each in sessions}),
                "the view's": db.session() in sessions,
                "found": found,
                "in the end": [row.item for row in db.session.query(Row)],
            }

        outcome = in_view(app, view)
        with app.app_context():
            outcome["checked out"] = db.engine.pool.checkedout()
            db.engine.dispose()
        return outcome

    assert unchanged(scenario, "install", "share") == {
        "sessions": 3,
        "the view's": False,
        "found": [([], 1), ([1], 1), ([1], 1)],
        "in the end": [1, 3],
        "checked out": 0,
    }


def test_h29_a_copy_called_by_the_view_itself_is_what_it_was(unchanged: Compare) -> None:
    """Found in jobs that run in place when there is no queue: before Flask 3.2 in the view's ``g``."""

    def scenario(app: Flask) -> list[object]:
        def view() -> list[object]:
            g.user = "alice"
            return [copy_current_request_context(lambda: sorted(g))(), sorted(g)]

        return in_view(app, view)

    assert unchanged(scenario)[1] == ["user"]


def test_h29_a_copy_called_in_itself_is_what_it_was(unchanged: Compare) -> None:
    """Found in walkers of trees: a copied function that calls itself is one context."""

    def scenario(app: Flask) -> list[object]:
        ends: list[object] = []
        app.teardown_appcontext(lambda exc: ends.append(g.get("depth")))

        def view() -> list[object]:
            @copy_current_request_context
            def walk(depth: int) -> list[object]:
                g.depth = g.get("depth", 0) + 1
                below = walk(depth - 1) if depth else []
                return [(g.depth, ends.copy()), *below]

            return in_thread(lambda: [walk(2), walk(0), ends.copy()])

        return in_view(app, view)

    again = 4 if FLASK_3_2 else 1  # which keeps the g of a copy
    assert unchanged(scenario) == [[(3, []), (3, []), (3, [])], [(again, [3])], [3, again]]


def test_h29_a_copy_of_a_copy_is_what_it_was(unchanged: Compare) -> None:
    """Found in layers that each copy: before Flask 3.2 the inner one reuses the app context of the outer one."""

    def scenario(app: Flask) -> object:
        def view() -> object:
            @copy_current_request_context
            def outer() -> object:
                g.user = "outer"
                return copy_current_request_context(lambda: (sorted(g), request.path))()

            g.user = "alice"
            return in_thread(outer)

        return in_view(app, view)

    unchanged(scenario)


def test_h29_an_async_function_is_copied_as_it_was(unchanged: Compare) -> None:
    """Found in async views that hand work to threads: Flask's decorator runs a coroutine function to its end."""

    def scenario(app: Flask) -> list[object]:
        def view() -> list[object]:
            @copy_current_request_context
            async def handle(item: int) -> tuple[int, list[str], str]:
                g.item = g.get("item", 0) + item
                return g.item, sorted(g), request.path

            g.user = "alice"
            return in_thread(lambda: [handle(item) for item in ITEMS])

        return in_view(app, view)

    numbers = (1, 3, 6) if FLASK_3_2 else ITEMS  # which keeps the g of a copy
    assert unchanged(scenario) == [(number, ["item"], "/view") for number in numbers]


def test_h29_a_copy_in_an_app_context_that_the_thread_has_pushed_is_what_it_was(unchanged: Compare) -> None:
    """Found where both work-arounds have met: before Flask 3.2 the pushed app context is reused."""

    def scenario(app: Flask) -> list[object]:
        def view() -> list[object]:
            copy = copy_current_request_context(lambda: (sorted(g), request.path))

            def work() -> list[object]:
                with app.app_context():
                    g.pushed = True
                    return [has_request_context(), copy(), has_request_context(), sorted(g)]

            g.user = "alice"
            return in_thread(work)

        return in_view(app, view)

    seen = unchanged(scenario)
    assert (seen[0], seen[2:]) == (False, [False, ["pushed"]])


def test_h29_two_threads_with_a_copy_each_do_not_meet(unchanged: Compare) -> None:
    """Found in views that start a thread per supplier, each under a copy of its own."""

    def scenario(app: Flask) -> list[object]:
        def view() -> list[object]:
            both = threading.Barrier(2)

            def work(name: str) -> tuple[str, list[str]]:
                g.name = name
                both.wait(LIMIT)
                return g.name, sorted(g)

            copies = [copy_current_request_context(work) for _ in range(2)]
            with ThreadPoolExecutor(2) as pool:
                futures = [pool.submit(copy, name) for copy, name in zip(copies, ("a", "b"), strict=True)]
                return [future.result(LIMIT) for future in futures]

        return in_view(app, view)

    assert unchanged(scenario) == [("a", ["name"]), ("b", ["name"])]


def test_h29_a_stream_in_a_copied_context_has_that_context(unchanged: Compare) -> None:
    """Found in exports to a file by a thread: the generator of a streamed response, read in a copied context."""

    def scenario(app: Flask) -> object:
        def view() -> object:
            def lines() -> Iterator[str]:
                g.line = g.get("line", 0)
                while g.line < 2:
                    g.line += 1
                    yield f"{g.line} {request.path} {sorted(g)}"

            @copy_current_request_context
            def export() -> list[str]:
                return list(stream_with_context(lines()))

            g.user = "alice"
            return in_thread(lambda: [export(), export()])

        return in_view(app, view)

    lines = ["1 /view ['line']", "2 /view ['line']"]
    # Flask 3.2 keeps the g of a copy, and there all lines have been read.
    assert unchanged(scenario) == [lines, [] if FLASK_3_2 else lines]


def test_h29_a_streamed_response_of_the_test_client_in_a_thread_is_what_it_was(unchanged: Compare) -> None:
    """Found in cache warmers that read large pages: the response is read after the view has returned."""

    def scenario(app: Flask) -> object:
        ends: list[object] = []
        app.teardown_appcontext(lambda exc: ends.append(g.get("line")))

        @app.get("/lines")
        def lines() -> Response:
            def generate() -> Iterator[str]:
                for g.line in range(3):
                    yield f"{g.line}{sorted(g)}"

            return Response(stream_with_context(generate()))

        def work() -> object:
            client = app.test_client()
            texts = [client.get("/lines").text, client.get("/lines").text]
            with client.get("/lines", buffered=False):
                pass  # not read
            return texts, [end for end in ends if end is not None]

        def view() -> object:
            g.user = "alice"
            return in_thread(work)

        return in_view(app, view)

    text = "0['line']1['line']2['line']"
    assert unchanged(scenario) == ([text, text], [2, 2, 0])


def test_h29_between_the_items_the_thread_has_what_it_inherits(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Only with us on does the thread have anything between its items; without us there is no context."""

    def scenario(app: Flask) -> list[object]:
        def view() -> list[object]:
            def look() -> object:
                return (g.get("user"), request.path) if has_app_context() else None

            @copy_current_request_context
            def handle() -> object:
                return in_thread(look)

            def work() -> list[object]:
                return [look(), handle(), look(), handle(), look()]

            g.user = "alice"
            return in_thread(work)

        return in_view(app, view)

    off, on = off_and_on(scenario)
    assert off == [None] * 5
    # What is started in the copied context inherits from that one, which has a g of its own.
    inherited, copied = ("alice", "/view"), (None, "/view")
    assert on == [inherited, copied, inherited, copied, inherited]
