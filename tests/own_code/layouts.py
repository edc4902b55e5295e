"""Builds installations in a folder, file by file, and runs what is installed there in a process of its own.

An installation is a folder of packages. One that pip has installed has a ``.dist-info`` beside it. No network is used:
a METADATA and a RECORD are all that is looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import typing as t
from pathlib import Path

from ..processes import run

# A package of a third party: a pool that starts its worker when it is first used, and ways to start a thread.
POOL = {
    "thirdpool/__init__.py": """
        import functools
        import queue
        import threading

        class Pool:
            def __init__(self):
                self.jobs, self.worker = queue.SimpleQueue(), None

            def call(self, fn):
                if self.worker is None:
                    self.worker = threading.Thread(target=self.work, daemon=True)
                    self.worker.start()
                done = queue.SimpleQueue()
                self.jobs.put((fn, done))
                return done.get(timeout=60)

            def work(self):
                while True:
                    fn, done = self.jobs.get()
                    done.put(fn())

        class Worker(threading.Thread):
            def __init__(self, fn):
                super().__init__()
                self.fn = fn

            def run(self):
                self.fn()

        class StartsItself(Worker):
            def start(self):
                super().start()

        class StartsWhenMade(StartsItself):
            def __init__(self, fn):
                super().__init__(fn)
                self.start()

        def start(fn, *args):
            threading.Thread(target=fn, args=args).start()

        def start_thread(thread):
            thread.start()

        def start_timer(fn, *args):
            threading.Timer(0, fn, args).start()

        def make(cls, *args):
            return cls(*args)

        def call(fn):
            fn()

        def hidden(fn):
            return lambda *args: fn()

        def wrapping(fn):
            @functools.wraps(fn)
            def wrapper(*args):
                return fn(*args)
            return wrapper

        def install(app):
            import flaskthreads_autopatch
            flaskthreads_autopatch.install(app)

        def put(fn, done):
            done.put(fn())

        def started(thread_of):
            # The thread runs put(), or whatever thread_of() has it run, and is started here.
            done = queue.SimpleQueue()
            thread = thread_of(done)
            thread.start()
            return done.get(timeout=60)

        def run(fn):
            # The thread runs the caller's function itself, as one that is started for a callback.
            def in_done(done):
                @functools.wraps(fn)
                def wrapper():
                    done.put(fn())
                return threading.Thread(target=wrapper)
            return started(in_done)

        def run_hidden(fn):
            # The same, where nothing tells that the closure runs the caller's function.
            return started(lambda done: threading.Thread(target=lambda: done.put(fn())))
        """
}

# What own code does with threads, to be put into a module of the layout's. Its answers are what each thread sees.
PROBE = """
    import queue
    import threading

    from flask import g, has_app_context

    import thirdpool

    POOL = thirdpool.Pool()

    def look():
        return g.get("user", "nobody") if has_app_context() else None

    def start_their_function():
        done = queue.SimpleQueue()
        thread = threading.Thread(target=thirdpool.put, args=(look, done))
        thread.start()
        return done.get(timeout=60)

    def probe(app):
        seen = {}
        with app.app_context():
            g.user = "alice"
            seen["own starter, their function"] = start_their_function()
            seen["their starter, own function"] = thirdpool.run(look)
            seen["their pool"] = POOL.call(look)
        with app.app_context():
            g.user = "bob"
            seen["their pool, later"] = POOL.call(look)
        seen["their pool, outside"] = POOL.call(look)
        return seen
    """

OWN = {"own starter, their function": "alice", "their starter, own function": "alice"}
NOT_OWN = dict.fromkeys(OWN)
POOL_IS_CLEAN = dict.fromkeys(("their pool", "their pool, later", "their pool, outside"))
INHERITS = OWN | POOL_IS_CLEAN
DOES_NOT_INHERIT = NOT_OWN | POOL_IS_CLEAN

APP = """
    from flask import Flask

    import flaskthreads_autopatch

    def create_app(name=__name__, **policy):
        app = Flask(name)
        flaskthreads_autopatch.install(app, **policy)
        return app
    """


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write *files* below *folder*, their text without its indentation."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def install(folder: Path, distribution: str, files: dict[str, str]) -> Path:
    """Write *files* below *folder* as pip installs them: with a ``.dist-info``, which has no ``top_level.txt``."""
    info = f"{distribution}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution.replace('_', '-')}\nVersion: 1.0\n",
        f"{info}/RECORD": "".join(f"{name},,\n" for name in (*files, f"{info}/METADATA", f"{info}/RECORD")),
    }
    return write(folder, files | metadata)


def copy_flask(folder: Path) -> Path:
    """Put Flask, and what it needs, into *folder*, as ``pip install --target`` does."""
    for name in ("flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click", "blinker", "wrapt"):
        package = Path(t.cast(str, __import__(name).__file__)).parent
        for path in (package, *package.parent.glob(f"{name}-*.dist-info")):
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


EMPTY = Path(os.sep)
"""A folder in which there are no modules."""


def unload(name: str) -> None:
    """Forget that the package called *name* was imported."""
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def ask(code: str, *path: Path, command: tuple[str | Path, ...] = (), **variables: object) -> t.Any:
    """Run *code* with *path* in front of ``sys.path``, and return what it prints, which is JSON.

    With *command*, that is run in its place.
    """
    # Python looks for modules in the folder where it is started, too.
    variables["PYTHONPATH"] = os.pathsep.join(map(str, path))
    done = run(*(command or (sys.executable, "-c", textwrap.dedent(code))), cwd=EMPTY, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
