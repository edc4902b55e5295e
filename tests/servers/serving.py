"""Starting each of the servers as a process, and ending it."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import typing as t
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gunicorn.config
import pytest

from ..helpers import LIMIT

ROOT = Path(__file__).parent.parent.parent
THREADS = "8"


class Server:
    """A server process, and the lines that it has written."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.port = 0
        self.log: list[str] = []
        self._changed = threading.Condition()
        # A full pipe would stop the server.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self.log.append("")
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match of *pattern* in a line. Fails with the whole log if the server ends before."""
        seen = 0
        with self._changed:
            while True:
                for line in self.log[seen:]:
                    if found := re.search(pattern, line):
                        return found
                assert self.log[-1:] != [""], f"The server has ended without {pattern!r}:\n{''.join(self.log)}"
                seen = len(self.log)
                assert self._changed.wait(LIMIT), f"{pattern!r} is not in the log:\n{''.join(self.log)}"

    def end(self) -> None:
        """Have the log complete, and no process left."""
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            # Its session is its own: workers go with it.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._reader.join()


class Command(t.NamedTuple):
    """How a server is started, and the line that says that it listens, with its port unless that is known."""

    words: list[str]
    ready: str
    port: int | None = None


Environ = dict[str, str]
Start = Callable[[str, Path, Environ], Command]


def _gunicorn(*options: str) -> Start:
    def command(module: str, folder: Path, environ: Environ) -> Command:
        words = [
            *(sys.executable, "-u", "-m", "gunicorn", "--bind", "127.0.0.1:0", "--keep-alive", "60", *options),
            # Newer ones keep a socket in the user's home.
            *(["--no-control-socket"] if "control_socket_disable" in gunicorn.config.Config().settings else []),
            f"{module}:application",
        ]
        return Command(words, r"Listening at: http://127\.0\.0\.1:(\d+)")

    return command


def _waitress(module: str, folder: Path, environ: Environ) -> Command:
    words = [sys.executable, "-u", "-m", "waitress", "--listen", "127.0.0.1:0", "--threads", THREADS]
    return Command([*words, f"{module}:application"], r"Serving on http://127\.0\.0\.1:(\d+)")


def _werkzeug(module: str, folder: Path, environ: Environ) -> Command:
    watched = folder / "watched"
    watched.touch()
    words = [sys.executable, "-u", "-m", "tests.servers.reloading", module, str(watched)]
    return Command(words, r"Running on http://127\.0\.0\.1:(\d+)")


def _uvicorn(module: str, folder: Path, environ: Environ) -> Command:
    environ["SERVED_MODULE"] = module
    words = [sys.executable, "-u", "-m", "uvicorn", "--port", "0", "tests.servers.asgi:application"]
    # On a connection that is kept, asgiref's bridge now and then answers 500, without this library too: the next
    # request inherits the executor of the one before it, which has ended. See django/asgiref#526.
    words += ["--header", "Connection:close"]
    return Command(words, r"Uvicorn running on http://127\.0\.0\.1:(\d+)")


def _uwsgi(*options: str) -> Start:
    def command(module: str, folder: Path, environ: Environ) -> Command:
        # It is not started by a Python, and finds its packages in this home.
        words = [str(Path(sys.executable).parent / "uwsgi"), "--home", sys.prefix, "--module", f"{module}:application"]
        words += ["--master", "--processes", "1", "--die-on-term", *options]
        return Command(words, r"bound to TCP address 127\.0\.0\.1:(\d+)")

    return command


APACHE = """\
ServerRoot "{folder}"
ServerName localhost
DefaultRuntimeDir "{folder}"
PidFile "{folder}/pid"
Mutex pthread default
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
{user}
ErrorLog /dev/stderr
ErrorLogFormat "%M"
LogLevel info
KeepAliveTimeout 60
WSGIRestrictEmbedded On
WSGIPassAuthorization On
WSGISocketPrefix "{folder}/wsgi"
WSGIDaemonProcess app processes=1 threads={threads} python-path="{folder}/packages"
WSGIProcessGroup app
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias / "{folder}/served.wsgi"
<Directory "{folder}">
    Require all granted
</Directory>
"""
MODULES = "/usr/lib/apache2/modules"
PACKAGES = (
    *("flaskthreads_autopatch", "wrapt", "flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click"),
    *("blinker", "flask_sqlalchemy", "sqlalchemy", "typing_extensions", "tests"),
)


def _apache(module: str, folder: Path, environ: Environ) -> Command:
    # The account that serves may not read where our packages are. mod_wsgi runs Debian's Python, which may be another
    # one than ours: what is compiled in these packages is optional.
    for name in PACKAGES:
        origin = Path(importlib.import_module(name).__file__ or "")
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, folder / "packages" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, folder / "packages")
    passed_on = {name: value for name, value in environ.items() if name.startswith(("SERVED_", "FLASKTHREADS_"))}
    script = f"import os\nos.environ.update({passed_on!r})\nfrom {module} import application\n"
    (folder / "served.wsgi").write_text(script)
    user = ""
    if os.getuid() == 0:  # as which Apache does not serve
        user = "User www-data\nGroup www-data"
        shutil.chown(folder, "www-data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = APACHE.format(folder=folder, port=port, modules=MODULES, user=user, threads=THREADS)
    (folder / "apache.conf").write_text(configuration)
    return Command(["apache2", "-f", str(folder / "apache.conf"), "-D", "FOREGROUND"], "AH00489", port)


HTTP = ("--http-socket", "127.0.0.1:0", "--add-header", "Connection: close")  # It does close, and does not say so.

COMMANDS: dict[str, Start] = {
    "gunicorn": _gunicorn("--worker-class", "gthread", "--threads", THREADS),
    "gunicorn sync": _gunicorn("--worker-class", "sync"),
    "gunicorn gevent": _gunicorn("--worker-class", "gevent"),
    "waitress": _waitress,
    "werkzeug": _werkzeug,
    "uvicorn": _uvicorn,
    "uwsgi": _uwsgi(*HTTP, "--threads", THREADS),
    "uwsgi with one core": _uwsgi(*HTTP, "--enable-threads"),
    "uwsgi with connections kept": _uwsgi("--http11-socket", "127.0.0.1:0", "--threads", THREADS, "--disable-logging"),
    "apache": _apache,
}
SERVERS = [
    "gunicorn",
    "gunicorn sync",
    pytest.param("gunicorn gevent", marks=pytest.mark.gevent),
    "waitress",
    "werkzeug",
    pytest.param("uvicorn", marks=pytest.mark.uvicorn),
    pytest.param("uwsgi", marks=pytest.mark.uwsgi),
    pytest.param("apache", marks=pytest.mark.apache),
]


@contextmanager
def served_by(name: str, module: str, **environ: str) -> Iterator[Server]:
    """Serve ``application`` of *module* by a process; its database is in a folder of its own."""
    # Not in pytest's folder, which is closed to other accounts.
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | environ | {"SERVED_DATABASE": f"{folder}/database"}
        command = COMMANDS[name](module, Path(folder), environ)
        with subprocess.Popen(
            command.words,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            server = Server(process, Path(folder))
            try:
                ready = server.wait_for(command.ready)
                server.port = command.port or int(ready[1])
                yield server
            finally:
                server.end()
