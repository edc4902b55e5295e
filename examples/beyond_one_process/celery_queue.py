"""Celery: for work that has to outlive the request. The view is the one of thread_pool.py, with one line changed.

To run it, with a Redis server on this machine:

    celery --workdir examples/beyond_one_process --app celery_queue worker
    flask --app examples/beyond_one_process/celery_queue.py run
    curl -H "User-Id: alice" -d "text=a word" -d "text=and two more" http://127.0.0.1:5000/counts
"""

import os

from celery import Celery, group, shared_task
from flask import Flask, current_app, g, request

from flaskthreads_autopatch.integrations.celery import init_celery


@shared_task
def count_words(text):
    count = sum(word not in current_app.config["STOP_WORDS"] for word in text.split())
    return f"{count} for {g.user_id}, who asked at {request.path}"


def create_app():
    app = Flask(__name__)
    app.config["STOP_WORDS"] = {"a", "and", "the"}
    redis = os.environ.get("REDIS", "redis://127.0.0.1:6379/0")
    app.extensions["celery"] = celery = Celery(app.name, broker=redis, backend=redis)
    init_celery(celery, app, g=("user_id",))
    celery.set_default()

    @app.before_request
    def load_user():
        g.user_id = request.headers["User-Id"]

    @app.post("/counts")
    def counts():
        texts = request.form.getlist("text")
        found = group(count_words.s(text) for text in texts).delay().get()
        return {"counts": found}

    return app


flask_app = create_app()
celery_app = flask_app.extensions["celery"]  # for the worker
