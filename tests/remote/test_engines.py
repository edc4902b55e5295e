"""The contract on Dask, loky and mpi4py.futures.

They are imported by the tests: what is deselected needs none of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest
from flask import Flask, g

from flaskthreads_autopatch import AppLoadError, RemoteAppContextExecutor

from ..helpers import LIMIT
from . import shop
from .overlapping import assert_no_mix_up
from .servers import ROOT, free_port, program, wait_until_it_listens, wiretap


def assert_contract(app: Flask, engine: Executor) -> None:
    """What every engine has to show, once."""
    remote = RemoteAppContextExecutor(engine, **shop.NAMED)
    with shop.in_request(app):
        shop.preprocess(app)
        seen = remote.submit(shop.look).result(LIMIT)
        assert seen["g"] == {"user_id": "alice", "request_id": "r-1"}
        assert seen["headers"] == {"Host": "shop.example", "X-Request-Id": "r-1"}
        assert remote.submit(shop.user_in_thread).result(LIMIT) == "alice"
        assert sorted(remote.map(shop.user_and, range(5))) == [("alice", number) for number in range(5)]
        with pytest.raises(KeyError, match="alice"):
            remote.submit(shop.fail).result(LIMIT)
    assert remote.submit(shop.look).result(LIMIT) == {"app": "shop", "g": {}}
    with pytest.raises(AppLoadError, match="no such config file"):
        RemoteAppContextExecutor(engine, "tests.remote.shop:broken_app").submit(shop.user).result(LIMIT)
    with app.app_context():
        # The same function with the same arguments: an engine that keeps results must not take it for the same task.
        for user in ("alice", "bob"):
            g.user_id = user
            assert remote.submit(shop.user).result(LIMIT) == user


def assert_none_mixed_up(app: Flask, engine: Executor) -> None:
    remote = RemoteAppContextExecutor(engine, **shop.NAMED)

    def tasks(count: int) -> list[t.Any]:
        return [future.result(LIMIT) for future in [remote.submit(shop.look) for _ in range(count)]]

    assert_no_mix_up(app, tasks)


@pytest.fixture(scope="module")
def dask() -> Iterator[t.Any]:
    """A client of two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.dask
def test_dask(app: Flask, dask: t.Any) -> None:
    assert_contract(app, dask.get_executor())


@pytest.mark.dask
def test_dask_mixes_nothing_up(app: Flask, dask: t.Any) -> None:
    assert_none_mixed_up(app, dask.get_executor(pure=False))


@pytest.mark.dask
def test_a_dask_worker_that_dies_is_named_and_later_tasks_are_served(app: Flask, dask: t.Any) -> None:
    from distributed import KilledWorker

    remote = RemoteAppContextExecutor(dask.get_executor(pure=False, retries=0), **shop.NAMED)
    with app.app_context():
        g.user_id = "alice"
        with pytest.raises(KilledWorker):
            remote.submit(shop.end_process).result(LIMIT)
        assert remote.submit(shop.user).result(LIMIT) == "alice"


@pytest.mark.dask
def test_dask_as_separate_programs_and_what_goes_over_the_wire(app: Flask, tmp_path: Path) -> None:
    from distributed import Client

    port = free_port()
    dask: list[object] = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = [*dask, "worker", f"tcp://127.0.0.1:{port}", "--no-dashboard", "--nworkers", 2, "--nthreads", 1]
    with program(scheduler, tmp_path / "scheduler") as process, contextlib.ExitStack() as stack:
        wait_until_it_listens(process, port)
        stack.enter_context(program(worker, tmp_path / "worker"))
        tapped, wire = stack.enter_context(wiretap(port))
        client = stack.enter_context(Client(f"tcp://127.0.0.1:{tapped}"))
        client.wait_for_workers(2, timeout=LIMIT)
        assert_contract(app, client.get_executor())
        recorded = bytes(wire)
        assert b"r-1" in recorded
        for secret in (b"c00kie-jar", b"t0ken-ring", b"not named"):
            assert secret not in recorded
        named = RemoteAppContextExecutor(client.get_executor(), shop.APP, headers=tuple(shop.SECRETS))
        with shop.in_request(app):
            named.submit(shop.look).result(LIMIT)
        for secret in (b"c00kie-jar", b"t0ken-ring"):
            assert secret in bytes(wire)


@pytest.mark.loky
@pytest.mark.filterwarnings("ignore:A worker stopped:UserWarning")
def test_loky(app: Flask) -> None:
    from loky import ProcessPoolExecutor
    from loky.process_executor import TerminatedWorkerError

    with ProcessPoolExecutor(2) as engine:
        assert_contract(app, engine)
        assert_none_mixed_up(app, engine)
        with app.app_context(), pytest.raises(TerminatedWorkerError):
            RemoteAppContextExecutor(engine, **shop.NAMED).submit(shop.end_process).result(LIMIT)


@pytest.mark.mpi
def test_mpi(tmp_path: Path) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", "-m", f"{__package__}.run_on_mpi"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, "all as it should be\n"), done.stderr
