"""The list of all patch points: which attribute is wrapped by which wrapper."""

from __future__ import annotations

from . import patches, thread_pool, threads
from .layers import PatchPoint

POINTS: tuple[PatchPoint, ...] = (*threads.POINTS, *patches.POINTS, *thread_pool.POINTS)

LATE_POINTS: tuple[PatchPoint, ...] = patches.LATE_POINTS
"""Patched once their module is imported by other code."""
