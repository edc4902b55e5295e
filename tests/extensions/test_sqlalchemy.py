"""Flask-SQLAlchemy: each thread has a session of its own, and gives its connection back (H5, H6)."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, g

from .helpers import Counts, Start

pytestmark = pytest.mark.extensions


@pytest.fixture
def db(installed: Flask, tmp_path: Path) -> t.Iterator[t.Any]:
    """A database with one table, whose pool has three connections and no more; waiting for one is no way out."""
    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy.pool import QueuePool

    options = {"poolclass": QueuePool, "pool_size": 3, "max_overflow": 0, "pool_timeout": 20}
    installed.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'tests.db'}"
    installed.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    db = SQLAlchemy(installed)

    class Item(db.Model):  # type: ignore[name-defined, misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String)

    db.Item = Item
    with installed.app_context():
        db.create_all()
    yield db
    with installed.app_context():
        assert db.engine.pool.checkedout() == 0
        db.engine.dispose()


def test_200_tasks_return_all_connections_h6(installed: Flask, db: t.Any, counts: Counts) -> None:
    sessions: list[t.Any] = []  # kept, so that no id is used twice
    lock = threading.Lock()

    @installed.get("/")
    def view() -> list[t.Any]:
        g.user = "alice"
        db.session.add(db.Item(name="of the view"))
        db.session.flush()
        pool_ = db.engine.pool
        mine = db.session()

        def work(i: int) -> t.Any:
            with lock:
                sessions.append(db.session())
            # Not committed: what the teardown does not roll back, the next one to get the connection would see.
            rows = db.session.query(db.Item).count()
            return g.user, rows, pool_.checkedout() <= 3

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(work, range(200)))
        assert pool_.checkedout() == 1
        assert db.session() is mine
        assert all(session is not mine for session in sessions)
        # The view's transaction goes on: its row is there, for it alone.
        assert db.session.query(db.Item).count() == 1
        db.session.rollback()
        return answers

    answers = installed.test_client().get("/").get_json()
    assert answers == [["alice", 0, True]] * 200
    assert len({id(session) for session in sessions}) == 200
    assert counts.inherited == 200


def test_thread_and_parent_have_transactions_of_their_own_h5(
    installed: Flask, db: t.Any, counts: Counts, start: Start
) -> None:
    @installed.get("/")
    def view() -> dict[str, t.Any]:
        item = db.Item(name="of the parent")
        db.session.add(item)
        db.session.commit()
        assert item.name == "of the parent"  # loaded again: a transaction is open
        checked_out = db.engine.pool.checkedout()

        def work() -> t.Any:
            db.session.query(db.Item).update({"name": "of the child"})
            return "a transaction that nobody commits"

        start(work)
        return {
            "before": checked_out,
            "after": db.engine.pool.checkedout(),
            "name": item.name,
            "in": item in db.session,
        }

    answer = installed.test_client().get("/").get_json()
    assert answer == {"before": 1, "after": 1, "name": "of the parent", "in": True}
    assert counts.inherited == 1
