"""Dramatiq. To run the worker: ``PYTHONPATH=examples/other_engines dramatiq dramatiq_tasks``."""

import logging
import os
import threading

import dramatiq
import shop
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Pipelines, SkipMessage

from flaskthreads_autopatch import CarrierError


class AppContexts(dramatiq.Middleware):
    running = threading.local()

    def before_enqueue(self, broker, message, delay):
        shop.carrier.inject(message.options, (message.actor_name, message.message_id))

    def before_process_message(self, broker, message):
        try:
            context = shop.carrier.extract(message.options, (message.actor_name, message.message_id))
        except CarrierError as error:
            logging.getLogger(__name__).error("%s: %s", message, error)
            message.fail()
            raise SkipMessage from error  # After any other error, Dramatiq would run the task.
        context.__enter__()
        self.running.context = context

    def after_process_message(self, broker, message, *, result=None, exception=None):
        if context := self.running.__dict__.pop("context", None):
            context.__exit__(type(exception), exception, None)

    after_skip_message = after_process_message


broker = RedisBroker(url=os.environ.get("REDIS", "redis://127.0.0.1:6379/0"))
# Before Pipelines, so that the next task of a pipeline is enqueued in the context of the one before it.
broker.add_middleware(AppContexts(), before=Pipelines)
dramatiq.set_broker(broker)

greet = dramatiq.actor(shop.greet)
