"""What each chain does next, from what is remembered."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from kernelsearch.search import ideas, population, strategy
from kernelsearch.search.population import Attempt, Chain, Kind, Population, Verdict
from kernelsearch.search.ports import Tokens
from kernelsearch.search.strategy import BestOfN, Fresh, Improve, Repair, Restart, Serial, Stop

best_of_n = BestOfN(seed=0, device="cpu")


def failure(number=1, kind=Kind.FRESH, error_class="incorrect", *, on_correct=False) -> Attempt:
    return Attempt(
        number,
        0,
        kind,
        Verdict.INCORRECT,
        float(number),
        "",
        error_class=error_class,
        on_correct=on_correct,
        source="s",
    )


def success(number=1, *, roofline=None, bound="", chain=0) -> Attempt:
    return Attempt(
        number,
        chain,
        Kind.FRESH,
        Verdict.CORRECT,
        float(number),
        "",
        source="s",
        confirmed=True,
        speedup=1.5,
        roofline=roofline,
        bound=bound,
    )


def after(*attempts: Attempt, chains: int = 2) -> Population:
    known = Population.of(chains)
    for each in attempts:
        known = population.remember(known, each, Tokens())
    return known


def test_the_first_chain_follows_the_models_own_judgement():
    assert best_of_n.next_step(after(), 0) == Fresh("")


def test_other_chains_begin_with_an_idea_each():
    known = Population.of(7)

    steps = [best_of_n.next_step(known, chain) for chain in range(1, 7)]

    assert len({step.idea for step in steps}) == 6
    assert "" not in {step.idea for step in steps}


def test_a_failure_is_repaired():
    known = after(failure())

    assert best_of_n.next_step(known, 0) == Repair(known.chains[0].last)


def test_after_some_failures_of_one_class_another_idea_is_tried():
    known = after(failure(1), failure(2, Kind.REPAIR), failure(3, Kind.REPAIR))

    step = best_of_n.next_step(known, 0)

    assert isinstance(step, Restart)
    assert step.idea in ideas.APPROACHES["cpu"]


def test_failures_that_change_are_given_more_patience_but_not_for_ever():
    attempts = [failure(1), *(failure(n, Kind.REPAIR, f"class {n}") for n in range(2, 7))]

    assert isinstance(best_of_n.next_step(after(*attempts[:5]), 0), Repair)
    assert isinstance(best_of_n.next_step(after(*attempts), 0), Restart)


def test_each_restart_takes_another_idea():
    seen = []
    known = after()
    for number in range(1, 5):
        known = population.remember(known, failure(number, Kind.RESTART), Tokens())
        seen.append(best_of_n._idea(known.chains[0], 0))

    assert len(set(seen)) == 4


def test_a_success_anywhere_is_improved_by_every_chain():
    known = after(failure(1), success(2, chain=1))

    steps = [best_of_n.next_step(known, chain) for chain in (0, 1)]

    assert all(isinstance(step, Improve) and step.attempt.id == 2 for step in steps)
    assert steps[0].method != steps[1].method


def test_an_improvement_that_fails_is_repaired():
    known = after(success(1), failure(2, Kind.IMPROVE, on_correct=True))

    assert best_of_n.next_step(known, 0) == Repair(known.chains[0].last)


def test_an_improvement_that_keeps_failing_is_given_up_for_another_method():
    known = after(
        success(1),
        failure(2, Kind.IMPROVE, on_correct=True),
        failure(3, Kind.REPAIR, on_correct=True),
        failure(4, Kind.REPAIR, on_correct=True),
    )

    assert isinstance(best_of_n.next_step(known, 0), Improve)


def test_a_failure_after_a_given_up_improvement_is_repaired_again():
    known = after(
        success(1),
        failure(2, Kind.IMPROVE, on_correct=True),
        failure(3, Kind.REPAIR, on_correct=True),
        failure(4, Kind.REPAIR, on_correct=True),
        failure(5, Kind.IMPROVE, on_correct=True),
    )

    assert isinstance(best_of_n.next_step(known, 0), Repair)


def test_the_method_fits_what_bounds_the_best():
    for bound, methods in ideas.METHODS["cpu"].items():
        step = best_of_n.next_step(after(success(bound=bound)), 0)
        assert step.method in methods


def test_methods_take_turns():
    known = after(success(bound="memory"))
    seen = [best_of_n._method(known.best, Chain(steps=steps), 0) for steps in range(4)]

    assert set(seen) == set(ideas.METHODS["cpu"]["memory"])


def test_at_the_roofline_nothing_is_left_to_do():
    step = best_of_n.next_step(after(success(roofline=0.95)), 0)

    assert step == Stop("the best kernel reaches 95% of the roofline: nothing is left to gain")


def test_a_roofline_share_that_is_not_confirmed_stops_nobody():
    known = after(replace(success(roofline=0.99), confirmed=False))

    assert isinstance(best_of_n.next_step(known, 0), Improve)


def test_serial_is_one_chain():
    assert Serial(0, "cpu").width(8) == 1
    assert best_of_n.width(8) == 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@given(known=strategies.populations, seed=st.integers(), chain=st.integers(0, strategies.CHAINS - 1))
def test_every_population_has_a_next_step_and_always_the_same(device, known, seed, chain):
    chosen = BestOfN(seed, device)

    step = chosen.next_step(known, chain)

    assert step == BestOfN(seed, device).next_step(known, chain)
    assert known.best is None or not isinstance(step, Fresh | Restart)


def test_names_choose_strategies():
    assert strategy.choose("Serial", 0, "cpu") == (Serial(0, "cpu"), "")
    assert strategy.choose("BestOfN", 0, "cpu") == (BestOfN(0, "cpu"), "")
    chosen, note = strategy.choose("Adaptive", 0, "cpu")
    assert chosen == BestOfN(0, "cpu")
    assert "BestOfN in its place" in note


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"search.strategy is 'Beam'; write one of Serial, BestOfN, Adaptive"):
        strategy.choose("Beam", 0, "cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ideas_are_different_words(device):
    assert len(set(ideas.APPROACHES[device])) == len(ideas.APPROACHES[device]) >= 8
    methods = [method for group in ideas.METHODS[device].values() for method in group]
    assert len(set(methods)) == len(methods)
