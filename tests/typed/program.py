"""A program as users write theirs: every public name, in the right and in the wrong way.

Type checkers accept each line but those of `wrong`, which never runs. Each of its lines names the error that mypy
reports there (``type: ignore``), and the errors that pyright does (``pyright: ignore``). Both checkers are told to
complain if there is nothing to ignore.
"""

from __future__ import annotations

import io
import threading
import typing as t
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from flask import Flask, g
from typing_extensions import assert_type

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    AppContextThread,
    AppLoadError,
    Carrier,
    CarrierError,
    NotPortableError,
    Policy,
    PolicyError,
    RemoteAppContextExecutor,
    Replay,
    ThreadPoolWithAppContextExecutor,
    carry,
    context_inherited,
    context_released,
    copy_current_app_context,
    disable,
    dump,
    enable,
    init_app,
    install,
    is_enabled,
    is_inherited,
    observed,
    running,
    status,
    suppress_inheritance,
    uninstall,
)


def add(one: int, other: int) -> int:
    """Return the sum. Found by its name, in another process too."""
    return one + other


def create_app() -> Flask:
    """Return an app that workers load by the path ``tests.typed.program:create_app``."""
    return Flask(__name__)


PATH = f"{__name__}:create_app"


def on_begin(sender: Flask, replay: Replay) -> None:
    """Receive `context_inherited`."""
    assert_type(replay.kind, t.Literal["thread", "greenlet", "task", "callback"])
    assert_type(replay.not_inherited, Mapping[str, str])


def on_end(app: Flask, *, replay: Replay, error: str | None, outlived: float | None) -> None:
    """Receive `context_released`."""


def on_any(sender: Flask, **values: t.Any) -> None:
    """Receive both signals."""


async def on_end_later(sender: Flask, **values: t.Any) -> None:
    """Receive `context_released`, as an ``async def``."""


def right(app: Flask) -> None:
    """Use everything as it is meant to be used."""
    switch_on_and_off(app)
    receive_signals(app)
    install(app)
    with app.app_context():
        start_explicitly()
        start_elsewhere(app)
        suppress()
        assert_type(running(), list[Replay])
        dump()
        dump(io.StringIO())


def switch_on_and_off(app: Flask) -> None:
    """Set each option, in each way in which a keyword can have it."""
    install(
        app,
        share=False,
        request=True,
        preload=False,
        exclude=["token"],
        ignore=("shop.monitor",),
        own=["acme_common"],
        provide=["shop.jobs"],
        contextvars=True,
        origins=True,
        warn_after=60,
    )
    install(app, exclude={"token"}, ignore=frozenset({"shop.monitor"}), warn_after=0.5)
    install(app, exclude=(), warn_after=None)
    init_app(app, share=True)
    assert_type(is_enabled(), bool)
    found = status()
    assert_type(found.policy, Policy | None)
    for name, policy in found.apps:
        assert_type(name, str)
        assert_type(policy.source("share"), str | None)
    uninstall(app)
    with enable(observe=True):
        assert_type([record.starts for record in observed()], list[int])
    with enable(preload=True, ignore=["shop.monitor"]):
        pass
    disable()
    assert_type(Policy().why_thread_not_inherited(add), str | None)
    assert_type(Policy(share=True, exclude=("token",)).exclude, tuple[str, ...])
    try:
        Policy(warn_after=-1)
    except PolicyError as error:
        assert_type(error.source, str)


def receive_signals(app: Flask) -> None:
    """Connect receivers in each way."""
    context_inherited.connect(on_begin)
    context_inherited.connect(on_begin, app, weak=False)
    context_inherited.connect(on_any, sender=app)
    context_released.connect(on_end, app)
    context_released.connect(on_any)
    context_released.connect(on_end_later)
    with context_inherited.connected_to(on_begin, app), context_released.connected_to(on_any):
        assert_type(context_inherited.has_receivers_for(app), bool)
    for receiver in (on_begin, on_any):
        context_inherited.disconnect(receiver)
    context_inherited.disconnect(on_begin, sender=app)

    @context_released.connect_via(app)
    def measure(sender: Flask, replay: Replay, error: str | None, outlived: float | None) -> float:
        return replay.seconds

    context_released.disconnect(measure)
    for ended in (on_end, on_any, on_end_later):
        context_released.disconnect(ended)
    assert_type(context_inherited.name, str)
    assert not context_inherited.receivers
    assert not context_released.receivers


