"""A legacy app that never mentions this library, served for real and switched on from outside."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from .processes import LEGACY, WAYS, python, script, serving, started

INHERITED = dict.fromkeys(("thread", "timer", "pool"), "ada shop /")
ALONE = dict.fromkeys(("thread", "timer", "pool"), "RuntimeError")

SERVERS = {
    "gunicorn": (sys.executable, "-m", "gunicorn", "-w", "2", "--threads", "2", "-b", "127.0.0.1:0", "shop:app"),
    "gunicorn --preload": (script("gunicorn"), "--preload", "-b", "127.0.0.1:0", "shop:app"),
    "waitress": (script("waitress-serve"), "--listen=127.0.0.1:0", "shop:app"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_alone_its_threads_inherit_nothing(server):
    with serving(*SERVERS[server]) as site:
        assert site.get("/?user=ada") == ALONE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", SERVERS)
def test_its_threads_inherit(server, way):
    before, variables = WAYS[way]
    with serving(*before, *SERVERS[server], **variables) as site:
        assert site.get("/?user=ada") == INHERITED


@pytest.mark.parametrize("way", WAYS)
def test_its_threads_inherit_after_flask_run_has_reloaded(way, tmp_path):
    source = Path(shutil.copy(LEGACY / "shop.py", tmp_path))
    before, variables = WAYS[way]
    command = (script("flask"), "--app", "shop", "run", "--debug", "-p", "0")
    with serving(*before, *command, cwd=tmp_path, **variables) as site:
        assert site.get("/?user=ada") == INHERITED
        source.write_text(source.read_text().replace('Flask("shop")', 'Flask("new_shop")'))
        site.wait_for("Restarting with")
        site.wait_for("Restarting with")
        assert site.get("/?user=ada") == dict.fromkeys(INHERITED, "ada new_shop /")


@pytest.mark.uwsgi
@pytest.mark.parametrize("way", WAYS)
def test_its_threads_inherit_in_uwsgi(way):
    before, variables = WAYS[way]
    options = ("--http-socket", "127.0.0.1:0", "--master", "--processes", "2", "--enable-threads", "--die-on-term")
    # It is not started by a Python, and finds its packages where this variable says.
    home = ("--home", sys.prefix)
    with serving(*before, script("uwsgi"), *options, *home, "--module", "shop:app", **variables) as site:
        assert site.get("/?user=ada") == INHERITED


@pytest.fixture
def jobs(tmp_path):
    """Where the queue of the Celery app lies."""
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    return tmp_path


def ask_the_worker(jobs):
    asked = python("import jobs; print(jobs.look.delay('ada').get(timeout=50))", cwd=LEGACY, JOBS=jobs)
    return asked.stdout.strip() or asked.stderr


WORKER = (
    script("celery"),
    "-A",
    "jobs:jobs",
    "worker",
    "-l",
    "INFO",
    "-c",
    "1",
    "--without-mingle",
    "--without-gossip",
)


@pytest.mark.celery
def test_alone_the_threads_of_celerys_tasks_inherit_nothing(jobs):
    with started(*WORKER, JOBS=jobs) as worker:
        worker.wait_for("ready")
        assert ask_the_worker(jobs) == "RuntimeError"


@pytest.mark.celery
@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("way", WAYS)
def test_the_threads_of_celerys_tasks_inherit(way, pool, jobs):
    before, variables = WAYS[way]
    with started(*before, *WORKER, "-P", pool, JOBS=jobs, **variables) as worker:
        worker.wait_for("ready")
        assert ask_the_worker(jobs) == "ada shop"
