"""An app whose views start threads and tasks, for the audits of real servers. It knows nothing of this library."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, g, request

app = Flask("shop")
pool = ThreadPoolExecutor(2)


def name_user():
    return f"{g.user} {request.path}"


def count():
    return 1


def hang():
    threading.Event().wait()


@app.before_request
def load_user():
    g.user = request.headers.get("user", "nobody")


@app.get("/")
def index():
    error = pool.submit(name_user).exception()
    pool.submit(count).result()
    return {"failed": error is not None, "pid": os.getpid()}


@app.get("/left")
def left():
    threading.Thread(target=hang, daemon=True).start()
    return {"pid": os.getpid()}


@app.get("/killed")
def killed():
    os.kill(os.getpid(), signal.SIGKILL)
