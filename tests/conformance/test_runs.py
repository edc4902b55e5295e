"""What counts as a difference between the columns of a suite."""

from __future__ import annotations

from collections import Counter

import pytest

from .runs import differing, is_by_context, is_unsteady
from .suites import CONTEXT, CONTROL, OBSERVED, OFF, ON

PASSED, FAILED = Counter(passed=6), Counter(failed=6)
BOTH = Counter(passed=5, failed=1)


def test_a_test_that_has_another_outcome_or_does_not_run_in_a_column_differs() -> None:
    off = {"same": ["passed"], "fails": ["passed"], "vanishes": ["passed"], "subtests": ["failed", "failed"]}
    on = {"same": ["passed"], "fails": ["failed"], "appears": ["passed"], "subtests": ["failed"]}
    assert differing({OFF: off, ON: on}) == ["fails", "vanishes", "appears"]


def seen(off: Counter[str], on: Counter[str], context: Counter[str], control: Counter[str]) -> dict[str, Counter[str]]:
    return {OFF: off, ON: on, CONTEXT: context, OBSERVED: context, CONTROL: control}


@pytest.mark.parametrize(
    ("columns", "unsteady", "by_context"),
    [
        (seen(BOTH, PASSED, FAILED, BOTH), True, True),
        (seen(PASSED, PASSED, FAILED, FAILED), False, True),
        (seen(PASSED, PASSED, FAILED, PASSED), False, False),
        (seen(PASSED, PASSED, BOTH, PASSED), False, False),
        (seen(PASSED, FAILED, FAILED, FAILED), False, False),
        (seen(PASSED, FAILED, PASSED, PASSED), False, False),
        ({OFF: PASSED, ON: FAILED}, False, False),
    ],
)
def test_a_difference_is_explained_only_by_what_was_seen_with_the_patches_off(
    columns: dict[str, Counter[str]], unsteady: bool, by_context: bool
) -> None:
    assert (is_unsteady(columns), is_by_context(columns)) == (unsteady, by_context)
