"""Call `enable` if the environment asks for it, at no cost for a process that never imports Flask.

A ``sitecustomize`` calls `activate` at interpreter start. If the variable ``FLASKTHREADS_AUTOPATCH`` enables the
library, `activate` puts a finder on ``sys.meta_path`` and returns. When ``flask`` is about to be imported, and not
before, the finder imports wrapt, has it call `flask_imported` after the import, and removes itself.

`activate` may be called any number of times, before or after the start-up code of agents or of coverage, and in every
subinterpreter, each of which has its own modules. An error is reported in one line on stderr. The process then
continues, unpatched.
"""

from __future__ import annotations

import sys

from .environment import is_enabled_by_environment, print_to_stderr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_SWITCH = "flaskthreads_autopatch.switch"
_FIRST_TO_IMPORT_FLASK = "flaskthreads_autopatch.flask_context"


def activate() -> None:
    """Enable the library as soon as Flask is imported, if the environment asks for it."""
    _guarded(_activate)


def flask_imported(module: ModuleType) -> None:
    """Import ``switch``, so that `switch_imported` is called. wrapt calls this when ``flask`` has been imported.

    Nothing is imported here if one of our own modules is importing Flask: it is only half imported, and ``switch`` may
    need all of it. Each of our modules that a program imports directly imports ``switch`` too, a moment later.
    """
    if _FIRST_TO_IMPORT_FLASK not in sys.modules:
        _guarded(_import_switch)


def switch_imported(module: ModuleType) -> None:
    """Enable the library. wrapt calls this when our own ``switch`` has been imported.

    Both hooks are also autowrapt entry points. Naming this package in ``AUTOWRAPT_BOOTSTRAP`` enables it, unless
    ``FLASKTHREADS_AUTOPATCH`` disables it.
    """
    if is_enabled_by_environment(default=True):
        _guarded(lambda: module.enable())


def _activate() -> None:
    # Only the first call reads the variable, so that a wrong value is reported once.
    if _finder.has_read_variable:
        return
    _finder.has_read_variable = True
    if not is_enabled_by_environment(default=False):
        return
    if "flask" in sys.modules:
        _finder.register_hooks()
    else:
        sys.meta_path.insert(0, _finder)


def _import_switch() -> None:
    from importlib import import_module

    import_module(_SWITCH)


class _Finder:
    """A meta path finder that waits for Flask, or for ``switch``, which imports Flask. It finds no module itself."""

    def __init__(self) -> None:
        self.has_read_variable = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in ("flask", _SWITCH):
            return None
        _guarded(self.register_hooks)
        _guarded(self.remove_itself)
        # The import system has already passed the place where wrapt has just put its finder. Search again, with it.
        from importlib.util import find_spec

        return find_spec(name)

    def register_hooks(self) -> None:
        import wrapt

        wrapt.register_post_import_hook(switch_imported, _SWITCH)
        wrapt.register_post_import_hook(flask_imported, "flask")

    def remove_itself(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


_finder = _Finder()


def _guarded(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as error:
        print_to_stderr(f"The library cannot be enabled: {type(error).__name__}: {error}. Nothing is patched.")
