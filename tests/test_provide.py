"""The option ``provide``: an app context for what it names, where none is active at the start."""

from __future__ import annotations

import functools
import gc
import logging
import logging.handlers
import queue
import threading
import typing as t
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
from flask import Flask, current_app, g, has_app_context, has_request_context, url_for

import flaskthreads_autopatch
from flaskthreads_autopatch import (
    Policy,
    PolicyError,
    disable,
    enable,
    install,
    is_enabled,
    is_inherited,
    running,
    status,
    suppress_inheritance,
    uninstall,
)
from flaskthreads_autopatch.app_policies import providers
from flaskthreads_autopatch.patching import futures, providing, thread_pool, threads

from .helpers import LIMIT, collectable, ended, in_thread

HERE = __name__
Look = tuple[object, ...]
NOTHING: Look = (None,)


def look(*args: object) -> Look:
    """Return what is seen of the context: the app's name, the entries of ``g``, and whether there is a request."""
    if not has_app_context():
        return NOTHING
    g.seen = True
    return current_app.name, sorted(g), has_request_context(), is_inherited()


PROVIDED: Look = ("tests", ["seen"], False, True)


class Job:
    """What a thread can run in many ways. Each way calls `look`, and notes what that returns."""

    def __init__(self) -> None:
        self.seen: list[Look] = []

    def work(self, *args: object) -> None:
        self.seen.append(look())

    def __call__(self, *args: object) -> None:
        self.work()


def wrapped(fn: Callable[..., None]) -> Callable[..., None]:
    """Return a wrapper of another name, which says only by ``__wrapped__`` what it wraps."""

    def call(*args: object) -> None:
        fn(*args)

    call.__module__, call.__qualname__ = "elsewhere", "call"
    call.__wrapped__ = fn  # type: ignore[attr-defined]
    return call


class Monitor(threading.Thread):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self) -> None:
        self.job.work()


class OwnMonitor(Monitor):
    pass


class Bypassing(threading.Timer):
    """A timer whose ``start()`` is not ours, as that of OpenTelemetry."""

    start = threading.Timer.start  # read while the patches are off


def start(thread: threading.Thread) -> None:
    thread.start()
    ended(thread)


def in_pool(fn: Callable[[], t.Any]) -> t.Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result(LIMIT)


def submit(job: Job) -> None:
    in_pool(job.work)


def call_back(job: Job) -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(gate.wait, LIMIT)
        future.add_done_callback(job.work)
        gate.set()


def call_back_at_once(job: Job) -> None:
    future: Future[None] = Future()
    future.set_result(None)
    future.add_done_callback(job.work)


def use_pool(use: Callable[[ThreadPool, Job], t.Any], job: Job) -> None:
    with ThreadPool(1) as pool:
        use(pool, job)


def call_back_from_pool(pool: ThreadPool, job: Job) -> None:
    called = threading.Event()
    pool.apply_async(int, callback=job.work)
    pool.apply_async(int, callback=lambda result: called.set())
    assert called.wait(LIMIT)


