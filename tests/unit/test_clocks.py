"""Whether two machines' times of day agree, as far as an answer in whole seconds can tell."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelsearch.controller.plan import clocks

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("server", "asked", "answered", "behind"),
    [
        (0, 0.2, 0.3, 0),  # it cut 0.2 to 0
        (0, -0.3, 0.1, 0),
        (0, -5, 5, 0),  # a slow answer tells nothing
        (10, 0, 1, 9),
        (0, 10, 11, -9),
        (2, 0, 0, 2),
    ],
)
def test_a_clock_is_wrong_only_as_far_as_the_answer_proves_it(server, asked, answered, behind):
    assert clocks.skew(at(server), at(asked), at(answered)) == pytest.approx(behind)


@given(st.integers(-10_000_000, 10_000_000), st.floats(0, 30), st.floats(0, 30), st.floats(0, 0.999))
def test_never_more_is_said_than_there_is(microseconds, going, coming, fraction):
    true, asked = microseconds / 1e6, at(fraction)
    stamped = (asked + timedelta(seconds=going + true)).replace(microsecond=0)

    found = clocks.skew(stamped, asked, asked + timedelta(seconds=going + coming))

    assert abs(found) <= abs(true) + 1e-5
    assert found * true >= 0


@pytest.mark.parametrize("seconds", [-2, -1, 0, 2])
def test_two_seconds_are_not_worth_a_word(seconds):
    assert clocks.skew_warning(seconds) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "3 s behind the API server's, so the search ends as much too late"), (-60, "60 s ahead of"), (2.1, "behind")],
)
def test_a_warning_says_which_way_and_what_comes_of_it(seconds, said):
    assert said in clocks.skew_warning(seconds)
