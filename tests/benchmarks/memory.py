"""Bytes per waiting task and per live thread, and what is left resident after many tasks."""

from __future__ import annotations

import functools
import json

from .harness import Column, Scenario, run_python

PROBE = """
import sys, threading, tracemalloc
from concurrent.futures import ThreadPoolExecutor
from tests.benchmarks import peers

what, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if who == "ours":
    peers.flaskthreads_autopatch.enable()


def traced(make):
    make(10)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = make(count)
    return (tracemalloc.get_traced_memory()[0] - before) / len(kept)


def waiting(count):
    return [pool.submit(int) for _ in range(count)]


def living(count):
    threads = [threading.Thread(target=go.wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])


def run(tasks):
    # All of a thousand wait at once, each time: else the highest tide would come at some time, and look like a leak.
    for _ in range(tasks // 1000):
        gate = threading.Event()
        pool.submit(gate.wait)
        futures = [pool.submit(int) for _ in range(1000)]
        gate.set()
        for future in futures:
            future.result()


go = threading.Event()
pool = ThreadPoolExecutor(1)
with peers.request_context():
    if what == "resident":
        run(10_000)
        early = resident()
        run(count - 10_000)
        print(resident() / early)
    else:
        if what == "task":
            pool.submit(go.wait)
        print(traced(waiting if what == "task" else living))
        go.set()
"""


def _sample(what: str, who: str, count: int) -> float:
    return float(json.loads(run_python("-c", PROBE, what, who, str(count))))


def _columns(what: str, count: int) -> list[Column]:
    return [Column(who, functools.partial(_sample, what, who, count)) for who in ("bare", "ours")]


SCENARIOS = (
    Scenario(
        "memory, task",
        "Bytes for each task that waits in a pool's queue, in a request with 5 entries of g",
        "bare",
        functools.partial(_columns, "task", 2000),
        unit="byte",
        sampled=True,
        share=0.1,
    ),
    Scenario(
        "memory, thread",
        "Bytes for each living thread, in a request with 5 entries of g",
        "bare",
        functools.partial(_columns, "thread", 200),
        unit="byte",
        sampled=True,
        share=0.1,
    ),
    Scenario(
        "resident",
        "Resident memory after 1,000,000 tasks, as a multiple of that after 10,000",
        "bare",
        functools.partial(_columns, "resident", 1_000_000),
        unit="integer",
        sampled=True,
        slow=True,
        share=0.05,
    ),
)
