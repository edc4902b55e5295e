"""Which distributions are installed in a folder, and which packages they provide."""

from __future__ import annotations

import functools
import os
import typing as t
from collections.abc import Iterator, Mapping


class Distribution(t.NamedTuple):
    """A distribution whose metadata lies in some folder."""

    name: str
    packages: frozenset[str]
    """The top-level packages and modules that it provides."""
    is_checkout: bool
    """Whether its metadata is an ``.egg-info``, which a checkout gets when it is installed in editable mode."""


@functools.lru_cache(maxsize=64)
def provided(folder: str) -> Mapping[str, tuple[Distribution, ...]]:
    """By top-level name, the distributions in *folder* that provide it."""
    from importlib import metadata  # 80 ms

    found: dict[str, tuple[Distribution, ...]] = {}
    for each in metadata.distributions(path=[folder]):
        # The name of the folder is there without parsing METADATA, which takes ten times as long as all the rest.
        place = os.path.basename(str(getattr(each, "_path", "")).rstrip("/"))
        name, packages = place.partition("-")[0], frozenset(_packages_of(each))
        for package in packages:
            distribution = Distribution(name, packages, place.endswith(".egg-info"))
            found[package] = (*found.get(package, ()), distribution)
    return found


def _packages_of(distribution: t.Any) -> Iterator[str]:
    names = distribution.read_text("top_level.txt")
    if names:
        yield from names.split()
        return
    # Wheels of uv, flit and hatch have no such file.
    for line in (distribution.read_text("RECORD") or "").splitlines():
        first, slash, _ = line.split(",", 1)[0].strip('"').partition("/")
        if slash and not first.endswith((".dist-info", ".data")) and first not in ("..", "__pycache__"):
            yield first
        elif not slash and first.endswith((".py", ".so", ".pyd")):
            yield first.partition(".")[0]


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution; ``"unknown"`` if it is bundled without its metadata."""
    from importlib import metadata  # 80 ms

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
