"""What the servers load: an app whose threads outlive their request, and look at it during the next one.

``/start`` starts a thread that waits. The next request, ``/look``, lets it go on, and is answered with what it saw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, copy_current_request_context, request

import flaskthreads_autopatch
from flaskthreads_autopatch import suppress_inheritance

application = Flask("late")
flaskthreads_autopatch.install(application)

PATIENCE = 60


def log() -> None:
    application.logger.warning("logged by %s", request.args["user"])


class Late:
    """The work of a thread, and what it saw."""

    def __init__(self, until: str) -> None:
        self.until = until
        self.may_go = threading.Event()
        self.seen: dict[str, Any] = {}

    def __call__(self) -> None:
        stream, environ = request.stream, request.environ
        pause = threading.Event()
        while not (environ == {} if self.until == "emptied" else self.may_go.is_set()):
            pause.wait(0.001)
        reads: dict[str, Callable[[], Any]] = {
            "authorization": lambda: request.headers["Authorization"],
            "headers": lambda: dict(request.headers)["Authorization"],
            "cookie": lambda: request.cookies["user"],
            "path": lambda: request.environ["PATH_INFO"],
            "args": lambda: request.args["user"],
            "body": lambda: request.get_data(as_text=True),
            "stream": lambda: stream.read().decode(),
            "error stream": lambda: print("printed", file=request.environ["wsgi.errors"], flush=True),
            "log": log,
        }
        for name, read in reads.items():
            try:
                self.seen[name] = read()
            except Exception as error:
                self.seen[name] = f"{type(error).__name__}: {error}"

    def start(self, how: str) -> None:
        if how == "inherits":
            self.thread = threading.Thread(target=self)
            self.thread.start()
        else:
            # As such code is written without this library.
            with suppress_inheritance():
                self.thread = threading.Thread(target=copy_current_request_context(self))
                self.thread.start()


late: list[Late] = []


@application.post("/start/<how>/<until>")
def start(how: str, until: str) -> dict[str, Any]:
    late.append(Late(until))
    late[-1].start(how)
    return {"environ": id(request.environ)}


@application.post("/look")
def look() -> dict[str, Any]:
    late[-1].may_go.set()
    late[-1].thread.join(PATIENCE)
    return {"environ": id(request.environ), "seen": late[-1].seen}
