"""A client that visits an app and keeps what it answered, without what differs between any two runs."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request

from ..helpers import LIMIT

VARYING = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\d{4}-?\d\d-?\d\d[T ]?\d\d:?\d\d:?\d\d(\.\d+)?", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r'(?<=csrf_token" value=")[^"]+', "TOKEN"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        return None


class Visitor:
    """Sends requests with cookies, and follows no redirect."""

    def __init__(self, port: int, varying: tuple[tuple[str, str], ...]) -> None:
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies, _NoRedirect)
        self.url = f"http://127.0.0.1:{port}"
        self._varying = (*varying, *VARYING)
        self.answers: list[str] = []
        """For each request: what was asked for, the status, where it redirects to, and the body."""

    def get(self, path: str) -> str:
        """Return the body."""
        return self._send(path, None)

    def post(self, path: str, **form: str) -> str:
        """Send *form*, and return the body."""
        return self._send(path, form)

    def _send(self, path: str, form: dict[str, str] | None) -> str:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        try:
            answer = self._opener.open(self.url + path, data, timeout=LIMIT)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read().decode("utf-8", "replace")
            location = answer.headers.get("Location", "")
            text = f"{'GET' if form is None else 'POST'} {path}: {answer.status} {location}\n{body}"
        for pattern, name in self._varying:
            text = re.sub(pattern, name, text)
        self.answers.append(text)
        return body
