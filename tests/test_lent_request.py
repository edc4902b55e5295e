"""What a thread finds in its request after the response: what the request had, whatever the server does next (3.4)."""

from __future__ import annotations

import gc
import io
import logging
import queue
import sys
import threading
import time
import typing as t
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy as shallow

import flask
import pytest
from flask import Flask, Response, copy_current_request_context, g, request, stream_with_context
from flask.ctx import AppContext
from werkzeug.test import EnvironBuilder

from flaskthreads_autopatch import (
    AppContextThread,
    ThreadPoolWithAppContextExecutor,
    copy_current_app_context,
    install,
    suppress_inheritance,
)
from flaskthreads_autopatch.flask_context import REUSES_APP_CONTEXT

from .helpers import LIMIT, in_thread

request_ctx = flask.globals.request_ctx if REUSES_APP_CONTEXT else flask.globals.app_ctx


class Server:
    """A WSGI server in this thread. As uWSGI, it has one environ for all its requests, and empties it after each."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.environ: dict[str, t.Any] = {}
        self.wait = wait
        """Called when a response is done, before the environ is emptied."""
        self.log = io.StringIO()
        self.left: dict[str, t.Any] = {}
        """What an environ had when its response was closed, before it was emptied."""

    def serve(self, app: Callable[..., t.Any], path: str = "/", user: str = "alice", **options: t.Any) -> bytes:
        builder = EnvironBuilder(path, headers={"User": user, "Cookie": f"user={user}"}, **options)
        environ = builder.get_environ()
        self.environ.update(environ, REMOTE_ADDR=f"{user}'s", HTTP_AUTHORIZATION=f"Bearer {user}")
        self.environ["wsgi.input"] = Input(environ["wsgi.input"].read())
        self.environ["wsgi.errors"] = self.log
        response = app(self.environ, lambda status, headers, exc_info=None: None)
        try:
            return b"".join(response)
        finally:
            response.close()
            self.wait()
            self.left = self.environ.copy()
            self.environ["wsgi.input"].over = True
            self.environ.clear()


class Input:
    """The connection: nobody may read from it after the response, because it is the next request's then."""

    def __init__(self, body: bytes) -> None:
        self.stream = io.BytesIO(body)
        self.over = False

    def __getattr__(self, name: str) -> t.Any:
        assert not self.over, "The server was asked for the body after the response"
        return getattr(self.stream, name)


@pytest.fixture
def server() -> Server:
    return Server()


class Late:
    """Work that a thread does after the response, and what came of it."""

    def __init__(self, work: Callable[[], t.Any]) -> None:
        self.may_go = threading.Event()
        self.work = work
        self.future: Future[t.Any] = Future()

    def __call__(self, *ignored: object) -> None:
        assert self.may_go.wait(LIMIT)
        try:
            self.future.set_result(self.work())
        except BaseException as error:
            self.future.set_exception(error)

    def result(self) -> t.Any:
        self.may_go.set()
        return self.future.result(LIMIT)


def seen() -> dict[str, t.Any]:
    """Everything of a request that is read from the environ, and read late."""
    return {
        "header": request.headers["User"],
        "headers": dict(request.headers)["User"],
        "environ": request.environ["HTTP_USER"],
        "authorization": request.environ["HTTP_AUTHORIZATION"],
        "cookies": request.cookies.to_dict(),
        "args": request.args.to_dict(),
        "url": request.url,
        "host": request.host,
        "path": request.path,
        "address": request.remote_addr,
        "query": request.environ["QUERY_STRING"],
        "user agent": request.user_agent.string,
        "languages": request.accept_languages.best,
        "forwarded": list(request.access_route),
        "length": request.content_length,
        "types": request.mimetype,
    }


def expected(user: str) -> dict[str, t.Any]:
    return {
        "header": user,
        "headers": user,
        "environ": user,
        "authorization": f"Bearer {user}",
        "cookies": {"user": user},
        "args": {"of": user},
        "url": f"http://localhost/start?of={user}",
        "host": "localhost",
        "path": "/start",
        "address": f"{user}'s",
        "query": f"of={user}",
        "user agent": f"{user}'s browser",
        "languages": "en",
        "forwarded": ["1.2.3.4"],
        "length": 4,
        "types": "text/plain",
    }


