"""Data: the apps, how each is started, and what a visitor does there. Each starts threads or greenlets in its views."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from ..servers.serving import Server
from .visitor import Visitor

Environ = dict[str, str]


@dataclasses.dataclass(frozen=True)
class App:
    """An app that others wrote."""

    requires: str
    """As pip takes it."""
    command: Callable[[Path, int], tuple[str, ...]]
    """Its program, which pip installs, and the arguments, for a working directory and a port."""
    visit: Callable[[Visitor, Server], None]
    environ: Callable[[Path, int], Environ] = lambda folder, port: {}
    varying: tuple[tuple[str, str], ...] = ()
    """What else differs between any two runs: a pattern, and what is put in its place."""


def _visit_wikmd(visitor: Visitor, server: Server) -> None:
    for path in ("/", "/list", "/homepage", "/Features", "/search?q=cheatsheet", "/knowledge-graph", "/add_new"):
        visitor.get(path)
    # Each of these starts a thread that commits, which is waited for: two at once would meet git's lock.
    visitor.post("/add_new", PN="alpha", CT="# A page\n\nwith *text*")
    server.wait_for("New git commit >>> Add page 'alpha'")
    visitor.get("/alpha")
    visitor.get("/edit/alpha")
    visitor.post("/edit/alpha", PN="beta", CT="# The same page\n\nunder another name")
    server.wait_for("New git commit >>> Edit page 'beta'")
    visitor.get("/beta")
    visitor.get("/alpha")
    visitor.get("/remove/beta")
    server.wait_for("New git commit >>> Remove page 'beta'")
    visitor.get("/list")


WIKMD = App(
    requires="wikmd==1.10.6",
    command=lambda folder, port: ("wikmd",),
    environ=lambda folder, port: {
        "WIKMD_HOST": "127.0.0.1",
        "WIKMD_PORT": str(port),
        "WIKI_DIRECTORY": str(folder / "wiki"),
        "CACHE_DIR": str(folder / "cache"),
        "SEARCH_DIR": str(folder / "index"),
    },
    visit=_visit_wikmd,
    varying=((r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}", "TIME"),),
)


def _token(page: str) -> str:
    found = re.search(r'csrf_token" value="([^"]+)', page)
    assert found, page
    return found[1]


def _visit_changedetection(visitor: Visitor, server: Server) -> None:
    token = _token(visitor.get("/settings"))
    for path in ("/tags/list", "/backups/", "/import", "/clear_history"):
        visitor.get(path)
    visitor.post("/tags/add", csrf_token=token, name="news")
    identity = re.search(r"/tags/unlink/([0-9a-f-]+)", visitor.get("/tags/list"))
    assert identity
    # Each of these starts a thread, which is waited for.
    visitor.post("/import", csrf_token=token, urls="http://127.0.0.1:9/shop news", processor="text_json_diff")
    visitor.post(f"/tags/unlink/{identity[1]}", csrf_token=token)
    server.wait_for("unlinked from . watches")
    visitor.post(f"/tags/delete/{identity[1]}", csrf_token=token)
    server.wait_for("removed from . watches")
    visitor.post("/tags/delete_all", csrf_token=token)
    server.wait_for("Cleared tags from . watches")
    visitor.post("/clear_history", csrf_token=token, confirmtext="clear")
    server.wait_for("Completed clearing history")
    visitor.post("/backups/request-backup", csrf_token=token)
    visitor.get("/tags/list")


CHANGEDETECTION = App(
    requires="changedetection.io==0.60.10",
    command=lambda folder, port: ("changedetection.io", "-C", "-h", "127.0.0.1", "-p", str(port), "-d", f"{folder}/d"),
    environ=lambda folder, port: {
        "DISABLE_VERSION_CHECK": "true",
        "ALLOW_IANA_RESTRICTED_ADDRESSES": "true",
        "LOGGER_LEVEL": "DEBUG",
        "FETCH_WORKERS": "1",
    },
    visit=_visit_changedetection,
    varying=(
        (r'(?<=csrftoken=")[^"]+', "TOKEN"),
        (r"[0-9a-f]{32}", "KEY"),
        (r"\b1\d{9}\b(\.\d+)?", "TIME"),
        (r"Uptime:</strong> [^<]+", "TIME"),
    ),
)


def _visit_locust(visitor: Visitor, server: Server) -> None:
    for path in ("/", "/stats/requests", "/exceptions", "/tasks", "/worker-count"):
        visitor.get(path)
    visitor.post("/swarm", user_count="3", spawn_rate="100", host=visitor.url)
    server.wait_for("each of them has been served")
    visitor.get("/stop")
    visitor.get("/stats/reset")
    for path in ("/stats/requests", "/exceptions", "/tasks"):
        visitor.get(path)


USERS = """\
import logging

from locust import HttpUser, task
from locust.clients import HttpSession

served = set()


class Visitor(HttpUser):
    @task
    def look(self):
        if self.client.get("/tasks").ok and self not in served:
            served.add(self)
            if len(served) == 3:
                logging.warning("each of them has been served")
        self.environment.runner.greenlet.join(0.1)
"""

LOCUST = App(
    requires="locust==2.47.0",
    command=lambda folder, port: ("locust", "-f", str(_users(folder)), "--web-host", "127.0.0.1", "-P", str(port)),
    visit=_visit_locust,
)


def _users(folder: Path) -> Path:
    path = folder / "users.py"
    path.write_text(USERS)
    return path


APPS = {"wikmd": WIKMD, "changedetection.io": CHANGEDETECTION, "locust": LOCUST}
