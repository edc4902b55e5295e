"""An app whose views start threads, as it was written years ago, and the one line that gives them the app context.

Run this file to see what the threads see without the line and with it. Or serve it, and look for yourself:

    flask --app examples/quickstart.py run
    curl -H "user-id: alice" http://127.0.0.1:5000/thread
"""

import http.client
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from flask import Blueprint, Flask, g, request
from werkzeug.serving import make_server

import flaskthreads_autopatch

# The legacy code ---------------------------------------------------------------------------------

views = Blueprint("views", __name__)
pool = ThreadPoolExecutor(max_workers=2)


@views.before_app_request
def load_user():
    g.user_id = request.headers.get("user-id", "nobody")


def who():
    try:
        return g.user_id
    except RuntimeError as error:
        return str(error).splitlines()[0]


@views.get("/thread")
def in_a_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(who()))
    thread.start()
    thread.join()
    return seen[0]


@views.get("/pool")
def in_a_pool():
    return pool.submit(who).result()


# The app -----------------------------------------------------------------------------------------


def create_app():
    app = Flask(__name__)
    app.register_blueprint(views)
    flaskthreads_autopatch.install(app)  # the one line
    return app


# The demonstration -------------------------------------------------------------------------------

PATHS = ["/thread", "/pool"]
USERS = ["alice", "bob", "carol", "dave"]


def demonstrate():
    app = create_app()
    flaskthreads_autopatch.uninstall(app)  # as if the line were not there
    without = ask(app)
    with_it = ask(create_app())

    row = "{:<9} {:<7} {:<40} {}".format
    print(row("view", "user", "the thread saw, without the line", "with it"))
    for view, user in with_it:
        print(row(view, user, without[view, user], with_it[view, user]))

    if all(saw == user for (_, user), saw in with_it.items()):
        print("With the line, every thread saw its own user.")
        return 0
    print("With the line, some thread did not see its own user.")
    return 1


def ask(app):
    """Serve *app* and send each view the requests of all users, overlapping. Returns the answers."""
    # No view is entered before the requests of all users are under way.
    all_here = threading.Barrier(len(USERS), timeout=60)

    @app.before_request
    def overlap():
        all_here.wait()

    server = make_server("127.0.0.1", 0, app, threaded=True)  # 0: any free port
    threading.Thread(target=server.serve_forever).start()
    try:
        questions = [(path, user) for path in PATHS for user in USERS]
        with ThreadPoolExecutor(len(USERS)) as clients:
            answers = clients.map(lambda question: get(server.port, *question), questions)
            return dict(zip(questions, answers, strict=True))
    finally:
        server.shutdown()
        server.server_close()


def get(port, path, user):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path, headers={"user-id": user})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return body if response.status == 200 else f"HTTP {response.status} {response.reason}"


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    sys.exit(demonstrate())