def ask(server: Server, app: Callable[..., t.Any], user: str, path: str = "/start") -> bytes:
    environ = {
        "HTTP_USER_AGENT": f"{user}'s browser",
        "HTTP_ACCEPT_LANGUAGE": "en",
        "HTTP_X_FORWARDED_FOR": "1.2.3.4",
        "CONTENT_TYPE": "text/plain",
    }
    query = {"of": user}
    return server.serve(app, path, user, method="POST", data=b"body", query_string=query, environ_base=environ)


def start_thread(work: Callable[[], object]) -> None:
    threading.Thread(target=work).start()


def start_timer(work: Callable[[], object]) -> None:
    threading.Timer(0, work).start()


def submit(work: Callable[[], object]) -> None:
    pool = ThreadPoolExecutor(1)
    pool.submit(work)
    pool.shutdown(wait=False)


def add_callback(work: Callable[[], object]) -> None:
    future: Future[None] = Future()
    future.add_done_callback(work)
    start_elsewhere(lambda: future.set_result(None))


def start_explicit_thread(work: Callable[[], object]) -> None:
    AppContextThread(target=work).start()


def submit_explicitly(work: Callable[[], object]) -> None:
    pool = ThreadPoolWithAppContextExecutor(1)
    pool.submit(work)
    pool.shutdown(wait=False)


def copy_context(work: Callable[[], object]) -> None:
    start_elsewhere(copy_current_app_context(work))


def start_elsewhere(work: Callable[[], object]) -> None:
    with suppress_inheritance():
        threading.Thread(target=work).start()


def start_nested(work: Callable[[], object]) -> None:
    """The thread that starts the thread has ended before the response."""
    first = threading.Thread(target=start_thread, args=(work,))
    first.start()
    first.join(LIMIT)


def start_in_a_copy(work: Callable[[], object]) -> None:
    copy_current_request_context(start_thread)(work)


def start_in_a_copy_in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=copy_current_request_context(start_thread), args=(work,))
    thread.start()
    thread.join(LIMIT)


def start_in_a_copy_elsewhere(work: Callable[[], object]) -> None:
    """The thread that runs the copy does not inherit; what it starts there inherits from the copy."""
    thread = threading.Thread(target=copy_current_request_context(start_thread), args=(work,))
    with suppress_inheritance():
        thread.start()
    thread.join(LIMIT)


def start_in_a_copy_that_goes_on(work: Callable[[], object]) -> None:
    """The same, and the copy ends after the request it was made of."""
    in_thread(lambda: request.path)
    started = threading.Event()

    def run() -> None:
        start_thread(work)
        started.set()
        assert t.cast(Late, work).may_go.wait(LIMIT)

    start_elsewhere(copy_current_request_context(run))
    assert started.wait(LIMIT)


def run_a_copy(work: Callable[[], object]) -> None:
    threading.Thread(target=copy_current_request_context(work)).start()


def start_after_others(work: Callable[[], object]) -> None:
    """What was lent first is not lent any more."""
    for _ in range(3):
        in_thread(lambda: request.path)
    start_thread(work)
    in_thread(lambda: request.path)


WAYS = [
    start_thread,
    start_timer,
    submit,
    add_callback,
    start_explicit_thread,
    submit_explicitly,
    copy_context,
    start_nested,
    start_in_a_copy,
    start_in_a_copy_in_a_thread,
    start_in_a_copy_elsewhere,
    start_in_a_copy_that_goes_on,
    run_a_copy,
    start_after_others,
]


@pytest.mark.parametrize("start", WAYS)
def test_h25_a_late_thread_reads_its_own_request(installed: Flask, server: Server, start: t.Any) -> None:
    works: dict[str, Late] = {}

    @installed.post("/start")
    def view() -> str:
        works[request.headers["User"]] = work = Late(seen)
        start(work)
        return ""

    for user in ("alice", "bob"):
        ask(server, installed, user)

    assert works["alice"].result() == expected("alice")
    assert works["bob"].result() == expected("bob")


def test_h25_without_us_a_late_thread_reads_the_next_request(app: Flask, server: Server) -> None:
    works: dict[str, Late] = {}

    @app.post("/start")
    def view() -> str:
        user = request.headers["User"]
        works[user] = work = Late(lambda: request.headers["User"])
        threading.Thread(target=copy_current_request_context(work)).start()
        if user == "bob":
            works["alice"].may_go.set()
            return t.cast(str, works["alice"].future.result(LIMIT))
        return ""

    ask(server, app, "alice")
    assert ask(server, app, "bob") == b"bob"
    with pytest.raises(KeyError):
        works["bob"].result()


