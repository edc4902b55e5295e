"""The Flask app of a worker: loaded by its import path, once for each process, and told from other apps."""

from __future__ import annotations

import os
import sys
import threading
import typing as t

from flask import Flask
from flask.cli import ScriptInfo

from .clean_context import clean_context


class AppLoadError(RuntimeError):
    """The worker cannot load the app. ``import_path`` says which one, ``reason`` what was raised."""

    def __init__(self, import_path: str, reason: str) -> None:
        super().__init__(import_path, reason)
        self.import_path = import_path
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The app {self.import_path!r} cannot be loaded in the worker process: {self.reason.rstrip('.')}. The"
            " worker reads the path as 'flask --app' does: it needs the same code, and its folder on its sys.path."
        )


class _Apps:
    """The apps of this process that were loaded by their path, each once."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.RLock()
        self._loaded: dict[str, Flask] = {}

    def load(self, app_path: str) -> Flask:
        app = self._loaded.get(app_path)
        if app is None:
            with self._lock:
                app = self._loaded.get(app_path) or self._loaded.setdefault(app_path, self._load(app_path))
        return app

    def _load(self, app_path: str) -> Flask:
        try:
            # The app's own debug flag counts, as it does under a WSGI server. The import runs in context variables of
            # its own: a context that it pushes, and never pops, is not active in the first task.
            return clean_context().run(ScriptInfo(app_path, set_debug_flag=False).load_app)
        except (Exception, SystemExit) as error:
            raise AppLoadError(app_path, f"{type(error).__name__}: {error}") from error


_apps = _Apps()
load = _apps.load
"""Return the app at an import path as ``flask --app`` takes it. Raises `AppLoadError`."""

if hasattr(os, "register_at_fork"):
    # The connections of a loaded app belong to the parent, and another thread may have held the lock.
    os.register_at_fork(after_in_child=_apps.forget)


def is_twin(one: Flask, other: Flask) -> bool:
    """Return whether both apps are the same program, perhaps made twice: by a factory, for WSGI and for the workers."""
    return one is other or is_same(name_of(one), name_of(other))


def name_of(app: Flask) -> str:
    """Return the ``import_name`` of *app* as another process has it.

    A main module is named as it would be imported. Of a script only the last part of that name is known: the result
    is ``".shop"`` for ``python anywhere/shop.py``.
    """
    name = app.import_name
    if name not in ("__main__", "__mp_main__"):
        return name
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return t.cast(str, spec.name)
    file = getattr(main, "__file__", None)
    return name if not file else "." + os.path.splitext(os.path.basename(file))[0]


def is_same(one: str, other: str) -> bool:
    """Return whether two results of `name_of` are those of the same program."""
    return one == other or any(a[:1] == "." and f".{b}".endswith(a) for a, b in ((one, other), (other, one)))
