"""The table on the terminal, and two audits beside each other."""

from __future__ import annotations

import json

import pytest

from flaskthreads_autopatch.audit.compared import broken, difference, pairs
from flaskthreads_autopatch.audit.report import Audit
from flaskthreads_autopatch.audit.table import DEFAULT_WIDTH, NARROW, WIDE, table

from .records import NO_CONTEXT, NO_HAND, audit, record

BROKEN_OFF = "evil\n\x1b[31m\u202e"


def test_a_table() -> None:
    found = audit(
        record(failed=5, outlived=2, longest=0.44),
        record("shop.jobs:poll", NO_CONTEXT, place="", app="", endpoint="", starts=1200, most_at_once=1),
        record("shop.search:count", kind="task", raised=1, not_inherited={"g.db": "excluded by 'db'"}, app="a b"),
    )
    assert (
        table(found, None, 100)
        == f"""\
flaskthreads-autopatch audit of: pytest -q (observed only: nothing was inherited). 3 places in 3
processes.

place, and what runs there: the worst first            starts  at once  failed  own ctx  outlived by

shop/views.py:12 in checkout                                5        2       5        -        0.4 s
    shop.mail:send, a thread, started in a request for the endpoint 'checkout' of 'shop'
    => fixed by the library: all 5 runs failed for want of a context. With the library, they inherit
       current_app, request, session and g.user.

shop/views.py:12 in checkout                                5        2       -        -            -
    shop.search:count, a task, started in a request for the endpoint 'checkout' of 'a b'; 1 run
    raised another exception
    => inherits: current_app, request, session and g.user, which it does not see today. It did not
       fail without.
       not inherited: g.db (excluded by 'db').

(not started by code of the application)                1,200        1       -        -            -
    shop.jobs:poll, a thread, started in no app context
    => does not inherit: {NO_CONTEXT}. Nothing changes for it.

starts: how often it ran; at once: how many ran at the same time, at most, in one process; failed:
runs that raised "Working outside of ... context"; own ctx: runs that pushed a context of their own;
outlived by: the longest time that a run went on after the context in which it was started had
ended, with + if it still ran at the end.
"""
    )


@pytest.mark.parametrize(
    ("counts", "is_shown"),
    [({}, True), ({"failed": 1}, True), ({"longest": 99}, True), ({"helped": 1}, False), ({"reason": NO_HAND}, False)],
)
def test_what_is_not_inherited_is_shown_where_something_is(counts: dict[str, object], is_shown: bool) -> None:
    text = table(audit(record(not_inherited={"g.db": "excluded by 'db'"}, **counts)), None)
    assert ("not inherited: g.db (excluded by 'db')." in text) == is_shown


def test_no_place() -> None:
    title = "flaskthreads-autopatch audit of: pytest -q (with inheritance on). 0 places in 3 processes.\n"
    assert table(audit(is_on=True), None) == title


def test_a_long_command_is_cut() -> None:
    found = audit()._replace(command=["python", "-c", "x" * 999])
    assert f"audit of: python -c {'x' * 190}... (observed" in found.title()


@pytest.mark.parametrize("width", [1, NARROW, DEFAULT_WIDTH, WIDE, 1000])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = record("shop.a_long_module_name:a_long_function_name", place=f"/a{'/long' * 30}/path.py:12 in checkout")
    lines = table(audit(long, record(failed=1, still_running=1, longest=99)), audit(record()), width).splitlines()
    assert max(map(len, lines)) <= min(max(width, NARROW), WIDE)
    assert len(lines) > 10


def test_h39_nothing_of_the_program_controls_the_terminal() -> None:
    evil = record(
        BROKEN_OFF,
        place=BROKEN_OFF,
        app=BROKEN_OFF,
        endpoint=BROKEN_OFF,
        inherited={BROKEN_OFF: BROKEN_OFF},
        not_inherited={BROKEN_OFF: BROKEN_OFF},
    )
    found = Audit(False, [BROKEN_OFF], "0.1.0", 1, [evil, record("f", BROKEN_OFF)])
    text = table(found, found._replace(records=[record(BROKEN_OFF)]))
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count(r"\x1b[31m") >= 8


