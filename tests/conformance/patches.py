"""What a column is about: the patches, off, on or observing, and a request context that is active, or none."""

from __future__ import annotations

import logging
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from flask import Flask, appcontext_tearing_down, g, has_request_context, request, session

from .suites import CONTROL, OBSERVED, OFF, WITH_CONTEXT

Say = Callable[..., None]


@contextmanager
def patches(column: str, say: Say, own: tuple[str, ...] = (), leaves_wrappers: bool = False) -> Iterator[None]:
    """What the column is about; and the proof that it was so until the last test.

    *leaves_wrappers*: whether the tests leave wrappers of their own on `threading.Thread`, beside ours.
    """
    ambient = _ambient_request() if column in WITH_CONTEXT else _nothing()
    if column in (OFF, CONTROL):
        with ambient:
            yield
        assert "flaskthreads_autopatch" not in sys.modules or OURS not in _layers_on_start()
        return
    import flaskthreads_autopatch

    born_with = dict(vars(threading.Thread))
    # A suite of logging reads every line of the root logger. Our lines at DEBUG, about threads that do not inherit, are
    # no part of what it tests.
    logging.getLogger("flaskthreads_autopatch").setLevel(logging.INFO)
    observes = column == OBSERVED
    with flaskthreads_autopatch.enable(own=own, observe=observes), ambient, _replays_counted(say):
        yield
        if observes:
            assert flaskthreads_autopatch.status().observes
            from flaskthreads_autopatch.audit.record import BY_A_RUN

            records = flaskthreads_autopatch.observed()
            say(observed=sum(record.starts for record in records if record.key.reason in ("", BY_A_RUN)))
        assert flaskthreads_autopatch.is_enabled(), "The patches did not last until the last test."
        assert _layers_on_start() == [OURS] or (leaves_wrappers and OURS in _layers_on_start())
    assert not flaskthreads_autopatch.is_enabled()
    # Below another wrapper ours stays, and does nothing.
    assert leaves_wrappers or dict(vars(threading.Thread)) == born_with


OURS = "flaskthreads_autopatch.patching.threads"


def _layers_on_start() -> list[str]:
    import flaskthreads_autopatch

    return flaskthreads_autopatch.status().patch_points["threading.Thread.start"]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _replays_counted(say: Say) -> Iterator[None]:
    from flaskthreads_autopatch import is_inherited

    replays = 0
    lock = threading.Lock()

    def count(sender: Flask, **extra: t.Any) -> None:
        nonlocal replays
        if is_inherited():
            with lock:
                replays += 1

    with appcontext_tearing_down.connected_to(count):
        yield
        say(replays=replays)


@contextmanager
def _ambient_request() -> Iterator[None]:
    app = Flask("ambient")
    app.secret_key = "ambient"
    with app.test_request_context("/ambient", headers={"user-id": "alice"}):
        entries = {"user": "alice", "resource": object(), "namespace": SimpleNamespace(locale="en")}
        vars(g._get_current_object()).update(entries)
        session["user"] = "alice"
        yield
        assert has_request_context(), "The ambient request context did not last until the last test."
        assert (request.path, session["user"]) == ("/ambient", "alice")
        assert vars(g._get_current_object()) == entries
