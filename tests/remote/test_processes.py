"""The contract on `ProcessPoolExecutor`, by fork, spawn and forkserver."""

from __future__ import annotations

import itertools
import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import typing as t
import zipfile
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import flask
import pytest
from flask import Flask, g

import flaskthreads_autopatch
from flaskthreads_autopatch import AppLoadError, NotPortableError, RemoteAppContextExecutor, carry
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from . import shop
from .overlapping import assert_no_mix_up

ROOT = Path(__file__).parents[2]


@pytest.fixture
def remote(processes: ProcessPoolExecutor) -> RemoteAppContextExecutor:
    return RemoteAppContextExecutor(processes, **shop.NAMED)


def result(future: Future[t.Any]) -> t.Any:
    return future.result(60)


def test_named_entries_and_the_request_travel_and_nothing_else(app: Flask, remote: RemoteAppContextExecutor) -> None:
    with shop.in_request(app) as ctx:
        shop.preprocess(app)
        seen = result(remote.submit(shop.look))
        assert seen == {
            "app": "shop",
            "g": {"user_id": "alice", "request_id": "r-1"},
            "method": "GET",
            "url": ctx.request.url,
            "root": "/mounted",
            "headers": {"Host": "shop.example", "X-Request-Id": "r-1"},
            "endpoint": "order",
            "view_args": {"number": 7},
            "sibling": "/mounted/orders/8",
            "body": b"",
            "session": {},
        }


def test_without_a_request_there_is_an_app_context_only(app: Flask, remote: RemoteAppContextExecutor) -> None:
    with app.app_context():
        g.user_id = "bob"
        assert result(remote.submit(shop.look)) == {"app": "shop", "g": {"user_id": "bob"}}
    assert result(remote.submit(shop.look)) == {"app": "shop", "g": {}}


def test_headers_travel_when_they_are_named(app: Flask, processes: ProcessPoolExecutor) -> None:
    headers = ("authorization", "Content-Type", "Cookie")
    remote = RemoteAppContextExecutor(processes, shop.APP, headers=headers)
    cookie = app.session_interface.get_signing_serializer(app).dumps({"cart": [1]})  # type: ignore[attr-defined]
    with shop.in_request(app, **{"Cookie": f"session={cookie}", "Content-Type": "text/plain"}):
        seen = result(remote.submit(shop.look))
    assert set(seen["headers"]) == {"Host", "Authorization", "Content-Type", "Cookie"}
    assert seen["session"] == {"cart": [1]}


def test_each_handler_of_teardown_appcontext_runs_and_none_of_the_request(
    app: Flask, remote: RemoteAppContextExecutor, processes: ProcessPoolExecutor
) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        processes.submit(shop.leave_torn_down).result(60)
        assert result(remote.submit(shop.user)) == "alice"
        assert processes.submit(shop.leave_torn_down).result(60) == ["first", "last alice NoneType"]
        with pytest.raises(KeyError, match="alice"):
            result(remote.submit(shop.fail))
        assert processes.submit(shop.leave_torn_down).result(60) == ["first", "last alice KeyError"]


def test_nothing_is_left_for_the_next_task(
    app: Flask, remote: RemoteAppContextExecutor, processes: ProcessPoolExecutor
) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        assert result(remote.submit(shop.write, "mine")) == ["request_id", "user_id"]
        assert result(remote.submit(shop.look))["session"] == {}
    assert result(remote.submit(shop.write, "mine")) == []
    assert result(remote.submit(shop.write, "mine")) == []


def test_the_app_is_loaded_once_in_the_worker(
    app: Flask, remote: RemoteAppContextExecutor, processes: ProcessPoolExecutor
) -> None:
    loaded_in, worker = result(remote.submit(shop.loaded_in))
    assert loaded_in == worker != os.getpid()
    assert result(remote.submit(shop.loaded_id)) == result(remote.submit(shop.loaded_id))