def test_json_and_back() -> None:
    records = [record(failed=1), record("shop.jobs:poll", NO_CONTEXT, longest=1.5)]
    data = json.loads(json.dumps(audit(*records[::-1], is_on=True).as_data()))
    assert Audit.from_data(data) == audit(*records, is_on=True)
    assert (data["mode"], data["command"], data["version"], data["processes"]) == ("on", ["pytest", "-q"], "0.1.0", 3)
    assert [(place["callable"], place["verdict"]) for place in data["places"]] == [
        ("shop.mail:send", "still fails"),
        ("shop.jobs:poll", "does not inherit"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {}, "no change"),
        ({"failed": 5}, {}, "failed 5 -> 0"),
        ({"raised": 1}, {"helped": 2}, "raised another exception 1 -> 0, pushed a context 0 -> 2"),
        ({"outlived": 3}, {}, "runs that outlived their context 3 -> 0"),
        ({"starts": 1}, {"starts": 9}, "started 1 -> 9"),
        ({"reason": NO_HAND}, {}, "did not inherit -> inherits"),
        ({}, {"reason": NO_HAND}, "inherits -> does not"),
    ],
)  # fmt: skip
def test_what_has_changed(before: dict[str, object], after: dict[str, object], text: str) -> None:
    [pair] = pairs(audit(record(**before)), audit(record(**after)))
    assert difference(pair) == text
    earlier, now = audit(record(**before)), audit(record(**after), is_on=True)
    assert f"since the earlier audit (observe): {text}" in " ".join(table(now, earlier, WIDE).split())


def test_a_place_whose_line_has_moved_is_the_same_if_it_is_the_only_one() -> None:
    earlier = audit(record(place="shop/views.py:12 in checkout", failed=1))
    [pair] = pairs(earlier, audit(record(place="shop/views.py:14 in checkout")))
    assert difference(pair) == "failed 1 -> 0, was at shop/views.py:12 in checkout"
    two = audit(record(place="shop/views.py:14 in checkout"), record(place="shop/views.py:15 in checkout"))
    assert [difference(pair).partition(" ")[0] for pair in pairs(earlier, two)] == ["gone", "new", "new"]


def test_what_is_new_and_what_is_gone() -> None:
    earlier, now = audit(record("shop:a"), record("shop:b", starts=7)), audit(record("shop:a"), record("shop:c"))
    found = {(pair.now or pair.earlier).key.callable: difference(pair) for pair in pairs(earlier, now)}
    assert found == {"shop:a": "no change", "shop:b": "gone (it had 7 runs)", "shop:c": "new"}
    text = table(now, earlier)
    _, _, gone = text.partition("Gone since the earlier audit:\n")
    assert gone.startswith("    shop/views.py:12 in checkout: shop:b, a thread")
    assert "Gone" not in table(now, now)


def test_a_place_that_inherits_at_times_is_compared_with_itself() -> None:
    both = [record(starts=1), record(reason=NO_CONTEXT, starts=2)]
    for order in (both, both[::-1]):
        assert [difference(pair) for pair in pairs(audit(*order), audit(*both))] == ["no change"] * 2


@pytest.mark.parametrize(
    ("before", "after", "promise"),
    [
        ({"failed": 5}, {}, None),
        (
            {"failed": 5},
            {"failed": 1},
            "the library was to fix it, or it never failed, but it fails for want of a context.",
        ),
        ({}, {"failed": 1}, "the library was to fix it, or it never failed, but it fails for want of a context."),
        (
            {"helped": 1},
            {"failed": 1},
            "the library was to fix it, or it never failed, but it fails for want of a context.",
        ),
        ({"helped": 1, "failed": 2}, {"failed": 2}, None),
        ({"failed": 2}, {"raised": 2}, "the library was to fix it, and now it raises another exception."),
        ({"failed": 2, "raised": 2}, {"raised": 2}, None),
        ({}, {"raised": 2}, None),
        ({"reason": NO_HAND, "failed": 1}, {"reason": NO_HAND, "failed": 1}, None),
        ({"reason": NO_HAND}, {}, "it was not to inherit, and inherits."),
        ({}, {"reason": NO_HAND}, None),
    ],
)
def test_a_promise_that_was_not_kept(before: dict[str, object], after: dict[str, object], promise: str | None) -> None:
    earlier, now = audit(record(**before)), audit(record(**after), is_on=True)
    expected = [] if promise is None else [f"shop.mail:send, started at shop/views.py:12 in checkout: {promise}"]
    assert broken(earlier, now) == expected
    # Only an observation promises, and only with inheritance on it is kept.
    assert broken(earlier, now._replace(is_on=False)) == broken(earlier._replace(is_on=True), now) == []


def test_a_place_that_is_new_or_gone_breaks_no_promise() -> None:
    assert broken(audit(record("shop:a", failed=1)), audit(record("shop:b", failed=1), is_on=True)) == []
