"""One process of a scenario: ``python -m tests.benchmarks.worker NAME FILE [--quick]``."""

from __future__ import annotations

import sys

from . import harness
from .scenarios import BY_NAME

name, path = sys.argv[1:3]
effort = harness.QUICK if "--quick" in sys.argv else harness.FULL
harness.timed(BY_NAME[name], effort).dump(path)
