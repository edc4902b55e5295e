"""The app that ``fan_out`` asks; ``SHOP_WAY`` says how its tasks come by what they need."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, copy_current_request_context, current_app, g, request

import flaskthreads_autopatch

app = Flask(__name__)
app.config["SHOP_NAME"] = "shop"
app.secret_key = "benchmarks"
pool = ThreadPoolExecutor(4)
way = os.environ.get("SHOP_WAY", "ours")
if way == "ours":
    flaskthreads_autopatch.install(app)


@app.before_request
def load_user() -> None:
    g.user = "alice"


def by_hand(shop: str, order: int, page: str, user: str) -> str:
    return f"{order}/{page}/{user} "


def from_context() -> str:
    assert current_app.config["SHOP_NAME"] == "shop"
    assert request.view_args is not None
    return f"{request.view_args['order']}/{request.args['page']}/{g.user} "


@app.get("/orders/<int:order>")
def orders(order: int) -> str:
    if way == "by hand":
        values = (current_app.config["SHOP_NAME"], order, request.args["page"], g.user)
        futures = [pool.submit(by_hand, *values) for _ in range(4)]
    elif way == "ours":
        futures = [pool.submit(from_context) for _ in range(4)]
    else:
        # On Flask < 3.2 g does not come along: the task copies what it needs.
        user = g.user
        futures = [pool.submit(copy_current_request_context(from_context_with), user) for _ in range(4)]
    return "".join(future.result() for future in futures)


def from_context_with(user: str) -> str:
    g.user = user
    return from_context()
