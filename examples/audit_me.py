"""An app as it was written years ago, with one place for each verdict of the audit. Nothing of this library is in it.

Run this file with the audit, to see which threads it starts, from where, and what inheritance would change for them:

    flaskthreads-autopatch audit -- python examples/audit_me.py
    flaskthreads-autopatch audit --html audit.html -- python examples/audit_me.py
"""

import logging.handlers
import queue
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, current_app, g, has_request_context, request

pool = ThreadPoolExecutor(max_workers=2)
log = logging.getLogger("shop")
log_queue = queue.SimpleQueue()
listener = logging.handlers.QueueListener(log_queue, logging.NullHandler())


class IndexWorker(threading.Thread):
    """Indexes orders for as long as the process lives. The first order starts it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.orders = queue.SimpleQueue()

    def run(self):
        while True:
            self.orders.get()


index_worker = IndexWorker()


def send_receipt():
    return f"To {g.user}: thank you for {request.args['item']}"  # It fails, and nobody notices.


def count_order():
    return "a customer" if has_request_context() else "a job"


def send_report(app):
    with app.app_context():
        log.info("the report of %s", current_app.name)


def load_rates():
    return current_app.config["RATES"]


def create_app():
    app = Flask("shop")
    app.config["RATES"] = {"EUR": 1.0}

    # A job at start-up: no app context is active here.
    pool.submit(load_rates).exception()

    @app.before_request
    def load_user():
        g.user = request.headers.get("user", "nobody")
        g.db = sqlite3.connect(":memory:")

    @app.get("/order")
    def order():
        pool.submit(send_receipt).exception()
        pool.submit(count_order).result()

        report = threading.Thread(target=send_report, args=[app])
        report.start()
        report.join()

        if not index_worker.is_alive():
            listener.start()
            index_worker.start()
        index_worker.orders.put(request.args["item"])
        return "ordered"

    @app.teardown_appcontext
    def close_db(error):
        if "db" in g:
            g.pop("db").close()

    return app


if __name__ == "__main__":
    client = create_app().test_client()
    for item in ("a lamp", "a chair", "a table"):
        client.get("/order", query_string={"item": item}, headers={"user": "alice"})
    listener.stop()
