"""What several test modules need, besides the fixtures in conftest."""

from __future__ import annotations

import gc
import threading
import time
import typing as t
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import flask
import pytest
import wrapt
from flask import g

from flaskthreads_autopatch import Policy
from flaskthreads_autopatch import flask_context as fc
from flaskthreads_autopatch.capture import capture
from flaskthreads_autopatch.patching import points
from flaskthreads_autopatch.snapshot import Snapshot

T = t.TypeVar("T")

LIMIT = 120
"""Seconds after which a test that hangs fails. A test that does not hang never waits for them."""

flask_3_2 = pytest.mark.skipif(fc.REUSES_APP_CONTEXT, reason="the request is not active in a teardown before Flask 3.2")


def attributes() -> dict[str, object]:
    """What stands at each patch point, in the ``__dict__`` that defines it; None where it is inherited."""
    found = {}
    for point in points.POINTS:
        owner, attribute, _ = wrapt.resolve_path(point.module, point.attribute)
        found[point.name] = vars(owner).get(attribute)
    return found


BORN_WITH = attributes()


def changed() -> list[str]:
    """The patch points where not the identical object stands any more; a wrapt layer equals what it wraps."""
    return [name for name, value in attributes().items() if value is not BORN_WITH[name]]


def in_thread(fn: Callable[..., T], *args: object) -> T:
    """What *fn* returns or raises in a plain `threading.Thread` that is started here and waited for."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(fn(*args))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(LIMIT)
    return outcome.result(0)


def collectable(*refs: weakref.ref[t.Any]) -> bool:
    """Whether all are dead; a pool's worker may need a moment to drop its work item."""
    end = time.monotonic() + LIMIT
    while any(ref() is not None for ref in refs) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return all(ref() is None for ref in refs)


def user() -> str:
    """What a thread or task sees."""
    return t.cast(str, g.user) if flask.has_app_context() else "no context"


class Seen(list[str]):
    def note(self, *args: object) -> None:
        self.append(user())


def ended(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def user_or_none() -> object:
    """The same, inside of a context."""
    return g.get("user")


class Resource:
    """Something that is opened in one place and closed in another, as a connection is."""

    def __init__(self) -> None:
        self.opened_in = threading.get_ident()
        self.closed_in: list[int] = []

    def close(self) -> None:
        self.closed_in.append(threading.get_ident())


def snapshot_here(**policy: t.Any) -> Snapshot:
    ctx = fc.active()
    assert ctx is not None
    snapshot = capture(ctx, Policy(**policy))
    assert snapshot is not None
    return snapshot
