"""H24: an application that Cython has compiled. Its functions have no frame of their own on the stack."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ..processes import run
from .layouts import APP, INHERITS, POOL, PROBE, ask, install, write

pytestmark = pytest.mark.pools

VIEW = """
    def view():
        g.user = "alice"
        done = queue.SimpleQueue()
        threading.Thread(target=lambda: done.put(look())).start()
        return {
            "own starter, own function": done.get(timeout=60),
            "own starter, their function": start_their_function(),
            "their starter, own function": thirdpool.run(look),
            "their pool": POOL.call(look),
        }
    """

ASK = """
    import json, shop, jobs
    app = shop.create_app()
    app.add_url_rule("/", view_func=jobs.view)
    print(json.dumps([jobs.__file__, app.test_client().get("/").json, jobs.probe(app)]))
    """


def test_h24_compiled_views(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("Cython needs a C compiler")
    site = install(tmp_path / "site-packages", "thirdpool", POOL)
    checkout = write(tmp_path / "checkout", {"shop.py": APP, "jobs.py": PROBE + VIEW})
    done = run(sys.executable, "-m", "Cython.Build.Cythonize", "-i", "-3", "-q", "jobs.py", cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    (checkout / "jobs.py").unlink()
    file, in_a_view, in_a_script = ask(ASK, checkout, site)
    assert not file.endswith(".py")
    assert in_a_view == {
        "own starter, own function": "alice",
        # The first frame that can be seen is Flask's. It fails loudly, as it does without the library.
        "own starter, their function": None,
        "their starter, own function": "alice",
        "their pool": None,
    }
    assert in_a_script == INHERITS
