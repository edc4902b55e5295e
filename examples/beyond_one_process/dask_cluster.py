"""A Dask cluster: for work that is too much for one machine. The view is the one of thread_pool.py, one line changed.

To run it, on a cluster of one machine:

    dask scheduler --host 127.0.0.1
    PYTHONPATH=examples/beyond_one_process dask worker tcp://127.0.0.1:8786
    flask --app examples/beyond_one_process/dask_cluster.py run
    curl -H "User-Id: alice" -d "text=a word" -d "text=and two more" http://127.0.0.1:5000/counts
"""

import functools
import os

from distributed import Client
from flask import Flask, current_app, g, request

from flaskthreads_autopatch import RemoteAppContextExecutor


@functools.cache
def cluster():
    # Not when the app is made: the workers make it too.
    client = Client(os.environ.get("SCHEDULER", "tcp://127.0.0.1:8786"))
    # pure=False: Dask would keep the result of a task, and give it for the next one with the same arguments.
    return RemoteAppContextExecutor(client.get_executor(pure=False), app="dask_cluster:create_app", g=("user_id",))


def count_words(text):
    count = sum(word not in current_app.config["STOP_WORDS"] for word in text.split())
    return f"{count} for {g.user_id}, who asked at {request.path}"


def create_app():
    app = Flask(__name__)
    app.config["STOP_WORDS"] = {"a", "and", "the"}

    @app.before_request
    def load_user():
        g.user_id = request.headers["User-Id"]

    @app.post("/counts")
    def counts():
        texts = request.form.getlist("text")
        found = list(cluster().map(count_words, texts))
        return {"counts": found}

    return app
