"""Streamed responses that use threads and pools while they are read."""

from __future__ import annotations

import queue
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, Response, g, has_app_context, has_request_context, request, stream_with_context

from ..helpers import LIMIT
from .helpers import Compare

Generate = Callable[[Flask], Iterator[str]]


def row(app: Flask, number: int) -> str:
    """Work that has a context of its own."""
    with app.app_context():
        g.number = number
        return f"{sorted(g)} {g.number} {has_request_context()}\n"


# The bodies of responses


def mapped(app: Flask) -> Iterator[str]:
    """Found in exports: the rows are made by ``executor.map`` while the response is read."""
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda number: row(app, number), range(3))


def as_they_complete(app: Flask) -> Iterator[str]:
    """Found in search pages that show each answer as it comes."""
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(row, app, number) for number in range(3)]
        for future in as_completed(futures, LIMIT):
            yield future.result()


def imapped(app: Flask) -> Iterator[str]:
    """Found in older exports: ``ThreadPool.imap``."""
    with ThreadPool(2) as pool:
        yield from pool.imap(lambda number: row(app, number), range(3))


def produced(app: Flask) -> Iterator[str]:
    """Found in server-sent events: a thread produces into a queue, and the response is what comes out."""
    rows: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def produce() -> None:
        for number in range(3):
            rows.put(row(app, number))
        rows.put(None)

    thread = threading.Thread(target=produce)
    thread.start()
    yield from iter(lambda: rows.get(timeout=LIMIT), None)
    thread.join(LIMIT)


def without_a_context(app: Flask) -> Iterator[str]:
    """Found in downloads: the work needs no context, and says so where it has one of its own only."""
    with ThreadPoolExecutor(2) as pool:
        for number in pool.map(lambda number: number * number, range(3)):
            yield f"{number}\n"


BODIES: dict[Generate, str] = {
    mapped: "".join(f"['number'] {number} False\n" for number in range(3)),
    as_they_complete: "".join(f"['number'] {number} False\n" for number in range(3)),
    imapped: "".join(f"['number'] {number} False\n" for number in range(3)),
    produced: "".join(f"['number'] {number} False\n" for number in range(3)),
    without_a_context: "0\n1\n4\n",
}


@pytest.mark.parametrize("generate", BODIES, ids=lambda generate: generate.__name__)
@pytest.mark.parametrize("with_context", [True, False], ids=["stream_with_context", "plain"])
def test_a_streamed_response_that_uses_threads_is_what_it_was(
    unchanged: Compare, generate: Generate, with_context: bool
) -> None:
    """Found as each of the functions says, with `flask.stream_with_context` and without it."""

    def scenario(app: Flask) -> object:
        main = threading.get_ident()
        ends: list[object] = []
        app.teardown_appcontext(lambda exc: ends.append(g.get("user")) if threading.get_ident() == main else None)

        @app.get("/stream")
        def stream() -> Response:
            g.user = "alice"
            body = generate(app)
            return Response(stream_with_context(body) if with_context else body)

        text = app.test_client().get("/stream").text
        return sorted(text.splitlines()), ends, has_app_context()

    lines, ends, left = unchanged(scenario, "install", "share")
    # Flask 3.1 tears the view's context down at the end of the view and once more at the end of the stream.
    assert (lines, set(ends), left) == (BODIES[generate].splitlines(), {"alice"}, False)


@pytest.mark.parametrize("with_context", [True, False], ids=["stream_with_context", "plain"])
def test_one_that_is_not_read_to_its_end_is_torn_down_as_it_was(unchanged: Compare, with_context: bool) -> None:
    """Found wherever a browser goes away: the response is closed, and the generator with it."""

    def scenario(app: Flask) -> object:
        main = threading.get_ident()
        events: list[object] = []
        app.teardown_appcontext(lambda exc: events.append("end") if threading.get_ident() == main else None)

        def generate() -> Iterator[str]:
            with ThreadPoolExecutor(1) as pool:
                try:
                    while True:
                        yield pool.submit(row, app, 1).result(LIMIT)
                finally:
                    events.append("closed")

        @app.get("/stream")
        def stream() -> Response:
            return Response(stream_with_context(generate()) if with_context else generate())

        with app.test_client().get("/stream") as response:
            events.append(next(iter(response.iter_encoded())))
        return events, has_app_context()

    events, left = unchanged(scenario)
    assert left is False
    assert set(map(str, events)) == {"b\"['number'] 1 False\\n\"", "closed", "end"}


def test_the_tasks_of_a_stream_with_context_inherit_from_it(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """With us on only: the generator runs in the view's context, and so the tasks have it."""

    def scenario(app: Flask) -> str:
        def look(number: int) -> str:
            return f"{g.user} {request.path} {number}\n" if has_app_context() else f"nobody {number}\n"

        def generate() -> Iterator[str]:
            with ThreadPoolExecutor(2) as pool:
                yield from pool.map(look, range(2))
                yield from pool.map(look, range(2))

        @app.get("/stream")
        def stream() -> Response:
            g.user = "alice"
            return Response(stream_with_context(generate()))

        return app.test_client().get("/stream").text

    off, on = off_and_on(scenario)
    assert off == "nobody 0\nnobody 1\n" * 2
    assert on == "alice /stream 0\nalice /stream 1\n" * 2
