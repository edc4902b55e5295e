"""Observe mode: everything runs as with the patches off, and each place that starts something is counted."""

from __future__ import annotations

import _thread
import contextvars
import os
import threading
import typing as t
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import flask
import pytest
from flask import Flask, copy_current_request_context, current_app, g

import flaskthreads_autopatch
from flaskthreads_autopatch import PolicyError, suppress_inheritance
from flaskthreads_autopatch.audit import counts
from flaskthreads_autopatch.audit.record import BY_A_RUN, Record
from flaskthreads_autopatch.audit.recorder import recorders
from flaskthreads_autopatch.audit.verdicts import judge
from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from ..helpers import LIMIT, collectable, ended, in_thread
from ..processes import python

without_context = pytest.mark.skipif(
    THREADS_INHERIT_CONTEXT, reason="a thread has the context of its starter by itself, and does not fail"
)


def reads_g() -> object:
    return g.user


def pushes(app: Flask) -> str:
    with app.app_context():
        return current_app.name


def nothing(*args: object) -> None:
    """Do nothing."""


def record_of(name: str, kind: str | None = "thread") -> Record:
    """The only record of what runs as *name*, a *kind* or anything."""
    keys = [(f"{__name__}:{name}", each) for each in ((kind,) if kind else ("thread", "task"))]
    (found,) = (each for each in flaskthreads_autopatch.observed() if each.key[1:3] in keys)
    return found


@pytest.fixture
def raised() -> t.Iterator[list[str]]:
    """What threads raise."""
    seen: list[str] = []
    before, threading.excepthook = threading.excepthook, lambda args: seen.append(str(args.exc_value))
    yield seen
    threading.excepthook = before


def outcome(start: Callable[[Callable[[], object]], object]) -> str:
    try:
        return repr(start(reads_g))
    except RuntimeError as error:
        return str(error)


