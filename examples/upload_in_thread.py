"""An upload that is answered at once and worked on in a thread, later: `preload` has read the body by then.

To run it:

    flask --app examples/upload_in_thread.py run
    curl -H "Content-Type: application/octet-stream" --data-binary @examples/README.md http://127.0.0.1:5000/uploads
"""

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, abort, request, url_for

import flaskthreads_autopatch

pool = ThreadPoolExecutor(1)  # one upload after the other
numbers = itertools.count(1)
uploads = {}


def digest():
    # get_data(), form and json stay readable; stream has been read, and files are closed with their request.
    body = request.get_data()
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "sent_by": request.user_agent.string}


def create_app():
    app = Flask(__name__)
    # preload holds a whole body in memory until its thread is done.
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024 * 1024
    flaskthreads_autopatch.install(app, preload=True)

    @app.post("/uploads")
    def upload():
        number = next(numbers)
        uploads[number] = pool.submit(digest)
        return {"see": url_for("show", number=number)}, 202

    @app.get("/uploads/<int:number>")
    def show(number):
        if number not in uploads:
            abort(404)
        return uploads[number].result() if uploads[number].done() else {"waiting": True}

    return app
