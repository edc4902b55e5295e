"""A Celery worker whose tasks use a pool of threads. The queue is a folder, so that no server is needed.

To run it:

    celery --workdir examples -A celery_worker worker --loglevel INFO
    flask --app examples/celery_worker.py run
    curl -d "text=the white rabbit" -d "text=a hatter" http://127.0.0.1:5000/counts
"""

import os
from concurrent.futures import ThreadPoolExecutor

from celery import Celery, Task, shared_task
from celery.result import AsyncResult
from flask import Flask, current_app, g, request

import flaskthreads_autopatch


def count_words(text):
    current_app.logger.info("task %s counts %r", g.task_id, text)
    return sum(word not in current_app.config["STOP_WORDS"] for word in text.split())


@shared_task
def count_all(texts):
    with ThreadPoolExecutor() as pool:
        return list(pool.map(count_words, texts))


def create_celery(app):
    class TaskInContext(Task):
        def __call__(self, *args, **kwargs):
            # A task runs in another process than the view: it opens a context itself, and its threads inherit that.
            with app.app_context():
                g.task_id = self.request.id
                return self.run(*args, **kwargs)

    folder = {name: os.path.join(app.instance_path, name) for name in ("queue", "control", "results")}
    for path in folder.values():
        os.makedirs(path, exist_ok=True)
    celery = Celery(app.name, task_cls=TaskInContext, broker="filesystem://", backend=f"file://{folder['results']}")
    transport = celery.conf.broker_transport_options = {"control_folder": folder["control"]}
    transport["data_folder_in"] = transport["data_folder_out"] = folder["queue"]
    celery.set_default()
    return celery


def create_app():
    app = Flask(__name__)
    app.config["STOP_WORDS"] = {"a", "an", "the"}
    flaskthreads_autopatch.install(app)
    app.extensions["celery"] = create_celery(app)

    @app.post("/counts")
    def start():
        return {"id": count_all.delay(request.form.getlist("text")).id}, 202

    @app.get("/counts/<task_id>")
    def counts(task_id):
        result = AsyncResult(task_id)
        return {"counts": result.get() if result.ready() else None}

    return app


flask_app = create_app()
celery_app = flask_app.extensions["celery"]  # for the worker
