"""Each example keeps what it says: served or called as it stands, and seen to fail without the one line in it."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import typing as t
import urllib.request
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from flask import Flask
from flask.cli import ScriptInfo
from werkzeug.serving import make_server

from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import LIMIT

HERE = Path(__file__).parent.parent / "examples"
THE_LINE = re.compile(r"^    flaskthreads_autopatch\.install\(app.*\)\n", re.MULTILINE)


class Example(t.NamedTuple):
    """A copy of one example in a folder of its own, where it may keep its files."""

    name: str
    root: Path

    @property
    def file(self) -> Path:
        return self.root / "examples" / f"{self.name}.py"

    def change_the_line(self, line: str) -> None:
        source, changed = THE_LINE.subn(line, self.file.read_text())
        assert changed == 1
        self.file.write_text(source)

    def commands(self) -> list[str]:
        docstring = ast.get_docstring(ast.parse(self.file.read_text())) or ""
        return re.findall(r"^    (\S.*)$", docstring, re.MULTILINE)

    def command(self, program: str) -> str:
        [command] = [command for command in self.commands() if command.startswith(f"{program} ")]
        return command

    def load(self) -> tuple[ModuleType, Flask]:
        """The app as ``flask --app`` finds it, and its module."""
        app = ScriptInfo(app_import_path=str(self.file)).load_app()
        app.testing = True
        return sys.modules[self.name], app

    @contextmanager
    def run(self, program: str) -> Iterator[subprocess.Popen[str]]:
        """Run the command for *program* that the example states; a server takes any free port."""
        env = os.environ | {"FLASK_RUN_PORT": "0", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(self.command(program))],
            cwd=self.root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        last_guard = threading.Timer(LIMIT * 2, os.killpg, (process.pid, signal.SIGKILL))
        last_guard.start()
        with process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait()
                last_guard.cancel()

    def ask(self, process: subprocess.Popen[str]) -> tuple[str, tuple[int, str]]:
        """Send the ``curl`` command that the example states to the server that is coming up in *process*.

        Returns the server's address and the answer.
        """
        *_, line = lines_to(re.compile("Running on http"), process)
        url = line.partition("Running on ")[2].partition('"')[0].strip()
        return url, curl(self.command("curl").replace("http://127.0.0.1:5000", url), self.root)


def lines_to(pattern: re.Pattern[str], process: subprocess.Popen[str]) -> Iterator[str]:
    """What *process* writes up to the first line that has *pattern* in it."""
    assert process.stdout
    for line in process.stdout:
        yield line
        if pattern.search(line):
            return
    raise AssertionError(f"{process.args} has ended without a line that matches {pattern.pattern!r}.")


def curl(command: str, cwd: Path) -> tuple[int, str]:
    """What *command* does, for the options that the examples use: they need no curl to be tested."""
    parser = ArgumentParser()
    for option in ("-d", "-H"):
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("--data-binary")
    parser.add_argument("--location", action="store_true")
    parser.add_argument("--cookie")
    parser.add_argument("url")
    options = parser.parse_args(shlex.split(command)[1:])
    data = "&".join(options.d).replace(" ", "+").encode() or None
    if options.data_binary:
        data = cwd.joinpath(options.data_binary.removeprefix("@")).read_bytes()
    headers = dict(header.split(": ") for header in options.H)
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(urllib.request.Request(options.url, data, headers), timeout=LIMIT) as response:
        return response.status, response.read().decode()


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    """The example that the check is named after."""
    name = request.node.callspec.id
    monkeypatch.setattr(sys, "path", sys.path.copy())
    shutil.copytree(HERE, tmp_path / "examples", ignore=shutil.ignore_patterns("instance", "__pycache__"))
    yield Example(name, tmp_path)
    sys.modules.pop(name, None)


def ends(app: Flask) -> list[str]:
    """By thread name, the app contexts of *app* that have been torn down from now on."""
    names: list[str] = []
    app.teardown_appcontext(lambda error: names.append(threading.current_thread().name))
    return names


def in_pool(names: list[str]) -> int:
    return sum(name.startswith("ThreadPoolExecutor") for name in names)


# What each example claims ------------------------------------------------------------------------


FOLDERS = ["inbox", "drafts", "sent"]


class RecordedConnection(sqlite3.Connection):
    """Knows in which threads it was opened and closed."""

    all: t.ClassVar[list[RecordedConnection]]
    closed_in: threading.Thread | None = None

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened_in = threading.current_thread()
        self.all.append(self)

    def close(self) -> None:
        super().close()
        self.closed_in = threading.current_thread()


def tutorial_sqlite(example: Example) -> None:
    _, app = example.load()
    connections = RecordedConnection.all = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=RecordedConnection))
        answer = app.test_client().get("/")
    assert answer.json == {"posts": {"alice": ["Rabbits", "Hatters"], "bob": ["Bricks"]}, "total": 3}
    assert len(connections) == 3
    assert all(connection.closed_in is connection.opened_in for connection in connections)
    assert in_pool([connection.opened_in.name for connection in connections]) == 2


def sqlalchemy_pool(example: Example) -> None:
    from sqlalchemy import event

    module, app = example.load()
    with app.app_context():
        engine = module.db.engine
    log: list[str] = []
    for name in ("checkout", "checkin"):
        event.listen(engine, name, lambda *args, name=name: log.append(name))
    torn_down = ends(app)
    client = app.test_client()
    try:
        # More tasks than the engine's pool has connections: none is missing at the end.
        for _ in range(10):
            answer = client.get("/authors")
            assert [author["books"] for author in answer.json] == [["Rabbits", "Hatters"], ["Bricks"]]
        assert in_pool(torn_down) == 20
        answer = client.post("/authors", data={"name": "carol"})
        assert [author["name"] for author in answer.json] == ["alice", "bob", "carol"]
        assert in_pool(torn_down) == 23
        assert log.count("checkout") == log.count("checkin") >= 34
        assert engine.pool.checkedout() == 0
    finally:
        engine.dispose()


def flask_login_pool(example: Example) -> None:
    module, app = example.load()
    loaded: list[tuple[str, str]] = []
    load_user = module.load_user

    @module.login_manager.user_loader
    def recorded(name: str) -> object:
        loaded.append((name, threading.current_thread().name))
        return load_user(name)

    torn_down = ends(app)
    clients = {}
    for name, password in {"alice": "rabbit", "bob": "brick"}.items():
        client = clients[name] = app.test_client()
        assert client.post("/login", data={"name": name, "password": password}).status_code == 302
    for name, expected in {"alice": [3, 1, 4], "bob": [0, 0, 2]}.items():
        loaded.clear()
        torn_down.clear()
        answer = clients[name].get("/").json
        assert answer == [f"{name}: {n} in {folder}" for n, folder in zip(expected, FOLDERS, strict=True)]
        # Once in the view and once in each thread, which does not get the view's user.
        assert [user for user, _ in loaded] == [name] * 4
        assert in_pool([thread for _, thread in loaded]) == in_pool(torn_down) == 3
    assert app.test_client().get("/").status_code == 302
    module.pool.shutdown()


def celery_worker(example: Example) -> None:
    with example.file.open("a") as file:
        file.write("\n\n@flask_app.teardown_appcontext\ndef say(error):\n")
        file.write("    flask_app.logger.info('%s ends', g.get('task_id'))\n")
    with example.run("celery") as worker, example.run("flask") as server:
        url, (_, answer) = example.ask(server)
        task_id = json.loads(answer)["id"]
        outcome = re.compile(rf"\[{task_id}\] (succeeded|raised)")
        output = "".join(lines_to(outcome, worker))
        worker.terminate()
        output += worker.communicate()[0]
        assert "succeeded in" in output, output
        with urllib.request.urlopen(f"{url}/counts/{task_id}", timeout=LIMIT) as response:
            assert json.load(response) == {"counts": [2, 1]}
    assert f"task {task_id} counts 'the white rabbit'" in output
    # The task's own context and one for each text.
    assert output.count(f"{task_id} ends") == 3
    assert worker.returncode == 0


def upload_in_thread(example: Example) -> None:
    module, app = example.load()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    torn_down = ends(app)
    gate = threading.Event()
    try:
        module.pool.submit(gate.wait, LIMIT)
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as sender:
            sender.sendall(b"POST /uploads HTTP/1.1\r\nHost: x\r\nUser-Agent: tests\r\nConnection: close\r\n")
            sender.sendall(b"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for chunk in (b"first, ", b"second"):
                sender.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            sender.sendall(b"0\r\n\r\n")
            # The server reads on after the view that has left the body unread, until there is no more.
            sender.shutdown(socket.SHUT_WR)
            # To the end of the connection: the server is done with the request.
            answer = sender.makefile().read()
        assert " 202 " in answer.splitlines()[0]
        client = app.test_client()
        see = json.loads(answer.splitlines()[-1])["see"]
        assert client.get(see).json == {"waiting": True}
        gate.set()
        module.pool.shutdown()
        body = b"first, second"
        digest = hashlib.sha256(body).hexdigest()
        assert client.get(see).json == {"bytes": len(body), "sha256": digest, "sent_by": "tests"}
        assert in_pool(torn_down) == 1
    finally:
        gate.set()
        server.shutdown()
        serving.join()
        server.server_close()


def lines_until(process: subprocess.Popen[str], messages: Counter[str]) -> list[dict[str, str]]:
    """The lines of JSON that *process* writes until all *messages* are among them."""
    assert process.stdout
    lines, missing = [], messages.copy()
    for text in process.stdout:
        if text.startswith("{"):
            lines.append(json.loads(text))
            missing -= Counter([lines[-1].get("message") or lines[-1]["event"]])
        if not missing:
            return lines
    raise AssertionError(f"{process.args} has ended and did not write {missing}.")


def request_id_logs(example: Example) -> None:
    with example.run("flask") as server:
        assert example.ask(server)[1] == (200, '{"request_id":"4711"}\n')
        expected = ["lamp is reserved", "chair is reserved", "the order is taken", "the receipt is sent"]
        lines = lines_until(server, Counter(expected))
        assert {line["request_id"] for line in lines if line["message"] in expected} == {"4711"}
        # The end of the view's context, of the two tasks', and of the timer's.
        end = "the end of the context"
        missing = 4 - sum(line["message"] == end for line in lines)
        lines += lines_until(server, Counter({end: missing})) if missing else []
        assert [line["request_id"] for line in lines if line["message"] == end] == ["4711"] * 4
        assert len({line["thread"] for line in lines if line["message"] == end}) >= 3


def structlog_request_id(example: Example) -> None:
    with example.run("flask") as server:
        assert example.ask(server)[1][0] == 200
        lines = lines_until(server, Counter({"reserved": 2, "the order is taken": 1, "the receipt is sent": 1}))
    assert [line.get("request_id") for line in lines] == ["4711"] * 4
    assert sorted(line.get("item", "") for line in lines) == ["", "", "chair", "lamp"]


def apscheduler_job(example: Example) -> None:
    from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED

    _, app = example.load()
    torn_down = ends(app)
    scheduler = app.extensions["scheduler"]
    outcomes: queue.Queue[t.Any] = queue.Queue()
    scheduler.add_listener(outcomes.put, EVENT_JOB_ERROR | EVENT_JOB_EXECUTED)
    try:
        assert app.test_client().get("/").json == {}
        torn_down.clear()
        scheduler.modify_job("refresh", next_run_time=datetime.now(timezone.utc))
        outcome = outcomes.get(timeout=LIMIT)
    finally:
        scheduler.shutdown()
    if outcome.exception:
        raise outcome.exception
    # The job's own context and one for each currency, in whatever pools' threads, for each run of the job.
    assert len(torn_down) == 4 * (1 + outcomes.qsize())
    rates = app.test_client().get("/").json
    assert {currency: rate["rate"] for currency, rate in rates.items()} == app.config["RATES"]
    assert len({rate["as_of"] for rate in rates.values()}) == 1


def async_view(example: Example) -> None:
    _, app = example.load()
    torn_down = ends(app)
    for user in ("alice", "bob"):
        answer = app.test_client().get(f"/?user={user}").json
        assert answer["greeting"] == f"Hello {user}"
        assert answer["forecasts"] == [f"Bern: 11° for {user}", f"Oslo: 4° for {user}", f"Rome: 23° for {user}"]
    # The view's and one for each city; asyncio.to_thread() shows the view's and makes none.
    assert len(torn_down) == 2 * (1 + 3)


def debugtoolbar_threads(example: Example) -> None:
    module, app = example.load()
    taken = threading.Event()
    # The thread that is left behind ends once the page is there, however long that takes.
    module.time = SimpleNamespace(sleep=lambda seconds: seconds < 1 or taken.wait(LIMIT))
    page = app.test_client().get("/").text
    taken.set()
    rows = re.findall(r'<tr class="(\w+)">', page)
    assert Counter(rows) == {"returned": 6, "raised": 1, "running": 1}, f"{len(rows)} rows"
    assert "raised builtins:<wbr>TimeoutError" in page
    assert "not password: excluded by" in page


Check = Callable[[Example], None]
OUTSIDE = "Working outside of"


def checks(*rows: tuple[Check, str]) -> pytest.MarkDecorator:
    needs_extra = {debugtoolbar_threads, flask_login_pool, celery_worker, structlog_request_id, apscheduler_job}
    marks = {check: [pytest.mark.examples] if check in needs_extra else [] for check, _ in rows}
    params = [pytest.param(check, failure, id=check.__name__, marks=marks[check]) for check, failure in rows]
    return pytest.mark.parametrize(("check", "failure"), params)


ALL = (
    (tutorial_sqlite, OUTSIDE),
    (sqlalchemy_pool, OUTSIDE),
    (flask_login_pool, "'NoneType' object has no attribute 'id'"),
    (celery_worker, OUTSIDE),
    (upload_in_thread, OUTSIDE),
    (request_id_logs, "None"),
    (structlog_request_id, "None"),
    (apscheduler_job, OUTSIDE),
    (async_view, OUTSIDE),
    (debugtoolbar_threads, "0 rows"),
)


@checks(*ALL)
def test_example(check: Check, failure: str, example: Example) -> None:
    check(example)


@pytest.mark.skipif(THREADS_INHERIT_CONTEXT, reason="threads show the starter's context by themselves")
@checks(*ALL)
def test_it_fails_without_the_line(check: Check, failure: str, example: Example) -> None:
    example.change_the_line("")
    with pytest.raises((RuntimeError, AttributeError, AssertionError), match=failure):
        check(example)


@checks((upload_in_thread, "preload=True"), (structlog_request_id, "None"), (apscheduler_job, OUTSIDE))
def test_it_fails_without_its_option(check: Check, failure: str, example: Example) -> None:
    example.change_the_line("    flaskthreads_autopatch.install(app)\n")
    with pytest.raises((RuntimeError, AssertionError), match=failure):
        check(example)


@checks(*ALL)
def test_its_commands_run(check: Check, failure: str, example: Example) -> None:
    with example.run("flask") as server:
        _, (status, _) = example.ask(server)
    assert status in (200, 201, 202)


@checks(*ALL)
def test_it_has_a_line_in_the_readme(check: Check, failure: str, example: Example) -> None:
    [line] = re.findall(rf"^- \[{example.name}\.py\]\({example.name}\.py\): .*$", README, re.MULTILINE)
    assert [command for command in re.findall(r"`([^`]+)`", line) if " " in command] == example.commands()


README = (HERE / "README.md").read_text()


def test_all_examples_are_here() -> None:
    names = {path.stem for path in HERE.glob("*.py")} - {"quickstart", "audit_me"}  # Those have tests of their own.
    assert names == {check.__name__ for check, _ in ALL}
    assert set(re.findall(r"^- \[(\w+)\.py\]", README, re.MULTILINE)) == names | {"quickstart", "audit_me"}
