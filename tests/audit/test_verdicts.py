"""The rules of the verdicts: one name and one proposal for each mixture of counts."""

from __future__ import annotations

import re

import pytest

from flaskthreads_autopatch import catalogue, observation, who_inherits
from flaskthreads_autopatch.audit.record import BY_A_RUN
from flaskthreads_autopatch.audit.verdicts import LONG, NAMES, judge, seconds, worst_first

from .records import INHERITED, NO_CONTEXT, NO_HAND, record

ALL = "current_app, request, session and g.user"
ADVICE = 'start it in suppress_inheritance() or add ignore=["shop.mail:send"]'
COPIED = "pass it copy_current_app_context(...) of what it calls"
OWN = "it is outside of a request in there, unless it copies the request context"


def sentence(on: bool = False, **counts: object) -> str:
    """The verdict on a record, as it is shown."""
    verdict = judge(record(**counts), on)
    assert verdict.name in NAMES
    return f"{verdict.name}: {verdict.proposal}"


def test_it_inherits() -> None:
    assert sentence() == f"inherits: {ALL}, which it does not see today. It did not fail without."
    assert sentence(on=True) == f"inherits: {ALL}."


def test_what_a_run_starts_that_would_inherit_inherits_too() -> None:
    inherits = "inherits: what its starter inherits, which has no context while the library only observes."
    assert sentence(reason=BY_A_RUN) == inherits
    assert sentence(reason=BY_A_RUN, starts=3, failed=3) == (
        f"{inherits} All 3 runs failed for want of a context: audit --on shows what is left of that."
    )


def test_an_app_context_alone_is_inherited_too() -> None:
    assert sentence(inherited={}).startswith("inherits: current_app, which")


def test_a_long_list_of_names_is_cut() -> None:
    names = {f"g.{letter}": "" for letter in "abcdefgh"}
    assert sentence(inherited=names).startswith("inherits: current_app, g.a, g.b, g.c, g.d and 4 more, which")


@pytest.mark.parametrize(
    ("failed", "of", "who"),
    [(5, 5, "all 5 runs"), (3, 5, "3 of 5 runs"), (1, 1, "the run"), (1000, 2000, "1,000 of 2,000 runs")],
)
def test_what_fails_for_want_of_a_context_is_fixed(failed: int, of: int, who: str) -> None:
    verb = "it inherits" if of == 1 else "they inherit"
    expected = f"fixed by the library: {who} failed for want of a context. With the library, {verb} {ALL}."
    assert sentence(failed=failed, starts=of) == expected


def test_what_needs_a_value_that_is_not_inherited_is_not_fixed() -> None:
    found = sentence(failed=5, not_inherited={"g.db": "excluded by 'db'", "g.tx": "excluded by 'tx'"})
    assert found.endswith(f"they inherit {ALL}. They must open their own g.db and g.tx.")


def test_what_fails_at_times_and_outlives_its_request_at_others_is_fixed_with_a_warning() -> None:
    found = sentence(failed=3, outlived=2, longest=LONG + 1)
    assert found.startswith("fixed by the library: 3 of 5 runs failed")
    assert found.endswith(f" It went on for 11 s after its request: {ADVICE} if it needs no request.")
    assert judge(record(failed=3, longest=LONG + 1), False).severity > judge(record(failed=3), False).severity


@pytest.mark.parametrize(
    ("counts", "how"), [({}, "went on for 11 s"), ({"still_running": 1}, "still ran at the end, 11 s")]
)
def test_what_goes_on_after_its_request_outlives_it(counts: dict[str, int], how: str) -> None:
    found = sentence(outlived=2, longest=LONG + 1, **counts)
    expected = f"{ADVICE}. It {how} after its request, and it would inherit {ALL} for all that time."
    assert found == f"outlives its request: {expected}"


def test_what_still_runs_outlives_its_request_however_short_the_audit_was() -> None:
    assert sentence(outlived=1, still_running=1, longest=0.2).startswith("outlives its request: ")


