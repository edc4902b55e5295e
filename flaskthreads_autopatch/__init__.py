"""Threads inherit Flask's app context. ``flaskthreads_autopatch.install(app)`` is all there is to it.

Importing this package imports neither flask nor wrapt: a name is resolved when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing would be the most expensive import of many a process that never imports Flask
if TYPE_CHECKING:
    from .apps import AppLoadError as AppLoadError
    from .audit.recorder import observed as observed
    from .carrier import Carrier as Carrier
    from .carrier import CarrierError as CarrierError
    from .carrier import NotPortableError as NotPortableError
    from .explicit import AppContextThread as AppContextThread
    from .explicit import ThreadPoolWithAppContextExecutor as ThreadPoolWithAppContextExecutor
    from .explicit import copy_current_app_context as copy_current_app_context
    from .policy import Policy as Policy
    from .policy import PolicyError as PolicyError
    from .remote import RemoteAppContextExecutor as RemoteAppContextExecutor
    from .remote import carry as carry
    from .replay import is_inherited as is_inherited
    from .suppression import suppress_inheritance as suppress_inheritance
    from .switch import disable as disable
    from .switch import enable as enable
    from .switch import init_app as init_app
    from .switch import install as install
    from .switch import is_enabled as is_enabled
    from .switch import status as status
    from .switch import uninstall as uninstall
    from .visibility.registry import Replay as Replay
    from .visibility.registry import dump as dump
    from .visibility.registry import running as running
    from .visibility.signals import context_inherited as context_inherited
    from .visibility.signals import context_released as context_released

__version__ = "0.1.0"

__all__ = [
    "AppContextThread",
    "AppLoadError",
    "Carrier",
    "CarrierError",
    "NotPortableError",
    "Policy",
    "PolicyError",
    "RemoteAppContextExecutor",
    "Replay",
    "ThreadPoolWithAppContextExecutor",
    "carry",
    "context_inherited",
    "context_released",
    "copy_current_app_context",
    "disable",
    "dump",
    "enable",
    "init_app",
    "install",
    "is_enabled",
    "is_inherited",
    "observed",
    "running",
    "status",
    "suppress_inheritance",
    "uninstall",
]

_MODULES = {
    "AppContextThread": "explicit",
    "AppLoadError": "apps",
    "Carrier": "carrier",
    "CarrierError": "carrier",
    "carry": "remote",
    "context_inherited": "visibility.signals",
    "context_released": "visibility.signals",
    "copy_current_app_context": "explicit",
    "disable": "switch",
    "dump": "visibility.registry",
    "enable": "switch",
    "init_app": "switch",
    "install": "switch",
    "is_enabled": "switch",
    "is_inherited": "replay",
    "NotPortableError": "carrier",
    "observed": "audit.recorder",
    "Policy": "policy",
    "PolicyError": "policy",
    "RemoteAppContextExecutor": "remote",
    "Replay": "visibility.registry",
    "running": "visibility.registry",
    "status": "switch",
    "suppress_inheritance": "suppression",
    "ThreadPoolWithAppContextExecutor": "explicit",
    "uninstall": "switch",
}
"""The module in which each public name is defined."""


if not TYPE_CHECKING:  # Type checkers see the imports above. To them, any other name is an error.

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        # As soon as Flask is imported, the hook of `activation` imports switch. Flask is therefore imported before any
        # module of ours: else switch could be half imported at that moment.
        import_module("flask")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
