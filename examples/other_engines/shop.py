"""The app of these examples, and the function that the engines run in its context."""

from flask import Flask, current_app, g, request

from flaskthreads_autopatch import Carrier


def greet(name):
    return f"{current_app.config['GREETING']} {name}, says {g.user_id} at {request.path}"


def create_app():
    app = Flask("shop")
    app.config.update(GREETING="Hello", SECRET_KEY="dev")
    return app


carrier = Carrier("shop:create_app", g=("user_id",), signed=True)
