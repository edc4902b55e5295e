"""One suite in one column, in a process of its own. Started by `tests.conformance.table`.

Writes a line of JSON for each thing that happens: a test that starts, an outcome, what is missing, the end.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import re
import signal
import sys
import threading
import types
import typing as t
import unittest
from collections.abc import Iterator
from pathlib import Path

from flask import Flask

from .ecosystem import ALL
from .patches import Say, patches
from .suites import Distributed, Installed, Published, Suite

ENVIRONMENT = "(the environment)"


class Recorder(unittest.TestResult):
    """Says what becomes of each test. Of several outcomes of one test, as of its subtests, each is said."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def startTest(self, test: unittest.TestCase) -> None:
        self._say(start=test.id())

    def _outcome(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
        self._say(test=test.id(), outcome=outcome, detail=detail)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._outcome(test, "passed")

    def addFailure(self, test: unittest.TestCase, err: t.Any) -> None:
        self._outcome(test, "failed", self._exc_info_to_string(err, test))

    def addError(self, test: unittest.TestCase, err: t.Any) -> None:
        self._outcome(test, "error", self._exc_info_to_string(err, test))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._outcome(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: t.Any) -> None:
        self._outcome(test, "failed as expected")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._outcome(test, "passed unexpectedly")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: t.Any) -> None:
        if err is not None:
            kind = "failed" if issubclass(err[0], test.failureException) else "error"
            self._outcome(test, kind, self._exc_info_to_string(err, test))


def run_with_unittest(suite: Suite, column: str, only: set[str], say: Say) -> None:
    """Run a suite of the interpreter's ``test`` package."""
    if missing := [name for name in suite.modules if not _exists(name)]:
        say(missing=f"the interpreter has no {', '.join(missing)}")
        return
    from test import support

    # As regrtest does it without -u, but for the loopback interface; what is slow is run.
    support.use_resources = ["cpu", "network", "walltime"]
    # Up to Python 3.12 a test of ThreadPool.terminate() sleeps for as long (five minutes) where its first task is quick
    # to begin, with the patches off too.
    support.LONG_TIMEOUT = 30
    names = dict.fromkeys(map(_module_name, suite.modules))
    tests = _tests(
        suite, only, [_thread_classes() if name == _MULTI else importlib.import_module(name) for name in names]
    )
    with patches(column, say):
        tests.run(Recorder(say))
        say(test=ENVIRONMENT, outcome="altered" if support.environment_altered else "as it was")


def run_installed(suite: Installed, column: str, only: set[str], say: Say) -> None:
    """Run a suite that is installed with its package."""
    package = suite.package.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        say(missing=f"{package} is not installed")
        return
    alias = sys.modules["installed_tests"] = types.ModuleType("installed_tests")
    alias.__path__ = importlib.import_module(suite.package).__path__
    tests = _tests(suite, only, [importlib.import_module(f"installed_tests.{name}") for name in suite.modules])
    with patches(column, say, suite.own):
        tests.run(Recorder(say))


def _tests(suite: Suite, only: set[str], modules: list[types.ModuleType]) -> unittest.TestSuite:
    tests = unittest.TestSuite()
    for module in modules:
        for test in _flat(unittest.defaultTestLoader.loadTestsFromModule(module)):
            if re.search(suite.without, type(test).__name__) or test.id() in suite.differs:
                continue
            if not only or test.id() in only:
                tests.addTest(test)
    return tests


_MULTI = "test._test_multiprocessing"


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(_module_name(name)) is not None
    except ModuleNotFoundError:
        return False


def _module_name(name: str) -> str:
    # Until 3.11 test_concurrent_futures is one module.
    package, _, _ = name.rpartition(".")
    parent = importlib.util.find_spec(package)
    return package if parent is not None and parent.submodule_search_locations is None else name


def _thread_classes() -> types.ModuleType:
    from test import _test_multiprocessing

    module = sys.modules["test_multiprocessing_threads"] = types.ModuleType("test_multiprocessing_threads")
    _test_multiprocessing.install_tests_in_module_dict(vars(module), "spawn")
    return module


def _flat(tests: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def run_with_pytest(suite: Distributed, column: str, only: set[str], say: Say) -> None:
    """Run a suite from an unpacked source distribution."""
    import pytest

    class Plugin:
        @pytest.hookimpl
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            counting = (item for item in items if not re.search(suite.without, item.nodeid))
            items[:] = [item for item in counting if not only or item.nodeid in only]

        @pytest.hookimpl
        def pytest_runtest_logstart(self, nodeid: str) -> None:
            say(start=nodeid)

        @pytest.hookimpl
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                expected = " as expected" if hasattr(report, "wasxfail") else ""
                phase = "" if report.when == "call" or report.skipped else f" in {report.when}"
                say(test=report.nodeid, outcome=report.outcome + phase + expected, detail=report.longreprtext)

        @pytest.hookimpl
        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                say(missing=f"{report.nodeid} could not be collected: {report.longreprtext.splitlines()[-1]}")

        @pytest.fixture
        def flask_app(self) -> Flask:
            # Flask-Threads' source distribution lacks the conftest.py that makes it.
            return Flask("flask_threads_tests")

    if suite.replaced:
        import flaskthreads_autopatch

        sys.modules[suite.replaced] = flaskthreads_autopatch
    with patches(column, say, suite.own, isinstance(suite, Published) and suite.leaves_wrappers):
        options = ["-q", "-p", "no:cacheprovider", "--rootdir=.", "--continue-on-collection-errors"]
        if isinstance(suite, Published):
            options += ["--override-ini=addopts=", *suite.options]
        pytest.main([*options, *suite.modules], plugins=[Plugin()])


def main() -> None:
    faulthandler.enable()  # so that a run which hangs, and is then aborted, says where
    # A shell that puts a command in the background has it ignore SIGINT, which some of the tests send to themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = json.loads(sys.argv[1])
    suite = next(suite for suite in ALL if suite.name == order["suite"])
    sys.path.remove(str(Path(__file__).parents[2]))
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # A suite may have a package of that name.
    # A child process that multiprocessing spawns would import this module, which it does not find.
    main_module: t.Any = sys.modules["__main__"]
    main_module.__spec__ = main_module.__file__ = None
    if order["test_package"]:
        sys.path.insert(0, order["test_package"])
    folder = Path(order["folder"])
    with open(folder / "log", "a", encoding="utf-8") as log:
        lock = threading.Lock()

        def say(**what: t.Any) -> None:
            with lock:
                log.write(json.dumps(what) + "\n")
                log.flush()

        if isinstance(suite, Distributed):
            os.chdir(order["source"])
            run_with_pytest(suite, order["column"], set(order["only"]), say)
        elif isinstance(suite, Installed):
            os.chdir(folder)
            run_installed(suite, order["column"], set(order["only"]), say)
        else:
            os.chdir(folder)
            run_with_unittest(suite, order["column"], set(order["only"]), say)
        say(ended=True)


if __name__ == "__main__":
    main()
