"""Processes: for work that keeps a CPU busy. The view is the one of thread_pool.py, with one line changed.

To run it:

    flask --app examples/beyond_one_process/process_pool.py run
    curl -H "User-Id: alice" -d "text=a word" -d "text=and two more" http://127.0.0.1:5000/counts
"""

from concurrent.futures import ProcessPoolExecutor

from flask import Flask, current_app, g, request

from flaskthreads_autopatch import RemoteAppContextExecutor

# Starts no process before the first task does. The workers, which import this file, have no first task.
processes = RemoteAppContextExecutor(ProcessPoolExecutor(), app="process_pool:create_app", g=("user_id",))


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
        found = list(processes.map(count_words, texts))
        return {"counts": found}

    return app
