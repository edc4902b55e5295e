"""Threads: the start. The other examples here have the same view, with one line changed.

To run it:

    flask --app examples/beyond_one_process/thread_pool.py run
    curl -H "User-Id: alice" -d "text=a word" -d "text=and two more" http://127.0.0.1:5000/counts
"""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask, current_app, g, request

import flaskthreads_autopatch

pool = ThreadPoolExecutor()


def count_words(text):
    count = sum(word not in current_app.config["STOP_WORDS"] for word in text.split())
    return f"{count} for {g.user_id}, who asked at {request.path}"


def create_app():
    app = Flask(__name__)
    app.config["STOP_WORDS"] = {"a", "and", "the"}
    flaskthreads_autopatch.install(app)

    @app.before_request
    def load_user():
        g.user_id = request.headers["User-Id"]

    @app.post("/counts")
    def counts():
        texts = request.form.getlist("text")
        found = list(pool.map(count_words, texts))
        return {"counts": found}

    return app