def test_threads_in_the_worker_inherit_if_its_app_has_installed(app: Flask, processes: ProcessPoolExecutor) -> None:
    with app.app_context():
        g.user_id = "alice"
        bare = RemoteAppContextExecutor(processes, f"{shop.APP}(False)", g=("user_id",))
        installed = RemoteAppContextExecutor(processes, shop.APP, g=("user_id",))
        assert result(installed.submit(shop.user_in_thread)) == "alice"
        by_themselves = "alice" if THREADS_INHERIT_CONTEXT else None
        assert result(bare.submit(shop.user_in_thread)) == by_themselves


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("no.such.module:app", "NoAppException: Could not import 'no.such.module'"),
        ("tests.remote.shop:broken_app", "LookupError: no such config file"),
        ("tests.remote.shop:ending_app", "SystemExit: stop here"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_named_and_the_pool_lives_on(
    processes: ProcessPoolExecutor, path: str, cause: str
) -> None:
    future = RemoteAppContextExecutor(processes, path).submit(shop.look)
    with pytest.raises(AppLoadError) as raised:
        future.result(60)
    assert raised.value.import_path == path
    assert raised.value.reason.startswith(cause)
    assert path in str(raised.value)
    assert cause in str(raised.value)
    assert result(RemoteAppContextExecutor(processes, shop.APP).submit(shop.look))["app"] == "shop"


def test_map_is_the_engines_own(app: Flask, remote: RemoteAppContextExecutor) -> None:
    with app.app_context():
        g.user_id = "alice"
        tasks = remote.map(shop.user_and, range(7), chunksize=3, timeout=60)
    assert list(tasks) == [("alice", number) for number in range(7)]


def test_a_carried_callable_goes_through_any_api(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        carried = carry(shop.user_and, **shop.NAMED)
        g.user_id = "bob"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(carried, [1, 2]) == [("alice", 1), ("alice", 2)]


def test_nothing_but_strings_is_pickled(app: Flask) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        reduced = carry(shop.look, **shop.NAMED).__reduce__()
    assert isinstance(reduced, tuple)
    assert [type(part) for part in reduced[1]] == [str, str, str]
    assert len(reduced) == 2


STORED = (
    b"cflaskthreads_autopatch.remote\nCarried\n(Vtests.remote.shop:create_app\nVtests.remote.shop:user\n"
    b'V{"v":1,"app":"shop","g":{"user_id":"alice"}}\ntR.'
)


def test_a_stored_job_is_found_by_every_later_release() -> None:
    assert pickle.loads(STORED)() == "alice"
    run = operator.attrgetter("remote.Carried.run")(flaskthreads_autopatch)
    assert run(pickle.loads(STORED)) == "alice"


def test_what_is_pickled_refers_to_the_name_that_stored_jobs_have(app: Flask) -> None:
    with app.app_context():
        g.user_id = "alice"
        carried = carry(shop.user, shop.APP, g=("user_id",))
    for made in (carried, carried.run.__self__):
        assert pickle.dumps(made, 0).replace(b"\np0", b"").startswith(b"cflaskthreads_autopatch.remote\nCarried\n")
        assert pickle.loads(pickle.dumps(made)).__reduce__() == pickle.loads(STORED).__reduce__()
    assert carried.run() == carried() == "alice"


def test_what_is_pickled_holds_no_secrets(app: Flask) -> None:
    with shop.in_request(app):
        shop.preprocess(app)
        wire = pickle.dumps(carry(shop.look, **shop.NAMED))
        named = pickle.dumps(carry(shop.look, shop.APP, headers=tuple(shop.SECRETS)))
    assert b"r-1" in wire
    for secret in (b"c00kie-jar", b"t0ken-ring"):
        assert secret not in wire
        assert secret in named


def test_async_functions_are_run_as_flask_runs_async_views(app: Flask, remote: RemoteAppContextExecutor) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert result(remote.submit(shop.user_async)) == "alice"


def test_class_methods_are_found(app: Flask, remote: RemoteAppContextExecutor) -> None:
    with app.app_context():
        g.user_id = "alice"
        assert result(remote.submit(shop.Orders.of_user)) == "Orders of alice"


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork on this system")
def test_a_worker_forked_in_a_request_does_not_see_that_request(app: Flask) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        remote = RemoteAppContextExecutor(pool, **shop.NAMED)
        with shop.in_request(app):
            shop.preprocess(app)
            # The worker is forked here, and has this request's context variables for ever.
            assert pool.submit(shop.context_outside).result(60) != (False, None)
        assert result(remote.submit(shop.look)) == {"app": "shop", "g": {}}
        with app.app_context():
            g.user_id = "bob"
            assert result(remote.submit(shop.look)) == {"app": "shop", "g": {"user_id": "bob"}}


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork on this system")
def test_a_worker_forked_where_inheritance_is_suppressed_does_not_suppress_it(app: Flask) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        with flaskthreads_autopatch.suppress_inheritance():
            pool.submit(os.getpid).result(60)
        with app.app_context():
            g.user_id = "bob"
            remote = RemoteAppContextExecutor(pool, **shop.NAMED)
            assert result(remote.submit(shop.user_in_thread)) == "bob"


def context_of_the_factory() -> Flask:
    app = Flask("asked")
    app.config["BORN_IN"] = flask.has_app_context()
    return app


def born_in() -> bool:
    return t.cast(bool, flask.current_app.config["BORN_IN"])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork on this system")
def test_a_worker_forked_in_an_app_context_does_not_load_its_app_in_that(app: Flask) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        with app.app_context():
            assert pool.submit(flask.has_app_context).result(60)
        remote = RemoteAppContextExecutor(pool, f"{__name__}:context_of_the_factory")
        assert result(remote.submit(born_in)) is False


def test_an_app_loaded_before_a_fork_is_loaded_anew(app: Flask) -> None:
    with app.app_context():
        loaded_here = carry(shop.loaded_in, shop.APP)()
        assert loaded_here == (os.getpid(), os.getpid())
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        loaded_in, worker = result(RemoteAppContextExecutor(pool, shop.APP).submit(shop.loaded_in))
    assert loaded_in == worker != os.getpid()


def test_a_worker_that_dies_breaks_the_pool_and_a_new_one_serves(app: Flask, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with app.app_context():
        g.user_id = "alice"
        with ProcessPoolExecutor(1) as pool:
            remote = RemoteAppContextExecutor(pool, **shop.NAMED)
            died, queued = remote.submit(shop.end_process, str(go)), remote.submit(shop.user)
            go.touch()
            for future in (died, queued):
                with pytest.raises(BrokenProcessPool):
                    future.result(60)
            with pytest.raises(BrokenProcessPool):
                remote.submit(shop.user)
        with ProcessPoolExecutor(1) as pool:
            assert result(RemoteAppContextExecutor(pool, **shop.NAMED).submit(shop.user)) == "alice"


def test_a_thousand_tasks_of_fifty_overlapping_requests_are_not_mixed_up(app: Flask) -> None:
    # Not by fork: with fifty threads running, the child could wait for ever for a lock that one of them holds.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        remote = RemoteAppContextExecutor(pool, **shop.NAMED)

        def tasks(count: int) -> list[t.Any]:
            return [future.result(60) for future in [remote.submit(shop.look) for _ in range(count)]]

        assert_no_mix_up(app, tasks)


SCRIPT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from flask import Flask, g
from flaskthreads_autopatch import NotPortableError, RemoteAppContextExecutor

def create_app():
    return Flask("script")

def work():
    return g.user_id

if __name__ == "__main__":
    sys.path.insert(0, {root!r})
    with ProcessPoolExecutor(1, multiprocessing.get_context({method!r})) as pool, create_app().app_context():
        g.user_id = "alice"
        try:
            print(RemoteAppContextExecutor(pool, {app!r}, g=("user_id",)).submit(work).result(60))
        except NotPortableError as error:
            print("refused:", error)
"""


# Where the main module is the __main__ of an archive, or of a package, multiprocessing makes none in a spawned worker.
@pytest.mark.parametrize(
    ("way", "method"),
    [*itertools.product(["script", "module", "prompt"], ["fork", "spawn"]), ("archive", "fork")],
)
def test_functions_of_the_main_module_are_found_or_refused(tmp_path: Path, method: str, way: str) -> None:
    script = SCRIPT.format(root=str(ROOT), method=method, app=shop.APP if way == "prompt" else "main_of_a_script")
    tmp_path.joinpath("main_of_a_script.py").write_text(script)
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        for name in ("__main__.py", "main_of_a_script.py"):
            archive.writestr(name, script)
    ways = {"script": ["main_of_a_script.py"], "module": ["-m", "main_of_a_script"], "prompt": ["-c", script]}
    command = ways.get(way, [way])
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    if way == "prompt":
        assert done.stdout.startswith("refused: 'work' (function, module '__main__') cannot be found"), done.stderr
    else:
        assert done.stdout == "alice\n", done.stderr


def test_a_function_of_a_module_is_found_at_a_prompt_too() -> None:
    code = "import json; from flaskthreads_autopatch import carry; print(carry(json.loads, 'shop:app'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "<json:loads carried to a context of shop:app (a job store takes its .run)>\n", done.stderr


def test_a_function_that_the_worker_does_not_have_is_named(
    tmp_path: Path, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("only_here.py").write_text("def work(): ...")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        remote = RemoteAppContextExecutor(pool, shop.APP)
        result(remote.submit(shop.look))
        monkeypatch.syspath_prepend(tmp_path)
        only_here = __import__("only_here")
        with pytest.raises(NotPortableError, match=r"'only_here:work' is not found in worker process \d+: No module"):
            result(remote.submit(only_here.work))
        assert result(remote.submit(shop.look))["app"] == "shop"


def test_shutdown_is_passed_on_only_if_asked(app: Flask) -> None:
    with ProcessPoolExecutor(1) as pool:
        with RemoteAppContextExecutor(pool, shop.APP) as remote:
            future = remote.submit(shop.look)
        assert future.done()
        for call in (lambda: remote.submit(shop.look), lambda: remote.map(shop.user_and, [1])):
            with pytest.raises(RuntimeError, match="after shutdown"):
                call()
        assert pool.submit(os.getpid).result(60)

        with RemoteAppContextExecutor(pool, shop.APP, owned=True) as owner:
            owner.submit(shop.look)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(os.getpid)


def test_shutdown_cancels_what_was_submitted_here_and_no_more(app: Flask, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    with ProcessPoolExecutor(1) as pool:
        running = pool.submit(go.read_text)
        # The engine hands out one task more than it has workers.
        remote, other = RemoteAppContextExecutor(pool, shop.APP), RemoteAppContextExecutor(pool, shop.APP)
        ahead = [pool.submit(os.getpid) for _ in range(2)]
        mine, theirs = remote.submit(shop.look), other.submit(shop.look)
        remote.shutdown(cancel_futures=True)
        assert (mine.cancelled(), theirs.cancelled()) == (True, False)
        go.write_text("on")
        assert running.result(60) == "on"
        assert result(theirs)["app"] == "shop"
        assert [future.result(60) for future in ahead]


def test_a_worker_is_left_as_it_was(processes: ProcessPoolExecutor, app: Flask) -> None:
    remote = RemoteAppContextExecutor(processes, **shop.NAMED)
    before = processes.submit(shop.context_outside).result(60)
    with shop.in_request(app):
        result(remote.submit(shop.look))
        assert processes.submit(shop.context_outside).result(60) == before
