"""Packages that run the caller's functions in threads of their own: joblib, graphql-core 2, requests-futures, Dash.

A function that pushes a context of its own does what it did. One that does not has the view's context, since it is a
task of a pool, or the caller's own function in a thread that is made for it.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, current_app, g, has_app_context, has_request_context, request
from werkzeug.serving import make_server

from ..helpers import LIMIT
from .helpers import FLASK_3_2, Compare, in_view

pytestmark = pytest.mark.extensions

OffAndOn = Callable[[t.Any], tuple[t.Any, t.Any]]


def look() -> str:
    """What a function sees that pushes nothing."""
    return f"{g.user} at {request.path}" if has_app_context() else "nothing"


def as_alice(app: Flask, view: Callable[[], t.Any]) -> t.Any:
    def call() -> t.Any:
        g.user = "alice"
        return view()

    return in_view(app, call)


# joblib


def by_joblib(job: Callable[[int], object]) -> list[object]:
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=2, backend="threading")(delayed(job)(number) for number in range(4)))


def test_jobs_of_joblib_with_a_context_of_their_own(unchanged: Compare) -> None:
    """Found in reports: ``Parallel(n_jobs=..., backend="threading")`` over jobs that push an app context."""

    def scenario(app: Flask) -> object:
        app.config["RATE"] = 10

        def job(number: int) -> object:
            with app.app_context():
                g.number = number
                return number * current_app.config["RATE"], sorted(g), has_request_context()

        return as_alice(app, lambda: by_joblib(job))

    assert unchanged(scenario) == [(number * 10, ["number"], False) for number in range(4)]


def test_a_job_of_joblib_that_fails(unchanged: Compare) -> None:
    """Found in the same reports: the first error is raised by ``Parallel``."""

    def scenario(app: Flask) -> object:
        def job(number: int) -> float:
            with app.app_context():
                return 1 / (number - 2)

        with pytest.raises(ZeroDivisionError):
            as_alice(app, lambda: by_joblib(job))
        return has_app_context()

    assert unchanged(scenario) is False


def test_jobs_of_joblib_inherit(off_and_on: OffAndOn) -> None:
    """With us on only; without us they have no context."""
    off, on = off_and_on(lambda app: as_alice(app, lambda: by_joblib(lambda number: f"{number} {look()}")))
    assert off == [f"{number} nothing" for number in range(4)]
    assert on == [f"{number} alice at /view" for number in range(4)]


# graphql-core 2


def by_graphql(resolve: Callable[[], str], pool: int | bool) -> object:
    """The answers of two fields, resolved by graphql-core 2's executor of threads."""
    from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema, GraphQLString, graphql
    from graphql.execution.executors.thread import ThreadExecutor

    field = GraphQLField(GraphQLString, resolver=lambda *_: resolve())
    schema = GraphQLSchema(GraphQLObjectType("Query", {"first": field, "second": field}))
    executor = ThreadExecutor(pool)
    try:
        result = graphql(schema, "{ first second }", executor=executor)
    finally:
        if executor.pool is not None:
            executor.pool.close()
            executor.pool.join()
    return dict(result.data), [type(error.original_error).__name__ for error in result.errors or ()]


@pytest.fixture(params=[False, 2], ids=["a thread per field", "a pool"])
def pool(request: pytest.FixtureRequest) -> int | bool:
    """Whether graphql-core starts a thread for each field, or has a pool."""
    return t.cast("int | bool", request.param)


def test_resolvers_of_graphql_with_a_context_of_their_own(unchanged: Compare, pool: int | bool) -> None:
    """Found in Flask-GraphQL with ``executor=ThreadExecutor()``: resolvers that push an app context."""

    def scenario(app: Flask) -> object:
        def resolve() -> str:
            with app.app_context():
                return f"{current_app.name} {sorted(g)} {has_request_context()}"

        return as_alice(app, lambda: by_graphql(resolve, pool))

    text = "tests.field.app [] False"
    assert unchanged(scenario) == ({"first": text, "second": text}, [])


def test_resolvers_of_graphql_inherit(off_and_on: OffAndOn, pool: int | bool) -> None:
    """With us on only: the package's own function is the thread's target, and runs the caller's resolver once."""
    off, on = off_and_on(lambda app: as_alice(app, lambda: by_graphql(look, pool)))
    assert off == ({"first": "nothing", "second": "nothing"}, [])
    assert on == ({"first": "alice at /view", "second": "alice at /view"}, [])


