"""A thread that pushes an app context of its own is outside of a request in there (H28).

It renders mails: their links are absolute, and nobody is logged in. Without us nothing else was active in the thread,
and Flask 3.2 covers the request with each app context.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import (
    Flask,
    current_app,
    g,
    has_app_context,
    has_request_context,
    render_template_string,
    request,
    session,
    url_for,
)

import flaskthreads_autopatch
from flaskthreads_autopatch import flask_context

from ..helpers import LIMIT, in_thread
from .helpers import Compare, NewApp, Start, Work, by_thread, in_view

Seen = dict[str, t.Any]
Send = Callable[[Flask], Seen]

MAIL = """{{ url_for("reset", token="t") }} for {{ g.user or "nobody" }}
{%- if request %} at {{ request.path }}{% endif %}{% if session %} with {{ session.cart }}{% endif %}"""


def look() -> Seen:
    """What code that writes a mail gets to see."""
    return {
        "app": current_app.name,
        "link": url_for("reset", token="t"),
        "external": url_for("reset", token="t", _external=True),
        "mail": render_template_string(MAIL),
        "in a request": has_request_context(),
        "g": sorted(g),
        "language": language(),
    }


def language() -> str:
    """As in the documentation of Flask-Babel: what the browser prefers, if there is one."""
    if has_request_context():
        return request.accept_languages.best_match(["de", "en"]) or "en"
    return "en"


OUTSIDE = {
    "app": "tests.field.app",
    "link": "https://shop.example/reset/t",
    "external": "https://shop.example/reset/t",
    "mail": "https://shop.example/reset/t for nobody",
    "in a request": False,
    "g": [],
    "language": "en",
}

INSIDE = {
    "app": "tests.field.app",
    "link": "/reset/t",
    "external": "http://shop.example/reset/t",
    "mail": "/reset/t for alice at /view with 1 book",
    "in a request": True,
    "g": ["user"],
    "language": "de",
}


def ordered(app: Flask, send: Work[t.Any], start: Start[t.Any] = by_thread) -> t.Any:
    """What *send* returns, started by a view of *app* for alice, who prefers German and has a book in her cart."""
    app.add_url_rule("/reset/<token>", "reset", lambda token: token)

    def view() -> t.Any:
        g.user, session["cart"] = "alice", "1 book"
        assert look() == INSIDE
        outcome = start(send)
        assert look() == INSIDE
        return outcome

    return in_view(app, view, base_url="http://shop.example", headers={"Accept-Language": "de"})


# The ways in which threads push an app context


def with_statement(app: Flask) -> Seen:
    """Found in most tutorials of Flask-Mail, and in the documentation of Flask-SQLAlchemy and of Celery."""
    with app.app_context():
        return look()


def push_and_pop(app: Flask) -> Seen:
    """Found in the documentation of Flask, "Manually Push a Context", and in code from before ``with``."""
    ctx = app.app_context()
    ctx.push()
    try:
        return look()
    finally:
        ctx.pop()


def exit_stack(app: Flask) -> Seen:
    """Found in workers that also enter a database session and a lock."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(app.app_context())
        return look()


def decorated(app: Flask) -> Seen:
    """Found in job modules: a decorator of the project pushes the context around each job."""

    def job(fn: Work[Seen]) -> Work[Seen]:
        @functools.wraps(fn)
        def call() -> Seen:
            with app.app_context():
                return fn()

        return call

    return job(look)()


def twice(app: Flask) -> Seen:
    """Found where a job with a context of its own calls ``send_mail()``, which pushes one as well."""
    with app.app_context():
        g.outer = "outer"
        with app.app_context():
            return look()


def the_same_one_twice(app: Flask) -> Seen:
    """Found in helpers that are handed a context and push it again."""
    with app.app_context() as ctx, ctx:
        return look()


def in_a_generator(app: Flask) -> Seen:
    """Found in exports: a generator that pushes the context for as long as it is read."""

    def lines() -> Iterator[Seen]:
        with app.app_context():
            yield look()

    with contextlib.closing(lines()) as generator:
        return next(generator)


