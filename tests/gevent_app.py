"""A process under gevent, for test_gevent: an app for gunicorn, and by itself a program that reports what it saw.

``python -m tests.gevent_app WHEN``: gevent's monkey-patching happens WHEN the patches are not on yet (``before``),
when they are (``after``), or ``never``. The report is JSON on stdout.
"""

# ruff: noqa: E402
from __future__ import annotations

import sys
import typing as t

WHEN = sys.argv[1] if __name__ == "__main__" else "never"
if WHEN == "before":
    from gevent import monkey

    monkey.patch_all()

import concurrent.futures
import contextvars
import functools
import json
import threading
from multiprocessing.pool import ThreadPool

from flask import Flask, g, has_app_context, has_request_context, request
from flask.signals import appcontext_pushed, appcontext_tearing_down

import flaskthreads_autopatch as autopatch

app = Flask("tests.gevent_app")
counts = {"pushed": 0, "torn down": 0}


@functools.cache
def pool() -> concurrent.futures.ThreadPoolExecutor:
    """Made when it is first used: gevent cannot wait for locks that were made before it patched."""
    return concurrent.futures.ThreadPoolExecutor(4)


@appcontext_pushed.connect
def _pushed(sender: Flask, **extra: t.Any) -> None:
    counts["pushed"] += 1


@appcontext_tearing_down.connect
def _torn_down(sender: Flask, **extra: t.Any) -> None:
    counts["torn down"] += 1


def look(_: object = None) -> dict[str, t.Any]:
    """What a thread or task sees."""
    return {
        "user": g.get("user") if has_app_context() else None,
        "path": request.path if has_request_context() else None,
        "inherited": autopatch.is_inherited(),
        "own thread": threading.current_thread().ident == threading.get_ident(),
    }


@app.get("/<user>/<int:threads>")
def in_threads_and_tasks(user: str, threads: int) -> dict[str, t.Any]:
    """Who is seen by threads and tasks that all run at the same time, while other requests are served."""
    g.user = user
    seen: list[t.Any] = []
    together = threading.Barrier(threads)

    def meet() -> None:
        together.wait(30)
        seen.append(look())

    started = [threading.Thread(target=meet) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    seen += pool().map(look, range(threads))
    return {"seen": sorted({str(s["user"]) for s in seen}), "n": len(seen), "thread class": str(threading.Thread)}


@app.get("/counts")
def show_counts() -> dict[str, int]:
    """How many app contexts were entered and left, without this one."""
    return {"pushed": counts["pushed"] - 1, "torn down": counts["torn down"]}


if __name__ != "__main__":
    autopatch.install(app)


def in_thread(thread: threading.Thread, seen: list[t.Any]) -> list[t.Any]:
    thread.start()
    thread.join()
    return seen


def by_thread() -> list[t.Any]:
    seen: list[t.Any] = []
    return in_thread(threading.Thread(target=lambda: seen.append(look())), seen)


def by_timer() -> list[t.Any]:
    seen: list[t.Any] = []
    return in_thread(threading.Timer(0, lambda: seen.append(look())), seen)


def by_subclass() -> list[t.Any]:
    # Made here: gevent cannot join a thread of a class that was derived from Thread before it patched.
    class Subclass(threading.Thread):
        def run(self) -> None:
            seen.append(look())

    seen: list[t.Any] = []
    return in_thread(Subclass(), seen)


def by_thread_pool() -> list[t.Any]:
    with ThreadPool(2) as thread_pool:
        return [*thread_pool.map(look, range(3)), thread_pool.apply_async(look).get()]


def by_native_pool() -> list[t.Any]:
    from gevent.threadpool import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as native:
        return [*native.map(look, range(3)), native.submit(look).result()]


def by_callback() -> list[t.Any]:
    release = threading.Event()
    seen: list[t.Any] = []
    # Its end waits for the worker, and so for the end of the callback's context.
    with concurrent.futures.ThreadPoolExecutor(1) as own:
        with autopatch.suppress_inheritance():
            future = own.submit(release.wait, 30)
        future.add_done_callback(lambda _: seen.append(look()))
        release.set()
    return seen


WAYS: dict[str, t.Callable[[], list[t.Any]]] = {
    "Thread": by_thread,
    "Timer": by_timer,
    "subclass": by_subclass,
    "submit": lambda: [pool().submit(look).result()],
    "map": lambda: list(pool().map(look, range(3))),
    "ThreadPool": by_thread_pool,
    "native pool": by_native_pool,
    "callback": by_callback,
}


def survey() -> dict[str, t.Any]:
    """By way into a thread, what was seen there, and how many app contexts were entered and left for it."""
    report = {}
    for name, way in WAYS.items():
        counts.update({"pushed": 0, "torn down": 0})
        report[name] = {"seen": way(), **counts}
    return report


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def greenlets_apart() -> list[t.Any]:
    """Two greenlets take turns, each in an inherited context: what each sees when it is its turn again."""
    import gevent

    seen = []

    def take_turns(user: str) -> None:
        variable.set(user)
        for _ in range(3):
            gevent.sleep(0)
            seen.append((user, g.user, variable.get()))

    def spawn(user: str) -> t.Any:
        with app.app_context():
            g.user = user
            return gevent.spawn(autopatch.copy_current_app_context(take_turns), user)

    gevent.joinall([spawn("alice"), spawn("bob")], raise_error=True)
    return seen


def main() -> None:
    import gevent.threading

    classes = [threading.Thread, threading.Timer, gevent.threading.Thread, gevent.threading.Timer]
    classes += [concurrent.futures.ThreadPoolExecutor, ThreadPool]
    born_with = [dict(vars(cls)) for cls in classes]  # keeps what is compared by its identity
    report: dict[str, t.Any] = {}
    with autopatch.enable(), app.test_request_context("/report"):
        if WHEN == "after":
            gevent.monkey.patch_all()
        g.user = "alice"
        report["on"] = survey()
        with autopatch.suppress_inheritance():
            report["suppressed"] = survey()
        report["class of threads"] = threading.Thread.__module__
    report["worker after its tasks"] = pool().submit(look).result()
    report["greenlets apart"] = greenlets_apart()
    with app.test_request_context("/report"):
        g.user = "alice"
        report["off"] = survey()
        with autopatch.ThreadPoolWithAppContextExecutor(1) as explicit:
            report["explicit"] = explicit.submit(look).result()
            report["explicit worker"] = concurrent.futures.ThreadPoolExecutor.submit(explicit, look).result()
    report["changed"] = [
        f"{cls.__module__}:{cls.__qualname__}.{name}"
        for cls, before in zip(classes, born_with, strict=True)
        for name in before.keys() | vars(cls).keys()
        if vars(cls).get(name, "gone") is not before.get(name, "new")
    ]
    report["native submit"] = type(vars(gevent.threadpool.ThreadPoolExecutor)["submit"]).__name__
    print(json.dumps(report))


if __name__ == "__main__":
    main()
