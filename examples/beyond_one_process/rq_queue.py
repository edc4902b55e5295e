"""RQ: for work that has to outlive the request. The view is the one of thread_pool.py, with one line changed.

To run it, with a Redis server on this machine:

    PYTHONPATH=examples/beyond_one_process rq worker --job-class rq_queue.CountJob
    flask --app examples/beyond_one_process/rq_queue.py run
    curl -H "User-Id: alice" -d "text=a word" -d "text=and two more" http://127.0.0.1:5000/counts
"""

import os

from flask import Flask, current_app, g, request
from redis import Redis
from rq import Queue

from flaskthreads_autopatch import Carrier
from flaskthreads_autopatch.integrations.rq import AppContextJob


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
        found = [job.latest_result(60).return_value for job in [queue.enqueue(count_words, text) for text in texts]]
        return {"counts": found}

    return app


# The worker imports this module before it forks for a job, so that the app is made once.
flask_app = create_app()


class CountJob(AppContextJob):
    carrier = Carrier(flask_app, g=("user_id",))


redis = Redis.from_url(os.environ.get("REDIS", "redis://127.0.0.1:6379/0"))
queue = Queue(connection=redis, job_class=CountJob)
