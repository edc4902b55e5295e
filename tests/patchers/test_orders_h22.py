"""Other patchers beside us, in every order of switching on and of switching off (H22).

Each case runs three times in processes of its own: with us, with bare wrapt layers in our place, and with nothing
there. With us the others behave as they do with the bare layers; and as they do alone, unless their own off switch
takes out whichever layer is the outermost.
"""

from __future__ import annotations

import itertools
import typing as t

import pytest

from flaskthreads_autopatch.suppression import THREADS_INHERIT_CONTEXT

from .helpers import RunCase, Steps

pytestmark = pytest.mark.patchers

CARRIES = {
    # Its patch of Thread.run is not met by a run() of a subclass or of an instance.
    "opentelemetry": {"Thread", "Timer", "submit", "map", "served"},
    # A run() that was assigned fails with it: it is called with the thread.
    "sentry": {"Thread", "Timer", "subclass", "submit", "map", "served"},
    "datadog": {"submit", "map"},
    # Nothing into threads; here it is its transaction in the request.
    "newrelic": {"served"},
    "plain": {"Thread", "Timer", "subclass", "assigned run", "submit", "map", "served"},
    "wrapt": {"Thread", "Timer", "subclass", "assigned run", "submit", "map", "served"},
}
"""By patcher, the ways into a thread on which it carries its value when it is on."""

TAKES_OUT_THE_OUTERMOST = {"opentelemetry", "plain"}
"""Patchers whose off switch takes out what lies on top, and so us if that is where we are."""

LEAVES = {
    # Its off switch writes what it finds into Timer, which was born without a start().
    "opentelemetry": {"Timer.start"},
    # It patches for good.
    "sentry": {"Thread.start", "ThreadPoolExecutor.submit"},
    "datadog": set(),
    "plain": set(),
    "wrapt": set(),
}
"""By patcher, what stays changed when it has been on and off, alone."""

SETS = [
    *((("ours", other)) for other in CARRIES),
    ("ours", "opentelemetry", "sentry"),
    ("ours", "plain", "wrapt"),
]
ORDERS = [(on, off) for names in SETS for on in itertools.permutations(names) for off in itertools.permutations(names)]


def steps_of(on: tuple[str, ...], off: tuple[str, ...]) -> Steps:
    """The switches in this order; where we were taken out by somebody else, we are switched on again."""
    steps = [("on", name) for name in on]
    for name in off:
        steps.append(("off", name))
        if took_us_out(on, off, name):
            steps.append(("on", "ours"))
    return tuple(steps)


def took_us_out(on: tuple[str, ...], off: tuple[str, ...], name: str) -> bool:
    """Whether *name* takes us out when it is switched off: we are on, and were put on top of it."""
    return name in TAKES_OUT_THE_OUTERMOST and on.index(name) < on.index("ours") and off.index(name) < off.index("ours")


@pytest.fixture(
    params=ORDERS, ids=lambda order: " ".join(f"+{n}" for n in order[0]) + " " + " ".join(f"-{n}" for n in order[1])
)
def order(request: pytest.FixtureRequest) -> t.Any:
    return request.param


def test_exactly_one_replay_while_we_are_on_and_none_while_we_are_off(order: t.Any, run_case: RunCase) -> None:
    steps = steps_of(*order)
    report = run_case("ours", steps)["steps"]
    alone = run_case("nothing", steps)["steps"]
    on = False
    for step, following, ways, ways_alone in zip(steps, [*steps[1:], None], report, alone, strict=True):
        if step[1] == "ours":
            on = step[0] == "on"
        if on and following == ("on", "ours"):
            continue  # we have just been taken out by somebody else
        for way, found in ways.items():
            n = 3 if way == "map" else 1
            if not on and THREADS_INHERIT_CONTEXT:
                # Python itself shows the parent's context in a thread (H15); none is entered for it.
                assert way == "served" or found["contexts"] == [0, 0], (step, way)
            elif way == "served":
                assert (found["users"], found["contexts"]) == ([None], [2, 2] if on else [1, 1]), (step, way)
            elif found["failures"]:
                assert found["failures"] == ways_alone[way]["failures"], (step, way)
                assert found["contexts"] == ([1, 1] if on else [0, 0]), (step, way)
            else:
                assert found["users"] == (["alice"] if on else [None]) * n, (step, way)
                assert found["contexts"] == ([n, n] if on else [0, 0]), (step, way)


def test_the_others_carry_what_they_carry(order: t.Any, run_case: RunCase) -> None:
    steps = steps_of(*order)
    with_us, stand_in = run_case("ours", steps)["steps"], run_case("stand-in", steps)["steps"]
    on: set[str] = set()
    for (switch, name), ways, ways_with_stand_in in zip(steps, with_us, stand_in, strict=True):
        (on.add if switch == "on" else on.discard)(name)
        others = on - {"ours"}
        for way, found in ways.items():
            expected = ways_with_stand_in[way]
            if found["failures"]:
                assert found["failures"] == expected["failures"]
                assert (way, "sentry" in others) == ("assigned run", True)
            elif not expected["failures"]:
                for other, carried in found["carried"].items():
                    # Sentry calls the run() below OpenTelemetry's patch of it, and calls ours, which calls the patch.
                    more = (other, "sentry" in others) == ("opentelemetry", True) and set(carried) == {"carried"}
                    # Where bare layers keep the off switch of another one from finding its own, ours do not.
                    less = other not in others and set(carried) == {None}
                    assert carried == expected["carried"][other] or more or less, (other, way)
            if others == set(order[0]) - {"ours"} and len(others) == 1 and not found["failures"]:
                for other in others:
                    assert way not in CARRIES[other] or set(found["carried"][other]) == {"carried"}, (other, way)


def test_nothing_of_ours_is_left(order: t.Any, run_case: RunCase) -> None:
    on, off = order
    steps = steps_of(on, off)
    left = run_case("ours", steps)["left"]
    with_stand_in = run_case("stand-in", steps)["left"]
    alone = run_case("nothing", steps)["left"]
    assert not any("flaskthreads_autopatch" in layer for layer in left.values())
    assert left.keys() <= with_stand_in.keys()
    if any(took_us_out(on, off, name) for name in off):
        return  # in our place it left a layer of its own
    if "datadog" in on and on.index("ours") < on.index("datadog"):
        # It does not find its own patch again if any wrapt layer lay above the function when it patched.
        assert left == with_stand_in
        assert left.keys() == {"ThreadPoolExecutor.submit"}
        return
    assert left.keys() <= alone.keys()
    if len(on) == 2:
        assert left == alone
        assert "newrelic" in on or left.keys() == LEAVES[next(name for name in on if name != "ours")]