def around_a_coroutine(app: Flask) -> Seen:
    """Found in bots that are run by ``asyncio.run`` in a thread of the web process."""

    async def send() -> Seen:
        await asyncio.sleep(0)
        return look()

    with app.app_context():
        return asyncio.run(send())


def after_an_error(app: Flask) -> Seen:
    """Found in retries: the first attempt has raised out of its context."""
    with contextlib.suppress(ZeroDivisionError), app.app_context():
        raise ZeroDivisionError
    with app.app_context():
        return look()


def after_a_request_in_it(app: Flask) -> Seen:
    """Found where a job renders one part of a mail in a test request context."""
    with app.app_context():
        with app.test_request_context("/part"):
            assert request.path == "/part"
        return look()


def after_another_app(app: Flask) -> Seen:
    """Found in processes with an app for the shop and one for the mails."""
    with app.app_context():
        with Flask("tests.field.other").app_context():
            assert not has_request_context()
        return look()


SENDS = [
    with_statement,
    push_and_pop,
    exit_stack,
    decorated,
    twice,
    the_same_one_twice,
    in_a_generator,
    around_a_coroutine,
    after_an_error,
    after_a_request_in_it,
    after_another_app,
]


@pytest.mark.parametrize("send", SENDS, ids=lambda send: send.__name__)
def test_h28_a_context_that_a_thread_pushes_is_outside_of_a_request(unchanged: Compare, send: Send) -> None:
    """Found as each of the functions says."""
    assert unchanged(lambda app: ordered(app, functools.partial(send, app))) == OUTSIDE


def test_h28_so_is_one_that_a_task_or_timer_pushes(unchanged: Compare, start: Start[Seen]) -> None:
    """Found in the documentation of Flask-Executor's predecessors: ``executor.submit(send_async_email, app, msg)``."""
    assert unchanged(lambda app: ordered(app, functools.partial(with_statement, app), start)) == OUTSIDE


def test_h28_so_is_one_that_a_thread_pushes_with_the_object_behind_current_app(unchanged: Compare) -> None:
    """Found in most tutorials: ``app = current_app._get_current_object()`` in the view, handed to the thread."""

    def scenario(app: Flask) -> Seen:
        def view() -> Seen:
            real = current_app._get_current_object()  # type: ignore[attr-defined]
            return in_thread(with_statement, real)

        app.add_url_rule("/reset/<token>", "reset", lambda token: token)
        return in_view(app, view)

    assert unchanged(scenario) == OUTSIDE


class FlaskThread(threading.Thread):
    """A thread that takes the app along and pushes its context in ``run``."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = current_app._get_current_object()  # type: ignore[attr-defined]

    def run(self) -> None:
        with self.app.app_context():
            super().run()


class ThreadWithContext(threading.Thread):
    """A thread whose context is made in the view, and entered in ``run``."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_context = current_app.app_context()

    def run(self) -> None:
        with self.app_context:
            super().run()


@pytest.mark.parametrize("kind", [FlaskThread, ThreadWithContext])
def test_h28_so_is_one_that_a_subclass_of_thread_pushes_in_its_run(
    unchanged: Compare, kind: type[threading.Thread]
) -> None:
    """Found in many projects, by way of a question-and-answer site: ``class FlaskThread(Thread)``."""

    def start(send: Work[Seen]) -> Seen:
        seen: list[Seen] = []
        thread = kind(target=lambda: seen.append(send()))
        thread.start()
        thread.join(LIMIT)
        return seen[0]

    assert unchanged(lambda app: ordered(app, look, start)) == OUTSIDE


def test_h28_so_is_one_of_another_app(unchanged: Compare) -> None:
    """Found where one process has an app for each brand, and the mails of one link to another."""

    def scenario(app: Flask) -> Seen:
        other = Flask("tests.field.other")
        other.config.update(SERVER_NAME="other.example", SECRET_KEY="other")
        other.add_url_rule("/other/<token>", "reset", lambda token: token)
        return ordered(app, functools.partial(with_statement, other))

    assert unchanged(scenario) == OUTSIDE | {
        "app": "tests.field.other",
        "link": "http://other.example/other/t",
        "external": "http://other.example/other/t",
        "mail": "http://other.example/other/t for nobody",
    }


