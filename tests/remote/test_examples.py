"""The examples: one view with one line changed, and the same answer from each engine."""

from __future__ import annotations

import ast
import contextlib
import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .servers import ROOT, free_port, program, redis_server, wait_until_it_listens

FOLDER = ROOT / "examples" / "beyond_one_process"
CHANGED = ["process_pool", "dask_cluster", "celery_queue", "rq_queue"]

CALL = """
import importlib, sys
app = importlib.import_module(sys.argv[1]).create_app()
answer = app.test_client().post("/counts", headers={"User-Id": "alice"}, data={"text": ["a word", "and two more"]})
print(answer.status_code, answer.json)
"""
ANSWER = "200 {'counts': ['1 for alice, who asked at /counts', '2 for alice, who asked at /counts']}\n"


def view(name: str) -> list[str]:
    tree = ast.parse(FOLDER.joinpath(f"{name}.py").read_text())
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    shared = [functions["count_words"].body, functions["load_user"].body, functions["counts"].body]
    return [ast.unparse(line) for body in shared for line in body]


@pytest.mark.parametrize("name", CHANGED)
def test_one_line_is_changed(name: str) -> None:
    changes = [line for line in difflib.ndiff(view("thread_pool"), view(name)) if line[0] in "+-"]
    assert [change[:9] for change in changes] == ["- found =", "+ found ="]


@pytest.mark.parametrize("name", ["thread_pool", "process_pool"])
def test_it_answers(name: str) -> None:
    assert_it_answers(name)


@pytest.mark.dask
def test_it_answers_on_dask(tmp_path: Path) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask: list[object] = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    with program(scheduler, tmp_path / "scheduler") as process, contextlib.ExitStack() as stack:
        wait_until_it_listens(process, port)
        worker = [*dask, "worker", address, "--no-dashboard"]
        stack.enter_context(program(worker, tmp_path / "worker", PYTHONPATH=f"{FOLDER}{os.pathsep}{ROOT}"))
        assert_it_answers("dask_cluster", SCHEDULER=address)


@pytest.mark.celery
@pytest.mark.redis
def test_it_answers_on_celery(tmp_path: Path) -> None:
    worker = [sys.executable, "-m", "celery", "--workdir", FOLDER, "--app", "celery_queue", "worker"]
    with redis_server(tmp_path) as url, program(worker, tmp_path / "worker", REDIS=url):
        assert_it_answers("celery_queue", REDIS=url)


@pytest.mark.rq
def test_it_answers_on_rq(tmp_path: Path) -> None:
    worker = [sys.executable, "-m", "rq.cli", "worker", "--job-class", "rq_queue.CountJob"]
    paths = f"{FOLDER}{os.pathsep}{ROOT}"
    with redis_server(tmp_path) as url:
        with program([*worker, "--url", url], tmp_path / "worker", PYTHONPATH=paths):
            assert_it_answers("rq_queue", REDIS=url)
        # What the worker shows is the function.
        assert "rq_queue.count_words('a word')" in (tmp_path / "worker").read_text()


def assert_it_answers(name: str, **environ: str) -> None:
    env = {**os.environ, "PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}", **environ}
    command = [sys.executable, "-c", CALL, name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == ANSWER, done.stderr
