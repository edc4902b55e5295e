"""A legacy app: it starts threads as it always has, and has never heard of this library."""

import threading
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, current_app, g, request

pool = ThreadPoolExecutor(1)


def look():
    """What a thread sees of its context, if it has one."""
    try:
        return f"{g.user} {current_app.name} {request.path}"
    except (AttributeError, RuntimeError) as error:
        return type(error).__name__


def create_app():
    app = Flask("shop")

    @app.get("/")
    def index():
        g.user = request.args["user"]
        seen = {}
        threads = [
            threading.Thread(target=lambda: seen.update(thread=look())),
            threading.Timer(0, lambda: seen.update(timer=look())),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return seen | {"pool": pool.submit(look).result()}

    return app


app = create_app()
