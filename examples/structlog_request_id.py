"""The same with structlog, which keeps what is bound in a context variable: `contextvars=True` carries those too.

To run it:

    flask --app examples/structlog_request_id.py run
    curl -H "X-Request-ID: 4711" http://127.0.0.1:5000/order
"""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import structlog
from flask import Flask, request

import flaskthreads_autopatch

log = structlog.get_logger()
pool = ThreadPoolExecutor(4)


def reserve(item):
    # What a thread binds stays in the thread: it works on a copy.
    structlog.contextvars.bind_contextvars(item=item)
    log.info("reserved")


def send_receipt():
    log.info("the receipt is sent")


def create_app():
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()])
    app = Flask(__name__)
    flaskthreads_autopatch.install(app, contextvars=True)

    @app.before_request
    def bind_request_id():
        # A server's thread serves one request after the other: begin with an empty slate.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.headers.get("X-Request-ID") or uuid.uuid4().hex)

    @app.get("/order")
    def order():
        list(pool.map(reserve, ["lamp", "chair"]))
        threading.Timer(0.1, send_receipt).start()
        log.info("the order is taken")
        return {}

    return app
