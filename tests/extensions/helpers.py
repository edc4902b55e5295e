"""Ways to do something in the background, and a count of contexts."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Work = Callable[[], t.Any]
Start = Callable[[Work], t.Any]


def in_thread(work: Work) -> t.Any:
    """What *work* returns, called in a thread."""
    returned: list[t.Any] = []
    thread = threading.Thread(target=lambda: returned.append(work()))
    thread.start()
    thread.join()
    assert returned, "the thread has raised"
    return returned[0]


def in_pool(work: Work) -> t.Any:
    """What *work* returns, called in a pool's worker."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class Counts:
    """How many app contexts were pushed and torn down, and how many of these were inherited ones."""

    def __init__(self) -> None:
        self.pushed = self.torn_down = self.inherited = 0
        self.lock = threading.Lock()
