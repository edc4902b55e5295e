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
import types
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


def by_starter() -> list[t.Any]:
    # What runs is not own code, so that its starter decides.
    seen: list[t.Any] = []
    return in_thread(threading.Thread(target=any, args=((seen.append(look()) for _ in "1"),)), seen)


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


def in_gevent(way: str) -> list[t.Any]:
    """What is seen by what gevent starts in this *way*."""
    import gevent
    import gevent.pool
    import gevent.threadpool

    seen: list[t.Any] = []

    def note(_: object = None) -> None:
        seen.append(look())

    def lazily() -> t.Iterator[int]:
        for item in range(2):
            note()
            yield item

    class Subclass(gevent.Greenlet):
        def _run(self) -> None:
            note()

    done = gevent.event.Event()
    kind, _, method = way.partition(" ")
    if kind == "greenlet":
        greenlet = {
            "spawn": lambda: gevent.spawn(note),
            "spawn_later": lambda: gevent.spawn_later(0.001, note),
            "Greenlet": lambda: gevent.Greenlet(note),
            "Greenlet.spawn": lambda: gevent.Greenlet.spawn(note),
            "subclass": Subclass,
            "in a greenlet": lambda: gevent.spawn(lambda: gevent.spawn(note).get()),
        }[method]()
        greenlet.start()
        greenlet.get()
        return seen
    if kind == "raw":
        spawn_raw = gevent.spawn_raw if method == "spawn_raw" else gevent.hub.spawn_raw
        spawn_raw(lambda: (note(), done.set()))
        done.wait()
        gevent.sleep(0)
        return seen
    pools = {"Group": gevent.pool.Group, "Pool": lambda: gevent.pool.Pool(2), "full": lambda: gevent.pool.Pool(1)}
    pool = pools[kind]() if kind in pools else gevent.get_hub().threadpool
    if kind == "full":
        with autopatch.suppress_inheritance():
            pool.spawn(done.wait)
            gevent.spawn_later(0.001, done.set)
    if method == "start":
        pool.start(Subclass())
        pool.join()
    elif method == "apply":
        pool.apply(note)
    elif method == "callback":
        called = gevent.event.Event()
        pool.apply_async(int, callback=lambda _: (note(), called.set()))
        called.wait()
        gevent.sleep(0)
    elif method == "map_async callback":
        pool.map_async(note, range(2), callback=note).get()
    elif method == "map of a generator":
        pool.map(note, lazily())
    elif method in ("imap", "imap_unordered"):
        assert len(list(getattr(pool, method)(note, range(2)))) == 2
    elif method == "map":
        pool.map(note, range(2))
    elif method == "map_async":
        pool.map_async(note, range(2)).get()
    else:
        getattr(pool, method)(note).get()
    return seen


IN_GEVENT = [
    *(f"greenlet {way}" for way in ("spawn", "spawn_later", "Greenlet", "Greenlet.spawn", "subclass", "in a greenlet")),
    "raw spawn_raw",
    "raw hub.spawn_raw",
    "Group start",
    "full apply_async",
    "full callback",
    *(
        f"{pool} {way}"
        for pool in ("Group", "Pool", "threadpool")
        for way in (
            *("spawn", "apply", "apply_async", "callback", "map", "map_async", "map_async callback"),
            *("map of a generator", "imap", "imap_unordered"),
        )
    ),
]

WAYS: dict[str, t.Callable[[], list[t.Any]]] = {
    "Thread": by_thread,
    "starter": by_starter,
    "Timer": by_timer,
    "subclass": by_subclass,
    "submit": lambda: [pool().submit(look).result()],
    "map": lambda: list(pool().map(look, range(3))),
    "ThreadPool": by_thread_pool,
    "native pool": by_native_pool,
    "callback": by_callback,
    **{way: functools.partial(in_gevent, way) for way in IN_GEVENT},
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
        autopatch.enable(own=("*",))
        report["all is own code"] = survey()
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
    report["changed in gevent"] = [
        str(place)
        for place in (
            vars(gevent.threadpool.ThreadPool)["spawn"],
            vars(gevent.pool.GroupMappingMixin)["apply_async"],
            gevent.spawn_raw,
            gevent.hub.spawn_raw,
        )
        if type(place) is not types.FunctionType
    ]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