WAYS: dict[str, tuple[str, Callable[[Job], None]]] = {
    "target": (f"{HERE}:Job.work", lambda job: start(threading.Thread(target=job.work))),
    "arguments": (f"{HERE}:Job.work", lambda job: start(threading.Thread(target=job.work, args=(1,)))),
    "module": (HERE, lambda job: start(threading.Thread(target=job.work))),
    "pattern": (f"{HERE}:Job.w*", lambda job: start(threading.Thread(target=job.work))),
    "partial": (f"{HERE}:Job.work", lambda job: start(threading.Thread(target=functools.partial(job.work, 1)))),
    "wrapped": (f"{HERE}:Job.work", lambda job: start(threading.Thread(target=wrapped(job.work)))),
    "callable object": (f"{HERE}:Job", lambda job: start(threading.Thread(target=job))),
    "timer": (f"{HERE}:Job.work", lambda job: start(threading.Timer(0, job.work))),
    "class": (f"{HERE}:Monitor", lambda job: start(Monitor(job))),
    "base class": (f"{HERE}:Monitor", lambda job: start(OwnMonitor(job))),
    "bypassing": (f"{HERE}:Job.work", lambda job: start(Bypassing(0, job.work))),
    "submit": (f"{HERE}:Job.work", submit),
    "callback": (f"{HERE}:Job.work", call_back),
    "callback at once": (f"{HERE}:Job.work", call_back_at_once),
    "apply": (f"{HERE}:Job.work", functools.partial(use_pool, lambda pool, job: pool.apply(job.work))),
    "map": (f"{HERE}:Job.work", functools.partial(use_pool, lambda pool, job: pool.map(job.work, [1]))),
    "starmap_async": (
        f"{HERE}:Job.work",
        functools.partial(use_pool, lambda pool, job: pool.starmap_async(job.work, [()]).get(LIMIT)),
    ),
    "imap": (f"{HERE}:Job.work", functools.partial(use_pool, lambda pool, job: list(pool.imap(job.work, [1])))),
    "pool callback": (f"{HERE}:Job.work", functools.partial(use_pool, call_back_from_pool)),
}


@pytest.fixture
def torn_down(app: Flask) -> list[tuple[str, BaseException | None]]:
    """By thread name, each teardown of the app and the exception that it was given."""
    seen: list[tuple[str, BaseException | None]] = []
    app.teardown_appcontext(lambda error: seen.append((threading.current_thread().name, error)))
    return seen


@pytest.mark.parametrize("way", WAYS)
def test_what_is_named_runs_in_a_context_of_the_app_that_is_torn_down(
    app: Flask, torn_down: list[t.Any], way: str
) -> None:
    pattern, do = WAYS[way]
    job = Job()
    do(job)
    assert (job.seen, torn_down) == ([NOTHING], [])
    install(app, provide=[pattern])
    do(job)
    assert job.seen == [NOTHING, PROVIDED]
    assert [error for _, error in torn_down] == [None]
    assert not has_app_context()
    disable()
    do(job)
    assert job.seen == [NOTHING, PROVIDED, NOTHING]
    assert len(torn_down) == 1


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_named_runs_without(app: Flask, way: str) -> None:
    install(app, provide=["shop.jobs", f"{HERE}:Job.wor", f"{HERE}s", "tests:Job.work"])
    job = Job()
    WAYS[way][1](job)
    assert job.seen == [NOTHING]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "bypassing"])
def test_an_active_context_counts_and_not_the_option(app: Flask, way: str) -> None:
    pattern, do = WAYS[way]
    other = Flask("other")
    install(app, provide=[pattern])
    job = Job()
    with other.app_context():
        do(job)
        # Without a policy for the other app nothing is inherited; what runs at once sees it as without us.
        assert job.seen in ([NOTHING], [("other", ["seen"], False, False)])
    install(other)
    del job.seen[:]
    with other.app_context():
        g.user = "alice"
        do(job)
    assert job.seen == [("other", ["seen", "user"], False, way != "callback at once")]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "bypassing"])
def test_where_inheritance_is_suppressed_nothing_is_provided(app: Flask, way: str) -> None:
    pattern, do = WAYS[way]
    install(app, provide=[pattern])
    job = Job()
    with suppress_inheritance():
        do(job)
    assert job.seen == [NOTHING]


def test_a_thread_that_was_made_in_a_context_inherits_that(app: Flask) -> None:
    install(app, provide=[HERE])
    job = Job()
    with app.app_context():
        g.user = "alice"
        thread = threading.Thread(target=job.work)
    start(thread)
    assert job.seen == [("tests", ["seen", "user"], False, True)]


