"""Start-up file that reads FLASKTHREADS_AUTOPATCH. ``flaskthreads-autopatch run`` puts its folder on PYTHONPATH.

Every Python that the command starts runs this file, whatever its version and its packages are, so its code suits all of
them. It does nothing if this package cannot be imported, or has another version.

It imports nothing that Python has not imported by then, not even this package: most processes never import Flask.
"""

import os
import sys

VERSION = "0.1.0"


def run_shadowed():
    """Run the next sitecustomize on sys.path, which this one shadows, as if this one were not there."""
    # Those of ddtrace and New Relic run this one, in the same way. One that is still running is not run again.
    running = set()
    frame = sys._getframe()
    while frame is not None:
        running.add(frame.f_code.co_filename)
        running.add(frame.f_globals.get("__file__", ""))
        frame = frame.f_back
    own = sys.modules.pop("sitecustomize", None)
    found = False
    try:
        if sys.version_info[0] == 2:
            found = run_shadowed_on_python_2(running)
        else:
            found = run_shadowed_on_python_3(running)
    finally:
        if not found and own is not None:
            sys.modules["sitecustomize"] = own
    return own  # Python 2 clears a module to which nothing refers, and this one is still running.


def run_shadowed_on_python_3(running):
    try:
        from _frozen_importlib_external import PathFinder
    except ImportError:
        from importlib.machinery import PathFinder

    class Found:
        """A finder for one search: the import system creates the module as any other, without importlib.util."""

        def find_spec(self, name, path=None, target=None):
            sys.meta_path.remove(self)
            return spec

    for folder in sys.path:
        spec = PathFinder.find_spec("sitecustomize", [folder])
        if spec is not None and spec.loader is not None and spec.origin not in running:
            sys.meta_path.insert(0, Found())
            __import__("sitecustomize")
            return True
    return False


def run_shadowed_on_python_2(running):
    import imp

    for folder in sys.path:
        try:
            found = imp.find_module("sitecustomize", [folder])
        except ImportError:
            continue
        if found[1] not in running:
            imp.load_module("sitecustomize", *found)
            return True
    return False


def activate():
    try:
        import flaskthreads_autopatch

        if flaskthreads_autopatch.__version__ != VERSION:
            return
        from flaskthreads_autopatch import activation
    except Exception:
        return  # This Python does not have the package, or cannot run it.
    activation.activate()


class FlaskAwaited:
    """A finder that calls `activate` when Flask is about to be imported. It finds no module itself."""

    def find_spec(self, name, path=None, target=None):
        if name not in ("flask", "flaskthreads_autopatch.switch"):
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        activate()
        # The import system has already passed the place where `activate` has put a finder. Search again, with it.
        from importlib.util import find_spec

        return find_spec(name)


def activate_in_time():
    if sys.version_info < (3, 10):
        return
    words = ("1", "true", "yes", "on", "observe")
    is_enabled = os.environ.get("FLASKTHREADS_AUTOPATCH", "").strip().lower() in words
    if is_enabled and "flask" not in sys.modules:
        sys.meta_path.insert(0, FlaskAwaited())
    else:
        activate()  # It reports a value that is wrong.


try:
    itself = run_shadowed()
finally:
    # An exception of the shadowed sitecustomize reaches Python, which reports it as usual.
    activate_in_time()
