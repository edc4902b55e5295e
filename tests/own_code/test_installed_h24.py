"""H24: the library as it is installed, and as a checkout. Its own code is own code in neither.

What starts threads for an application inherits all the same: the explicit API, and the doctor's self-test.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..processes import ROOT, run
from .layouts import APP, INHERITS, POOL, PROBE, ask, install

SHOP = APP + PROBE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``site-packages`` with the library, installed there by pip."""
    site = tmp_path_factory.mktemp("lib") / "site-packages"
    # What pip would download is there: the build backend is one of the packages that the tests need.
    options = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q", "--target")
    done = run(sys.executable, "-m", "pip", "install", *options, site, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


@pytest.fixture(params=["checkout", "installed"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """The folders to look for packages in: with the library, with the third party's pool, and with the shop."""
    library = ROOT if request.param == "checkout" else request.getfixturevalue("wheel")
    shop = install(install(tmp_path / "site-packages", "thirdpool", POOL), "shop", {"shop/__init__.py": SHOP})
    where = ask("import flaskthreads_autopatch as f, json; print(json.dumps(f.__file__))", library, shop)
    assert Path(where).parent.parent == library
    return [library, shop]


def test_h24_the_app_inherits_and_their_pool_does_not(site: list[Path]) -> None:
    assert ask("import json, shop; print(json.dumps(shop.probe(shop.create_app())))", *site) == INHERITS


def test_h24_the_doctor_finds_all_well(site: list[Path]) -> None:
    command = (sys.executable, "-m", "flaskthreads_autopatch", "doctor", "--app", "shop:create_app", "--json")
    found = ask("", *site, command=command)
    assert (found["well"], found["problems"]) == (True, [])
    assert all(check["inherited"] for check in found["self_test"])


def test_h24_the_doctor_under_the_launcher(site: list[Path]) -> None:
    ours = (sys.executable, "-m", "flaskthreads_autopatch")
    found = ask("", *site, command=(*ours, "run", *ours, "doctor", "--json"))
    assert (found["well"], found["problems"]) == (True, [])


EXPLICIT = """
    import json
    import queue
    import threading

    from flask import Flask, g

    import flaskthreads_autopatch as autopatch
    import shop
    import thirdpool

    app = Flask("explicit") if OFF else shop.create_app(warn_after=1000)
    seen = queue.SimpleQueue()
    note = lambda: seen.put(shop.look())
    with app.app_context():
        g.user = "alice"
        # All three are started by the third party's code, and run it.
        thirdpool.start_thread(autopatch.AppContextThread(target=thirdpool.call, args=[note]))
        first = seen.get(timeout=60)
        with autopatch.ThreadPoolWithAppContextExecutor(1) as pool:
            thirdpool.call(lambda: pool.submit(thirdpool.call, note))
            second = seen.get(timeout=60)
        thirdpool.start(thirdpool.hidden(autopatch.copy_current_app_context(note)))
        third = seen.get(timeout=60)
        # The library's own thread, which a request has started.
        hold, held = threading.Event(), threading.Event()
        thread = autopatch.AppContextThread(target=lambda: held.set() or hold.wait(60), name="mine")
        thread.start()
        held.wait(60)
        names = [thread.name for thread in threading.enumerate()]
        services = [name for name in names if name.startswith("flaskthreads_autopatch")]
        running = [replay.thread_name for replay in autopatch.running()]
        hold.set()
    print(json.dumps([first, second, third, services, running]))
    """


@pytest.mark.parametrize("off", [False, True], ids=["on", "off"])
def test_h24_the_explicit_api_inherits_and_the_librarys_own_threads_do_not(site: list[Path], off: bool) -> None:
    first, second, third, services, running = ask(EXPLICIT.replace("OFF", str(off)), *site)
    assert (first, second, third) == ("alice", "alice", "alice")
    assert services == ([] if off else ["flaskthreads_autopatch.overdue"])
    assert running == ["mine"]


def test_installing_an_app_does_not_read_metadata() -> None:
    """Importing what reads it takes 80 ms. A verdict may need it, but not before the first thread."""
    code = """
        import json, sys
        import flask, wrapt
        for name in [name for name in sys.modules if name.startswith("importlib.metadata")]:
            del sys.modules[name]
        import flaskthreads_autopatch
        flaskthreads_autopatch.install(flask.Flask("shop"))
        print(json.dumps("importlib.metadata" in sys.modules))
        """
    assert ask(code) is False
