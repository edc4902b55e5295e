"""Close to the recursion limit: what works there without the library works with it, but for a few frames."""

from __future__ import annotations

import contextvars
import sys
import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, g, has_app_context

import flaskthreads_autopatch
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT
from flaskthreads_autopatch.visibility.registry import replays

from .helpers import LIMIT, in_thread

FRAMES_OF_A_REPLAY = 2
"""So many more frames are below what a thread or a task runs."""

OFF = "alice" if THREADS_INHERIT_CONTEXT else "no context"
"""What a thread or task sees with the patches off."""

FURTHEST = 80
"""So many frames below the limit, everything that is tried here works."""


def depth() -> int:
    frame, count = sys._getframe(1), 0
    while frame is not None:
        frame, count = t.cast(t.Any, frame.f_back), count + 1
    return count


def with_free(free: int, fn: Callable[[], object], down: int = 200) -> object:
    """Return what *fn* returns where *free* frames are left below the limit, or the class of what it raises.

    It is called from further down, because the limit counts for threads too.
    """
    if down:
        return with_free(free, fn, down - 1)
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(depth() + free)  # This raises if it is exceeded already.
        return fn()
    except RecursionError as error:
        return type(error)
    finally:
        sys.setrecursionlimit(limit)


def variables() -> dict[str, object]:
    return {variable.name: value for variable, value in contextvars.copy_context().items()}


def start() -> object:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(g.user if has_app_context() else "no context"))
    try:
        thread.start()
    finally:
        if thread.ident is not None:
            thread.join(LIMIT)
    return seen.pop()


def submit() -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: g.user if has_app_context() else "no context").result(LIMIT)


FRAMES: dict[Callable[[], object], int] = {start: 2, submit: 4}
"""So many more frames below the limit these need than without the library. `submit` starts a worker as well."""

FRAMES_OF_THE_FIRST = 2
"""The first start of an app reads its config. Up to so many more frames it needs on some Pythons to fail at that."""


@pytest.mark.parametrize("what", FRAMES)
@pytest.mark.parametrize("is_first", [False, True])
def test_h42_what_can_be_started_close_to_the_limit(
    what: Callable[[], object], is_first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: dict[str, list[object]] = {"off": [], "on": []}
    for state, found in outcomes.items():
        app = Flask("app")
        for free in range(2, FURTHEST):
            if is_first:
                app = Flask("app")  # Its config has not been read.
            if state == "on":
                flaskthreads_autopatch.install(app)
            with app.test_request_context():
                g.user = "alice"
                if not is_first:
                    what()
                before = variables(), vars(g).copy()
                found.append(with_free(free, what))
                assert (variables(), vars(g)) == before
                # Nothing of the failure stays.
                assert what() == ("alice" if state == "on" else OFF)
            flaskthreads_autopatch.disable()
    needed = outcomes["off"].index(OFF)
    assert set(outcomes["off"][:needed]) == {RecursionError}
    works = outcomes["on"][needed + FRAMES[what] + is_first * FRAMES_OF_THE_FIRST :]
    # The first capture takes more frames than starting a thread. If there are too few, that is said on stderr.
    assert set(works) <= ({"alice", "no context"} if is_first else {"alice"})
    assert works[-1] == "alice"
    if "no context" in works:
        assert "RecursionError" in capsys.readouterr().err


def test_a_replay_close_to_the_limit_runs_or_raises_and_leaves_nothing(installed: Flask) -> None:
    torn_down: list[int] = []

    @installed.teardown_appcontext
    def handler(exc: BaseException | None) -> None:
        torn_down.append(1)
        with_free_frames(15)

    def with_free_frames(count: int) -> None:
        if count:
            with_free_frames(count - 1)

    with installed.test_request_context():
        g.user, g.connection = "alice", object()
        replay = flaskthreads_autopatch.copy_current_app_context(lambda: g.user)
    outcomes = []
    before = variables()
    for free in range(2, FURTHEST):
        outcomes.append(with_free(free, replay))
        assert (variables(), len(replays)) == (before, 0)
    assert outcomes[0] is RecursionError
    assert outcomes[-1] == "alice"
    assert set(outcomes) == {RecursionError, "alice"}


def test_what_recurses_without_end_ends_as_without_us(installed: Flask) -> None:
    def recurse() -> None:
        recurse()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(LIMIT)  # The worker is started where no context is active.
        with installed.app_context():
            g.user = "alice"
            with pytest.raises(RecursionError):
                pool.submit(recurse).result(LIMIT)
            assert pool.submit(lambda: g.user).result(LIMIT) == "alice"
        assert not pool.submit(has_app_context).result(LIMIT)


def test_the_frames_below_a_thread_and_a_task(app: Flask) -> None:
    def frames() -> list[int]:
        with app.test_request_context(), ThreadPoolExecutor(1) as pool:
            return [in_thread(depth), pool.submit(depth).result(LIMIT)]

    off = frames()
    flaskthreads_autopatch.install(app)
    assert frames() == [each + FRAMES_OF_A_REPLAY for each in off]
