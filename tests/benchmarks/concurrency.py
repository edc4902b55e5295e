"""Throughput with 1, 2, 4 and 8 submitting threads: a lock on the hot path would show."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

from .harness import Column, Scenario
from .peers import both, ours, request_context

SUBMITTERS = (1, 2, 4, 8)
TASKS = 800


def task() -> None:
    pass


def _columns() -> list[Column]:
    columns = []
    for submitters in SUBMITTERS:
        pool = ThreadPoolExecutor(submitters)
        call = functools.partial(_submit_all, pool, submitters)
        call()
        columns.append(Column(f"bare, {submitters}", call, request_context))
        columns.append(Column(f"ours, {submitters}", call, both(ours, request_context)))
    return columns


def _submit_all(pool: ThreadPoolExecutor, submitters: int) -> None:
    # With our patches on the submitters inherit the context themselves, and pass it on.
    threads = [threading.Thread(target=_submit, args=(pool, TASKS // submitters)) for _ in range(submitters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _submit(pool: ThreadPoolExecutor, tasks: int) -> None:
    for future in [pool.submit(task) for _ in range(tasks)]:
        future.result()


SCENARIOS = (
    Scenario(
        "concurrency",
        f"{TASKS} tasks in a request by 1, 2, 4, 8 submitting threads, as many workers",
        "bare, 1",
        _columns,
        pinned=False,
    ),
)
