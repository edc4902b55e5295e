"""Start-up file that reads FLASKTHREADS_AUTOPATCH. The README beside it says where to put it.

Every Python that finds this file runs it, so its code suits all of them. A Python without the package continues as if
this file were not there.
"""

import sys


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
    if sys.version_info < (3, 10):
        return
    try:
        from flaskthreads_autopatch import activation
    except ImportError:
        return  # The package is not installed for this Python.
    activation.activate()


try:
    itself = run_shadowed()
finally:
    # An exception of the shadowed sitecustomize reaches Python, which reports it as usual.
    activate()