def test_h25_what_waits_for_its_start_keeps_its_request(installed: Flask, server: Server) -> None:
    made: list[t.Any] = []
    pool = ThreadPoolExecutor(1)
    explicit_pools: list[ThreadPoolWithAppContextExecutor] = []
    block, users = threading.Event(), []

    def note() -> None:
        users.append(request.headers["User"])

    @installed.post("/start")
    def view() -> str:
        made.append(threading.Thread(target=note))
        pool.submit(block.wait, LIMIT)
        pool.submit(note)
        explicit_pools.append(ThreadPoolWithAppContextExecutor(1))
        return ""

    ask(server, installed, "alice")
    server.environ["HTTP_USER"] = "bob"
    made[0].start()
    made[0].join(LIMIT)
    block.set()
    pool.shutdown()
    explicit_pools[0].submit(note).result(LIMIT)
    explicit_pools[0].shutdown()
    assert users == ["alice"] * 3


@pytest.mark.parametrize("name", ["headers", "environ", "a proxy"])
def test_h25_what_the_thread_has_taken_from_the_request_before(installed: Flask, server: Server, name: str) -> None:
    @installed.post("/start")
    def view() -> str:
        headers, proxy = request.headers, request
        works.append(Late(lambda: headers["User"] if name == "headers" else proxy.environ["HTTP_USER"]))
        start_thread(works[-1])
        return ""

    works: list[Late] = []
    ask(server, installed, "alice")
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == "alice"


