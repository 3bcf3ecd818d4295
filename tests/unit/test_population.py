"""What is remembered: counted once, bounded, and the best never gets worse."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given

import strategies
from fakes import report, source
from kernelsearch.search import population
from kernelsearch.search.facts import Counters
from kernelsearch.search.population import Attempt, Kind, Population, Verdict
from kernelsearch.search.ports import Tokens


def attempt(number=1, verdict="correct", speedup=1.5, *, confirmed=True, chain=0, **parts) -> Attempt:
    correct = verdict == "correct"
    defaults = {"kind": Kind.FRESH, "seconds": float(number), "reason": "", "source": source(f"k{number}")}
    return Attempt(
        id=number,
        chain=chain,
        verdict=Verdict(verdict),
        speedup=speedup,
        confirmed=confirmed and correct,
        error_class="" if correct else verdict,
        **{**defaults, **parts},
    )


def remembered(*attempts: Attempt, chains: int = 3) -> Population:
    known = Population.of(chains)
    for each in attempts:
        known = population.remember(known, each, Tokens(1, 10, 5))
    return known


@given(strategies.histories())
def test_every_attempt_is_counted_once_and_cut_ones_never(history):
    known = strategies.after(history)

    assert known.counters.total == sum(each.verdict is not Verdict.CUT for each, _ in history)


@given(strategies.histories())
def test_all_tokens_are_counted(history):
    known = strategies.after(history)

    assert known.tokens.total == sum(tokens.prompt + tokens.completion for _, tokens in history)


@given(strategies.histories())
def test_the_best_never_gets_worse(history):
    figures = []
    for length in range(len(history) + 1):
        best = strategies.after(history[:length]).best
        figures.append(-1.0 if best is None else best.as_best().speedup or 0.0)

    assert figures == sorted(figures)


@given(strategies.histories())
def test_the_best_is_correct_and_its_figure_confirmed(history):
    best = strategies.after(history).best

    correct = [each for each, _ in history if each.verdict is Verdict.CORRECT]
    assert (best is None) == (not correct)
    if best and not best.confirmed:
        assert not any(each.confirmed and each.speedup for each in correct)
        assert best.as_best().speedup is None


@given(strategies.histories(times=8))
def test_everything_is_bounded(history):
    known = strategies.after(history)

    assert len(known.others) <= population.MAX_OTHERS
    assert len(known.recent) <= population.MAX_RECENT
    assert len(known.curve) <= population.MAX_CURVE
    assert len(known.chains) == strategies.CHAINS


@given(strategies.histories())
def test_the_curve_only_rises_in_time_attempts_and_speed(history):
    curve = strategies.after(history).curve

    for earlier, later in pairwise(curve):
        assert earlier.seconds < later.seconds
        assert earlier.attempts < later.attempts
        assert (earlier.speedup or 0) <= (later.speedup or 0)


def test_a_long_curve_keeps_its_first_and_last_point():
    known = remembered(*(attempt(number, speedup=1 + number / 10) for number in range(1, 120)))

    assert len(known.curve) == population.MAX_CURVE
    assert (known.curve[0].attempts, known.curve[-1].attempts) == (1, 119)


def test_a_higher_figure_that_is_not_confirmed_does_not_replace_the_best():
    known = remembered(attempt(1, speedup=1.2), attempt(2, speedup=9.0, confirmed=False))

    assert known.best.id == 1


def test_an_unconfirmed_kernel_is_better_than_none_and_gives_way_to_any_figure():
    first = remembered(attempt(1, speedup=9.0, confirmed=False))
    second = population.remember(first, attempt(2, speedup=0.8), Tokens())

    assert first.best.id == 1
    assert second.best.id == 2


def test_equal_figures_leave_the_older_best():
    assert remembered(attempt(1), attempt(2)).best.id == 1


def test_the_first_correct_moment_stays():
    known = remembered(attempt(1, "incorrect"), attempt(2), attempt(3, speedup=2.0))

    assert known.first_correct_seconds == 2.0


def test_failures_of_one_class_are_counted_in_a_row():
    known = remembered(
        attempt(1, "incorrect"),
        attempt(2, "incorrect", kind=Kind.REPAIR),
        attempt(3, "timeout", kind=Kind.REPAIR),
    )

    assert (known.chains[0].streak, known.chains[0].same) == (3, 1)


@pytest.mark.parametrize("kind", [Kind.FRESH, Kind.RESTART, Kind.IMPROVE])
def test_a_new_line_of_work_begins_its_own_count(kind):
    known = remembered(attempt(1, "incorrect"), attempt(2, "incorrect", kind=kind))

    assert (known.chains[0].streak, known.chains[0].same) == (1, 1)


def test_chains_do_not_share_their_counts():
    known = remembered(attempt(1, "incorrect", chain=0), attempt(2, "incorrect", chain=1))

    assert [chain.streak for chain in known.chains] == [1, 1, 0]


def test_others_are_the_most_different_correct_kernels():
    known = remembered(
        attempt(1, speedup=2.0, source="alpha beta gamma delta"),
        attempt(2, speedup=1.9, source="alpha beta gamma delta epsilon"),
        attempt(3, speedup=0.5, source="one two three"),
        attempt(4, speedup=0.4, source="four five six"),
    )

    assert {each.id for each in known.others} == {2, 3, 4}
    assert known.others[0].id == 3


def test_the_same_kernel_is_not_kept_twice():
    known = remembered(attempt(1, speedup=2.0, source="a b c"), attempt(2, speedup=1.0, source="a  b\nc"))

    assert known.others == ()


def test_a_dethroned_best_is_kept_as_another():
    known = remembered(attempt(1, speedup=1.0, source="a b"), attempt(2, speedup=2.0, source="c d"))

    assert [each.id for each in known.others] == [1]


@pytest.mark.parametrize(
    ("best", "status", "ratio", "expected"),
    [
        (None, "correct", 0.5, True),
        (None, "correct", None, True),
        (None, "suspicious", 12.0, True),
        (None, "suspicious", None, False),
        (1.5, "correct", 1.6, True),
        (1.5, "correct", 1.5, False),
        (1.5, "correct", None, False),
        (1.5, "incorrect", None, False),
        (1.5, "reward_hack", 9.0, False),
    ],
)
def test_a_second_verification_is_for_what_would_be_the_best(best, status, ratio, expected):
    known = remembered(attempt(1, speedup=best)) if best else remembered()

    assert population.beats(known, report(status, ratio=ratio)) is expected


def test_anything_timed_beats_a_best_without_a_figure():
    known = remembered(attempt(1, speedup=None))

    assert population.beats(known, report("correct", ratio=0.1))


def test_more_chains_begin_empty_and_fewer_forget():
    known = remembered(attempt(1, "incorrect", chain=2))

    assert known.with_chains(4).chains[3].last is None
    assert known.with_chains(4).chains[2].last.id == 1
    assert len(known.with_chains(1).chains) == 1


def test_a_chain_that_forgets_starts_afresh_but_keeps_its_place_in_the_order_of_ideas():
    known = population.forget_last(remembered(attempt(1, "incorrect")), 0)

    assert known.chains[0].last is None
    assert (known.chains[0].steps, known.chains[0].starts) == (1, 1)


def test_what_infrastructure_broke_is_no_attempt():
    known = population.count_infrastructure(remembered(), 3)

    assert known.counters == Counters(infrastructure=3)
    assert known.counters.total == 0


def test_differences_go_from_nothing_to_everything():
    assert population.difference("a b c", "c b a") == 0.0
    assert population.difference("a b", "c d") == 1.0
    assert population.difference("", "") == 0.0


def test_an_unconfirmed_figure_is_never_shown():
    best = replace(attempt(1), confirmed=False).as_best()

    assert (best.speedup, best.ci99, best.microseconds) == (None, None, None)
