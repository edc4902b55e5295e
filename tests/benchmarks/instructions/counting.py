"""Counting: one case after the other under valgrind, as many at once as there are processors."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LOOPS = 200
"""The counted ones. With as many, round trips between threads repeat within half a percent, all else to the digit."""

SEEDS = (0, 1)
"""For the hashes of text. The smallest count of a case is taken: with each seed one process in thirty takes three
percent more instructions, because the hashes of Flask's two context variables collide."""

START_UP, START_UP_ON = "start-up", "start-up, on"
"""Two cases that are no functions: an interpreter that does nothing, without and with the package's start-up hook."""

CACHEGRIND = ("--tool=cachegrind", "--cache-sim=no", "--branch-sim=no")


class Failed(Exception):
    """A process has failed; the message says which, and what it printed."""


def environ(*python_path: Path) -> dict[str, str]:
    """The environment of a counted process, which is the same on every machine.

    It has as many variables as that of a service, because some of what is counted reads them all.
    """
    settings = {f"SERVICE_SETTING_{i}": f"value {i}" for i in range(30)}
    path = os.pathsep.join(map(str, python_path))
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONPATH": path, **settings}


def script_environ(root: Path) -> dict[str, str]:
    """The environment in which ``measured.py`` finds the package below *root*."""
    return environ(root, HERE / "site-packages")


def script(case: str, loops: int) -> list[str]:
    # A number of another length would move what follows in memory, and with it what is counted.
    return [sys.executable, str(HERE / "measured.py"), case, f"{loops:04}"]


Log = Callable[[str], None]


def count(root: Path, cases: list[str], seeds: tuple[int, ...], log: Log) -> dict[str, float]:
    """The instructions of each of *cases*, once through, with the package below *root*."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers:
        counts = {case: workers.submit(_smallest, root, case, seeds) for case in cases}
        try:
            for case, instructions in counts.items():
                log(f"{case}: {instructions.result():,.0f}")
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise
    return {case: instructions.result() for case, instructions in counts.items()}


def _smallest(root: Path, case: str, seeds: tuple[int, ...]) -> float:
    once = _start_up if case in (START_UP, START_UP_ON) else _once
    return min(once(root, case, {"PYTHONHASHSEED": str(seed)}) for seed in seeds)


def _once(root: Path, case: str, seed: dict[str, str]) -> float:
    env = script_environ(root) | seed
    run(script(case, 0), env)  # compiles what has not been compiled yet
    few, many = (_instructions(script(case, loops), env) for loops in (0, LOOPS))
    return (many - few) / LOOPS


def _start_up(root: Path, case: str, seed: dict[str, str]) -> float:
    env, command = environ(root) | seed, [sys.executable, "-c", "pass"]
    if case == START_UP_ON:
        # The launcher puts its folder in front; where that lies is its own business.
        show = "import os, sys; sys.stdout.write(os.environ['PYTHONPATH'])"
        launch = [sys.executable, "-m", "flaskthreads_autopatch", "run", sys.executable, "-c", show]
        env |= {"FLASKTHREADS_AUTOPATCH": "1", "PYTHONPATH": run(launch, env)}
    run(command, env)
    return _instructions(command, env)


def _instructions(command: list[str], env: dict[str, str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "cachegrind.out")
        run(["valgrind", *CACHEGRIND, f"--cachegrind-out-file={report}", *command], env)
        return int(report.read_text().rpartition("summary:")[2])


def run(command: list[str], env: dict[str, str]) -> str:
    """What *command* prints. It runs in the root folder, so that nothing is found by chance."""
    if shutil.which(command[0]) is None:
        raise Failed(f"{command[0]} is not installed; on Debian, apt-get install {command[0]}.")
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of *revision*, in a temporary folder."""

    def git(*args: str) -> None:
        run(["git", "-C", str(ROOT), *args], dict(os.environ))

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "revision")
        git("worktree", "add", "--quiet", "--detach", str(place), revision)
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))
