"""The list of all patch points: which attribute is wrapped by which wrapper."""

from __future__ import annotations

from . import futures, serving, thread_pool, threads
from .layers import PatchPoint

POINTS: tuple[PatchPoint, ...] = (*threads.POINTS, *futures.POINTS, *thread_pool.POINTS, *serving.POINTS)

LATE_POINTS: tuple[PatchPoint, ...] = futures.LATE_POINTS
"""Patched once their module is imported by other code."""
