"""From the environment to `enable`, without a price for the processes that never import Flask.

`activate` is called at interpreter start, by a ``sitecustomize``. If the variable ``FLASKTHREADS_AUTOPATCH`` says so,
it puts an import watch on ``sys.meta_path`` and returns. When ``flask`` is going to be imported, and not before, the
watch imports wrapt, has it call `flask_imported` afterwards, and steps aside: from then on no import passes it.

It may be called any number of times, before or after others that start up in the same process (agents, coverage), and
in every subinterpreter, each of which has modules of its own. Whatever goes wrong here is one line on stderr, and the
process runs on, unpatched.
"""

from __future__ import annotations

import sys

from .environment import is_wanted, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_SWITCH = "flaskthreads_autopatch.switch"
_FIRST_TO_IMPORT_FLASK = "flaskthreads_autopatch.flask_context"


def activate() -> None:
    """Switch the library on for this process if the environment says so, as soon as Flask is imported."""
    _guarded(_activate)


def flask_imported(module: ModuleType) -> None:
    """wrapt calls this when ``flask`` has been imported: it imports the switch, which `switch_imported` waits for.

    Unless it is one of our own modules that is importing Flask: it cannot be imported by another one until it is there
    itself. The switch, which each of them that a program imports directly imports too, is waited for then as well.
    """
    if _FIRST_TO_IMPORT_FLASK not in sys.modules:
        _guarded(_import_switch)


def switch_imported(module: ModuleType) -> None:
    """wrapt calls this when our own ``switch`` has been imported: after Flask, or by somebody who imported it first.

    These two are also the entry points of ``AUTOWRAPT_BOOTSTRAP=flaskthreads_autopatch``, which is a yes by itself.
    """
    if is_wanted(otherwise=True):
        _guarded(lambda: module.enable())


def _activate() -> None:
    # The first call settles it: what it has said on stderr is not said again.
    if _watch.asked:
        return
    _watch.asked = True
    if not is_wanted(otherwise=False):
        return
    if "flask" in sys.modules:
        _watch.arm()
    else:
        sys.meta_path.insert(0, _watch)


def _import_switch() -> None:
    from importlib import import_module

    import_module(_SWITCH)


class _Watch:
    """Finds nothing itself. Sees that Flask, or the switch, which imports Flask, is going to be imported."""

    def __init__(self) -> None:
        self.asked = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in ("flask", _SWITCH):
            return None
        _guarded(self.arm)
        _guarded(self.step_aside)
        # The search that is going on started behind wrapt's finder: once more, with it.
        from importlib.util import find_spec

        return find_spec(name)

    def arm(self) -> None:
        import wrapt

        wrapt.register_post_import_hook(switch_imported, _SWITCH)
        wrapt.register_post_import_hook(flask_imported, "flask")

    def step_aside(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


_watch = _Watch()


def _guarded(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as error:
        say(f"switching on failed with {type(error).__name__}: {error}. Nothing is patched.")