def by_pool(fn: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result(LIMIT)


def by_map(fn: Callable[[], object]) -> object:
    with ThreadPool(1) as pool:
        return pool.map(lambda item: fn(), [1])


def by_imap(fn: Callable[[], object]) -> object:
    with ThreadPool(1) as pool:
        return list(pool.imap(lambda item: fn(), (item for item in [1])))


def by_low_level_thread(fn: Callable[[], object]) -> object:
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(fn())
        except BaseException as error:
            done.set_exception(error)

    _thread.start_new_thread(run, ())
    return done.result(LIMIT)


def in_thread_of(fn: Callable[[], object]) -> None:
    thread = threading.Thread(target=fn)
    thread.start()
    ended(thread)


class StartsItself(threading.Thread):
    """A class with a ``start()`` of its own."""

    def start(self) -> None:
        super().start()


def by_own_start(fn: Callable[[], object]) -> None:
    thread = StartsItself(target=fn)
    thread.start()
    ended(thread)


def by_low_level_thread_itself(fn: Callable[..., object]) -> None:
    done = threading.Event()
    _thread.start_new_thread(fn, (Deleted(done),))
    assert done.wait(LIMIT)


class Deleted:
    """An argument, which is deleted once its call has ended."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done

    def __del__(self) -> None:
        self._done.set()


@pytest.mark.parametrize("start", [in_thread, by_pool, by_map, by_imap, by_low_level_thread])
def test_what_fails_without_a_context_fails_in_the_same_way(app: Flask, start: Callable[..., object]) -> None:
    flaskthreads_autopatch.install(app, own=["tests"])
    with app.test_request_context():
        g.user = "alice"
        assert outcome(start) in ("'alice'", "['alice']")
    flaskthreads_autopatch.enable(observe=True)
    with app.test_request_context():
        g.user = "alice"
        while_observed = outcome(start)
    flaskthreads_autopatch.disable()
    with app.test_request_context():
        g.user = "alice"
        off = outcome(start)
    assert while_observed == off
    if not THREADS_INHERIT_CONTEXT:
        assert off.startswith("Working outside of application context")


@pytest.mark.parametrize("observes", [True, False])
def test_a_generator_that_a_terminated_pool_has_read_is_not_closed(app: Flask, observes: bool) -> None:
    """It is as with the patches off: code that has a reference to the generator reads on."""
    if observes:
        flaskthreads_autopatch.enable(observe=True)
    items = iter(range(10**9))
    generator = (item for item in items)
    with app.app_context():
        pool = ThreadPool(1)
        assert next(pool.imap(abs, generator)) == 0
        pool.terminate()
        pool.join()
    assert next(generator) == next(items) - 1


@without_context
def test_a_record_says_what_would_be_inherited_and_what_happened(app: Flask, raised: list[str]) -> None:
    @app.get("/report")
    def report() -> str:
        g.user, g.lock = "alice", threading.local()
        for fn in (reads_g, reads_g, nothing):
            thread = threading.Thread(target=fn)
            thread.start()
            ended(thread)
        return "done"

    flaskthreads_autopatch.install(app, exclude=["token"])
    flaskthreads_autopatch.enable(observe=True)
    app.test_client().get("/report")

    failed = record_of("reads_g")
    assert "test_observe.py" in failed.key.place
    assert failed.key.place.endswith("report")
    assert failed.key[3:] == ("tests", "report", "")
    assert (failed.starts, failed.failed, failed.raised, failed.helped, failed.most_at_once) == (2, 2, 0, 0, 1)
    assert failed.inherited["request"] == failed.inherited["session"] == ""
    assert failed.inherited["g.user"] == "builtins:str"
    assert (record_of("nothing").starts, record_of("nothing").failed) == (1, 0)
    assert len(raised) == 2


def test_what_pushes_a_context_and_never_ends_is_counted_at_once(app: Flask) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def serves() -> None:
        with app.app_context():
            entered.set()
            go_on.wait(LIMIT)
        with app.app_context():
            pass

    flaskthreads_autopatch.install(app)
    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        thread = threading.Thread(target=serves)
        thread.start()
    assert entered.wait(LIMIT)
    name = serves.__qualname__
    assert (record_of(name).helped, record_of(name).still_running) == (1, 1)
    go_on.set()
    ended(thread)
    assert (record_of(name).helped, record_of(name).still_running) == (1, 0)


def test_what_is_excluded_is_listed_with_its_reason(app: Flask) -> None:
    flaskthreads_autopatch.install(app, exclude=["token"])
    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        g.token = "secret"
        in_thread(nothing)
    (record,) = (each for each in flaskthreads_autopatch.observed() if each.not_inherited)
    assert record.not_inherited == {"g.token": "excluded by 'token'"}
    assert (record.inherited, record.key.endpoint) == ({}, "")


@without_context
def test_a_context_of_its_own_is_seen(app: Flask) -> None:
    flaskthreads_autopatch.enable(observe=True)
    with app.test_request_context(), ThreadPoolExecutor(1) as pool:
        pool.submit(pushes, app).result(LIMIT)
        pool.submit(copy_current_request_context(nothing)).result(LIMIT)
        pool.submit(nothing).result(LIMIT)
    found = [each for each in flaskthreads_autopatch.observed() if each.key.kind == "task"]
    # A copied request context goes by the name of the function that it runs.
    assert [(each.key.callable, each.helped) for each in found] == [
        (f"{__name__}:pushes", 1),
        (f"{__name__}:nothing", 1),
        (f"{__name__}:nothing", 0),
    ]


@pytest.mark.parametrize("parent", ["request", "app"])
def test_what_outlives_its_parent_is_counted(app: Flask, parent: str) -> None:
    go_on = threading.Event()
    flaskthreads_autopatch.enable(observe=True)
    with app.test_request_context() if parent == "request" else app.app_context():
        in_time = threading.Thread(target=nothing)
        in_time.start()
        ended(in_time)
        late = threading.Thread(target=go_on.wait)
        late.start()
    (record,) = (each for each in flaskthreads_autopatch.observed() if each.key.callable == "threading:Event.wait")
    assert (record.outlived, record.still_running) == (1, 1)
    assert record.longest > 0
    go_on.set()
    ended(late)
    (record,) = (each for each in flaskthreads_autopatch.observed() if each.key.callable == "threading:Event.wait")
    assert (record.outlived, record.still_running, record.starts) == (1, 0, 1)
    assert (record_of("nothing").outlived, record_of("nothing").longest) == (0, 0.0)


def test_what_does_not_inherit_has_its_reason(app: Flask) -> None:
    flaskthreads_autopatch.install(app, ignore=[f"{__name__}:pushes"])
    flaskthreads_autopatch.enable(observe=True)
    reasons: dict[str, str] = {}

    def note(case: str) -> None:
        (record,) = flaskthreads_autopatch.observed()
        reasons[case] = record.key.reason
        flaskthreads_autopatch.disable()
        flaskthreads_autopatch.install(app, ignore=[f"{__name__}:pushes"])
        flaskthreads_autopatch.enable(observe=True)

    def start(fn: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=fn, args=args)
        thread.start()
        ended(thread)

    start(nothing)
    note("no context")
    with app.app_context():
        start(pushes, app)
        note("ignore")
        with suppress_inheritance():
            start(nothing)
        note("suppressed")
        with ThreadPoolExecutor(1, initializer=nothing) as pool, suppress_inheritance():
            pool.submit(contextvars.copy_context().run, nothing).result(LIMIT)
        found = {each.key.kind: each.key.reason for each in flaskthreads_autopatch.observed()}
    assert reasons == {
        "no context": "no app context is active where it is started",
        "ignore": f"ignored by '{__name__}:pushes'",
        "suppressed": "it is started inside suppress_inheritance()",
    }
    assert found["task"] == "it is started inside suppress_inheritance()"
    assert found["thread"]


WORKER = "a pool's worker outlives whatever made the pool grow, and its tasks carry their context themselves"


def has_context() -> bool:
    return flask.has_app_context()


def starts_another() -> bool:
    return in_thread(has_context)


def starts_each_kind() -> list[bool]:
    with suppress_inheritance():
        suppressed = in_thread(has_context)
    with ThreadPoolExecutor(1) as pool:
        return [suppressed, in_thread(has_context), in_thread(starts_another), pool.submit(has_context).result(LIMIT)]


@without_context
@pytest.mark.parametrize("observes", [True, False])
def test_what_a_run_starts_inherits_from_it(app: Flask, observes: bool) -> None:
    """While the library observes, what starts it has no context either, and would have one."""
    flaskthreads_autopatch.enable(observe=observes)
    with app.app_context():
        assert in_thread(starts_each_kind) == ([False] * 4 if observes else [False, True, True, True])
    records = [each for each in flaskthreads_autopatch.observed() if each.key.reason]
    verdicts = {(each.key.kind, each.key.app, judge(each, on=False).name, each.key.reason) for each in records}
    assert verdicts == (
        {
            ("thread", app.name, "does not inherit", "it is started inside suppress_inheritance()"),
            ("thread", app.name, "inherits", BY_A_RUN),
            ("task", app.name, "inherits", BY_A_RUN),
            ("thread", app.name, "does not inherit", WORKER),
        }
        if observes
        else set()
    )


def by_imap_of_a_list(fn: Callable[..., object]) -> object:
    with ThreadPool(1) as pool:
        return list(pool.imap(fn, [1]))


@without_context
@pytest.mark.parametrize("start", [in_thread_of, by_pool, by_low_level_thread_itself, by_imap_of_a_list, by_own_start])
def test_what_a_run_starts_is_decided_as_with_a_context(app: Flask, start: Callable[..., object]) -> None:
    """What is ignored is not inherited there either; and nothing is provided, because a context is inherited."""
    provider = Flask("provider")
    decided = [BY_A_RUN, f"ignored by '{__name__}:ignored_too'"]
    for observes in (False, True):
        flaskthreads_autopatch.install(provider, provide=[f"{__name__}:ignored*", f"{__name__}:noted"])
        flaskthreads_autopatch.enable(observe=observes, ignore=[f"{__name__}:ignored_too"])
        seen.clear()
        with app.app_context():
            in_thread(lambda: [start(fn) for fn in (noted, ignored_too)])
        if observes:
            found = [record_of(name, kind=None) for name in ("noted", "ignored_too")]
            assert [(each.key.app, each.key.reason) for each in found] == [(app.name, reason) for reason in decided]
            assert seen == ["no context"] * 2
        else:
            assert seen == [app.name, "no context"]
        flaskthreads_autopatch.disable()


seen: list[str] = []


def noted(*args: object) -> None:
    seen.append(current_app.name if flask.has_app_context() else "no context")


def ignored_too(*args: object) -> None:
    noted()


def test_a_thread_of_a_teardown_handler_has_its_reason(app: Flask) -> None:
    @app.teardown_appcontext
    def start(error: object) -> None:
        in_thread(nothing)

    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        pass
    (record,) = flaskthreads_autopatch.observed()
    assert record.key.reason == "it is started by a teardown handler"


@without_context
def test_an_error_that_is_no_want_of_a_context_is_told_from_one(app: Flask, raised: list[str]) -> None:
    def fails() -> None:
        raise RuntimeError("the shelf is empty")

    def wrapped() -> None:
        try:
            reads_g()
        except RuntimeError as error:
            raise ValueError("no report") from error

    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        for fn in (fails, wrapped):
            thread = threading.Thread(target=fn)
            thread.start()
            ended(thread)
    counted = {
        each.key.callable.rpartition(".")[2]: (each.failed, each.raised) for each in flaskthreads_autopatch.observed()
    }
    assert counted == {"fails": (0, 1), "wrapped": (1, 0)}
    assert len(raised) == 2


@without_context
def test_no_value_is_kept_and_no_body_read(app: Flask) -> None:
    class Cart:
        pass

    go_on, started = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        go_on.wait(LIMIT)

    flaskthreads_autopatch.install(app, preload=True)
    flaskthreads_autopatch.enable(observe=True)
    with app.test_request_context(method="POST", data=b"x" * 100):
        g.cart = Cart()
        cart, request = weakref.ref(g.cart), weakref.ref(flask.request._get_current_object())
        thread = threading.Thread(target=wait)
        thread.start()
        started.wait(LIMIT)
        assert flask.request.stream.read() == b"x" * 100
    assert collectable(cart, request)
    go_on.set()
    ended(thread)


def test_the_worker_of_a_pool_keeps_no_app() -> None:
    flaskthreads_autopatch.enable(observe=True)
    app = Flask("short_lived")
    with ThreadPoolExecutor(1) as pool:
        with app.app_context():
            pool.submit(nothing).result(LIMIT)
        gone = weakref.ref(app)
        del app
        assert collectable(gone)


def test_counts_of_many_threads_add_up(app: Flask) -> None:
    flaskthreads_autopatch.enable(observe=True)

    def run_many() -> None:
        with app.app_context(), ThreadPoolExecutor(4) as pool:
            for _ in range(250):
                pool.submit(nothing)

    threads = [threading.Thread(target=run_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    ended(*threads)
    assert record_of("nothing", "task").starts == 1000


def test_more_places_than_are_recorded_share_one(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_KEYS", 3)
    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        for number in range(5):
            namespace: dict[str, t.Any] = {"__name__": __name__}
            exec(f"def job{number}(): pass", namespace)
            in_thread_of(namespace[f"job{number}"])
    found = flaskthreads_autopatch.observed()
    assert sorted(each.starts for each in found) == [1, 1, 1, 2]
    assert sum("places were recorded" in each.key.reason for each in found) == 1


# The switch


@without_context
def test_observe_wins_over_install_and_enable_without_it(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", "observe")
    flaskthreads_autopatch.install(app)
    flaskthreads_autopatch.enable()
    with app.app_context():
        g.user = "alice"
        assert outcome(in_thread).startswith("Working outside")
    assert flaskthreads_autopatch.status().observes
    assert len(flaskthreads_autopatch.observed()) == 1


def test_enable_without_observe_ends_it(app: Flask) -> None:
    flaskthreads_autopatch.enable(observe=True)
    flaskthreads_autopatch.enable()
    with app.app_context():
        g.user = "alice"
        assert outcome(in_thread) == "'alice'"
    assert (flaskthreads_autopatch.status().observes, flaskthreads_autopatch.observed()) == (False, [])


def test_the_kill_switch_wins(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH", "0")
    flaskthreads_autopatch.enable(observe=True)
    assert (flaskthreads_autopatch.is_enabled(), flaskthreads_autopatch.observed()) == (False, [])


def test_disable_removes_everything(app: Flask) -> None:
    receivers = [len(signal_.receivers) for signal_ in (flask.appcontext_pushed, flask.appcontext_tearing_down)]
    with flaskthreads_autopatch.enable(observe=True), app.app_context():
        in_thread(nothing)
        assert recorders
    assert not recorders
    assert not flaskthreads_autopatch.status().observes
    assert receivers == [len(signal_.receivers) for signal_ in (flask.appcontext_pushed, flask.appcontext_tearing_down)]


def test_a_run_that_ends_after_disable_does_no_harm(app: Flask) -> None:
    go_on = threading.Event()
    flaskthreads_autopatch.enable(observe=True)
    with app.app_context():
        thread = threading.Thread(target=go_on.wait)
        thread.start()
        flaskthreads_autopatch.disable()
    go_on.set()
    ended(thread)
    assert flaskthreads_autopatch.observed() == []


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(PolicyError, match="observe must be True or False, not 'perhaps'"):
        flaskthreads_autopatch.enable(observe=t.cast(bool, "perhaps"))


def test_an_unknown_word_in_the_environment_names_observe() -> None:
    code = "import flaskthreads_autopatch.activation as a; a.activate(); import flask, sys; print(sys.modules.keys())"
    done = python(code, FLASKTHREADS_AUTOPATCH="observ")
    assert "or observe, not 'observ'" in done.stderr
    assert "flaskthreads_autopatch.switch" not in done.stdout


# Processes that end in all ways


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_counts_for_itself(app: Flask, tmp_path: t.Any) -> None:
    code = """
import os, threading, flask, flaskthreads_autopatch as fa
from flaskthreads_autopatch.audit.files import collect
app = flask.Flask("shop"); fa.enable(observe=True)
def job(): pass
def start():
    with app.app_context():
        thread = threading.Thread(target=job); thread.start(); thread.join()
start()
pids = []
for _ in range(2):
    if not (pid := os.fork()):
        start(); start(); os.kill(os.getpid(), 9)
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
start()
found = collect(os.environ["FLASKTHREADS_AUTOPATCH_AUDIT"])
print(found.processes, [record.starts for record in found.records if record.key.callable.endswith("job")])
"""
    done = python(code, FLASKTHREADS_AUTOPATCH_AUDIT=tmp_path)
    assert done.stdout.split("\n")[0] == "3 [6]", done.stderr


def test_a_folder_that_cannot_be_written_is_reported_and_does_no_harm() -> None:
    code = """
import flask, threading, flaskthreads_autopatch as fa
fa.enable(observe=True)
with flask.Flask("shop").app_context():
    thread = threading.Thread(target=print, args=["ran"]); thread.start(); thread.join()
"""
    done = python(code, FLASKTHREADS_AUTOPATCH_AUDIT="/nowhere")
    assert done.stdout == "ran\n"
    assert done.stderr.count("The audit cannot write to '/nowhere'") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_reported_and_does_no_harm(tmp_path: t.Any) -> None:
    code = """
import builtins, flask, threading, flaskthreads_autopatch as fa
from flaskthreads_autopatch.audit import counts
counts.open = lambda name, mode: builtins.open("/dev/full", "w+b" if "b" in mode else "w")
fa.enable(observe=True)
with flask.Flask("shop").app_context():
    thread = threading.Thread(target=print, args=["ran"]); thread.start(); thread.join()
"""
    done = python(code, FLASKTHREADS_AUTOPATCH_AUDIT=tmp_path)
    assert done.stdout == "ran\n"
    assert done.stderr.count("No space left on device") == 1


def test_many_places_are_read_again(tmp_path: t.Any) -> None:
    process = counts.ProcessCounts(str(tmp_path))
    for number in range(500):
        counted = process.of(record_key(f"shop{number}"))
        counted.record.starts = number
        counted.write()
    (texts,) = tmp_path.glob(f"*{counts.TEXTS}")
    assert {record.key.callable: record.starts for record in counts.read(str(texts))} == {
        f"shop{number}:job": number for number in range(500)
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_that_starts_nothing_leaves_no_file(tmp_path: t.Any) -> None:
    code = """
import os, flask, flaskthreads_autopatch as fa
fa.enable(observe=True)
if not (pid := os.fork()): os._exit(0)
os.waitpid(pid, 0)
print(sorted(name.partition(".")[2] for name in os.listdir(os.environ["FLASKTHREADS_AUTOPATCH_AUDIT"])))
"""
    assert python(code, FLASKTHREADS_AUTOPATCH_AUDIT=tmp_path).stdout == "['counts', 'texts']\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_program_that_closes_all_descriptors_keeps_those_that_it_opens_then(tmp_path: t.Any) -> None:
    """A mapping has a descriptor of its own before Python 3.13, whose number the program is given again."""
    code = """
import os, threading, flask, flaskthreads_autopatch as fa
fa.enable(observe=True)
def start():
    with flask.Flask("shop").app_context():
        thread = threading.Thread(target=int); thread.start(); thread.join()
start()
os.closerange(3, 100)
opened = [os.dup(0) for _ in range(10)]
start()
if not (pid := os.fork()):
    for each in opened: os.fstat(each)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
fa.disable()
for each in opened: os.fstat(each)
print("all are open")
"""
    done = python(code, FLASKTHREADS_AUTOPATCH_AUDIT=tmp_path)
    assert (done.stdout, done.stderr) == ("7\nall are open\n", "")


def test_half_a_line_of_a_killed_process_is_left_out(tmp_path: t.Any) -> None:
    process = counts.ProcessCounts(str(tmp_path))
    key = record_key("a")
    counted = process.of(key)
    counted.record.starts = 3
    counted.write()
    (texts,) = tmp_path.glob(f"*{counts.TEXTS}")
    texts.write_text(texts.read_text() + '{"offset": 72, "key": ["b"')
    assert [(record.key, record.starts) for record in counts.read(str(texts))] == [(key, 3)]


def record_key(name: str) -> t.Any:
    from flaskthreads_autopatch.audit.record import Key

    return Key(f"{name}.py:1 in view", f"{name}:job", "thread", "shop", "view", "")