def start_explicitly() -> None:
    """Use the explicit API."""
    thread = AppContextThread(target=add, args=(1, 2), name="adds", daemon=True)
    assert isinstance(thread, threading.Thread)
    thread.start()
    thread.join()
    with ThreadPoolWithAppContextExecutor(max_workers=1, thread_name_prefix="adds") as pool:
        assert_type(pool.submit(add, 1, 2), Future[int])
        assert_type(pool.submit(add, one=1, other=2).result(), int)
        assert list(pool.map(add, (1, 2), (3, 4))) == [4, 6]
    copied = copy_current_app_context(add)
    assert_type(copied(1, other=2), int)


def start_elsewhere(app: Flask) -> None:
    """Carry the context to other processes: here, to threads that stand for them."""
    g.token = "s3cret"
    with ThreadPoolExecutor(1) as executor:
        remote = RemoteAppContextExecutor(executor, PATH, g=["token"], headers=("X-Id",), request="path", owned=False)
        assert isinstance(remote, Executor)
        assert_type(remote.submit(add, 1, 2).result(), int)
    carried = carry(add, PATH, g=("token",), request=False, max_size=1000)
    assert_type(carried(1, 2), int)
    carrier = Carrier(app, ["token"], request=True, signed=False)
    headers: dict[str, str] = carrier.inject({"task": "7"})
    with carrier.extract(headers):
        assert g.token == "s3cret"
    for failure in (AppLoadError, CarrierError, NotPortableError):
        assert issubclass(failure, Exception)
    try:
        carry(add, "tests.typed.program:missing")(1, 2)
    except AppLoadError as error:
        assert_type(error.import_path, str)


@suppress_inheritance
def add_alone(one: int, other: int) -> int:
    """Return the sum, without letting anything inherit."""
    return one + other


@suppress_inheritance()
async def add_later(one: int, other: int) -> int:
    """Return the sum, as an ``async def``."""
    return one + other


def suppress() -> None:
    """Suppress inheritance, as a context manager and as a decorator."""
    with suppress_inheritance():
        assert_type(is_inherited(), bool)
    assert_type(add_alone(1, 2), int)
    later: Callable[[int, int], t.Coroutine[t.Any, t.Any, int]] = add_later
    later(1, 2).close()


def wrong(app: Flask) -> None:
    """Use everything in ways that a checker must report."""
    flaskthreads_autopatch.instal(app)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    install()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    install("shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, exlude=["x"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    install(app, share="perhaps")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, request=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, preload=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, exclude="token")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, ignore=[print])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    install(app, own="acme_common")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, provide="shop.jobs")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, contextvars=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, origins=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    install(app, warn_after="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    init_app(app, exlude=["x"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    init_app(app, share="perhaps")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    enable(app=app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    enable(provide=["shop.jobs"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    enable(observe="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    observed(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    enable(exlude=["x"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    enable(share="perhaps")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    uninstall()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    disable(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    is_enabled(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    status().enable()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    Policy(shair=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Policy(share="perhaps")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Policy().share = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(PolicyError().source)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    running(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    running()[0].stop()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    dump("replays.txt")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Replay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    context_inherited.connect(on_end)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context_inherited.connect(add)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context_inherited.connect(on_begin, "shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context_released.connect(on_begin)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context_released.connect_via(app)(on_begin)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context_released.conect(on_end)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    AppContextThread(taget=add)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AppContextThread(target=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ThreadPoolWithAppContextExecutor(max_worker=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    AppContextThread(target=add).begin()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    ThreadPoolWithAppContextExecutor().submit(add, "1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    copy_current_app_context(add)("1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    copy_current_app_context(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add_alone("1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    suppress_inheritance(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    is_inherited(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    with ThreadPoolExecutor() as executor:
        RemoteAppContextExecutor(executor)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        RemoteAppContextExecutor(add, PATH)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        RemoteAppContextExecutor(executor, PATH, request="query")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        RemoteAppContextExecutor(executor, PATH).submit(add, "1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    carry(add, app)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    carry(add, PATH)("1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    carry(add, PATH, request="query")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Carrier(app, sign=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Carrier(app, request="query")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Carrier(app).inject(["task"])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    NotPortableError("g.db").retry()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    raise CarrierError from AppLoadError()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