def test_what_ends_soon_after_its_request_does_not_outlive_it() -> None:
    assert sentence(outlived=5, longest=LONG).startswith("inherits: ")


def test_outside_of_a_request_it_outlives_a_context() -> None:
    found = sentence(outlived=1, longest=99, endpoint="", inherited={"g.user": ""})
    assert "It went on for 99 s after the context that started it, and it would inherit current_app and g.user" in found


def test_the_proposal_names_the_class_of_a_thread() -> None:
    assert 'ignore=["shop:IndexWorker"]' in sentence(callable="shop:IndexWorker.run", still_running=1)
    assert 'ignore=["shop:Index.run"]' in sentence(callable="shop:Index.run", still_running=1, kind="task")


def test_what_pushes_a_context_keeps_it() -> None:
    assert sentence(helped=5) == "provides its own context: in every run, so nothing changes in there."


def test_what_pushes_a_context_at_times_inherits_at_others() -> None:
    expected = f"provides its own context: in 2 of 5 runs. Before, and in the other runs, it inherits {ALL}."
    assert sentence(helped=2) == expected


def test_what_pushes_a_context_and_outlives_its_request_need_not_inherit() -> None:
    found = sentence(helped=5, still_running=1, longest=1)
    assert (
        found == f"provides its own context: in every run. It still ran at the end, 1.0 s after its request: {ADVICE}."
    )


def test_what_pushes_a_context_and_fails_is_not_promised_to_be_fixed() -> None:
    failures = "in 4 of 5 runs. 2 of 5 runs failed for want of a context"
    expected = f"provides its own context: {failures}; those that failed in there keep failing, because {OWN}."
    assert sentence(helped=4, failed=2) == expected


@pytest.mark.parametrize("reason", [NO_CONTEXT, NO_HAND, *sorted(set(catalogue.IGNORED.values()))])
def test_what_does_not_inherit_says_why(reason: str) -> None:
    assert sentence(reason=reason) == f"does not inherit: {reason}. Nothing changes for it."
    assert sentence(reason=reason, still_running=1, longest=99).startswith("does not inherit: ")


@pytest.mark.parametrize(
    ("reason", "help"),
    [
        (NO_HAND, f'add own=["acme"] if that is a package of yours, or {COPIED}'),
        (NO_CONTEXT, 'add provide=["shop.mail:send"] to install(app), or push app.app_context() in it'),
        ("ignored by 'shop.*'", "remove 'shop.*' from the option ignore, or push app.app_context() in it"),
        (observation.NO_POLICY, "call install(app) for it, or correct the option, which the log names"),
        (
            observation._SUPPRESSED,
            "start it outside of suppress_inheritance(), or push app.app_context() in it",
        ),
        (observation._ENDING, "push app.app_context() in it"),
        (observation._WORKER, "push app.app_context() in the initializer of the pool"),
        (catalogue._POOL, "push app.app_context() in the initializer of the pool"),
    ],
)  # fmt: skip
def test_what_does_not_inherit_and_fails_says_what_helps(reason: str, help: str) -> None:
    failures = "3 of 5 runs failed for want of a context, which the library does not change"
    assert sentence(reason=reason, failed=3) == f"does not inherit: {reason}. {failures}: {help}."
    assert sentence(reason=reason, failed=3, helped=2).startswith("does not inherit: ")


@pytest.mark.parametrize(
    ("what", "starter", "help"),
    [
        ("acme:f", "waitress.task", 'add own=["acme", "waitress"] if those are packages of yours, or'),
        ("threading:_f", "waitress", 'add own=["waitress"] if that is a package of yours, or'),
        ("queue:f", "logging.handlers", "pass it copy_current_app_context(...)"),
    ],
)
def test_own_is_proposed_for_packages_that_are_not_the_standard_library(what: str, starter: str, help: str) -> None:
    assert f"which the library does not change: {help}" in sentence(
        reason=who_inherits.no_hand(what, starter), failed=1
    )