def test_h25_headers_are_never_empty_while_the_request_ends(installed: Flask) -> None:
    over, reading = threading.Event(), threading.Barrier(3)
    wrong: list[object] = []
    rounds = [0, 0]

    def read(number: int) -> None:
        reading.wait(LIMIT)
        while not over.is_set():
            found = request.headers.get("User"), request.environ.get("HTTP_USER"), len(request.headers) > 4
            if found != ("alice", "alice", True):
                wrong.append(found)
            rounds[number] += 1

    def wait() -> None:
        # A server takes longer for the end of a response than a thread for reading a header.
        before = rounds.copy()
        while any(now < then + 2 for now, then in zip(rounds, before, strict=True)) and threads[0].is_alive():
            time.sleep(0)

    @installed.post("/start")
    def view() -> str:
        threads[:] = [threading.Thread(target=read, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        reading.wait(LIMIT)
        return ""

    server = Server(wait)
    threads: list[threading.Thread] = []
    for _ in range(50):
        ask(server, installed, "alice")
        server.environ["HTTP_USER"] = "bob"
        over.set()
        for thread in threads:
            thread.join(LIMIT)
        over.clear()
    assert wrong == []


# The server's environ, and requests that are not lent


def test_the_environ_of_the_server_is_what_it_is_without_us(app: Flask, server: Server) -> None:
    works: list[Late] = []

    @app.post("/start")
    def view() -> str:
        environs.append(request.environ)
        requests.append(request._get_current_object())  # type: ignore[attr-defined]
        works.append(Late(lambda: request.environ))
        start_thread(works[-1])
        return ""

    environs: list[t.Any] = []
    requests: list[t.Any] = []

    def left() -> dict[str, t.Any]:
        ask(server, app, "alice")
        stored = server.left.pop("werkzeug.request")
        assert stored is (None if REUSES_APP_CONTEXT else requests.pop())
        return {name: value for name, value in server.left.items() if name not in ("wsgi.input", "wsgi.errors")}

    without_us = left()
    works.pop().may_go.set()
    install(app)
    assert left() == without_us
    assert environs[0] is environs[1] is server.environ
    own = works.pop().result()
    assert own is not server.environ
    assert own.keys() == {*without_us, "werkzeug.request", "wsgi.input", "wsgi.errors"}
    assert {name: own[name] for name in without_us} == without_us


@pytest.mark.parametrize("lends", ["nothing", "to a thread that has ended", "no request"])
def test_a_request_that_is_not_lent_at_its_end_is_left_alone(app: Flask, server: Server, lends: str) -> None:
    install(app, request=lends != "no request")
    kept: list[t.Any] = []

    @app.post("/start")
    def view() -> str:
        kept.append((request._get_current_object(), request.headers))  # type: ignore[attr-defined]
        if lends == "to a thread that has ended":
            in_thread(lambda: None)
            ThreadPoolExecutor(1).submit(lambda: None).result(LIMIT)
        if lends == "no request":
            kept.append(Late(lambda: None))
            start_thread(kept[-1])
        return ""

    ask(server, app, "alice")
    request_object, headers = kept[0]
    assert request_object.environ is headers.environ is server.environ
    if lends == "no request":
        kept[1].result()


def test_a_lent_request_has_the_servers_environ_until_its_end(installed: Flask, server: Server) -> None:
    def mark() -> None:
        request.environ["marked by the thread"] = True

    @installed.post("/start")
    def view() -> str:
        in_thread(mark)
        request.environ["marked by the view"] = True
        work = Late(lambda: request.environ)
        works.append(work)
        start_thread(work)
        return ""

    works: list[Late] = []
    ask(server, installed, "alice")
    assert {"marked by the thread", "marked by the view"} <= server.left.keys()
    assert {"marked by the thread", "marked by the view"} <= works[0].result().keys()


def signals() -> list[int]:
    names = ("request_tearing_down", "appcontext_tearing_down", "appcontext_popped", "request_finished")
    return [len(getattr(getattr(flask, name), "receivers", ())) for name in names]


def test_no_signal_has_a_receiver_of_ours(installed: Flask) -> None:
    before = signals()
    with installed.test_request_context():
        work = Late(lambda: signals())
        start_thread(work)
        assert signals() == before
    assert work.result() == before


def test_nothing_keeps_the_request_alive_for_longer_than_its_threads(installed: Flask, server: Server) -> None:
    class Kept:
        pass

    @installed.post("/start")
    def view() -> str:
        request.environ["kept"] = kept = Kept()
        refs.extend((weakref.ref(kept), weakref.ref(request._get_current_object())))  # type: ignore[attr-defined]
        work = Late(lambda: request.path)
        works.append(work)
        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()
        return ""

    refs: list[weakref.ref[t.Any]] = []
    works: list[Late] = []
    threads: list[threading.Thread] = []
    gc.collect()
    gc.disable()
    try:
        ask(server, installed, "alice")
        assert None not in [ref() for ref in refs]
        works[0].result()
        threads[0].join(LIMIT)
        server.left.clear()
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


# The error stream


def test_h26_a_late_thread_logs_to_stderr_as_it_is_then(
    installed: Flask, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.StreamHandler(flask.logging.wsgi_errors_stream)  # type: ignore[arg-type]

    def log(text: str) -> None:
        handler.emit(logging.makeLogRecord({"msg": text}))

    def work() -> None:
        log("late")
        request.environ["wsgi.errors"].writelines(["one, ", "two"])
        request.environ["wsgi.errors"].flush()
        assert request.environ["wsgi.errors"].encoding == "as sys.stderr has it"

    @installed.post("/start")
    def view() -> str:
        in_thread(log, "early")
        works.append(Late(work))
        start_thread(works[-1])
        return ""

    class Stderr(io.StringIO):
        encoding = "as sys.stderr has it"  # type: ignore[assignment]

    works: list[Late] = []
    ask(server, installed, "alice")
    monkeypatch.setattr(sys, "stderr", stderr := Stderr())
    works[0].result()
    assert server.log.getvalue() == "early\n"
    assert stderr.getvalue() == "late\none, two"


def test_h26_nothing_is_raised_where_there_is_no_stderr(
    installed: Flask, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    @installed.post("/start")
    def view() -> str:
        works.append(Late(lambda: print("late", file=request.environ["wsgi.errors"], flush=True)))
        start_thread(works[-1])
        return ""

    works: list[Late] = []
    ask(server, installed, "alice")
    monkeypatch.setattr(sys, "stderr", None)
    works[0].result()


# The body


def form() -> dict[str, t.Any]:
    return {"text": "tea", "file": (io.BytesIO(b"content"), "notes.txt")}


def read_late(
    app: Flask,
    server: Server,
    read: Callable[[], t.Any],
    before: Callable[[], object] = lambda: None,
    **options: t.Any,
) -> t.Any:
    """What *read* returns or raises in a thread after the response; *before* was called in the view."""

    @app.route("/body", methods=["GET", "POST"])
    def view() -> str:
        before()
        works.append(Late(read))
        start_thread(works[-1])
        return ""

    works: list[Late] = []
    server.serve(app, "/body", **options)
    return works[0].result()


NOT_READ: dict[str, Callable[[], t.Any]] = {
    "get_data": lambda: request.get_data(),
    "data": lambda: request.data,
    "get_json": lambda: request.get_json(force=True, silent=True),
    "read": lambda: request.stream.read(),
    "read one": lambda: request.stream.read(1),
    "readline": lambda: request.stream.readline(),
    "readlines": lambda: request.stream.readlines(),
    "iterate": lambda: list(request.stream),
    "input": lambda: request.environ["wsgi.input"].read(),
    "iterate over the input": lambda: list(request.environ["wsgi.input"]),
    "lines of the input": lambda: request.environ["wsgi.input"].readlines(),
    "input_stream": lambda: request.input_stream.readline(),
}


@pytest.mark.parametrize("terminated", [False, True], ids=["limited", "terminated by the server"])
@pytest.mark.parametrize("touched", [False, True], ids=["", "stream made before"])
@pytest.mark.parametrize("read", NOT_READ)
def test_h25_a_body_that_was_not_read_before_the_end(
    installed: Flask, server: Server, read: str, touched: bool, terminated: bool
) -> None:
    environ = {"wsgi.input_terminated": True} if terminated else {}
    with pytest.raises(RuntimeError, match=r"The body of POST '/body' can no longer be read.*preload=True"):
        read_late(
            installed,
            server,
            NOT_READ[read],
            (lambda: request.stream) if touched else (lambda: None),
            method="POST",
            data=b"line\nline",
            environ_base=environ,
        )


@pytest.mark.parametrize("read", ["form", "files", "values", "get_data"])
@pytest.mark.parametrize("terminated", [False, True], ids=["limited", "terminated by the server"])
def test_h25_a_form_that_was_not_read_before_the_end(
    installed: Flask, server: Server, read: str, terminated: bool
) -> None:
    environ = {"wsgi.input_terminated": True} if terminated else {}
    with pytest.raises(RuntimeError, match="preload=True"):
        read_late(
            installed,
            server,
            lambda: getattr(request, read)() if read == "get_data" else dict(getattr(request, read)),
            method="POST",
            data=form(),
            environ_base=environ,
        )


def test_h25_a_copy_of_the_body_cannot_be_read_either(installed: Flask, server: Server) -> None:
    with pytest.raises(RuntimeError, match="preload=True"):
        read_late(installed, server, lambda: shallow(request.input_stream).read(), method="POST", data=b"body")


def test_nothing_can_be_read_of_a_body_after_the_end(installed: Flask, server: Server) -> None:
    found = read_late(installed, server, lambda: request.input_stream.read(0), method="POST", data=b"body")
    assert found == b""


def test_h25_a_stream_that_the_thread_holds(installed: Flask, server: Server) -> None:
    def view_reads() -> None:
        streams.append(request.stream)
        assert streams[0].read(2) == b"bo"

    streams: list[t.Any] = []
    with pytest.raises(RuntimeError, match="preload=True"):
        read_late(installed, server, lambda: streams[0].read(), view_reads, method="POST", data=b"body")


READ: dict[str, tuple[Callable[[], t.Any], Callable[[], t.Any], t.Any]] = {
    "data": (lambda: request.get_data(), lambda: (request.get_data(), request.data), (b"a=tea", b"a=tea")),
    "stream": (lambda: request.stream.read(), lambda: (request.stream.read(), request.get_data()), (b"", b"")),
    "form": (lambda: request.form, lambda: (request.form["a"], request.data, request.get_data()), ("tea", b"", b"")),
    "stream after data": (lambda: request.get_data(), lambda: request.stream.read(), b""),
}


@pytest.mark.parametrize("name", READ)
def test_what_was_read_before_the_end_can_be_read_after_it(installed: Flask, server: Server, name: str) -> None:
    before, read, result = READ[name]
    assert read_late(installed, server, read, before, method="POST", data={"a": "tea"}) == result


@pytest.mark.parametrize("name", ["form", "data", "stream after data"])
def test_what_was_read_before_the_end_of_a_body_that_the_server_terminates(
    installed: Flask, server: Server, name: str
) -> None:
    before, read, result = READ[name]
    environ = {"wsgi.input_terminated": True}
    found = read_late(installed, server, read, before, method="POST", data={"a": "tea"}, environ_base=environ)
    assert found == result


def test_the_metadata_of_files_can_be_read_after_the_end(installed: Flask, server: Server) -> None:
    def metadata() -> object:
        file = request.files["file"]
        return file.filename, file.mimetype, request.form["text"]

    found = read_late(installed, server, metadata, lambda: request.files, method="POST", data=form())
    assert found == ("notes.txt", "text/plain", "tea")


def test_preload_reads_for_the_time_after_the_end(app: Flask, server: Server) -> None:
    install(app, preload=True)
    assert read_late(app, server, lambda: request.get_data(), method="POST", data=b"body") == b"body"


@pytest.mark.parametrize("terminated", [False, True], ids=["limited", "terminated by the server"])
@pytest.mark.parametrize("read", [*NOT_READ, "form"])
def test_a_request_without_a_body_has_an_empty_one_after_the_end(
    installed: Flask, server: Server, read: str, terminated: bool
) -> None:
    environ = {"wsgi.input_terminated": True} if terminated else {}
    reader = NOT_READ.get(read, lambda: request.form)
    assert not read_late(installed, server, reader, environ_base=environ)


@pytest.mark.parametrize(
    "environ",
    [{"HTTP_TRANSFER_ENCODING": "chunked"}, {"SERVER_PROTOCOL": "HTTP/2"}],
    ids=["chunked", "HTTP/2"],
)
def test_h25_a_body_without_a_length(installed: Flask, server: Server, environ: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match="preload=True"):
        read_late(
            installed, server, lambda: request.get_data(), environ_overrides={"wsgi.input_terminated": True, **environ}
        )


def test_a_response_that_reads_the_body_while_it_is_sent(installed: Flask, server: Server) -> None:
    # It runs in the thread that serves the request, before the response is done.
    @installed.post("/echo")
    def view() -> Response:
        work = Late(lambda: request.get_data())
        works.append(work)
        start_thread(work)
        stream = request.stream
        return Response(stream.read(2) for _ in range(2))

    works: list[Late] = []
    assert server.serve(installed, "/echo", method="POST", data=b"abcdef") == b"abcd"
    with pytest.raises(RuntimeError, match="preload=True"):
        works[0].result()


def test_a_thread_that_reads_the_body_while_the_response_is_sent(installed: Flask, server: Server) -> None:
    parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for part in iter(lambda: request.stream.read(2), b""):
            parts.put(part)
        parts.put(b"")

    @installed.post("/echo")
    def view() -> Response:
        work = Late(read)
        works.append(work)
        start_thread(work)

        def sent() -> Iterator[bytes]:
            work.may_go.set()
            yield from iter(lambda: parts.get(timeout=LIMIT), b"")

        return Response(sent())

    works: list[Late] = []
    assert server.serve(installed, "/echo", method="POST", data=b"abcdef") == b"abcdef"


def test_h25_a_response_that_is_never_closed(installed: Flask, server: Server) -> None:
    @installed.post("/body")
    def view() -> Response:
        work = Late(lambda: request.get_data())
        works.append(work)
        start_thread(work)
        # Of such a response the server is given the file only.
        return flask.send_file(io.BytesIO(b"sent"), "text/plain")

    works: list[Late] = []
    assert server.serve(installed, "/body", method="POST", data=b"body") == b"sent"
    with pytest.raises(RuntimeError, match="preload=True"):
        works[0].result()


def test_h25_a_response_that_the_client_does_not_close(installed: Flask) -> None:
    @installed.post("/body")
    def view() -> str:
        work = Late(lambda: request.get_data())
        works.append(work)
        start_thread(work)
        return "sent"

    works: list[Late] = []
    response = installed.test_client().post("/body", data=b"body")
    with pytest.raises(RuntimeError, match="preload=True"):
        works[0].result()
    response.close()


def test_h25_a_response_that_is_kept(installed: Flask, server: Server) -> None:
    @installed.post("/body")
    def view() -> Response:
        work = Late(lambda: request.get_data())
        works.append(work)
        start_thread(work)
        responses.append(Response(iter([b"sent"])))
        return responses[0]

    works: list[Late] = []
    responses: list[Response] = []
    assert server.serve(installed, "/body", method="POST", data=b"body") == b"sent"
    with pytest.raises(RuntimeError, match="preload=True"):
        works[0].result()


def test_h25_a_replay_in_the_thread_that_served_the_request_does_not_read(installed: Flask, server: Server) -> None:
    @installed.post("/body")
    def view() -> str:
        kept.append(copy_current_app_context(lambda: request.get_data()))
        return ""

    kept: list[t.Any] = []
    server.serve(installed, "/body", method="POST", data=b"body")
    with pytest.raises(RuntimeError, match="preload=True"):
        kept[0]()


# When a request ends


@contextmanager
def lent(app: Flask, **options: t.Any) -> Iterator[tuple[t.Any, Late]]:
    """A context that is pushed by hand, in which a late thread was started: its request, and the thread's work."""
    with app.test_request_context(**options):
        work = Late(lambda: request.environ)
        start_thread(work)
        yield request._get_current_object(), work  # type: ignore[attr-defined]


def test_a_context_that_is_pushed_by_hand_ends_with_its_pop(installed: Flask) -> None:
    with lent(installed) as (request_object, work):
        environ = request_object.environ
        with request_ctx._get_current_object():  # type: ignore[attr-defined]
            pass
        assert request_object.environ is environ
    assert request_object.environ is not environ
    assert work.result() is request_object.environ


def test_a_context_that_is_pushed_again_ends_again(installed: Flask) -> None:
    ctx = installed.test_request_context()
    with ctx:
        in_thread(lambda: None)
        environ = request.environ
    for _ in range(2):
        with ctx:
            assert request.environ is environ
            work = Late(lambda: request.environ)
            start_thread(work)
        environ = work.result()


def test_a_stream_with_context_ends_with_the_last_part(installed: Flask, server: Server) -> None:
    @installed.post("/stream")
    def view() -> Response:
        work = Late(lambda: request.headers["User"])
        works.append(work)
        start_thread(work)

        def parts() -> Iterator[bytes]:
            yield b"1"
            yield request.get_data()

        return Response(stream_with_context(parts()))

    works: list[Late] = []
    assert server.serve(installed, "/stream", method="POST", data=b"body") == b"1body"
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == "alice"


def test_the_test_client_keeps_the_request_until_its_block_ends(installed: Flask) -> None:
    @installed.post("/body")
    def view() -> str:
        work = Late(lambda: request.environ)
        works.append(work)
        start_thread(work)
        return ""

    works: list[Late] = []
    with installed.test_client() as client:
        client.post("/body", data=b"body")
        assert request.get_data() == b"body"
    assert works[0].result()["wsgi.errors"] is not sys.stderr


def test_h25_a_teardown_handler_that_raises(installed: Flask, server: Server) -> None:
    @installed.teardown_request
    def fail(error: BaseException | None) -> None:
        raise LookupError("from a teardown handler")

    @installed.post("/start")
    def view() -> str:
        works.append(Late(seen))
        start_thread(works[-1])
        return ""

    works: list[Late] = []
    with pytest.raises(ERRORS):
        ask(server, installed, "alice")
    server.environ.clear()
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == expected("alice")


ERRORS = (LookupError, *([] if sys.version_info < (3, 11) else [BaseExceptionGroup]))  # noqa: F821


@pytest.mark.parametrize("then", ["", "and raises"])
def test_h25_a_thread_that_a_teardown_handler_starts(installed: Flask, server: Server, then: str) -> None:
    works: list[Late] = []

    @installed.teardown_request
    def start(error: BaseException | None) -> None:
        works.append(Late(seen))
        start_thread(works[-1])
        if then:
            raise LookupError("from a teardown handler")

    installed.post("/start")(lambda: "")
    if then:
        with pytest.raises(ERRORS):
            ask(server, installed, "alice")
        server.environ.clear()
    else:
        ask(server, installed, "alice")
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == expected("alice")


class Silent(Flask):
    """An app whose teardown calls no handlers and sends no signals."""

    if REUSES_APP_CONTEXT:

        def do_teardown_request(self, exc: object = None) -> None:
            pass

        def do_teardown_appcontext(self, exc: object = None) -> None:
            pass

    else:

        def do_teardown_request(self, ctx: AppContext, exc: object) -> None:
            pass

        def do_teardown_appcontext(self, ctx: AppContext, exc: object) -> None:
            pass


def test_h25_an_app_with_a_teardown_of_its_own(server: Server) -> None:
    app = Silent("tests")
    install(app)

    @app.post("/start")
    def view() -> str:
        works.append(Late(seen))
        start_thread(works[-1])
        return ""

    works: list[Late] = []
    ask(server, app, "alice")
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == expected("alice")


def test_a_copy_of_the_context_does_not_end_the_request(installed: Flask, server: Server) -> None:
    @installed.post("/body")
    def view() -> bytes:
        for start in (start_in_a_copy, start_in_a_copy_in_a_thread):
            works.append(Late(lambda: request.headers["User"]))
            start(works[-1])
            assert request.environ is server.environ
        return request.get_data()

    works: list[Late] = []
    assert server.serve(installed, "/body", method="POST", data=b"body") == b"body"
    server.environ["HTTP_USER"] = "bob"
    assert [work.result() for work in works] == ["alice", "alice"]


def test_a_copy_inside_an_app_context_of_the_threads_does_not_end_the_request(installed: Flask, server: Server) -> None:
    @installed.post("/body")
    def view() -> bytes:
        copied = copy_current_request_context(start_thread)
        works.append(Late(lambda: request.headers["User"]))

        def work() -> None:
            with installed.app_context():
                copied(works[0])

        in_thread(work)
        return request.get_data()

    works: list[Late] = []
    assert server.serve(installed, "/body", method="POST", data=b"body") == b"body"
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == "alice"


@pytest.mark.skipif(not REUSES_APP_CONTEXT, reason="Flask 3.2 refuses to pop a context that is not active")
def test_contexts_that_were_popped_in_another_order(installed: Flask) -> None:
    def work() -> None:
        one, other = installed.test_request_context("/one"), installed.test_request_context("/other")
        one.push()
        other.push()
        with pytest.raises(AssertionError):
            one.pop()
        other.push()
        one.push()  # Now each of them was pushed on top of the other.
        works.append(Late(lambda: request.path))
        start_thread(works[0])

    works: list[Late] = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert works[0].result() == "/one"


def test_h25_several_apps_in_one_request(installed: Flask, server: Server) -> None:
    other = Flask("other")
    install(other)
    works: dict[str, Late] = {}

    def start(name: str) -> None:
        works[name] = Late(lambda: (flask.current_app.name, request.headers["User"], request.environ))
        start_thread(works[name])

    @other.post("/inner")
    def inner() -> str:
        start("inner")
        return ""

    @installed.post("/start")
    def outer() -> bytes:
        start("outer")
        environ = request.environ
        inner_server.serve(other, "/inner", "carol", method="POST")
        assert request.environ is environ
        return request.get_data()

    inner_server = Server()
    assert ask(server, installed, "alice") == b"body"
    inner_server.environ["HTTP_USER"] = server.environ["HTTP_USER"] = "bob"
    assert works["outer"].result()[:2] == ("tests", "alice")
    assert works["inner"].result()[:2] == ("other", "carol")


def test_h25_an_app_that_is_given_the_environ_of_another_ones_request(installed: Flask, server: Server) -> None:
    other = Flask("other")
    install(other)
    works: list[Late] = []

    @other.post("/start")
    def inner() -> str:
        works.append(Late(lambda: request.headers["User"]))
        start_thread(works[-1])
        return ""

    @installed.post("/start")
    def outer() -> bytes:
        environ = request.environ
        assert list(other(environ, lambda *args: None)) == [b""]
        assert request.environ is environ
        return request.get_data()

    assert ask(server, installed, "alice") == b"body"
    server.environ["HTTP_USER"] = "bob"
    assert works[0].result() == "alice"


def test_a_request_class_that_raises_is_logged_and_the_response_is_sent(
    app: Flask, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Request(flask.Request):
        @property
        def environ(self) -> t.Any:  # type: ignore[override]
            return self.__dict__["environ"]

        @environ.setter
        def environ(self, environ: t.Any) -> None:
            if "environ" in self.__dict__:
                raise LookupError("there is one already")
            self.__dict__["environ"] = environ

    app.request_class = Request
    install(app)

    @app.post("/start")
    def view() -> str:
        works.append(Late(lambda: g.get("nothing")))
        start_thread(works[-1])
        return "sent"

    works: list[Late] = []
    assert ask(server, app, "alice") == b"sent"
    assert "A request has ended and is still lent" in caplog.text
    assert "there is one already" in caplog.text
    assert works[0].result() is None