def test_h28_so_is_one_that_is_kept_and_used_by_one_thread_after_the_other(unchanged: Compare) -> None:
    """Found in consumers that make one context at start-up and push it for each message: its ``g`` is kept."""

    def scenario(app: Flask) -> list[t.Any]:
        ctx = app.app_context()

        def send() -> t.Any:
            with ctx:
                g.sent = g.get("sent", 0) + 1
                return g.sent, has_request_context(), url_for("reset", token="t")

        return ordered(app, lambda: [send(), in_thread(send), send()])

    link = OUTSIDE["link"]
    assert unchanged(scenario) == [(1, False, link), (2, False, link), (3, False, link)]


def test_h28_a_mail_that_cannot_be_rendered_outside_of_a_request_still_cannot(unchanged: Compare) -> None:
    """Found in projects without SERVER_NAME, whose jobs are tested to fail loudly."""

    def scenario(app: Flask) -> list[str]:
        app.config["SERVER_NAME"] = None

        def send() -> list[str]:
            errors = []
            with app.app_context():
                for work in (
                    lambda: url_for("reset", token="t"),
                    lambda: request.path,
                    lambda: session["cart"],
                ):
                    with pytest.raises(RuntimeError) as error:
                        work()
                    errors.append(str(error.value).partition("\n")[0])
            return errors

        app.add_url_rule("/reset/<token>", "reset", lambda token: token)
        return in_view(app, lambda: in_thread(send))

    errors = unchanged(scenario)
    assert "SERVER_NAME" in errors[0]
    assert errors[1] == errors[2]


# A request context that the thread has pushed itself is the thread's


def own_request_context(app: Flask) -> t.Any:
    return app.test_request_context("/own", base_url="https://shop.example")


def test_h28_a_request_context_pushed_in_it_is_seen_until_it_is_popped(unchanged: Compare) -> None:
    """Found in tutorials on links without SERVER_NAME: ``with app.app_context(), app.test_request_context():``."""

    def scenario(app: Flask) -> list[object]:
        def send() -> list[object]:
            seen: list[object] = []
            with app.app_context():
                with own_request_context(app):
                    seen += [request.path, url_for("reset", token="t", _external=True), "cart" in session, sorted(g)]
                seen.append(has_request_context())
            return seen

        return t.cast("list[object]", ordered(app, send))

    assert unchanged(scenario) == ["/own", "https://shop.example/reset/t", False, [], False]


def test_h28_an_app_context_pushed_in_a_threads_own_request_is_what_it_was(unchanged: Compare) -> None:
    """Found in ``send_mail()`` that views call as well: Flask before 3.2 still sees the request there, 3.2 does not."""

    def scenario(app: Flask) -> list[object]:
        def send() -> list[object]:
            with own_request_context(app):
                with app.app_context():
                    inner = has_request_context() and request.path
                return [inner, request.path]

        return t.cast("list[object]", ordered(app, send))

    def in_this_thread(app: Flask) -> list[object]:
        with own_request_context(app):
            with app.app_context():
                inner = has_request_context() and request.path
            return [inner, request.path]

    assert unchanged(scenario) == in_this_thread(Flask("tests.field.here"))


def test_h28_the_same_for_a_request_context_in_one_in_a_request_context(unchanged: Compare) -> None:
    """Found in nested jobs: each level has what it would have without us."""

    def scenario(app: Flask) -> list[object]:
        def send() -> list[object]:
            seen: list[object] = []

            def note() -> None:
                seen.append((has_request_context() and request.path, sorted(g)))

            with app.app_context():
                g.level = 1
                note()
                with app.test_request_context("/2"):
                    note()
                    with app.app_context():
                        g.level3 = 3
                        note()
                        with app.test_request_context("/4"):
                            note()
                        note()
                    note()
                note()
            return seen

        return t.cast("list[object]", ordered(app, send))

    assert len(unchanged(scenario)) == 7