def test_a_worker_that_matches_is_a_worker(app: Flask) -> None:
    class Pool(ThreadPoolExecutor):
        def submit(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
            start(threading.Thread(target=job.work))  # as a worker of its own
            return super().submit(*args, **kwargs)

        def _adjust_thread_count(self) -> None:
            start(threading.Thread(target=job.work))
            super()._adjust_thread_count()  # type: ignore[misc]

    job = Job()
    install(app, provide=[HERE])
    with Pool(1) as pool:
        assert pool.submit(look).result(LIMIT) == PROVIDED
    # The first one is started by the code that submits, the second one inside of the submit() that we wrap.
    assert job.seen == [PROVIDED, NOTHING]


def test_a_callable_that_pushes_its_own_context_keeps_it(app: Flask, torn_down: list[t.Any]) -> None:
    app.config["SERVER_NAME"] = "shop.example"
    app.add_url_rule("/orders", "orders", lambda: {"seen": look()})
    outside: list[object] = []

    def work() -> list[object]:
        if has_app_context():
            g.outer = True
        seen: list[object] = []
        with app.app_context():
            seen.append((look(), url_for("orders")))
            g.inner = True
        with app.test_request_context("/orders"):
            seen.append((look(), url_for("orders")))
        seen.append(app.test_client().get("/orders").json)
        outside.append(sorted(g) if has_app_context() else None)
        return seen

    without = in_pool(work)
    assert (len(torn_down), outside) == (3, [None])
    assert without == [
        (("tests", ["seen"], False, False), "http://shop.example/orders"),
        (("tests", ["seen"], True, False), "/orders"),
        {"seen": ["tests", ["seen"], True, False]},
    ]
    install(app, provide=[HERE])
    assert in_pool(work) == without
    assert (len(torn_down), outside) == (3 + 4, [None, ["outer"]])


def test_what_a_provided_thread_starts_inherits_from_it(app: Flask) -> None:
    install(app, provide=[f"{HERE}:test_what_a_provided_thread_starts_inherits_from_it.<locals>.work"])
    job = Job()

    def work() -> None:
        g.user = "nobody"
        start(threading.Thread(target=job.work))

    start(threading.Thread(target=work))
    assert job.seen == [("tests", ["seen", "user"], False, True)]


def test_the_outcome_is_the_tasks_and_the_handlers_are_told(app: Flask, torn_down: list[t.Any]) -> None:
    def fail() -> None:
        raise KeyError("gone")

    install(app, provide=[HERE])
    with ThreadPoolExecutor(1, "pool") as pool:
        future = pool.submit(fail)
        with pytest.raises(KeyError, match="gone"):
            future.result(LIMIT)
        assert pool.submit(has_app_context).result(LIMIT) is False
    assert torn_down == [("pool_0", future.exception())]


AGENT = """
def around(fn):
    def call(*args):
        if False:
            never
        return fn(*args)
    return call
    never = None
"""


def test_a_task_is_found_inside_of_what_an_agent_puts_around_it_and_a_thread_is_not(app: Flask) -> None:
    agent: dict[str, t.Any] = {"__name__": "json.agent"}  # A module that is not own code.
    exec(AGENT, agent)
    install(app, provide=[f"{HERE}:Job.work"])
    job = Job()
    in_pool(agent["around"](job.work))
    assert job.seen == [PROVIDED]
    # A loop that hands messages to a function encloses that too, and is not named.
    start(threading.Thread(target=agent["around"](job.work)))
    in_pool(lambda: job.work())
    assert job.seen == [PROVIDED, NOTHING, NOTHING]


def test_what_is_ignored_is_not_provided(app: Flask) -> None:
    install(app, provide=["*"], ignore=[f"{HERE}:Monitor", f"{HERE}:Job.__call__", "flask.ctx:has_app_context"])
    job = Job()
    start(Monitor(job))
    start(threading.Thread(target=job.__call__))
    # The catalogue lists the worker of a pool, which would otherwise have one context for all of its tasks.
    assert in_pool(has_app_context) is False
    assert job.seen == [NOTHING, NOTHING]
    start(threading.Thread(target=job.work))
    assert job.seen.pop() == PROVIDED


# Where it is set -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [f"shop.jobs, {HERE}", ["shop.jobs", HERE]])
def test_the_config_counts_as_it_is_when_the_first_thread_is_started(app: Flask, given: object) -> None:
    install(app)
    job = Job()
    start(threading.Thread(target=job.work))
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = ""
    start(threading.Thread(target=job.work))
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = given
    app.config["FLASKTHREADS_AUTOPATCH_WARN_AFTER"] = "60"
    start(threading.Thread(target=job.work))
    assert job.seen == [NOTHING, NOTHING, PROVIDED]
    # From now on the options are settled.
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = "shop.jobs"
    start(threading.Thread(target=job.work))
    assert job.seen.pop() == PROVIDED
    policy = dict(status().apps)["tests"]
    assert (policy.provide, policy.source("provide"), policy.warn_after) == (("shop.jobs", HERE), "Flask config", 60)


def test_a_keyword_wins_over_the_config(app: Flask) -> None:
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = HERE
    install(app, provide=())
    job = Job()
    start(threading.Thread(target=job.work))
    assert job.seen == [NOTHING]
    install(app)
    start(threading.Thread(target=job.work))
    assert job.seen == [NOTHING, PROVIDED]


def test_a_config_that_is_set_after_the_first_request_counts_with_the_first_capture(app: Flask) -> None:
    install(app)
    app.add_url_rule("/", "index", lambda: "done")
    assert app.test_client().get("/").status_code == 200
    job = Job()
    start(threading.Thread(target=job.work))
    assert providers == {}
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = [HERE]
    start(threading.Thread(target=job.work))
    assert job.seen == [NOTHING, NOTHING]
    with app.app_context():
        start(threading.Thread(target=job.work))
    start(threading.Thread(target=job.work))
    assert job.seen[2:] == [PROVIDED, PROVIDED]


def test_a_wrong_option_in_the_config_is_logged_and_nothing_is_provided(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    install(app)
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = 7
    job = Job()
    for _ in range(2):
        start(threading.Thread(target=job.work))
    assert job.seen == [NOTHING, NOTHING]
    [said] = [record.getMessage() for record in caplog.records]
    error = (
        "FLASKTHREADS_AUTOPATCH_PROVIDE must be patterns with commas between them (such as shop.jobs,"
        " apscheduler.executors.base:run_job), not 7 (set in the Flask config)."
    )
    assert error in said
    assert status().refused == (("tests", f"PolicyError: {error}"),)


def test_enable_does_not_take_it() -> None:
    keywords: t.Any = {"provide": ["shop.jobs"]}
    with pytest.raises(PolicyError) as caught:
        enable(**keywords)
    assert str(caught.value) == (
        "provide is an option of one app: pass it to install(app), not to enable() (set to ['shop.jobs'] by keyword)."
    )
    assert caught.value.source == "keyword"
    assert not is_enabled()


def test_the_environment_cannot_set_it(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_PROVIDE", "shop.jobs")
    for switch_on in (enable, lambda: install(app)):
        switch_on()
        assert not is_enabled()
        assert capsys.readouterr().err == (
            "flaskthreads_autopatch: FLASKTHREADS_AUTOPATCH_PROVIDE cannot be set in the environment, because it is"
            " about one app: pass provide= to install(app), or set it in the config of an installed app (set to"
            " 'shop.jobs' in the environment). Nothing is patched.\n"
        )


def test_the_config_of_an_app_that_is_not_installed_cannot_set_it(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    enable()
    app.config["FLASKTHREADS_AUTOPATCH_PROVIDE"] = HERE
    job = Job()
    with app.app_context():
        start(threading.Thread(target=job.work))
    # Where threads inherit context variables by themselves, it sees the parent's own context, as without us.
    assert job.seen.pop()[-1] in (None, False)
    [(_, error)] = status().refused
    assert error == (
        "PolicyError: FLASKTHREADS_AUTOPATCH_PROVIDE needs install(app), because enable() does not know an app before"
        f" its first context (set to {HERE!r} in the Flask config)."
    )
    assert error in caplog.text
    install(app)
    start(threading.Thread(target=job.work))
    assert job.seen == [PROVIDED]


# Several apps --------------------------------------------------------------------------------------


def test_two_apps_cannot_have_the_same_pattern(app: Flask) -> None:
    install(app, provide=[HERE, "shop.jobs"])
    install(app, provide=[HERE, "shop.jobs"])  # Replaces its own.
    other = Flask("other")
    with pytest.raises(PolicyError) as caught:
        install(other, provide=["shop.other", "shop.jobs"])
    assert str(caught.value) == (
        "provide must name each callable for one app only, not 'shop.jobs' for <Flask 'other'> and for <Flask 'tests'>."
        " Name another one, or uninstall the other app first (set by keyword)."
    )
    job = Job()
    start(threading.Thread(target=job.work))
    assert job.seen == [PROVIDED]
    uninstall(app)
    install(other, provide=[HERE])
    start(threading.Thread(target=job.work))
    assert job.seen == [PROVIDED, ("other", ["seen"], False, True)]


def test_an_app_that_is_garbage_does_not_count() -> None:
    gc.disable()
    try:
        for _ in range(2):
            app = Flask("tests")
            app.cli.app = app  # type: ignore[attr-defined]  # a cycle, as most extensions make one
            install(app, provide=[HERE])
            del app
    finally:
        gc.enable()


def test_what_two_apps_name_is_an_error_that_names_both(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    install(app, provide=[f"{HERE}:Job.*"])
    other = Flask("other")
    install(other, provide=[HERE])
    job = Job()
    for _ in range(2):
        start(threading.Thread(target=job.work))
        submit(job)
    assert job.seen == [NOTHING] * 4
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "ERROR",
            f"No app context is provided for {HERE}:Job.work: provide names it for <Flask 'tests'> ('{HERE}:Job.*') and"
            f" for <Flask 'other'> ({HERE!r}). Name it for one app only, or uninstall the others.",
        )
    ]
    # What only one of them names is provided.
    assert in_pool(look)[0] == "other"
    uninstall(other)
    start(threading.Thread(target=job.work))
    assert job.seen.pop() == PROVIDED


# Gates ---------------------------------------------------------------------------------------------

POINTS = [*threads.POINTS, *futures.POINTS, *thread_pool.POINTS]


def open_gates() -> list[str]:
    """The patch points whose gate lets a call through where no context is active."""
    always = {"threading.Thread.start", "multiprocessing.pool.ThreadPool.terminate"}
    if futures.IS_LAZY:
        always |= {"concurrent.futures.thread.ThreadPoolExecutor.submit", "concurrent.futures._base.Executor.map"}
    return [point.name for point in POINTS if point.gate() and point.name not in always]


def test_gates_are_open_only_while_an_app_provides() -> None:
    assert open_gates() == []
    enable()
    assert open_gates() == []
    app = Flask("tests")
    install(app, provide=[HERE])
    assert {"threading.Thread.__init__", "concurrent.futures._base.Future.add_done_callback"} < set(open_gates())
    uninstall(app)
    assert open_gates() == []
    install(app, provide=[HERE])
    disable()
    assert open_gates() == []
    install(app, provide=[HERE])
    in_thread(look)
    assert open_gates() != []
    del app
    gc.collect()
    assert open_gates() == []


def test_gates_close_once_the_config_is_known_to_provide_nothing(app: Flask) -> None:
    install(app)
    assert open_gates() != []
    with app.app_context():
        in_thread(look)
    assert open_gates() == []
    install(app)
    app.add_url_rule("/", "index", lambda: "done")
    app.test_client().get("/")
    in_thread(look)
    assert open_gates() == []
    install(app, provide=())
    in_thread(look)
    assert open_gates() == []


def test_the_app_is_held_weakly(app: Flask) -> None:
    app = Flask("tests")
    install(app, provide=[HERE])
    job = Job()
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(job.work), pool.submit(look)]
        for future in futures:
            future.result(LIMIT)
        thread = threading.Thread(target=job.work)
        start(thread)
        assert [seen[0] for seen in job.seen] == ["tests", "tests"]
        ref = weakref.ref(app)
        del app
        assert collectable(ref)


def test_a_start_that_fails_leaves_the_thread_as_it_was(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    name = "_start_new_thread" if hasattr(threading, "_start_new_thread") else "_start_joinable_thread"
    install(app, provide=[HERE])
    job = Job()
    thread = threading.Thread(target=job.work)
    before = vars(thread) | {"_context": None}  # Python 3.14 sets it at each attempt.
    with monkeypatch.context() as patch:
        patch.setattr(threading, name, fail)
        with pytest.raises(RuntimeError, match="can't start"):
            thread.start()
    assert vars(thread) | {"_context": None} == before
    start(thread)
    assert job.seen == [PROVIDED]


def test_a_failure_of_ours_is_logged_and_the_thread_runs(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    install(app, provide=[HERE])
    monkeypatch.setattr(providing, "provided", fail)
    job = Job()
    start(threading.Thread(target=job.work))
    submit(job)
    assert job.seen == [NOTHING, NOTHING]
    # The thread, the task, and the worker that the pool starts for it.
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


# Visible -------------------------------------------------------------------------------------------


def test_it_is_listed_while_it_runs(app: Flask) -> None:
    install(app, provide=[HERE])
    entered, leave = threading.Event(), threading.Event()

    def consume() -> None:
        entered.set()
        assert leave.wait(LIMIT)

    thread = threading.Thread(target=consume, name="consumer")
    thread.start()
    try:
        assert entered.wait(LIMIT)
        [replay] = running()
        assert (replay.kind, replay.thread_name, replay.app) == ("thread", "consumer", "tests")
        assert (replay.method, replay.inherited, replay.parent_is_over) == (None, (), True)
        assert replay.callable.endswith("consume")
    finally:
        leave.set()
        ended(thread)
    assert running() == []


def test_it_is_warned_of(app: Flask) -> None:
    install(app, provide=[HERE], warn_after=0.02)
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler, logger = logging.handlers.QueueHandler(records), logging.getLogger("flaskthreads_autopatch")

    def consume() -> str:
        return records.get(timeout=LIMIT).getMessage()

    logger.addHandler(handler)
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(consume).result(LIMIT)
        second = records.get(timeout=LIMIT).getMessage()
    finally:
        logger.removeHandler(handler)
    assert "still runs" in first and "has finished" in second
    assert all(" s after the task began." in text for text in (first, second))


@pytest.mark.skipif(
    not hasattr(flaskthreads_autopatch.context_released, "receivers"), reason="Flask 2.2 has signals only with blinker"
)
def test_the_signals_are_sent(app: Flask) -> None:
    install(app, provide=[HERE])
    sent: list[object] = []

    def begun(sender: Flask, *, replay: object) -> None:
        sent.append("begun")

    def over(sender: Flask, *, replay: flaskthreads_autopatch.Replay, error: object, outlived: float | None) -> None:
        sent.append((replay.kind, error, outlived is not None and 0 <= outlived <= replay.seconds))

    with (
        flaskthreads_autopatch.context_inherited.connected_to(begun, app),
        flaskthreads_autopatch.context_released.connected_to(over, app),
    ):
        start(threading.Timer(0, Job().work))
    assert sent == ["begun", ("thread", None, True)]


def test_the_policy_has_it() -> None:
    assert Policy(provide=("shop.jobs",)).provide == ("shop.jobs",)
    with pytest.raises(PolicyError, match="provide must be a list or tuple of patterns"):
        Policy(provide=t.cast(t.Any, "shop.jobs"))
