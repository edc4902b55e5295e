"""What `status` returns: data only."""

from __future__ import annotations

import dataclasses

from .policy import Policy


@dataclasses.dataclass(frozen=True)
class Status:
    """What `status` returns: whether the library is enabled, for which apps, and how the process is patched."""

    enabled: bool
    """Whether any patch is applied."""
    policy: Policy | None
    """The policy for apps that are not installed, before their own config; None unless `enable` was called."""
    apps: tuple[tuple[str, Policy], ...]
    """The name and the policy of each app that is installed, or for which `enable` has captured a context. Several apps
    may have the same name. Before the first capture, this is the policy that the app's config makes now."""
    own: tuple[str, ...]
    """The top-level packages that count as own code because they belong to an app: see `install`."""
    patch_points: dict[str, list[str]]
    """For each patch point, the modules that its layers come from, the outermost first."""
    versions: dict[str, str]
    """The versions of this library, Python, Flask and wrapt."""
    gil: bool
    """Whether the global interpreter lock is enabled."""
    thread_inherit_context: bool
    """Whether threads of this Python start with the context variables of their starter."""
    refused: tuple[tuple[str, str], ...]
    """The name of each app whose config has a wrong option, and the error. Threads of such an app do not inherit."""
    kill_switch: bool
    """Whether ``FLASKTHREADS_AUTOPATCH=0`` is set in the environment, so that `install` and `enable` do nothing."""
    observes: bool
    """Whether the library observes: it records what would be inherited, and nothing is."""
