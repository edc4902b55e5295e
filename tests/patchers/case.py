"""One case, in a process of its own: layers go on and off, and after each step every way into a thread is tried.

``python -m tests.patchers.case`` reads one case a line from stdin, and answers each with a line on stdout; it forks for
each, so that a layer that cannot be taken out is in the way of no other case.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import sys
import threading
import traceback
import typing as t
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import wrapt
from flask import Flask, g, has_app_context
from flask.signals import appcontext_pushed, appcontext_tearing_down

import flaskthreads_autopatch

from . import background, layers

CLASSES: tuple[type, ...] = (threading.Thread, threading.Timer, ThreadPoolExecutor, ThreadPool, Future, Flask)


class Case:
    def __init__(self, in_our_place: str, names: list[str]) -> None:
        self.others = {name: layers.OTHERS[name]() for name in names if name != "ours"}
        self.layers = {**self.others, "ours": layers.IN_OUR_PLACE[in_our_place]()}
        self.born_with = attributes()
        self.app = Flask("tests.patchers")
        self.app.add_url_rule("/served", "served", self.look)
        self.counts = [0, 0]
        appcontext_pushed.connect(self.pushed)
        appcontext_tearing_down.connect(self.torn_down)

    def pushed(self, sender: Flask, **extra: t.Any) -> None:
        self.counts[0] += 1

    def torn_down(self, sender: Flask, **extra: t.Any) -> None:
        self.counts[1] += 1

    def look(self) -> dict[str, t.Any]:
        """What is seen here: of the request that started this, and of what the others carry."""
        seen = {name: other.seen() for name, other in self.others.items()}
        return {"user": g.get("user") if has_app_context() else None, "carried": seen}

    def try_all(self) -> dict[str, t.Any]:
        """By way into a thread: what was seen there, what went wrong, and how many app contexts came and went."""
        return {name: self.try_one(way) for name, way in WAYS.items()}

    def try_one(self, way: Way) -> dict[str, t.Any]:
        failures: list[str] = []
        threading.excepthook = lambda args: failures.append(f"{args.exc_type.__name__}: {args.exc_value}")
        with self.app.test_request_context("/"), contextlib.ExitStack() as stack:
            for other in self.others.values():
                stack.enter_context(other.carry())
            g.user = "alice"
            self.counts[:] = 0, 0
            seen = way(self)
            contexts = list(self.counts)
        return {
            "users": [look["user"] for look in seen],
            "carried": {name: [look["carried"][name] for look in seen] for name in self.others},
            "failures": failures,
            "contexts": contexts,
        }

    def run(self, steps: list[tuple[str, str]]) -> dict[str, t.Any]:
        reports = []
        for switch, name in steps:
            getattr(self.layers[name], switch)()
            reports.append(self.try_all())
        # What a foreign layer lay upon is taken out by the next call after that one has gone.
        self.layers["ours"].off()
        return {"steps": reports, "left": changes(self.born_with, attributes())}

    def provide(self, names: list[str]) -> dict[str, t.Any]:
        """By way into a thread, where no context is active: how many app contexts came and went, while all are on."""
        for name in names:
            if name == "ours":
                flaskthreads_autopatch.install(self.app, provide=[__name__])
            else:
                self.layers[name].on()
        counts = {}
        for name, way in WAYS.items():
            self.counts[:] = 0, 0
            way(self)
            counts[name] = list(self.counts)
        return counts


Looks = list[dict[str, t.Any]]
Way = Callable[[Case], Looks]


def started(thread: threading.Thread, seen: Looks) -> Looks:
    thread.start()
    thread.join()
    return seen


def by_thread(case: Case) -> Looks:
    seen: Looks = []
    return started(threading.Thread(target=lambda: seen.append(case.look())), seen)


def by_timer(case: Case) -> Looks:
    seen: Looks = []
    return started(threading.Timer(0, lambda: seen.append(case.look())), seen)


def by_subclass(case: Case) -> Looks:
    class Subclass(threading.Thread):
        def run(self) -> None:
            seen.append(case.look())

    seen: Looks = []
    return started(Subclass(), seen)


def by_assigned_run(case: Case) -> Looks:
    seen: Looks = []
    thread = threading.Thread()
    thread.run = lambda: seen.append(case.look())  # type: ignore[method-assign]
    return started(thread, seen)


def by_submit(case: Case) -> Looks:
    with ThreadPoolExecutor(1) as pool:
        return [pool.submit(case.look).result()]


def by_map(case: Case) -> Looks:
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(lambda _: case.look(), range(3)))


def by_served(case: Case) -> Looks:
    """What a request sees that a thread serves: nothing of the thread's context (H14)."""
    seen: Looks = []
    client = case.app.test_client()
    return started(threading.Thread(target=lambda: seen.append(client.get("/served").get_json())), seen)


WAYS: dict[str, Way] = {
    "Thread": by_thread,
    "Timer": by_timer,
    "subclass": by_subclass,
    "assigned run": by_assigned_run,
    "submit": by_submit,
    "map": by_map,
    "served": by_served,
}


def attributes() -> dict[tuple[type, str], tuple[object, object]]:
    """By class and name, each attribute with its code."""
    return {
        (cls, name): (value, getattr(value, "__code__", None)) for cls in CLASSES for name, value in vars(cls).items()
    }


def changes(before: dict[t.Any, t.Any], after: dict[t.Any, t.Any]) -> dict[str, str]:
    """What is not as it was, each described by where its outermost layer comes from."""
    return {
        f"{cls.__name__}.{name}": describe(*after[cls, name]) if (cls, name) in after else "gone"
        for cls, name in before | after
        if not same(before.get((cls, name)), after.get((cls, name)))
    }


def same(before: t.Any, after: t.Any) -> bool:
    return before is not None and after is not None and all(a is b for a, b in zip(before, after, strict=True))


def describe(value: t.Any, code: t.Any) -> str:
    if isinstance(value, wrapt.FunctionWrapper):
        return f"wrapper from {value._self_wrapper.__module__}"
    return f"{type(value).__module__}.{type(value).__name__} {getattr(code, 'co_name', '')}"


def main() -> None:
    # What takes time to import, patches nothing by it, and starts no thread, once for all cases.
    importlib.import_module("opentelemetry.instrumentation.threading")
    importlib.import_module("sentry_sdk.integrations.threading")
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            # A last guard: a case takes a fraction of a second.
            faulthandler.dump_traceback_later(60, exit=True)
            answer_and_exit(json.loads(line))
        if status := os.waitpid(child, 0)[1]:
            print(json.dumps({"died": status}), flush=True)


def answer_and_exit(request: dict[str, t.Any]) -> t.NoReturn:
    try:
        if "background" in request:
            answer: t.Any = background.run(request["background"])
        else:
            names = request.get("provide") or [name for _, name in request["steps"]]
            case = Case(request.get("in our place", "ours"), names)
            answer = case.run(request["steps"]) if "steps" in request else case.provide(names)
        print(json.dumps({"answer": answer}), flush=True)
    except BaseException:
        print(json.dumps({"raised": traceback.format_exc()}), flush=True)
    finally:
        os._exit(0)  # none of the parent's exit handlers


if __name__ == "__main__":
    main()
