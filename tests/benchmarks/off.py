"""Off is off: a process that has called ``enable(); disable()`` against one that never did."""

from __future__ import annotations

import functools
import json

from .harness import Column, Scenario, run_python

PROBE = """
import json, os, statistics, sys, threading, time
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
import flask

POINTS = [(threading.Thread, "__init__"), (threading.Thread, "start"), (ThreadPoolExecutor, "submit"),
          (Future, "add_done_callback"), (ThreadPool, "apply_async"), (ThreadPool, "map"), (flask.Flask, "wsgi_app")]
look = lambda: [vars(owner).get(name) for owner, name in POINTS]
before = look()
if sys.argv[1] == "off":
    import flaskthreads_autopatch
    flaskthreads_autopatch.enable()
    assert all(now is not then for now, then in zip(look(), before) if then is not None), "enable() did nothing"
    flaskthreads_autopatch.disable()
assert all(now is then for now, then in zip(look(), before)), "an attribute is not the original object"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
pool = ThreadPoolExecutor(1)
values = []
for _ in range(60):
    start = time.perf_counter()
    for _ in range(200):
        pool.submit(int).result()
    values.append((time.perf_counter() - start) / 200)
print(json.dumps(statistics.median(values)))
"""


def _sample(kind: str) -> float:
    return float(json.loads(run_python("-c", PROBE, kind)))


SCENARIOS = (
    Scenario(
        "off",
        "submit().result() after enable(); disable() (each attribute is checked to be the original object)",
        "never on",
        lambda: [
            Column("never on", functools.partial(_sample, "never")),
            Column("enable(); disable()", functools.partial(_sample, "off")),
        ],
        sampled=True,
        share=0.5,
    ),
)