# requests-futures


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """The address of a service that a view calls."""
    service = Flask("tests.field.upstream")
    service.add_url_rule("/price/<int:item>", "price", lambda item: {"price": item * 2})
    server = make_server("127.0.0.1", 0, service, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/price"
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


def prices(address: str, hook: Callable[[t.Any], None]) -> list[int]:
    """The prices of two items, asked for at the same time; *hook* is called in the threads with each response."""
    from requests_futures.sessions import FuturesSession

    with FuturesSession(ThreadPoolExecutor(2)) as session:
        # What the operating system's proxies are is no question for a service on this machine.
        session.trust_env = False
        hooks = {"response": lambda response, *_, **__: hook(response)}
        futures = [session.get(f"{address}/{item}", hooks=hooks, timeout=LIMIT) for item in (1, 2)]
        return [future.result(LIMIT).json()["price"] for future in futures]


def test_hooks_of_requests_futures_with_a_context_of_their_own(unchanged: Compare) -> None:
    """Found in the documentation of requests-futures: a response hook that logs or stores by the app."""
    with upstream() as address:

        def scenario(app: Flask) -> object:
            seen: list[object] = []

            def hook(response: t.Any) -> None:
                with app.app_context():
                    g.status = response.status_code
                    seen.append((g.status, sorted(g), has_request_context()))

            return as_alice(app, lambda: prices(address, hook)), seen

        assert unchanged(scenario) == ([2, 4], [(200, ["status"], False)] * 2)


def test_hooks_of_requests_futures_inherit(off_and_on: OffAndOn) -> None:
    """With us on only; without us a hook has no context."""
    with upstream() as address:

        def scenario(app: Flask) -> object:
            seen: list[str] = []
            return as_alice(app, lambda: prices(address, lambda response: seen.append(look()))), seen

        off, on = off_and_on(scenario)
    assert off == ([2, 4], ["nothing"] * 2)
    assert on == ([2, 4], ["alice at /view"] * 2)


# Dash

DASH = pytest.mark.skipif(FLASK_3_2, reason="Dash cannot be installed with Flask 3.2")


def by_dash(app: Flask, callback: Callable[[str], object]) -> object:
    """What the browser is sent by Dash when a callback is called with the text "in"."""
    from dash import Dash, Input, Output, dcc, html

    app.config["SERVER_NAME"] = None
    dash = Dash("tests.field.dash", server=app, url_base_pathname="/dash/")
    dash.layout = html.Div([dcc.Input(id="in"), html.Div(id="out")])
    dash.callback(Output("out", "children"), Input("in", "value"))(callback)
    body = {
        "output": "out.children",
        "outputs": {"id": "out", "property": "children"},
        "inputs": [{"id": "in", "property": "value", "value": "in"}],
        "changedPropIds": ["in.value"],
    }
    client = app.test_client()
    client.get("/dash/_dash-layout")
    return client.post("/dash/_dash-update-component", json=body).get_json()["response"]["out"]["children"]


@DASH
def test_a_dash_callback_that_fans_out_with_contexts_of_its_own(unchanged: Compare) -> None:
    """Found in dashboards: a callback that asks several sources by a pool, whose tasks push an app context."""

    def scenario(app: Flask) -> object:
        from dash import ctx

        def task(number: int) -> str:
            with app.app_context():
                return f"{number} {current_app.name} {sorted(g)} {has_request_context()}"

        def callback(value: str) -> list[str]:
            g.user = "alice"
            with ThreadPoolExecutor(2) as pool:
                return [f"{value} {ctx.triggered_id}", *pool.map(task, range(2))]

        return by_dash(app, callback)

    expected = ["in in", *(f"{number} tests.field.app [] False" for number in range(2))]
    assert unchanged(scenario) == expected


@DASH
def test_what_dash_keeps_for_a_callback_is_missing_in_its_tasks_as_it_was(unchanged: Compare) -> None:
    """Found in dashboards that hand ``ctx`` to a task: Dash keeps it in a context variable of its own."""

    def scenario(app: Flask) -> object:
        from dash import ctx

        def task() -> str:
            try:
                return str(ctx.triggered_id)
            except Exception as error:
                return type(error).__name__

        def callback(value: str) -> str:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(task).result(LIMIT)

        return by_dash(app, callback)

    assert unchanged(scenario, "install", "enable", "share") in ("LookupError", "MissingCallbackContextException")


@DASH
def test_the_tasks_of_a_dash_callback_inherit(off_and_on: OffAndOn) -> None:
    """With us on only; without us they have no context."""

    def scenario(app: Flask) -> object:
        def callback(value: str) -> list[str]:
            g.user = "alice"
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(lambda _: look(), range(2)))

        return by_dash(app, callback)

    off, on = off_and_on(scenario)
    assert off == ["nothing"] * 2
    assert on == ["alice at /dash/_dash-update-component"] * 2
