"""Connections of a pool that the app opens before a request and closes after it: peewee."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from ..helpers import in_thread
from .helpers import Compare, Start, in_view

pytestmark = pytest.mark.extensions


@contextlib.contextmanager
def shop(app: Flask, teardown: str) -> Iterator[t.Any]:
    """A database with a pool of connections, opened and closed as the documentation of peewee has it for Flask."""
    from peewee import CharField, Model
    from playhouse.pool import PooledSqliteDatabase

    db = PooledSqliteDatabase(f"{app.instance_path}.sqlite", max_connections=4, timeout=10)

    class Item(Model):  # type: ignore[misc]
        name = CharField()

        class Meta:
            database = db

    @app.before_request
    def connect() -> None:
        db.connect()

    @getattr(app, teardown)
    def close(exc: BaseException | None) -> None:
        if not db.is_closed():
            db.close()

    with db.connection_context():
        db.create_tables([Item])
    db.Item = Item
    try:
        yield db
    finally:
        db.close_all()


def in_use(db: t.Any) -> int:
    """How many connections are not in the pool."""
    return len(db._in_use)


TEARDOWNS = pytest.mark.parametrize("teardown", ["teardown_request", "teardown_appcontext"])


@TEARDOWNS
def test_a_thread_with_a_connection_of_its_own(unchanged: Compare, teardown: str, start: Start[object]) -> None:
    """Found in the documentation of peewee: ``with db.connection_context():`` in a thread."""

    def scenario(app: Flask) -> object:
        with shop(app, teardown) as db:

            def work() -> object:
                with db.connection_context():
                    db.Item.create(name="of the thread")
                    return in_use(db)

            def view() -> object:
                db.Item.create(name="of the view")
                during = start(work)
                return during, in_use(db), sorted(item.name for item in db.Item.select())

            return in_view(app, view), in_use(db)

    names = ["of the thread", "of the view"]
    assert unchanged(scenario, "install", "share") == ((2, 1, names), 0)


@TEARDOWNS
def test_a_thread_with_a_connection_and_an_app_context_of_its_own(unchanged: Compare, teardown: str) -> None:
    """Found in jobs with both; a teardown_appcontext handler closes the connection at the end of the context."""

    def scenario(app: Flask) -> object:
        with shop(app, teardown) as db:

            def work() -> object:
                with app.app_context():
                    db.connect()
                    db.Item.create(name="of the thread")
                closed = db.is_closed()
                if not closed:
                    db.close()
                return closed

            def view() -> object:
                mine = db.connection()
                return in_thread(work), db.connection() is mine, in_use(db)

            return in_view(app, view), in_use(db)

    closed = teardown == "teardown_appcontext"
    assert unchanged(scenario, "install", "share") == ((closed, True, 1), 0)


@TEARDOWNS
def test_a_transaction_of_the_view_is_not_touched_by_its_threads(unchanged: Compare, teardown: str) -> None:
    """Found in every view that starts a thread in ``with db.atomic():``."""

    def scenario(app: Flask) -> object:
        with shop(app, teardown) as db:

            def work() -> object:
                with db.connection_context():
                    return [item.name for item in db.Item.select()]

            def view() -> object:
                with db.atomic():
                    db.Item.create(name="of the view")
                    seen = in_thread(work)
                    return seen, db.in_transaction()

            seen = in_view(app, view)
            with db.connection_context():
                return seen, [item.name for item in db.Item.select()]

    assert unchanged(scenario, "install", "share") == (([], True), ["of the view"])


def test_a_connection_that_a_thread_forgets_is_closed_by_the_teardown(
    off_and_on: Callable[[t.Any], tuple[t.Any, t.Any]],
) -> None:
    """Found in views whose threads just query; without us the connection is never given back to the pool."""

    def scenario(app: Flask) -> object:
        with shop(app, "teardown_appcontext") as db:

            def work() -> int:
                return t.cast(int, db.Item.select().count())

            def view() -> object:
                return in_thread(work)

            return in_view(app, view), in_use(db)

    off, on = off_and_on(scenario)
    assert off == (0, 1)
    assert on == (0, 0)