# Contexts that end out of order


def popped_in_the_wrong_order(app: Flask) -> list[object]:
    outer, inner = app.app_context(), app.app_context()
    outer.push()
    inner.push()
    seen: list[object] = [has_request_context()]
    for ctx in (outer, inner):
        try:
            ctx.pop()
        except Exception as error:
            seen.append(type(error).__name__)
        seen.append(has_request_context())
    return seen


def test_h28_contexts_popped_in_the_wrong_order_raise_as_they_did(unchanged: Compare) -> None:
    """Found in hand-written ``push()`` and ``pop()`` in callbacks; Flask raises, and the request stays hidden."""

    def scenario(app: Flask) -> list[object]:
        seen = t.cast("list[object]", ordered(app, functools.partial(popped_in_the_wrong_order, app)))
        # What is active after the last pop is the thread's own affair without us, and the lent request with us.
        return seen[:3]

    seen = unchanged(scenario)
    assert seen[0] is False
    assert seen[1] in ("AssertionError", "RuntimeError")
    assert seen[2] is False


def test_h28_a_generator_that_is_left_unfinished_leaves_its_context_to_the_reader(unchanged: Compare) -> None:
    """Found in exports that read the first rows only: the generator's context stays active until it is closed."""

    def scenario(app: Flask) -> list[object]:
        def lines() -> Iterator[str]:
            with app.app_context():
                yield "first"
                yield "second"

        def send() -> list[object]:
            generator = lines()
            seen: list[object] = [next(generator), has_request_context()]
            generator.close()
            return seen

        return t.cast("list[object]", ordered(app, send))

    assert unchanged(scenario) == ["first", False]


# Teardown


def test_h28_each_context_is_torn_down_where_it_ends_with_its_own_error(unchanged: Compare) -> None:
    """Found in apps whose ``close_db`` rolls back if the context ended with an error."""

    def scenario(app: Flask) -> list[object]:
        events: list[object] = []
        app.teardown_appcontext(lambda exc: events.append((g.get("mail"), exc and type(exc), has_request_context())))

        def send() -> list[object]:
            for mail in ("first", "second"):
                with contextlib.suppress(ZeroDivisionError), app.app_context():
                    g.mail = mail
                    if mail == "second":
                        raise ZeroDivisionError
            return events.copy()

        return t.cast("list[object]", ordered(app, send))

    assert unchanged(scenario) == [("first", None, False), ("second", ZeroDivisionError, False)]


# With us on only


