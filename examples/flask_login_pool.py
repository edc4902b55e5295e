"""Flask-Login's `current_user` in a pool's threads. Sign in as alice, with the password "rabbit".

To run it:

    flask --app examples/flask_login_pool.py run
    curl --location --cookie "" -d "name=alice" -d "password=rabbit" http://127.0.0.1:5000/login
"""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask, abort, redirect, request, url_for
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from werkzeug.security import check_password_hash, generate_password_hash

import flaskthreads_autopatch

LOGIN_PAGE = '<form method="post"><input name="name"><input name="password" type="password"><button>Sign in</button>'
PASSWORDS = {"alice": generate_password_hash("rabbit"), "bob": generate_password_hash("brick")}
MESSAGES = {"alice": {"inbox": 3, "drafts": 1, "sent": 4}, "bob": {"inbox": 0, "drafts": 0, "sent": 2}}

login_manager = LoginManager()
login_manager.login_view = "login"
pool = ThreadPoolExecutor(4)


class User(UserMixin):
    def __init__(self, name):
        self.id = name


@login_manager.user_loader
def load_user(name):
    # This is called in each thread: a user that comes from a database belongs to the session that loaded it.
    return User(name) if name in PASSWORDS else None


def count_messages(folder):
    return f"{current_user.id}: {MESSAGES[current_user.id][folder]} in {folder}"


def create_app():
    app = Flask(__name__)
    app.secret_key = "a secret for this example only"
    flaskthreads_autopatch.install(app)
    login_manager.init_app(app)

    @app.route("/login", methods=["GET", "POST"])
    def login():
        if request.method == "GET":
            return LOGIN_PAGE
        name = request.form["name"]
        if name not in PASSWORDS or not check_password_hash(PASSWORDS[name], request.form["password"]):
            abort(401)
        login_user(User(name))
        return redirect(url_for("mailbox"))

    @app.get("/")
    @login_required
    def mailbox():
        return list(pool.map(count_messages, ["inbox", "drafts", "sent"]))

    return app
