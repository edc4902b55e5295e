"""Data: suites of packages that stand in the same process as an app, and why some of their tests do not count."""

from __future__ import annotations

from .suites import SUITES, Published, Suite

ECOSYSTEM: tuple[Published, ...] = (
    Published(
        "joblib",
        ("joblib/test/test_parallel.py",),
        distribution="joblib==1.6.0",
        requires=("pytest", "numpy"),
        without=r"^(?!.*::.*thread)|loky|multiprocessing|spawn|fork|subprocess|thread_bomb|backend\d",
        note="of joblib's parallel calls, those with the backend threading",
    ),
    Published(
        "s3transfer",
        ("tests/functional",),
        distribution="s3transfer==0.19.3",
        requires=("pytest",),
    ),
    Published("Pykka", ("tests",), distribution="pykka==4.5.0", requires=("pytest", "pytest-mock"), quick=True),
    Published(
        "dogpile.cache",
        ("tests/test_backgrounding.py", "tests/test_lock.py", "tests/cache/test_memory_backend.py"),
        distribution="dogpile.cache==1.5.0",
        requires=("pytest", "mako"),
        options=("-p", "no:warnings"),
        without="ConcurrencyTest::.*(slow|long|unsafe|while)",
        note="without the tests of locks that sleep for minutes",
    ),
    Published(
        "SQLAlchemy's pool", ("test/engine/test_pool.py",), distribution="sqlalchemy==2.1.9", requires=("pytest",)
    ),
    Published(
        "Pebble's threads",
        ("test/test_thread_pool.py", "test/test_concurrent_thread.py"),
        distribution="pebble==5.2.3",
        requires=("pytest",),
    ),
    Published(
        "OpenTelemetry's threads",
        ("tests",),
        distribution="opentelemetry-instrumentation-threading==0.66b1",
        requires=("pytest", "opentelemetry-test-utils==0.66b1"),
        quick=True,
    ),
    Published(
        "Sentry",
        (
            *("tests/integrations/threading", "tests/integrations/flask"),
            *("tests/test_monitor.py", "tests/test_metrics.py", "tests/test_logs.py", "tests/test_sessions.py"),
        ),
        distribution="sentry-sdk==2.75.0",
        requires=("pytest<9", "pytest-localserver", "jsonschema", "flask-login", "opentelemetry-sdk"),
        leaves_wrappers=True,
        note="of Sentry's SDK, the tests of threads, of Flask, and of what it sends by threads",
    ),
    Published(
        "dask's threads",
        ("dask/tests/test_threaded.py", "dask/tests/test_delayed.py", "dask/array/tests/test_array_core.py"),
        distribution="dask==2026.8.0",
        requires=("pytest", "pytest-timeout", "numpy"),
    ),
    Published(
        "APScheduler",
        ("tests/test_executors.py", "tests/test_schedulers.py"),
        distribution="apscheduler==3.11.3",
        requires=("pytest", "anyio", "pytz", "sqlalchemy", "tornado", "gevent", "twisted"),
        without="processpool|broken_pool",
        note="without the tests of pools of processes, and of stores and triggers of jobs, which start no threads",
    ),
    Published("Huey", ("huey/tests",), distribution="huey==3.5.4", requires=("pytest",)),
    Published(
        "requests-futures",
        ("tests",),
        distribution="requests-futures==1.1.0",
        requires=("pytest", "pytest-httpbin"),
        quick=True,
    ),
    Published(
        "OpenTelemetry's Flask",
        ("tests",),
        distribution="opentelemetry-instrumentation-flask==0.66b1",
        requires=("pytest", "opentelemetry-test-utils==0.66b1"),
        quick=True,
    ),
    Published(
        "Flask-Limiter",
        tuple(f"tests/test_{name}.py" for name in ("decorators", "views", "regressions", "blueprints")),
        distribution="flask-limiter==4.1.1",
        requires=("pytest", "asgiref", "hiro", "pytest-mock", "redis", "pymemcache", "pymongo", "flask-restful"),
        note="without the tests of stores, which need servers; three of the others need one too",
    ),
    Published("cachetools", ("tests",), distribution="cachetools==8.0.2", requires=("pytest",), quick=True),
    Published("asgiref", ("tests",), distribution="asgiref==3.13.0", requires=("pytest", "pytest-asyncio")),
)

ALL: tuple[Suite, ...] = (*SUITES, *ECOSYSTEM)
