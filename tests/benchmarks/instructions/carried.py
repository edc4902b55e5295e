"""What carrying costs, beside what people write by hand: one side in a view, the other one in a worker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import typing as t
from collections.abc import Callable, Iterator

from flask import Flask, g, request
from itsdangerous import Signer

from flaskthreads_autopatch import Carrier

NAMED = ("user_id", "request_id")
TASK = ("send_invoice", "4711")
HERE = "carried"

Function = Callable[..., object]


class Carrying:
    """The two sides, each as a function that is counted. *signed*: by the carrier; *signer*: by itsdangerous alone."""

    def __init__(self, app: Flask, signed: bool = False, signer: Signer | None = None) -> None:
        self.app = app
        self.carrier = Carrier(app, g=NAMED, signed=signed)
        self.signer = signer
        self.headers: dict[str, str] = {}

    @contextlib.contextmanager
    def view(self, in_request: bool) -> Iterator[None]:
        """The context that is carried."""
        active = self.app.test_request_context("/orders/7?page=2") if in_request else self.app.app_context()
        with active:
            g.user_id, g.request_id = "user-1", "a3f0c9d2"
            yield

    def inject(self, fn: Function) -> None:
        headers = self.carrier.inject({}, TASK)
        if self.signer is not None:
            self.signer.sign(headers["flaskthreads_autopatch"])

    def extract(self, fn: Function) -> None:
        if self.signer is not None:
            self.signer.unsign(self.headers[HERE])
        with self.carrier.extract(self.headers, TASK):
            fn()


class ByHand(Carrying):
    """The shortest correct code: the values as JSON, and a context that the task opens and fills."""

    def inject(self, fn: Function) -> None:
        values: dict[str, t.Any] = {"user_id": g.user_id, "request_id": g.request_id}
        if request:
            values["request"] = {"method": request.method, "path": request.full_path, "base_url": request.url_root}
        self.headers = {HERE: json.dumps(values)}

    def extract(self, fn: Function) -> None:
        values = json.loads(self.headers[HERE])
        url = values.get("request")
        with self.app.test_request_context(**url) if url else self.app.app_context():
            g.user_id, g.request_id = values["user_id"], values["request_id"]
            fn()


def functions(app: Flask, name: str) -> tuple[Function, Callable[[], contextlib.AbstractContextManager[None]]]:
    """What is counted for the case *name*, and the context that is active meanwhile."""
    secret = t.cast(str, app.secret_key)
    signer = Signer(secret, "salt", key_derivation="hmac", digest_method=hashlib.sha256)
    sides: dict[str, Carrying] = {
        "": Carrying(app),
        ", by hand": ByHand(app),
        ", signed": Carrying(app, signed=True),
        ", itsdangerous": Carrying(app, signer=signer),
    }
    side = sides[name.removeprefix("inject").removeprefix("extract").replace(", request", "")]
    in_request = ", request" in name
    if name.startswith("inject"):
        return side.inject, lambda: side.view(in_request)
    with side.view(in_request):
        side.headers = side.carrier.inject(side.headers, TASK)
        if isinstance(side, ByHand):
            side.inject(print)
    side.headers.setdefault(HERE, signer.sign(side.headers.get("flaskthreads_autopatch", "")).decode())
    return side.extract, contextlib.nullcontext
