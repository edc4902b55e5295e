"""The `get_db()` of Flask's tutorial, unchanged, called from the view and from a pool's threads.

To run it:

    flask --app examples/tutorial_sqlite.py run
    curl http://127.0.0.1:5000/
"""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, current_app, g

import flaskthreads_autopatch

SCHEMA = """
DROP TABLE IF EXISTS post;
CREATE TABLE post (id INTEGER PRIMARY KEY, author TEXT NOT NULL, title TEXT NOT NULL);
INSERT INTO post (author, title) VALUES ('alice', 'Rabbits'), ('alice', 'Hatters'), ('bob', 'Bricks');
"""


def get_db():
    if "db" not in g:
        # sqlite3 refuses a connection in any thread but its own. Threads do not inherit it, and open their own here.
        g.db = sqlite3.connect(current_app.config["DATABASE"])
        g.db.row_factory = sqlite3.Row
    return g.db


def close_db(error=None):
    db = g.pop("db", None)
    if db is not None:
        db.close()


def titles(author):
    rows = get_db().execute("SELECT title FROM post WHERE author = ? ORDER BY id", (author,))
    return [row["title"] for row in rows]


def create_app():
    app = Flask(__name__)
    app.config["DATABASE"] = os.path.join(app.instance_path, "tutorial.sqlite")
    flaskthreads_autopatch.install(app)
    app.teardown_appcontext(close_db)

    os.makedirs(app.instance_path, exist_ok=True)
    with app.app_context():
        get_db().executescript(SCHEMA)

    @app.get("/")
    def index():
        authors = [row["author"] for row in get_db().execute("SELECT DISTINCT author FROM post ORDER BY author")]
        with ThreadPoolExecutor() as pool:
            posts = dict(zip(authors, pool.map(titles, authors), strict=True))
        # The threads have closed their own connections; the view's is as it was.
        total = get_db().execute("SELECT count(*) FROM post").fetchone()[0]
        return {"posts": posts, "total": total}

    return app
