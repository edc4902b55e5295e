"""The list of all patch points: which attribute is wrapped by which wrapper."""

from __future__ import annotations

from . import futures, green_pools, greenlets, low_level, serving, thread_pool, threads
from .layers import Hook, PatchPoint

POINTS: tuple[PatchPoint, ...] = (
    *threads.POINTS,
    *low_level.POINTS,
    *futures.POINTS,
    *thread_pool.POINTS,
    *serving.POINTS,
)

LATE_POINTS: tuple[PatchPoint, ...] = (*green_pools.LATE_POINTS, *greenlets.LATE_POINTS)
"""Patched once their module is imported by other code."""

HOOKS: tuple[Hook, ...] = greenlets.HOOKS
"""Added once their module is imported by other code."""
