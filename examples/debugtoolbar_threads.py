"""Flask-DebugToolbar shows what a view has started: tasks that fan out, one that fails, a thread that is left behind.

To run it, and then to open http://127.0.0.1:5000/ in a browser and click on "Threads":

    flask --app examples/debugtoolbar_threads.py run
    curl http://127.0.0.1:5000/
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, g
from flask_debugtoolbar import DebugToolbarExtension

import flaskthreads_autopatch

pool = ThreadPoolExecutor(4)
PAGE = "<!doctype html><title>Threads</title><body><h1>{}</h1><p>Click on Threads, at the right.</p></body>"


def fetch(number):
    time.sleep(0.01 + 0.01 * (number % 4))
    if number % 5 == 3:
        raise TimeoutError(f"{g.user} waits for {number} in vain")
    return number


def clean_up(begun):
    begun.set()
    time.sleep(2)


def create_app():
    app = Flask(__name__)
    app.debug = True
    app.secret_key = "an example"
    app.config["DEBUG_TB_PANELS"] = ["flaskthreads_autopatch.integrations.debugtoolbar.ThreadsPanel"]
    flaskthreads_autopatch.install(app, exclude=["password"])
    DebugToolbarExtension(app)

    @app.get("/", defaults={"number": 7})
    @app.get("/<int:number>")
    def fan_out(number):
        g.user, g.password = "alice", "s3cret"
        results = [pool.submit(fetch, n) for n in range(number)]
        failed = sum(result.exception() is not None for result in results)
        begun = threading.Event()
        threading.Thread(target=clean_up, args=[begun], name="left behind", daemon=True).start()
        begun.wait()  # the panel shows what has begun when the response is made
        return PAGE.format(f"{number} tasks, {failed} failed")

    return app
