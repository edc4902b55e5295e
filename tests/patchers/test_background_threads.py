"""The catalogue against the packages it speaks of: their background threads, started in a request, do not inherit."""

from __future__ import annotations

import pytest

from .background import STARTERS
from .helpers import Ask

pytestmark = pytest.mark.patchers

STARTED = {
    "opentelemetry_traces_over_http": {"opentelemetry.sdk._shared_internal:BatchProcessor.worker"},
    "opentelemetry_traces_over_grpc": {"opentelemetry.sdk._shared_internal:BatchProcessor.worker"},
    "opentelemetry_logs": {"opentelemetry.sdk._shared_internal:BatchProcessor.worker"},
    "opentelemetry_metrics": {"opentelemetry.sdk.metrics._internal.export:PeriodicExportingMetricReader._ticker"},
    "sentry": {
        "sentry_sdk.worker:BackgroundWorker._target",
        "sentry_sdk.monitor:Monitor._ensure_running.<locals>._thread",
        "sentry_sdk.profiler.transaction_profiler:ThreadScheduler.run",
        "sentry_sdk._batcher:Batcher._flush_loop",
        "sentry_sdk.sessions:SessionFlusher._ensure_running.<locals>._thread",
    },
    "datadog": {"ddtrace.internal.threads:PeriodicThread"},
    "newrelic": {
        "newrelic.core.application:Application.connect_to_data_collector",
        "newrelic.core.agent:Agent._harvest_loop",
    },
    "prometheus": {"socketserver:BaseServer.serve_forever", "prometheus_client.bridge.graphite:_RegularPush"},
    "apscheduler": {
        "apscheduler.schedulers.blocking:BlockingScheduler._main_loop",
        "concurrent.futures.thread:_worker",
        "apscheduler",
    },
    "pymongo": {"pymongo.periodic_executor:PeriodicExecutor._run"},
    "psycopg_pool": {"psycopg_pool.sched:Scheduler.run", "psycopg_pool.pool:ConnectionPool.worker"},
    "redis": {"redis.client:PubSubWorkerThread", "redis.background:_start_event_loop_in_thread"},
    "limits": {"limits.storage.memory:MemoryStorage.__expire_events"},
    "queue_listener": {"logging.handlers:QueueListener._monitor"},
    "waitress": {"waitress.task:ThreadedTaskDispatcher.handler_thread"},
    "werkzeug": {
        "werkzeug.serving:BaseWSGIServer.serve_forever",
        "socketserver:ThreadingMixIn.process_request_thread",
        "werkzeug",
    },
    "of_the_user": {"tests.patchers.background:of_the_user_too"},
}
"""What starts in the versions of today. Should one of them start something else, its catalogue entry needs a look."""


@pytest.mark.parametrize("name", STARTERS)
def test_background_threads_do_not_inherit(name: str, ask: Ask) -> None:
    seen = ask({"background": name})
    assert STARTED[name] <= {what for _, what, _ in seen}
    assert {what for _, what, inherits in seen if inherits} == (STARTED[name] if name == "of_the_user" else set())
