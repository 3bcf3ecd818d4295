"""Why a search stops: one function, in one order."""

from dataclasses import replace

import pytest

from kernelsearch.search import budget
from kernelsearch.search.budget import End, Outage, Refusal, Spent
from kernelsearch.search.facts import Counters, Reason, TokenCount
from kernelsearch.search.population import Attempt, Kind, Population, Verdict
from kernelsearch.search.ports import LiveSpec

KERNEL = Attempt(7, 0, Kind.FRESH, Verdict.CORRECT, 1.0, "", speedup=2.0, confirmed=True, baseline="eager")
EMPTY = Population.of(1)


def why(spec: LiveSpec, known: Population = EMPTY, **spent) -> Reason | None:
    end = budget.why_ended(spec, known, Spent(**{"now": 10.0, **spent}), unavailable_seconds=100.0)
    return end and end.reason


def spec(**parts) -> LiveSpec:
    return LiveSpec(**{"deadline": 600.0, **parts})


def test_a_search_with_time_and_budget_left_goes_on():
    assert why(spec(max_attempts=5, max_tokens=100, target_speedup=3.0)) is None


@pytest.mark.parametrize(
    ("limits", "known", "spent", "reason"),
    [
        ({"stop": True}, EMPTY, {}, Reason.CANCELLED),
        ({"suspend": True}, EMPTY, {}, Reason.SUSPENDED),
        ({"target_speedup": 2.0}, replace(EMPTY, best=KERNEL), {}, Reason.TARGET_REACHED),
        ({}, EMPTY, {"exhausted": "nothing is left"}, Reason.TARGET_REACHED),
        ({}, EMPTY, {"now": 600.0}, Reason.DEADLINE_REACHED),
        ({"max_attempts": 3}, replace(EMPTY, counters=Counters(correct=1, no_code=2)), {}, Reason.ATTEMPTS_EXHAUSTED),
        ({"max_tokens": 50}, replace(EMPTY, tokens=TokenCount(20, 30, 10)), {}, Reason.BUDGET_EXHAUSTED),
        ({"max_tokens": 50}, EMPTY, {"tokens_in_flight": 50}, Reason.BUDGET_EXHAUSTED),
        ({}, EMPTY, {"refusal": Refusal(Reason.PROBLEM_UNSOLVABLE, "")}, Reason.PROBLEM_UNSOLVABLE),
        ({}, EMPTY, {"now": 100.0, "model": Outage(0.0, "")}, Reason.MODEL_UNAVAILABLE),
        ({}, EMPTY, {"now": 100.0, "verifier": Outage(0.0, "")}, Reason.VERIFIERS_UNAVAILABLE),
    ],
)
def test_each_reason_has_its_cause(limits, known, spent, reason):
    assert why(spec(**limits), known, **spent) is reason


@pytest.mark.parametrize(
    ("limits", "known", "spent"),
    [
        ({"target_speedup": 2.1}, replace(EMPTY, best=KERNEL), {}),
        ({"target_speedup": 2.0}, replace(EMPTY, best=replace(KERNEL, confirmed=False)), {}),
        ({}, EMPTY, {"now": 599.9}),
        ({"max_attempts": 3}, replace(EMPTY, counters=Counters(correct=2, infrastructure=9)), {}),
        ({}, EMPTY, {"now": 99.0, "model": Outage(0.0, "")}),
    ],
)
def test_just_short_of_a_cause_the_search_goes_on(limits, known, spent):
    assert why(spec(**limits), known, **spent) is None


def test_what_the_user_asks_for_comes_before_everything():
    known = replace(EMPTY, best=KERNEL)

    assert why(spec(stop=True, suspend=True, target_speedup=1.0), known, now=900.0) is Reason.CANCELLED


def test_success_comes_before_limits_and_limits_before_failures():
    known = replace(EMPTY, best=KERNEL)

    assert why(spec(target_speedup=1.0), known, now=900.0) is Reason.TARGET_REACHED
    assert why(spec(), known, now=900.0, model=Outage(0.0, "")) is Reason.DEADLINE_REACHED


def test_only_limits_and_outages_wait_for_evaluations_in_flight():
    def grace(limits, **spent):
        return budget.why_ended(spec(**limits), EMPTY, Spent(**{"now": 10.0, **spent}), 100.0).grace

    assert grace({}, now=600.0)
    assert grace({}, now=200.0, model=Outage(0.0, ""))
    assert not grace({"stop": True})
    assert not grace({"suspend": True})


@pytest.mark.parametrize("reason", [Reason.DEADLINE_REACHED, Reason.ATTEMPTS_EXHAUSTED, Reason.BUDGET_EXHAUSTED])
def test_a_limit_met_without_a_correct_kernel_is_a_failure_that_tells_what_there_was(reason):
    known = replace(EMPTY, counters=Counters(incorrect=2, compile_error=1, infrastructure=4))

    settled = budget.settle(End(reason, "the limit", grace=True), known)

    assert settled.reason is Reason.NO_CORRECT_KERNEL
    assert settled.message == "the limit; none of 3 attempts was correct: 2 incorrect, 1 compile_error"


def test_a_limit_met_with_a_correct_kernel_stays_what_it_is():
    end = End(Reason.DEADLINE_REACHED, "the limit", grace=True)

    assert budget.settle(end, replace(EMPTY, best=KERNEL)) == end


def test_a_cancelled_search_is_cancelled_with_or_without_a_kernel():
    end = End(Reason.CANCELLED, "stopped", grace=False)

    assert budget.settle(end, EMPTY) == end


@pytest.mark.parametrize(("done", "in_flight", "may"), [(0, 2, True), (1, 2, False), (3, 0, False), (2, 0, True)])
def test_attempts_in_flight_count_against_the_limit(done, in_flight, may):
    known = replace(EMPTY, counters=Counters(incorrect=done))

    assert budget.may_start(spec(max_attempts=3), known, in_flight) is may


def test_without_a_limit_an_attempt_may_always_start():
    assert budget.may_start(spec(), replace(EMPTY, counters=Counters(incorrect=10**6)), 10)
