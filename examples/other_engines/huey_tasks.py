"""Huey. To run the worker: ``PYTHONPATH=examples/other_engines huey_consumer huey_tasks.huey``."""

import functools
import os

import shop
from huey import RedisHuey
from huey.api import Task


class CarryingHuey(RedisHuey):
    def enqueue(self, task):
        link = getattr(task, "callback", task)  # A chord has one.
        while isinstance(link, Task):  # and those that follow it, by then()
            shop.carrier.inject(link.kwargs, (link.name, link.id))
            link = link.on_complete
        return super().enqueue(task)


def in_context(fn):
    @functools.wraps(fn)
    def run(*args, task, flaskthreads_autopatch=None, **kwargs):
        headers = {"flaskthreads_autopatch": flaskthreads_autopatch}
        with shop.carrier.extract(headers, (task.name, task.id)):
            return fn(*args, **kwargs)

    return run


huey = CarryingHuey(url=os.environ.get("REDIS", "redis://127.0.0.1:6379/0"))

greet = huey.task(context=True)(in_context(shop.greet))
