"""Python runs this at its start when this folder is on PYTHONPATH, where ``flaskthreads-autopatch run`` puts it.

Every Python that the command starts sees it, whatever its version and whatever is installed for it, so it is written
for all of them. It does nothing where this package cannot be imported, or is another version of it.
"""

import sys

VERSION = "0.1.0"


def run_shadowed():
    """Run the sitecustomize that this one hides, the next one on sys.path, as if this one were not there."""
    # One that is running has chained to this one, as ddtrace's and New Relic's do: it is not run again.
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
    return own  # Python 2 empties a module that nobody holds, and this one is still running


def run_shadowed_on_python_3(running):
    from importlib.machinery import PathFinder

    class Found:
        """Answers the next search for sitecustomize. So the module is made as any other, without importlib.util."""

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
        import flaskthreads_autopatch

        if flaskthreads_autopatch.__version__ != VERSION:
            return
        from flaskthreads_autopatch import activation
    except Exception:
        return  # another Python, which knows nothing of it or cannot read it
    activation.activate()


try:
    itself = run_shadowed()
finally:
    # What the shadowed one raises goes on to Python, which reports it as its own.
    activate()
