"""Fifty requests at once, each with some tasks."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, g

from . import shop

REQUESTS = 50


def assert_no_mix_up(app: Flask, tasks: Callable[[int], list[dict[str, t.Any]]], each: int = 20) -> None:
    """*tasks* is called in each request with *each*: it submits that many `shop.look` and returns what they saw."""
    all_in = threading.Barrier(REQUESTS)

    def serve(number: int) -> tuple[str, list[dict[str, t.Any]]]:
        name = f"user-{number}"
        with shop.in_request(app, **{"user-id": name, "X-Request-ID": f"r-{number}"}):
            shop.preprocess(app)
            all_in.wait(60)
            seen = tasks(each)
            assert g.user_id == name
        return name, seen

    with ThreadPoolExecutor(REQUESTS) as server:
        served = list(server.map(serve, range(REQUESTS)))
    assert sum(len(seen) for _, seen in served) == REQUESTS * each
    for number, (name, seen) in enumerate(served):
        for here in seen:
            assert here["g"] == {"user_id": name, "request_id": f"r-{number}"}
            assert here["headers"]["X-Request-Id"] == f"r-{number}"
