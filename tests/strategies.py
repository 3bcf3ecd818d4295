"""The vocabulary of the property tests: attempts, populations, checkpoints, reports, text as models write it."""

from dataclasses import replace

from hypothesis import strategies as st

from kernelsearch.search import population
from kernelsearch.search.checkpoint import Checkpoint
from kernelsearch.search.population import Attempt, Kind, Population, Verdict
from kernelsearch.search.ports import Tokens
from kernelverify_api.request import Problem

CHAINS = 3

hostile_text = st.text(
    st.one_of(st.sampled_from("`~\n\r\t \x00\x1b\u202e\u2028\ud800\udfff"), st.characters(exclude_categories=())),
    max_size=200,
)
"""Anything that a string can hold: lone surrogates, controls, direction marks, fences."""

words = st.sampled_from(["a b c", "a b d", "x y z", "x y z w", "p q", ""])
"""Sources as far as differences between them go."""

ratios = st.floats(0.01, 100.0)

tokens = st.builds(Tokens, prompt=st.integers(0, 9999), completion=st.integers(0, 9999))


lines = st.sampled_from(["", "a line", "größer als 1 µs", "🚀 | `x`"])

shapes = st.builds(
    Attempt,
    id=st.just(0),
    chain=st.integers(0, CHAINS - 1),
    kind=st.sampled_from(Kind),
    verdict=st.sampled_from([*Verdict, *[Verdict.CORRECT] * 5]),
    seconds=st.just(0.0),
    reason=lines,
    base=st.sampled_from([None, 1, 99]),
    on_correct=st.booleans(),
    idea=lines,
    source=words,
    language=st.just("cpp"),
    error_class=st.sampled_from(["e1", "e2"]),
    feedback=lines,
    confirmed=st.booleans(),
    speedup=st.none() | ratios,
    roofline=st.sampled_from([None, 0.5, 0.96]),
)


def _possible(attempt: Attempt, number: int) -> Attempt:
    """As it could have come out of `verdict`: numbered in time, and only correct ones are confirmed."""
    correct = attempt.verdict is Verdict.CORRECT
    ratio = attempt.speedup
    return replace(
        attempt,
        id=number,
        seconds=float(number),
        error_class="" if correct else attempt.error_class,
        confirmed=correct and attempt.confirmed,
        ci99=ratio and (ratio * 0.9, ratio * 1.1),
        baseline="eager" if ratio else "",
        microseconds=ratio and 10 / ratio,
    )


def histories(max_size: int = 10, times: int = 1) -> st.SearchStrategy[list[tuple[Attempt, Tokens]]]:
    """Attempts in the order in which their verdicts came; repeated so many times, for long ones."""
    drawn = st.lists(st.tuples(shapes, tokens), max_size=max_size)
    return drawn.map(
        lambda history: [(_possible(each, number), spent) for number, (each, spent) in enumerate(history * times, 1)]
    )


def after(history: list[tuple[Attempt, Tokens]]) -> Population:
    """What is remembered of a history."""
    known = Population.of(CHAINS)
    for attempt, spent in history:
        known = population.remember(known, attempt, spent)
    return known


populations = histories().map(after)

checkpoints = st.builds(
    Checkpoint,
    sequence=st.integers(0, 2**40),
    seconds=st.floats(0, 1e6),
    next_id=st.integers(1, 10**6),
    problem=st.builds(Problem, source=words, name=lines),
    population=populations,
    strategy=st.sampled_from(["Serial", "BestOfN", "Adaptive"]),
    seed=st.integers(0, 2**31),
    prompt_version=st.just("1-abcdef"),
    uid=st.sampled_from(["", "u-1"]),
    outcome=st.none(),
)
