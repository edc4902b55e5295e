"""Code that carries all context variables by itself has the view's own context in the thread (3.9 of the contract).

``contextvars.copy_context().run`` has long been a way to have ``g`` and ``request`` in a thread: Flask keeps both in
context variables. The thread then works on the view's own objects, and nothing is torn down there.
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
from multiprocessing.pool import ThreadPool

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from flask import Flask, g, has_request_context, request

from ..helpers import LIMIT, in_thread
from .helpers import Compare, Work, in_view

Run = Callable[[Work[object]], object]


# Each runs *work* in another thread, in a copy of the context variables of the view.


def target(work: Work[object]) -> object:
    """Found in answers on context variables and threads: ``Thread(target=context.run, args=(fn,))``."""
    seen: list[object] = []
    thread = threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(work()),))
    thread.start()
    thread.join(LIMIT)
    return seen[0]


def submitted(work: Work[object]) -> object:
    """Found in the documentation of many libraries: ``pool.submit(copy_context().run, fn)``."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, work).result(LIMIT)


def partial(work: Work[object]) -> object:
    """Found in asyncio's own source: ``functools.partial(context.run, fn)``."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(functools.partial(contextvars.copy_context().run, work)).result(LIMIT)


def closure(work: Work[object]) -> object:
    """Found in wrappers of projects, which close over the copy."""
    context = contextvars.copy_context()
    return in_thread(lambda: context.run(work))


def applied(work: Work[object]) -> object:
    """The same with ``ThreadPool.apply_async``."""
    with ThreadPool(1) as pool:
        return pool.apply_async(contextvars.copy_context().run, (work,)).get(LIMIT)


def to_thread(work: Work[object]) -> object:
    """Found in async views: ``await asyncio.to_thread(fn)``."""

    async def call() -> object:
        return await asyncio.to_thread(work)

    return asyncio.run(call())


def by_asgiref(work: Work[object]) -> object:
    """Found in Flask's own async support: ``sync_to_async`` in ``async_to_sync``."""

    async def call() -> object:
        return await sync_to_async(work)()

    return async_to_sync(call)()


RUNS = [target, submitted, partial, closure, applied, to_thread, by_asgiref]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_work_in_copied_context_variables_has_the_views_own_context(unchanged: Compare, run: Run) -> None:
    """Found as each of the functions says."""

    def scenario(app: Flask) -> object:
        ends: list[object] = []
        app.teardown_appcontext(lambda exc: ends.append(g.get("user")))

        def view() -> object:
            mine = g._get_current_object()  # type: ignore[attr-defined]
            g.user = "alice"

            def work() -> object:
                g.of_the_thread = True
                same = g._get_current_object() is mine  # type: ignore[attr-defined]
                return same, g.user, request.path, ends.copy()

            return run(work), sorted(g)

        return in_view(app, view)

    seen, names = unchanged(scenario)
    assert seen == (True, "alice", "/view", [])
    assert names == ["of_the_thread", "user"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_an_app_context_pushed_in_there_is_what_it_was(unchanged: Compare, run: Run) -> None:
    """Found in jobs that push one in any case: before Flask 3.2 the copied request is seen in it, from 3.2 on not."""

    def scenario(app: Flask) -> object:
        def work() -> object:
            with app.app_context():
                g.of_the_thread = True
                inner = sorted(g), has_request_context()
            return inner, sorted(g), request.path

        def view() -> object:
            g.user = "alice"
            return run(work)

        return in_view(app, view)

    inner, outer, path = unchanged(scenario)
    assert (inner[0], outer, path) == (["of_the_thread"], ["user"], "/view")


@pytest.fixture
def tracer() -> Iterator[t.Any]:
    """A tracer whose spans are recorded, with OpenTelemetry's threading instrumentation on."""
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests.field")
    tracer.exporter = exporter
    yield tracer
    provider.shutdown()
    with contextlib.suppress(Exception):
        ThreadingInstrumentor().uninstrument()


@pytest.mark.extensions
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_opentelemetry_spans_have_the_parents_that_they_had(unchanged: Compare, tracer: t.Any, run: Run) -> None:
    """Found in services that carry their trace by hand, with OpenTelemetry's context in a context variable."""

    def scenario(app: Flask) -> object:
        tracer.exporter.clear()

        def work() -> None:
            with tracer.start_as_current_span("work"), app.app_context(), tracer.start_as_current_span("query"):
                pass

        def view() -> None:
            with tracer.start_as_current_span("view"):
                run(work)

        in_view(app, view)
        spans = tracer.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        return sorted((span.name, span.parent and names[span.parent.span_id]) for span in spans)

    expected = [("query", "work"), ("view", None), ("work", "view")]
    assert unchanged(scenario) == expected


@pytest.mark.extensions
def test_opentelemetrys_own_threads_have_the_parents_that_they_had(unchanged: Compare, tracer: t.Any) -> None:
    """Found in services that use OpenTelemetry's threading instrumentation beside their own app contexts."""
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    def scenario(app: Flask) -> object:
        tracer.exporter.clear()

        def work() -> object:
            with tracer.start_as_current_span("work"), app.app_context():
                return sorted(g), has_request_context()

        def view() -> object:
            g.user = "alice"
            with tracer.start_as_current_span("view"), ThreadPoolExecutor(1) as pool:
                return [in_thread(work), pool.submit(work).result(LIMIT)]

        ThreadingInstrumentor().instrument()
        try:
            seen = in_view(app, view)
        finally:
            ThreadingInstrumentor().uninstrument()
        spans = tracer.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        return seen, sorted((span.name, span.parent and names[span.parent.span_id]) for span in spans)

    seen, spans = unchanged(scenario, "install", "enable")
    assert seen == [([], False)] * 2
    assert spans == [("view", None), ("work", "view"), ("work", "view")]
