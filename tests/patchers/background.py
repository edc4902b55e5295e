"""Background threads of real packages, started in a request, without the servers they look for."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
import typing as t
from collections.abc import Callable
from urllib.request import urlopen

import wrapt
from flask import Flask, g

import flaskthreads_autopatch as autopatch
from flaskthreads_autopatch import flask_context
from flaskthreads_autopatch.patching import bound_run

NOWHERE = "127.0.0.1:1"


def opentelemetry_traces_over_http() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"http://{NOWHERE}/")))


def opentelemetry_traces_over_grpc() -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=NOWHERE, insecure=True)))


def opentelemetry_logs() -> None:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    LoggerProvider().add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"http://{NOWHERE}/")))


def opentelemetry_metrics() -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"http://{NOWHERE}/"))])


def sentry() -> None:
    import sentry_sdk
    from sentry_sdk import logger

    sentry_sdk.init(
        f"http://key@{NOWHERE}/1",
        default_integrations=False,
        traces_sample_rate=1.0,
        profiles_sample_rate=1.0,
        enable_logs=True,
    )
    sentry_sdk.capture_message("message")
    with sentry_sdk.start_transaction(name="transaction"):
        pass
    logger.info("log")
    sentry_sdk.get_isolation_scope().start_session()
    sentry_sdk.get_isolation_scope().end_session()


def datadog() -> None:
    from ddtrace.internal.threads import PeriodicThread, periodic_threads
    from ddtrace.trace import tracer

    with tracer.trace("span"):
        pass
    # Native threads, which no patch of threading meets: what runs in one looks by itself.
    ran = threading.Event()

    def look() -> None:
        report("native", "ddtrace.internal.threads:PeriodicThread", flask_context.active() is not None)
        ran.set()

    thread = PeriodicThread(0.01, look)
    thread.start()
    assert ran.wait(30)
    thread.stop()
    for native in list(periodic_threads.values()):
        report("native", native.name, False)


def newrelic() -> None:
    import newrelic.agent

    newrelic.agent.initialize()
    newrelic.agent.register_application(timeout=30.0)


def prometheus() -> None:
    import prometheus_client
    from prometheus_client.bridge.graphite import GraphiteBridge

    prometheus_client.start_http_server(0, addr="127.0.0.1")
    GraphiteBridge(("127.0.0.1", 1)).start(1000)


def apscheduler() -> None:
    from apscheduler.schedulers.background import BackgroundScheduler

    ran = threading.Event()

    def job() -> None:
        report("job", "apscheduler", flask_context.active() is not None)
        ran.set()

    scheduler = BackgroundScheduler()
    scheduler.add_job(job)
    scheduler.start()
    assert ran.wait(30)


def pymongo() -> None:
    from pymongo import MongoClient

    MongoClient("127.0.0.1", 1, serverSelectionTimeoutMS=10)._get_topology()


def psycopg_pool() -> None:
    from psycopg_pool import ConnectionPool

    ConnectionPool("host=127.0.0.1 port=1", min_size=1, open=True)


def redis() -> None:
    from redis import Redis
    from redis.background import BackgroundScheduler
    from redis.client import PubSubWorkerThread

    PubSubWorkerThread(Redis(port=1).pubsub(), 0.01, daemon=True, exception_handler=lambda *args: None).start()
    scheduler = BackgroundScheduler()
    scheduler.run_once(1000, print)
    scheduler.run_recurring(1000, print)


def limits() -> None:
    from limits.storage import MemoryStorage

    MemoryStorage().incr("key", 60)


def queue_listener() -> None:
    listener = logging.handlers.QueueListener(queue.Queue())
    listener.start()
    listener.stop()


def waitress() -> None:
    from waitress.server import create_server

    create_server(Flask("served"), host="127.0.0.1", port=0, threads=2)


def werkzeug() -> None:
    from werkzeug.serving import make_server

    served = Flask("served")
    served.add_url_rule("/", "served", lambda: str(flask_context.active() is not None and g.get("user")))
    server = make_server("127.0.0.1", 0, served, threaded=True)
    threading.Thread(target=server.serve_forever).start()
    with urlopen(f"http://127.0.0.1:{server.server_port}/") as response:
        report("served", "werkzeug", response.read() != b"None")


def of_the_user() -> None:
    thread = threading.Thread(target=of_the_user_too)
    thread.start()
    thread.join()


def of_the_user_too() -> None:
    """Which inherits: that the others do not is not for want of trying."""


STARTERS: dict[str, Callable[[], None]] = {
    starter.__name__: starter
    for starter in (
        *(opentelemetry_traces_over_http, opentelemetry_traces_over_grpc, opentelemetry_logs, opentelemetry_metrics),
        *(sentry, datadog, newrelic, prometheus, apscheduler, pymongo, psycopg_pool, redis),
        *(limits, queue_listener, waitress, werkzeug, of_the_user),
    )
}

_seen: list[tuple[str, str, bool]] = []


def report(kind: str, what: str, inherits: bool) -> None:
    _seen.append((kind, what, inherits))


def _look_at_start(wrapped: t.Any, thread: threading.Thread, args: t.Any, kwargs: t.Any) -> t.Any:
    bound = bound_run.kept(thread)
    target = getattr(thread, "_target", None) or getattr(thread, "function", None) or type(thread)
    report("thread", f"{target.__module__}:{target.__qualname__}", bound is not None and bound.snapshot is not None)
    return wrapped(*args, **kwargs)


def run(name: str) -> list[tuple[str, str, bool]]:
    """By kind and name, whether the threads inherit that this starter starts in a request."""
    logging.disable()
    app = Flask("tests.patchers.background")
    # Below ours, where it sees what a thread is started with.
    wrapt.wrap_function_wrapper(threading.Thread, "start", _look_at_start)
    autopatch.install(app)
    with app.test_request_context("/"):
        g.user = "alice"
        STARTERS[name]()
    return _seen
