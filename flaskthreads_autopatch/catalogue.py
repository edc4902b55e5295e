"""Data: what stays home and who does not inherit, each entry with its reason.

Paths are written as in the policy: ``"module:qualname"`` names one class or callable (a class stands for its
subclasses too), ``"module"`` names a module with everything in it and below it.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import uuid

PLAIN_TYPES: frozenset[type] = frozenset(
    (
        *(str, bytes, int, float, complex, bool, type(None)),
        *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
        *(decimal.Decimal, fractions.Fraction, uuid.UUID),
    )
)
"""Immutable values that hold nothing to be closed: a thread's teardown handlers may see the parent's."""

_CURSOR = "a cursor belongs to one connection, and that to one thread"
_DBAPI = "a DB-API connection holds one transaction; two threads in it mix theirs"
_UNIT_OF_WORK = "one unit of work for one thread; its identity map is not locked"

THREAD_BOUND_TYPES: dict[str, str] = {
    # The standard library
    "sqlite3:Connection": "sqlite3 refuses a connection outside the thread that opened it",
    "sqlite3:Cursor": "sqlite3 refuses a cursor outside the thread that opened it",
    "smtplib:SMTP": "one conversation with a server, one command at a time",
    "imaplib:IMAP4": "one conversation with a server, one command at a time",
    "poplib:POP3": "one conversation with a server, one command at a time",
    "ftplib:FTP": "one conversation with a server, one command at a time",
    "telnetlib:Telnet": "one conversation with a server, one command at a time",
    "http.client:HTTPConnection": "one request at a time; a second thread reads the first one's response",
    "dbm.gnu:gdbm": "the handle is not locked",
    "asyncio.events:AbstractEventLoop": "an event loop runs in one thread and is called from no other",
    "asyncio.futures:Future": "belongs to the event loop of one thread",
    "_asyncio:Future": "belongs to the event loop of one thread",
    "_asyncio:Task": "belongs to the event loop of one thread",
    # SQLAlchemy, SQLModel, Flask-SQLAlchemy
    "sqlalchemy.orm.session:Session": _UNIT_OF_WORK,
    "sqlalchemy.orm.session:SessionTransaction": _UNIT_OF_WORK,
    "sqlalchemy.ext.asyncio.session:AsyncSession": _UNIT_OF_WORK,
    "sqlalchemy.engine.base:Connection": _DBAPI,
    "sqlalchemy.engine.base:Transaction": _DBAPI,
    "sqlalchemy.ext.asyncio.engine:AsyncConnection": _DBAPI,
    "sqlalchemy.pool.base:_ConnectionFairy": _DBAPI,
    # PostgreSQL
    "psycopg:Connection": _DBAPI,
    "psycopg:AsyncConnection": _DBAPI,
    "psycopg:Cursor": _CURSOR,
    "psycopg2.extensions:connection": _DBAPI,
    "psycopg2.extensions:cursor": _CURSOR,
    "pg8000.legacy:Connection": _DBAPI,
    "pg8000.native:Connection": _DBAPI,
    "asyncpg.connection:Connection": _DBAPI,
    # MySQL, MariaDB
    "pymysql.connections:Connection": _DBAPI,
    "pymysql.cursors:Cursor": _CURSOR,
    "MySQLdb.connections:Connection": _DBAPI,
    "MySQLdb.cursors:BaseCursor": _CURSOR,
    "mysql.connector.abstracts:MySQLConnectionAbstract": _DBAPI,
    "mysql.connector.abstracts:MySQLCursorAbstract": _CURSOR,
    "mysql.connector.pooling:PooledMySQLConnection": _DBAPI,
    "mariadb.connections:Connection": _DBAPI,
    # Other databases
    "pyodbc:Connection": _DBAPI,
    "pyodbc:Cursor": _CURSOR,
    "cx_Oracle:Connection": _DBAPI,
    "oracledb.connection:Connection": _DBAPI,
    "oracledb.cursor:Cursor": _CURSOR,
    "pymssql._pymssql:Connection": _DBAPI,
    "ibm_db_dbi:Connection": _DBAPI,
    "snowflake.connector.connection:SnowflakeConnection": _DBAPI,
    "duckdb:DuckDBPyConnection": _DBAPI,
    "_duckdb:DuckDBPyConnection": _DBAPI,
    "aiosqlite.core:Connection": _DBAPI,
    "neo4j._sync.work.session:Session": "a Neo4j session is documented as not safe for threads",
    "pymongo.client_session:ClientSession": "a MongoDB session is documented as not safe for threads",
    "pymongo.synchronous.client_session:ClientSession": "a MongoDB session is documented as not safe for threads",
    "redis.client:Pipeline": "a pipeline buffers the commands of one caller",
    "redis.client:PubSub": "one subscription, read by one thread",
    # Messaging and directories
    "pika.adapters.blocking_connection:BlockingConnection": "documented for use by one thread only",
    "pika.adapters.blocking_connection:BlockingChannel": "documented for use by one thread only",
    "kombu.connection:Connection": "one AMQP connection, its channels are not locked",
    "amqp.connection:Connection": "one AMQP connection, its channels are not locked",
    "ldap3.core.connection:Connection": "the default strategies answer one operation at a time",
    "ldap.ldapobject:SimpleLDAPObject": "results of two threads' operations are mixed up",
    "paramiko.sftp_client:SFTPClient": "one channel, requests and answers in order",
}

THREAD_BOUND_NAMES: dict[str, str] = {
    "_login_user": "Flask-Login's user is an ORM object of the parent's session; the thread loads its own",
}

_POOL = "a pool's worker outlives whoever made the pool grow; tasks carry their context themselves"
_SERVER = "a server's thread serves everybody's requests, each in a context of its own"
_LOOP = "an event loop runs everybody's coroutines"
_BRIDGE = "carries the caller's context variables itself"
_EXPORTER = "an agent's own background thread, for the life of the process"
_SERVICE = "a background service for the life of the process, whoever happened to start it"
_DUMMY = "not started by anybody: made when a foreign thread asks for current_thread()"

IGNORED: dict[str, str] = {
    # The standard library
    "threading:_DummyThread": _DUMMY,
    "threading:_MainThread": _DUMMY,
    "concurrent.futures": _POOL,
    "multiprocessing.pool": _POOL,
    "multiprocessing.queues": "feeds a queue for everybody who puts into it",
    "multiprocessing.managers": _SERVER,
    "multiprocessing.resource_sharer": _SERVER,
    "logging.handlers:QueueListener": "writes everybody's log records",
    "logging.config": _SERVER,
    "socketserver": _SERVER,
    "wsgiref": _SERVER,
    "http.server": _SERVER,
    "xmlrpc.server": _SERVER,
    # Not asyncio.runners: a thread that calls asyncio.run() runs one caller's coroutine, and inherits.
    "asyncio.base_events": _LOOP,
    "asyncio.events": _LOOP,
    "asyncio.futures": _LOOP,
    "asyncio.tasks": _LOOP,
    "asyncio.proactor_events": _LOOP,
    "asyncio.selector_events": _LOOP,
    "asyncio.unix_events": _LOOP,
    "asyncio.windows_events": _LOOP,
    # WSGI and ASGI servers
    "werkzeug.serving": _SERVER,
    "werkzeug._reloader": _SERVER,
    "gunicorn": _SERVER,
    "waitress": _SERVER,
    "cheroot": _SERVER,
    "cherrypy": _SERVER,
    "meinheld": _SERVER,
    "bjoern": _SERVER,
    "uvicorn": _SERVER,
    "hypercorn": _SERVER,
    "daphne": _SERVER,
    "granian": _SERVER,
    "tornado": _LOOP,
    "twisted": _LOOP,
    "mod_wsgi": _SERVER,
    "livereload": _SERVER,
    "pytest_flask.live_server": _SERVER,
    "liveserver": _SERVER,
    # Event loops, and bridges between them and threads
    "uvloop": _LOOP,
    "winloop": _LOOP,
    "asgiref": _BRIDGE,
    "anyio": _BRIDGE,
    "trio": _BRIDGE,
    "sniffio": _BRIDGE,
    "a2wsgi": _BRIDGE,
    "aiosqlite": _LOOP,
    # Not the whole of gevent: threading.Thread and Timer are classes of gevent.threading once it has patched them.
    "gevent.threading:_DummyThread": _DUMMY,
    "gevent.threadpool": _POOL,
    "gevent.hub": _LOOP,
    "gevent.baseserver": _SERVER,
    "gevent.backdoor": _SERVER,
    "gevent.pywsgi": _SERVER,
    "gevent.server": _SERVER,
    "eventlet": _POOL,
    # Agents. Their modules that wrap other people's callables (as opentelemetry.instrumentation.threading) are
    # not here: what they wrap is the user's.
    "opentelemetry.sdk": _EXPORTER,
    "opentelemetry.exporter": _EXPORTER,
    "sentry_sdk.worker": _EXPORTER,
    "sentry_sdk.monitor": _EXPORTER,
    "sentry_sdk.sessions": _EXPORTER,
    "sentry_sdk.metrics": _EXPORTER,
    "sentry_sdk._batcher": _EXPORTER,
    "sentry_sdk._log_batcher": _EXPORTER,
    "sentry_sdk._metrics_batcher": _EXPORTER,
    "sentry_sdk._span_batcher": _EXPORTER,
    "sentry_sdk.profiler": _EXPORTER,
    "sentry_sdk.spotlight": _EXPORTER,
    "sentry_sdk.transport": _EXPORTER,
    "sentry_sdk.utils:TimeoutThread": _EXPORTER,
    "ddtrace.internal": _EXPORTER,
    "ddtrace.profiling": _EXPORTER,
    "ddtrace.debugging": _EXPORTER,
    "ddtrace._trace": _EXPORTER,
    "ddtrace.testing": _EXPORTER,
    "datadog": _EXPORTER,
    "newrelic.core": _EXPORTER,
    "newrelic.common": _EXPORTER,
    "newrelic.config": _EXPORTER,
    "newrelic.console": _SERVER,
    "newrelic.samplers": _EXPORTER,
    "elasticapm": _EXPORTER,
    "scout_apm": _EXPORTER,
    "instana": _EXPORTER,
    "appsignal": _EXPORTER,
    "logfire._internal": _EXPORTER,
    "rollbar": _EXPORTER,
    "bugsnag": _EXPORTER,
    "honeybadger": _EXPORTER,
    "raygun4py": _EXPORTER,
    "pyroscope": _EXPORTER,
    "statsd": _EXPORTER,
    "prometheus_client": _SERVER,
    "applicationinsights": _EXPORTER,
    "azure.monitor": _EXPORTER,
    "google.cloud.logging": _EXPORTER,
    "watchtower": _EXPORTER,
    "logging_loki": _EXPORTER,
    "graypy": _EXPORTER,
    "posthog.consumer": _EXPORTER,
    "segment.analytics.consumer": _EXPORTER,
    "mixpanel": _EXPORTER,
    "ldclient": _SERVICE,
    "UnleashClient": _SERVICE,
    # Clients with threads of their own
    "apscheduler.schedulers": _SERVICE,
    "celery": "a worker's own threads; its tasks have contexts of their own",
    "kombu": _SERVICE,
    "dramatiq": "a worker's own threads; its actors have contexts of their own",
    "huey": "a worker's own threads; its tasks have contexts of their own",
    "rq": "a worker's own threads; its jobs have contexts of their own",
    "redis.auth": _SERVICE,
    "redis.background": _SERVICE,
    "redis.client:PubSubWorkerThread": _SERVICE,
    "redis.keyspace_notifications": _SERVICE,
    "limits.storage": "clears away everybody's expired counts",
    "pymongo": _SERVICE,
    "kafka": _SERVICE,
    "confluent_kafka": _SERVICE,
    "paho.mqtt": _SERVICE,
    "stomp": _SERVICE,
    "zmq": _SERVICE,
    "kazoo": _SERVICE,
    "nacos": _SERVICE,
    "etcd3": _SERVICE,
    "hazelcast": _SERVICE,
    "cassandra": _SERVICE,
    "psycopg_pool": _SERVICE,
    "snowflake.connector": _SERVICE,
    "grpc": _SERVICE,
    "google.api_core": _SERVICE,
    "google.cloud.pubsub_v1": _SERVICE,
    "engineio": _SERVICE,
    "websocket": _SERVICE,
    "watchdog": _SERVICE,
    "distributed": _SERVICE,
    "py4j": _SERVICE,
    "jaeger_client": _EXPORTER,
    "tqdm._monitor": _SERVICE,
    # Development tools
    "pydevd": "the debugger's own thread",
    "_pydevd_bundle": "the debugger's own thread",
    "_pydev_bundle": "the debugger's own thread",
    "debugpy": "the debugger's own thread",
    "pytest_timeout": "the test runner's own thread",
    "ipykernel": _LOOP,
}
