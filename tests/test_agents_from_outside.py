"""Switched on together with agents that are switched on from outside too, whichever command stands first."""

from __future__ import annotations

import json

import pytest

from .processes import DOCTOR, LAUNCHER, LEGACY, run, script, serving
from .test_legacy_apps import INHERITED, SERVERS

pytestmark = pytest.mark.patchers

QUIET = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "DD_TRACE_AGENT_URL": "unix:///no/such/socket",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
}
"""The agents patch as ever, and reach nobody."""

SUBMIT = "concurrent.futures.thread.ThreadPoolExecutor.submit"
AGENTS = {
    "opentelemetry-instrument": "opentelemetry.instrumentation.threading",
    "ddtrace-run": "ddtrace.contrib.internal.futures.threading",
}
"""By command, the module of the layer that it puts on ThreadPoolExecutor.submit."""


@pytest.fixture(params=["launcher first", "agent first"])
def both(request, agent):
    """The launcher and the agent's command, in one order or the other."""
    commands = [LAUNCHER, (script(agent),)]
    if request.param == "agent first":
        commands.reverse()
    return [part for command in commands for part in command]


@pytest.mark.parametrize("agent", AGENTS)
def test_the_doctor_finds_all_well_and_names_the_agent(agent, both):
    done = run(*both, *DOCTOR, "--app", "shop:create_app", "--json", cwd=LEGACY, **QUIET)
    found = json.loads(done.stdout)
    assert (done.returncode, found["problems"]) == (0, [])
    assert set(found["status"]["patch_points"][SUBMIT]) == {"flaskthreads_autopatch.patching.futures", AGENTS[agent]}


@pytest.mark.parametrize("agent", AGENTS)
def test_the_threads_of_a_legacy_app_inherit(agent, both):
    with serving(*both, *SERVERS["gunicorn"], **QUIET) as site:
        assert site.get("/?user=ada") == INHERITED
