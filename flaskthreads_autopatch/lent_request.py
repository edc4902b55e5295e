"""The lent request after its end: it keeps its own data, whatever the server does next.

When a response is done, some servers empty the environ and fill it with the next request (uWSGI), or expire objects in
it (mod_wsgi). A thread that runs on would read that. A request that is still lent when it ends is therefore given an
environ of its own. This happens in place: the request and its headers remain the same objects.

The environ that the server and the middlewares have is not changed.
"""

from __future__ import annotations

import io
import logging
import sys
import typing as t
from collections.abc import Callable, Iterator

from werkzeug.wsgi import LimitedStream

from .log import log
from .names import printable, safe_repr

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def keep_own_data(request: t.Any, has_passed: Callable[[], bool]) -> None:
    """Give *request*, which ends here, an environ of its own. *has_passed* tells later whether its response was sent.

    Does not raise: this is called in the middle of Flask's teardown.
    """
    try:
        _keep(request, has_passed)
    except Exception:
        log(
            logging.ERROR,
            "A request has ended and is still lent to a thread, but its environ could not be copied: the thread may see"
            " what the server puts there next. The request is %s.",
            safe_repr(request),
            exc_info=True,
        )


def _keep(request: t.Any, has_passed: Callable[[], bool]) -> None:
    state, environ = request.__dict__, request.environ
    server_input = environ.get("wsgi.input")
    is_at_end = _has_no_body(environ) or _is_read(state, environ)
    body = io.BytesIO() if is_at_end else _LateBody(request, server_input, has_passed)
    own = {**environ, "wsgi.errors": _stderr, "wsgi.input": body, "werkzeug.request": None}
    # Each assignment takes effect at once: a thread that reads meanwhile sees the same values before and after it.
    headers = state.get("headers")
    if getattr(headers, "environ", None) is environ:
        headers.environ = own
    request.environ = own
    # The stream comes after the environ: from now on a thread that makes one makes it from *body*.
    stream = state.get("stream")
    if stream is not None and stream is server_input:
        state["stream"] = body
    elif isinstance(stream, LimitedStream):
        # The stream counts what has been read, and a thread may be reading it: it has to remain the same object.
        inner = stream.__dict__
        if "_stream" in inner:
            inner["_stream"] = body
        else:  # Werkzeug < 2.3
            inner["_read"], inner["_readline"] = body.read, body.readline


_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def _has_no_body(environ: WSGIEnvironment) -> bool:
    # From HTTP/2 on, a body needs neither of the two headers.
    return (
        environ.get("CONTENT_LENGTH", "") in ("", "0")
        and not environ.get("HTTP_TRANSFER_ENCODING")
        and environ.get("SERVER_PROTOCOL", "HTTP/1.1").startswith("HTTP/1")
    )


def _is_read(state: dict[str, t.Any], environ: WSGIEnvironment) -> bool:
    """Return whether the whole body has been read; False where that is not known."""
    content_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    return "_cached_data" in state or ("form" in state and content_type in _FORMS)


class _LateBody:
    """The ``wsgi.input`` of a request that has ended before its body was read: reading raises `RuntimeError`.

    While the response is being sent, the body can be read: the view may have returned a generator that reads it.
    """

    def __init__(self, request: t.Any, server_input: t.Any, has_passed: Callable[[], bool]) -> None:
        self._input = server_input
        self._name = f"{printable(request.method)} {request.path!r}"
        self._has_passed = has_passed

    def _readable(self) -> t.Any:
        if self._has_passed():
            raise RuntimeError(
                f"The body of {self._name} can no longer be read: the request has ended. Read the body before the view"
                " returns (request.get_data(), request.form), or set preload=True, which reads it before the thread"
                " starts."
            )
        return self._input

    def read(self, *size: int) -> bytes:
        """Read from the server, or raise."""
        return b"" if size == (0,) else t.cast(bytes, self._readable().read(*size))

    def readline(self, *size: int) -> bytes:
        """Read from the server, or raise."""
        return t.cast(bytes, self._readable().readline(*size))

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def close(self) -> None:
        """Do nothing: the stream is the server's."""

    def __getattr__(self, name: str) -> t.Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._readable(), name)


class _Stderr:
    """The ``wsgi.errors`` of a request that has ended: ``sys.stderr``, as it is when something is written."""

    def write(self, text: str) -> None:
        """Write *text*; nothing happens where the process has no standard error, as under pythonw."""
        if sys.stderr is not None:
            sys.stderr.write(text)

    def writelines(self, lines: t.Iterable[str]) -> None:
        """Write each of *lines*."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush."""
        if sys.stderr is not None:
            sys.stderr.flush()

    def __getattr__(self, name: str) -> t.Any:
        return getattr(sys.stderr, name)


_stderr = _Stderr()
