"""Where a suite that is fetched runs: an unpacked source distribution, and the interpreter for it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import venv
from pathlib import Path

from .suites import Distributed, Published

ROOT = Path(__file__).parents[2]


class MissingSuite(Exception):
    """A suite that cannot be run here. The message says why."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a suite runs."""

    source: str = ""
    """The folder of the unpacked source distribution, if the suite has one."""
    python: str = sys.executable


class Sources:
    """Fetches suites with pip, into *folder*, if *download* allows it."""

    def __init__(self, folder: Path, download: bool) -> None:
        self._folder = folder
        self._download = download
        self._building = threading.Lock()

    def _wheel(self) -> str:
        """Return the path of this package as a wheel."""
        target = self._folder / "wheel"
        with self._building:
            if not target.exists():
                self._pip("wheel", "--no-deps", "--wheel-dir", str(target), str(ROOT))
        (wheel,) = target.iterdir()
        return str(wheel)

    def place(self, suite: Distributed) -> Place:
        """Fetch *suite* and what it needs. Raises `MissingSuite`."""
        requirement = suite.distribution or f"flask=={importlib.metadata.version('flask')}"
        if "dev" in requirement:
            if checkout := os.environ.get("FLASK_DEV", ""):
                return Place(checkout)
            raise MissingSuite("a development version's source tree is taken from $FLASK_DEV, which is not set")
        if not self._download:
            raise MissingSuite(f"not asked for: --download fetches {requirement}")
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        target = folder / "source"
        options = ["--no-deps", "--no-binary", requirement.partition("==")[0], "--dest", str(target)]
        self._pip("download", *options, requirement)
        (archive,) = target.iterdir()
        shutil.unpack_archive(archive, target)
        (source,) = (path for path in target.iterdir() if path.is_dir())
        if not isinstance(suite, Published):
            return Place(str(source))
        return Place(str(source), self.environment(requirement, *suite.requires))

    def environment(self, *requirements: str) -> str:
        """Make a virtual environment with *requirements* and this package, and return the path of its interpreter."""
        folder = tempfile.mkdtemp(dir=self._folder)
        venv.create(folder, with_pip=False)
        python = os.path.join(folder, "bin", "python")
        self._pip("--python", python, "install", "--no-compile", *requirements, self._wheel())
        return python

    def _pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise MissingSuite(f"pip {' '.join(arguments)} failed: {done.stdout[-2000:]}")