def test_h28_after_its_own_context_the_thread_has_the_lent_request_again(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Only with us on is there a request to come back to; found in no code that has worked before."""

    def scenario(app: Flask) -> list[object]:
        def send() -> list[object]:
            seen: list[object] = []
            with contextlib.suppress(ZeroDivisionError), app.app_context():
                seen.append(has_request_context())
                raise ZeroDivisionError
            seen.append(has_request_context() and (request.path, session["cart"], g.user))
            push_and_pop(app)
            seen.append(has_request_context() and (request.path, session["cart"], g.user))
            return seen

        return t.cast("list[object]", ordered(app, send))

    off, on = off_and_on(scenario)
    assert off == [False, False, False]
    assert on == [False, ("/view", "1 book", "alice"), ("/view", "1 book", "alice")]


def test_h28_what_is_started_in_there_inherits_from_there(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]], start: Start[t.Any]
) -> None:
    """Found in a mail thread that fans out; without us the inner threads see no context at all."""

    def observe() -> object:
        if not has_app_context():
            return "nothing"
        return look() | {"of": g.get("of")}

    def scenario(app: Flask) -> object:
        def send() -> object:
            with app.app_context():
                g.of = "the mail thread"
                return start(observe)

        return ordered(app, send)

    off, on = off_and_on(scenario)
    assert off == "nothing"
    assert on == OUTSIDE | {"g": ["of"], "of": "the mail thread"}


def test_h28_nothing_is_hidden_from_the_view_or_from_its_other_threads(new_app: NewApp, unchanged: Compare) -> None:
    """Found in views that send a mail and go on: the context is the mail thread's alone, while it lasts."""

    def scenario(app: Flask) -> list[object]:
        pushed, go_on = threading.Event(), threading.Event()

        def send() -> bool:
            with app.app_context():
                pushed.set()
                go_on.wait(LIMIT)
                return has_request_context()

        def view() -> list[object]:
            with ThreadPoolExecutor(1) as pool:
                future = pool.submit(send)
                assert pushed.wait(LIMIT)
                seen: list[object] = [request.path]
                go_on.set()
                return [*seen, future.result(LIMIT), request.path]

        return in_view(app, view)

    assert unchanged(scenario) == ["/view", False, "/view"]


# Extensions that ask whether there is a request


@pytest.mark.extensions
def test_h28_flask_login_knows_nobody_there(unchanged: Compare) -> None:
    """Found in mail templates with ``{% if current_user %}``, which greet nobody when they are sent by a thread."""

    def scenario(app: Flask) -> list[object]:
        from flask_login import LoginManager, UserMixin, current_user, login_user

        class User(UserMixin):  # type: ignore[misc]
            id = "alice"

        LoginManager(app).user_loader(lambda id: User())

        def send() -> list[object]:
            with app.app_context():
                return [bool(current_user), render_template_string("{{ current_user.id or 'nobody' }}"), sorted(g)]

        def view() -> list[object]:
            login_user(User())
            return in_thread(send)

        return in_view(app, view)

    assert unchanged(scenario)[1] == "nobody"


@pytest.mark.extensions
def test_h28_flask_babel_uses_the_default_locale_there(unchanged: Compare) -> None:
    """Found in the documentation of Flask-Babel: a selector that reads ``request``, or answers None without one."""

    def scenario(app: Flask) -> list[str]:
        from flask_babel import Babel, force_locale, format_decimal, get_locale

        app.config["BABEL_DEFAULT_LOCALE"] = "en"
        Babel(app, locale_selector=lambda: request.accept_languages.best_match(["de"]) if request else None)

        def send() -> list[str]:
            with app.app_context():
                before = [str(get_locale()), format_decimal(1.5)]
                with force_locale("fr"):
                    return [*before, format_decimal(1.5)]

        def view() -> list[str]:
            assert format_decimal(1.5) == "1,5"
            sent = in_thread(send)
            assert format_decimal(1.5) == "1,5"
            return sent

        return in_view(app, view, base_url="http://shop.example", headers={"Accept-Language": "de"})

    assert unchanged(scenario) == ["en", "1.5", "1,5"]


@pytest.mark.extensions
def test_h28_flask_mail_sends_what_it_sent(unchanged: Compare) -> None:
    """Found in nearly every tutorial of Flask-Mail: ``send_async_email(app, msg)`` in a thread."""

    def scenario(app: Flask) -> list[str]:
        from flask_mail import Mail, Message

        app.config.update(MAIL_SUPPRESS_SEND=True, MAIL_DEFAULT_SENDER="shop@shop.example")
        mail = Mail(app)

        def send() -> None:
            with app.app_context():
                message = Message("Your order", ["alice@shop.example"])
                message.body = render_template_string(MAIL)
                mail.send(message)

        with mail.record_messages() as outbox:
            ordered(app, send)
        return [message.body for message in outbox]

    assert unchanged(scenario) == ["https://shop.example/reset/t for nobody"]


@pytest.mark.parametrize("on", [False, True])
def test_in_copied_context_variables_the_lent_request_remains_visible(app: Flask, on: bool) -> None:
    """The one case that differs, and docs/inheritance.md says so: a variable cannot be unset in a copy.

    From Flask 3.2 on an app context covers the request there too.
    """

    async def send() -> tuple[bool, list[str]]:
        with app.app_context():
            return has_request_context(), sorted(g)

    if on:
        flaskthreads_autopatch.install(app)
    with app.test_request_context("/view"):
        g.user = "alice"
        assert in_thread(lambda: asyncio.run(send())) == (on and flask_context.REUSES_APP_CONTEXT, [])


@pytest.mark.parametrize("on", [False, True])
def test_in_copied_context_variables_a_context_can_be_pushed_when_the_thread_has_ended(app: Flask, on: bool) -> None:
    """Found in threads that hand a coroutine to a loop, or what is left to do to a thread with copied variables."""

    def send() -> tuple[bool, list[str]]:
        with app.app_context():
            return has_app_context(), sorted(g)

    if on:
        flaskthreads_autopatch.install(app)
    with app.test_request_context("/view"):
        g.user = "alice"
        context = in_thread(contextvars.copy_context)
    assert contextvars.Context().run(in_thread, context.run, send) == (True, [])


@pytest.mark.parametrize("on", [False, True])
def test_in_copied_context_variables_one_can_be_pushed_where_the_thread_has_pushed_one(app: Flask, on: bool) -> None:
    """Found in threads with a loop of their own: a callback has the variables that were current at ``call_soon()``."""
    seen: list[tuple[bool, list[str]]] = []

    def send() -> None:
        with app.app_context():
            seen.append((has_app_context(), sorted(g)))

    def run_a_loop() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(send)
        loop.call_soon(loop.stop)
        with app.app_context():
            loop.run_forever()
        loop.close()

    if on:
        flaskthreads_autopatch.install(app)
    with app.test_request_context("/view"):
        g.user = "alice"
        in_thread(run_a_loop)
    assert seen == [(True, [])]


@pytest.mark.skipif(not flask_context.REUSES_APP_CONTEXT, reason="Flask 3.2 covers the request with each app context")
def test_h28_one_context_popped_by_two_threads_in_the_wrong_order_shows_neither_the_others_request(
    unchanged: Compare,
) -> None:
    """Found in modules that make one context at start-up: Flask raises, and no thread sees another one's request."""

    def scenario(app: Flask) -> list[object]:
        shared = app.app_context()
        alice_is_in, bob_is_in, alice_is_out = (threading.Event() for _ in range(3))
        seen: list[object] = []

        def alice() -> None:
            try:
                with shared:
                    alice_is_in.set()
                    bob_is_in.wait(LIMIT)
            except ValueError as error:
                seen.append(type(error).__name__)
            seen.append(request.path if has_request_context() else None)
            alice_is_out.set()

        def bob() -> None:
            with contextlib.suppress(ValueError, IndexError), shared:
                bob_is_in.set()
                alice_is_out.wait(LIMIT)

        threads = [threading.Thread(target=alice), threading.Thread(target=bob)]
        with app.test_request_context("/alice"):
            threads[0].start()
        alice_is_in.wait(LIMIT)
        with app.test_request_context("/bob"):
            threads[1].start()
        for thread in threads:
            thread.join(LIMIT)
        return seen

    assert unchanged(scenario) == ["ValueError", None]


@pytest.mark.skipif(not flask_context.REUSES_APP_CONTEXT, reason="Flask 3.2 covers the request with each app context")
def test_h28_one_context_popped_by_another_thread_shows_a_later_thread_no_request(unchanged: Compare) -> None:
    """Found in generators that are closed by another thread: a later thread often has the ident of the first one."""

    def scenario(app: Flask) -> list[object]:
        shared = app.app_context()

        def lines() -> t.Generator[str, None, None]:
            with shared:
                yield "first"

        generator = lines()
        is_read, is_closed = threading.Event(), threading.Event()

        def read() -> None:
            next(generator)
            is_read.set()
            is_closed.wait(LIMIT)

        def later() -> bool:
            with shared:
                pass
            return has_request_context()

        with app.test_request_context("/alice"):
            thread = threading.Thread(target=read)
            thread.start()
        is_read.wait(LIMIT)
        with app.app_context(), contextlib.suppress(ValueError):
            generator.close()
        is_closed.set()
        thread.join(LIMIT)
        return [in_thread(later) for _ in range(10)]

    assert unchanged(scenario) == [False] * 10
