"""Each app answers the same with the library off, observing and on; and the audit's verdicts come true."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import socket
import subprocess
import time
import typing as t
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flaskthreads_autopatch.audit.verdicts import FIXED, NOT_INHERITED, STILL_FAILS
from flaskthreads_autopatch.audit_command import BROKEN_PROMISE

from ..conformance.sources import Sources
from ..helpers import LIMIT
from ..processes import environment
from ..servers.serving import Server
from .published import APPS, App
from .visitor import Visitor

pytestmark = pytest.mark.apps


@dataclasses.dataclass
class Visits:
    """What became of an app that was started in several ways."""

    answers: dict[str, list[str]]
    log: dict[str, str]
    status: dict[str, int]
    observed: list[dict[str, t.Any]]
    """The places of the audit that observes."""
    inherited: list[dict[str, t.Any]]
    """Those of the audit with the library on."""


@pytest.fixture(scope="module", params=APPS)
def visits(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Visits:
    """Install an app, and visit it with the library off, on, observing, and on in an audit."""
    app, folder = APPS[request.param], tmp_path_factory.mktemp("apps")
    programs = Path(Sources(folder, download=True).environment(app.requires)).parent
    command = str(programs / "flaskthreads-autopatch")
    observed, inherited = folder / "observed.json", folder / "inherited.json"
    ways = {
        "off": (),
        "on": (command, "run"),
        "observed": (command, "audit", "--json", str(observed), "--"),
        "audited": (command, "audit", "--on", "--json", str(inherited), "--compare", str(observed), "--"),
    }
    visits = Visits({}, {}, {}, [], [])
    for name, way in ways.items():
        at = folder / name
        at.mkdir()
        with _served(app, programs, at, *way) as (server, port):
            visitor = Visitor(port, ((str(at), "FOLDER"), *app.varying))
            app.visit(visitor, server)
        visits.answers[name], visits.log[name] = visitor.answers, "".join(server.log)
        visits.status[name] = server.process.returncode
    visits.observed = json.loads(observed.read_text())["places"]
    visits.inherited = json.loads(inherited.read_text())["places"]
    return visits


@contextmanager
def _served(app: App, programs: Path, folder: Path, *launcher: str) -> Iterator[tuple[Server, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *arguments = app.command(folder, port)
    # Nothing outside of this machine is asked for anything: the proxy's port is closed.
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    with subprocess.Popen(
        [*launcher, str(programs / program), *arguments],
        cwd=folder,
        env=environment(PATH=path, HOME=folder, **proxies, **app.environ(folder, port)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        server = Server(process, folder)
        try:
            _wait_for(port, process)
            yield server, port
        finally:
            server.end()


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), LIMIT).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None and time.monotonic() < end, "The app does not listen."
            time.sleep(0.05)


def _key(place: dict[str, t.Any]) -> tuple[str, ...]:
    return tuple(place[name] for name in ("place", "callable", "kind"))


def _differences(off: list[str], other: list[str]) -> list[str]:
    """The lines in which answers differ."""
    assert len(off) == len(other) > 5
    pairs = [(one, two) for one, two in zip(off, other, strict=True) if one != two]
    return [line for one, two in pairs for line in difflib.unified_diff(one.splitlines(), two.splitlines(), n=0)]


@pytest.mark.parametrize("way", ["on", "observed", "audited"])
def test_answers_are_the_same_as_with_the_library_off(visits: Visits, way: str) -> None:
    differences = _differences(visits.answers["off"], visits.answers[way])
    assert not differences, "\n".join(differences)


def test_threads_of_views_inherit(visits: Visits) -> None:
    starts = [place["starts"] for place in visits.inherited if place["endpoint"] and not place["reason"]]
    assert sum(starts) > 0


def test_no_place_that_the_library_fixes_still_fails(visits: Visits) -> None:
    fixed = {_key(place) for place in visits.observed if place["verdict"] == FIXED}
    assert [place for place in visits.inherited if place["verdict"] == STILL_FAILS and _key(place) in fixed] == []
    assert visits.status["audited"] != BROKEN_PROMISE, visits.log["audited"]


def test_no_place_that_does_not_inherit_inherits(visits: Visits) -> None:
    verdicts: dict[tuple[str, ...], set[str]] = {}
    for place in visits.observed:
        verdicts.setdefault(_key(place), set()).add(place["verdict"])
    outside = {key for key, found in verdicts.items() if found == {NOT_INHERITED}}
    assert outside
    assert [place for place in visits.inherited if _key(place) in outside and not place["reason"]] == []


def test_nothing_fails_that_did_not_fail_before(visits: Visits) -> None:
    assert _failing(visits.inherited) <= _failing(visits.observed)
    assert "flaskthreads_autopatch" not in visits.log["on"]


def _failing(places: list[dict[str, t.Any]]) -> set[tuple[str, ...]]:
    """The places with a run that raised, whatever it was."""
    return {_key(place) for place in places if place["failed"] + place["raised"]}