def test_what_needs_no_inheritance_since_it_pushes_a_context() -> None:
    assert sentence(reason=NO_CONTEXT, helped=5) == "provides its own context: in every run, so nothing changes for it."
    expected = f"provides its own context: in 1 of 5 runs. It does not inherit: {NO_CONTEXT}."
    assert sentence(reason=NO_CONTEXT, helped=1) == expected


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({}, "its traceback, which the command has printed, names the line"),
        ({"helped": 1}, f"it pushes a context of its own, and {OWN}"),
        (
            {"inherited": {"g.user": ""}},
            "it inherits an app context without a request, because none was active, or because of request=False",
        ),
        (
            {"reason": NO_CONTEXT},
            f"it does not inherit, because {NO_CONTEXT}. To change that, add"
            ' provide=["shop.mail:send"] to install(app), or push app.app_context() in it',
        ),
    ],
)
def test_what_fails_with_inheritance_on_still_fails(counts: dict[str, object], why: str) -> None:
    found = sentence(on=True, failed=1, **counts)
    assert found == f"still fails: 1 of 5 runs failed for want of a context, although inheritance is on: {why}."


def test_what_still_ran_when_its_process_ended_soon_after_may_have_been_about_to_end() -> None:
    assert sentence(still_running=1, longest=0.2, callable="shop:mail") == (
        'outlives its request: start it in suppress_inheritance() or add ignore=["shop:mail"], if it runs for as long'
        " as the process. It still ran at the end, 0.2 s after its request."
    )


def test_with_inheritance_on_the_other_verdicts_are_the_same() -> None:
    for counts in ({"helped": 5}, {"reason": NO_CONTEXT}, {"reason": NO_HAND, "helped": 5}):
        assert sentence(on=True, **counts) == sentence(**counts)
    assert f"and it inherits {ALL} for all that time" in sentence(on=True, still_running=1, longest=99)


def test_the_worst_comes_first() -> None:
    records = [
        record("shop:none", NO_CONTEXT),
        record("shop:helps", helped=5),
        record("shop:inherits", starts=9),
        record("shop:inherits_seldom", starts=2),
        record("shop:fixed", failed=2),
        record("shop:fixed_more", failed=3),
        record("shop:fixed_and_long", failed=1, longest=99),
        record("shop:outlives", still_running=1),
        record("shop:no_help", NO_CONTEXT, failed=1),
    ]
    expected = "no_help outlives fixed_and_long fixed_more fixed inherits inherits_seldom helps none"
    for order in (records, records[::-1]):
        found = [each.key.callable.removeprefix("shop:") for each, _ in worst_first(order, False)]
        assert " ".join(found) == expected
    on = [each.key.callable for each, verdict in worst_first(records, True) if verdict.name == "still fails"]
    assert on == [each.key.callable for each, _ in worst_first(records, True)][: len(on)]
    assert len(on) == 4


MIXTURES = [
    (on, {"reason": reason, "failed": failed, "helped": helped, "longest": longest, "inherited": INHERITED})
    for on in (False, True)
    for reason in ("", NO_CONTEXT, NO_HAND)
    for failed in (0, 1, 5)
    for helped in (0, 1, 5)
    for longest in (0.0, 99.0)
]


@pytest.mark.parametrize(("on", "counts"), MIXTURES)
def test_every_proposal_is_a_sentence(on: bool, counts: dict[str, object]) -> None:
    found = sentence(on, **counts).replace("(...)", "()")
    assert re.fullmatch(r"[a-z ]+: [^ ].*[\w)\]]\.", found)
    assert "  " not in found
    assert ".." not in found


@pytest.mark.parametrize(("number", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (3605.4, "3,605 s")])
def test_seconds(number: float, text: str) -> None:
    assert seconds(number) == text
