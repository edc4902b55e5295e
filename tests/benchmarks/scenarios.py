"""All scenarios, in the order in which they are shown."""

from __future__ import annotations

from . import concurrency, fan_out, memory, micro, off, startup, threads

SCENARIOS = (
    *micro.SCENARIOS,
    *threads.SCENARIOS,
    *off.SCENARIOS,
    *concurrency.SCENARIOS,
    *memory.SCENARIOS,
    *startup.SCENARIOS,
    *fan_out.SCENARIOS,
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
