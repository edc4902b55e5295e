"""Data: values and threads that do not cross to a thread, each entry with its reason.

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

_POOL = "a pool's worker outlives whatever made the pool grow, and its tasks carry their context themselves"
_SERVER = "an app may start a server itself, whose thread serves everybody's requests, each in a context of its own"
_LOOP = "an app may start an event loop itself, which runs everybody's coroutines"
_CHAIN = "copies a result into an event loop; what waits for it there has a context of its own"
_BRIDGE = "carries the caller's context variables itself"
_SERVICE = "an app may start it itself, and it serves everybody for the life of the process"
_WORKER = "an app may start a worker itself, whose tasks have contexts of their own"
_DUMMY = "is not started at all, but made when a foreign thread asks for current_thread()"
_DEBUGGER = "an IDE loads its debugger from a folder of its own, where it looks like own code"

IGNORED: dict[str, str] = {
    # Only what the rule of own code cannot see: what own code starts itself, and what runs as a task or as a callback.
    # A path names as little as does the job: a module that also runs its caller's functions must not be listed.
    # The standard library
    "threading:_DummyThread": _DUMMY,
    "threading:_MainThread": _DUMMY,
    # A subclass of an executor may start its workers in its own constructor.
    "concurrent.futures.thread:_worker": _POOL,
    "multiprocessing.pool:worker": _POOL,
    "multiprocessing.managers:Server.serve_forever": _SERVER,
    "logging.config:listen": _SERVER,
    "socketserver:BaseServer.serve_forever": _SERVER,
    "asyncio.base_events:BaseEventLoop.run_forever": _LOOP,
    "asyncio.windows_events:ProactorEventLoop.run_forever": _LOOP,
    "asyncio.futures:_chain_future": _CHAIN,
    "asyncore:loop": _LOOP,
    # WSGI and ASGI servers
    "flask.app:Flask.run": _SERVER,
    "flask_socketio:SocketIO.run": _SERVER,
    "werkzeug.serving:run_simple": _SERVER,
    "werkzeug.serving:BaseWSGIServer.serve_forever": _SERVER,
    "waitress:serve": _SERVER,
    "waitress.server:BaseWSGIServer.run": _SERVER,
    "waitress.server:MultiSocketServer.run": _SERVER,
    "cheroot.server:HTTPServer.start": _SERVER,
    "cheroot.server:HTTPServer.safe_start": _SERVER,
    "cheroot.server:HTTPServer.serve": _SERVER,
    "cherrypy:quickstart": _SERVER,
    "cherrypy.process.wspbus:Bus.block": _SERVER,
    "bjoern:run": _SERVER,
    "uvicorn.main:run": _SERVER,
    "uvicorn.server:Server.run": _SERVER,
    "hypercorn.run:run": _SERVER,
    "daphne.server:Server.run": _SERVER,
    "granian.server.common:AbstractServer.serve": _SERVER,
    "livereload.server:Server.serve": _SERVER,
    "gevent.baseserver:BaseServer.serve_forever": _SERVER,
    "eventlet.wsgi:server": _SERVER,
    # Event loops, and bridges between them and threads
    "uvloop.loop:Loop.run_forever": _LOOP,
    "tornado.ioloop:IOLoop.start": _LOOP,
    "tornado.platform.asyncio:BaseAsyncIOLoop.start": _LOOP,
    "tornado.ioloop:IOLoop.add_future": _CHAIN,
    "tornado.concurrent:chain_future": _CHAIN,
    "twisted.internet.base:ReactorBase.run": _LOOP,
    "asgiref.current_thread_executor": _BRIDGE,
    "asgiref.sync:AsyncToSync.__call__": _BRIDGE,
    "asgiref.sync:AsyncToSync._run_event_loop": _BRIDGE,
    "asgiref.sync:SyncToAsync.thread_handler": _BRIDGE,
    "gevent.threading:_DummyThread": _DUMMY,
    # Workers and consumers
    "celery.app.base:Celery.start": _WORKER,
    "celery.app.base:Celery.worker_main": _WORKER,
    "celery.worker.worker:WorkController.start": _WORKER,
    "celery.beat:Service.start": _SERVICE,
    "celery.events.receiver:EventReceiver.capture": _SERVICE,
    "kombu.mixins:ConsumerMixin.run": _WORKER,
    "huey.consumer:Consumer.start": _WORKER,
    "huey.consumer:Consumer.run": _WORKER,
    "rq.worker.base:BaseWorker.work": _WORKER,
    "rq.worker:Worker.work": _WORKER,
    "rq.scheduler:RQScheduler.work": _SERVICE,
    "apscheduler.schedulers.blocking:BlockingScheduler.start": _SERVICE,
    "futurist.periodics:PeriodicWorker.start": _SERVICE,
    "pika.adapters.blocking_connection:BlockingChannel.start_consuming": _SERVICE,
    "redis.client:PubSubWorkerThread": _SERVICE,
    "paho.mqtt.client:Client.loop_forever": _SERVICE,
    "websocket._app:WebSocketApp.run_forever": _SERVICE,
    "zmq.backend.cython._zmq:proxy": _SERVICE,
    "watchdog.utils:BaseThread": _SERVICE,
}

NOT_OWN: dict[str, str] = {
    "pydevd": _DEBUGGER,
    "_pydevd_bundle": _DEBUGGER,
    "_pydev_bundle": _DEBUGGER,
    "_pydevd_frame_eval": _DEBUGGER,
    "_pydevd_sys_monitoring": _DEBUGGER,
    "debugpy": _DEBUGGER,
    "flaskthreads_autopatch": "lies among own code in a checkout, and its service threads serve everybody",
}
"""Modules that are not own code wherever they lie."""

COUNT_AS_OWN: dict[str, str] = {
    # A package that is missing here fails loudly, as it does without this library.
    "flaskthreads_autopatch.doctor": "the self-test starts what an app would start",
    "func_timeout.dafunc": "runs the caller's function once, in a thread that is started for it",
    "graphql.execution.executors.thread": "runs one resolver of the caller's query, in a thread that is started for it",
    "pebble.asynchronous.thread": "runs the decorated function once, in a thread that is started for the call",
    "pebble.concurrent.thread": "runs the decorated function once, in a thread that is started for the call",
    "promise.schedulers.thread": "runs the callbacks that the calling thread has queued, in a thread that then ends",
    "reactivex.scheduler.timeoutscheduler": "runs the caller's action once, in a timer that is started for it",
}
"""Modules whose threads run the function of whatever calls them, once, so that they count as own code."""
