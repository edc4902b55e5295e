"""What the tests with generated values share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

by_no_clock = settings(deadline=None, suppress_health_check=list(HealthCheck))
"""Decorates a test with generated values, which would otherwise fail on a slow machine."""
