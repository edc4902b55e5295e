"""A view that asks SQLAlchemy from a pool of its own: each thread has its own session, and gives it back at the end.

To run it:

    flask --app examples/sqlalchemy_pool.py run
    curl -d "name=carol" http://127.0.0.1:5000/authors
"""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy

import flaskthreads_autopatch

db = SQLAlchemy()


class Author(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), nullable=False)
    books = db.relationship("Book")


class Book(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String(80), nullable=False)
    author_id = db.Column(db.ForeignKey("author.id"), nullable=False)


def summary(author_id):
    # An id, and not the view's Author: an object belongs to the session that loaded it, and that to one thread.
    author = db.session.get(Author, author_id)
    return {"name": author.name, "books": [book.title for book in author.books]}


def summaries():
    ids = db.session.scalars(db.select(Author.id).order_by(Author.id)).all()
    with ThreadPoolExecutor() as pool:
        return list(pool.map(summary, ids))


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///library.sqlite"
    flaskthreads_autopatch.install(app)
    db.init_app(app)

    with app.app_context():
        db.drop_all()
        db.create_all()
        db.session.add(Author(name="alice", books=[Book(title="Rabbits"), Book(title="Hatters")]))
        db.session.add(Author(name="bob", books=[Book(title="Bricks")]))
        db.session.commit()

    @app.get("/authors")
    def authors():
        return summaries()

    @app.post("/authors")
    def add_author():
        db.session.add(Author(name=request.form["name"]))
        # Before the threads look: they have other connections, which see what is committed.
        db.session.commit()
        return summaries(), 201

    return app
