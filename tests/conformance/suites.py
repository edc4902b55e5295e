"""Data: the suites, which of their tests count, and why the others do not."""

from __future__ import annotations

import dataclasses

OFF, ON, CONTEXT, OBSERVED = "off", "on", "on, context active", "observed, context active"
COLUMNS = (OFF, ON, CONTEXT, OBSERVED)
CONTROL = "off, context active"
"""What differs with a context active runs in this column too: it may be the context that a test does not expect."""
WITH_CONTEXT = (CONTEXT, OBSERVED, CONTROL)


@dataclasses.dataclass(frozen=True)
class Suite:
    """Test modules of the interpreter's ``test`` package, run by unittest."""

    name: str
    modules: tuple[str, ...]
    without: str = "$^"
    """A regular expression: test classes whose name it matches do not count."""
    note: str = ""
    """Why they do not."""
    differs: tuple[str, ...] = ()
    """Tests that are left out because they are known to differ, by their ids."""
    since: tuple[int, int] = (3, 10)
    columns: tuple[str, ...] = COLUMNS


@dataclasses.dataclass(frozen=True)
class Installed(Suite):
    """Test modules that an installed package comes with, run by unittest."""

    package: str = ""
    """Where they lie. They are imported as another package's modules: what gevent itself starts does not inherit."""
    own: tuple[str, ...] = ("*",)
    """The option ``own``. With ``*``, everything that is installed is own code."""


@dataclasses.dataclass(frozen=True)
class Distributed(Suite):
    """A suite that comes with a source distribution, run by pytest."""

    distribution: str = ""
    """As pip takes it; empty for the version that is installed."""
    replaced: str = ""
    """The module in whose place this package is imported."""
    own: tuple[str, ...] = ()
    """The option ``own``. With ``*``, everything that is installed is own code."""


@dataclasses.dataclass(frozen=True)
class Published(Distributed):
    """A package's own suite, run by pytest in a virtual environment that is made for it.

    The package is installed there as its users install it; its tests come from its source distribution. ``without`` is
    matched against the ids of tests.
    """

    requires: tuple[str, ...] = ()
    """What its tests import, beside the package, pytest and Flask."""
    options: tuple[str, ...] = ()
    """More options of pytest's."""
    own: tuple[str, ...] = ("*",)
    leaves_wrappers: bool = False
    """Whether its tests leave wrappers of their own on `threading.Thread`."""
    quick: bool = False
    """Whether it runs for every change."""


def _futures(*names: str) -> tuple[str, ...]:
    return tuple(f"test.test_concurrent_futures.{name}" for name in names)


SUITES: tuple[Suite, ...] = (
    Suite("test_threading", ("test.test_threading",)),
    Suite(
        "test_thread",
        ("test.test_thread",),
        differs=("test.test_thread.ThreadRunningTests.test_unraisable_exception",),
        note="without test_unraisable_exception, which differs with a context active: the object that"
        " sys.unraisablehook is given is our binding of the function, which equals it and is not identical",
    ),
    Suite("test_threading_local", ("test.test_threading_local",)),
    Suite(
        "test_concurrent_futures",
        _futures("test_thread_pool", "test_future", "test_wait", "test_as_completed", "test_init", "test_shutdown"),
        without="Process|Interpreter",
        note="without process pools, which have no threads of ours, and interpreter pools, which have their own row",
    ),
    Suite("interpreter pools", _futures("test_interpreter_pool"), since=(3, 14)),
    Suite("test_context", ("test.test_context",)),
    Suite("test_queue", ("test.test_queue",)),
    Suite("test_socketserver", ("test.test_socketserver",)),
    Suite("test_logging", ("test.test_logging",)),
    Suite(
        "test_asyncio",
        tuple(f"test.test_asyncio.test_{name}" for name in ("base_events", "futures2", "threads", "runners", "tasks")),
    ),
    Suite(
        "thread pools of multiprocessing",
        ("test._test_multiprocessing",),
        without="^(?!WithThreads)",
        note="without the classes for processes and managers, which run the same tests in other processes",
    ),
    *(
        Installed(f"gevent's {name}", tuple(f"test__{module}" for module in modules), package="gevent.tests")
        for name, modules in {
            "greenlets": ("greenlet", "greenletset"),
            "pools": ("pool",),
            "thread pools": ("threadpool",),
            "thread pools, monkey-patched": ("threadpool_executor_patched",),
        }.items()
    ),
    Distributed(
        "Flask",
        ("tests",),
        note="no column with a context: its own leak detector demands that no context is active between two tests",
        columns=(OFF, ON),
    ),
    Distributed(
        "Flask-Threads 0.2.0",
        ("tests",),
        note="with flaskthreads replaced by this package; no column with a context: two tests demand an error",
        columns=(OFF, ON),
        distribution="flask-threads==0.2.0",
        replaced="flaskthreads",
    ),
)
