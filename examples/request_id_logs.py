"""Structured logs: each line of each thread carries the id of the request that the work is done for.

To run it:

    flask --app examples/request_id_logs.py run
    curl -H "X-Request-ID: 4711" http://127.0.0.1:5000/order
"""

import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, g, has_app_context, request

import flaskthreads_autopatch

log = logging.getLogger(__name__)
pool = ThreadPoolExecutor(4)


class RequestIdFilter(logging.Filter):
    def filter(self, record):
        record.request_id = g.get("request_id") if has_app_context() else None
        return True


class JSONFormatter(logging.Formatter):
    def format(self, record):
        line = {"request_id": record.request_id, "thread": record.threadName, "message": record.getMessage()}
        line |= {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps(line)


def reserve(item):
    log.info("%s is reserved", item)


def send_receipt():
    log.info("the receipt is sent")


def create_app():
    # On the handler, which sees the lines of all loggers: a logger's filter does not see those of its children.
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    app = Flask(__name__)
    flaskthreads_autopatch.install(app)

    @app.before_request
    def set_request_id():
        g.request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex

    @app.teardown_appcontext
    def log_end(error):
        # In a thread too: a plain value that the thread has inherited can be read here, a connection could not.
        log.info("the end of the context")

    @app.get("/order")
    def order():
        list(pool.map(reserve, ["lamp", "chair"]))
        threading.Timer(0.1, send_receipt).start()
        log.info("the order is taken")
        return {"request_id": g.request_id}

    return app
