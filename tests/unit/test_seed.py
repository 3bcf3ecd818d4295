"""A checkpoint made from a status goes on where the status stood."""

from dataclasses import replace

import pytest

from kernelsearch.search import checkpoint, seed
from kernelsearch.search.facts import Counters, CurvePoint, Facts, ProblemFacts, Recent, TokenCount
from kernelsearch.search.population import Attempt, Kind, Verdict
from kernelverify_api.request import Problem

PROBLEM = Problem(source="class Model: ...", name="demo")
BEST = Attempt(
    id=7,
    chain=1,
    kind=Kind.IMPROVE,
    verdict=Verdict.CORRECT,
    seconds=40,
    reason="r",
    source="class ModelNew: ... # 🚀",
    language="cpp",
    confirmed=True,
    speedup=2.5,
    ci99=(2.25, 2.75),
    baseline="eager",
    microseconds=10.0,
    device="a CPU",
)
FACTS = Facts(
    sequence=3_000_002,
    attempts=Counters(correct=2, compile_error=1, reward_hack=3, infrastructure=4),
    in_flight=2,
    tokens=TokenCount(prompt=10, completion=20, reasoning=5),
    problem=ProblemFacts("demo", "0" * 64, None, 25.0),
    best=BEST.as_best(),
    first_correct_seconds=12,
    curve=(CurvePoint(12, 3, None), CurvePoint(40, 6, 2.5)),
    recent=(Recent(6, 0, "compile_error", None, 30, "bad"), Recent(9, 1, "correct", 2.5, 40, "good")),
)


def test_what_was_published_comes_back_as_it_was():
    state = checkpoint.from_mapping(seed.from_status(FACTS.to_status(), PROBLEM, "u1"))
    known = state.population

    again = replace(
        FACTS,
        sequence=state.sequence,
        attempts=known.counters,
        tokens=known.tokens,
        best=known.best.as_best(),
        first_correct_seconds=known.first_correct_seconds,
        curve=known.curve,
        recent=known.recent,
    )
    assert again.to_status() == FACTS.to_status()
    assert state.uid == "u1"


def test_no_attempts_number_comes_twice():
    state = checkpoint.from_mapping(seed.from_status(FACTS.to_status(), PROBLEM, "u1"))

    assert state.next_id > 9 + 64


def test_a_kernel_that_was_cut_in_the_status_is_taken_whole():
    state = checkpoint.from_mapping(seed.from_status(FACTS.to_status(), PROBLEM, "u1", "the whole source"))

    assert state.population.best.source == "the whole source"


@pytest.mark.parametrize("status", [{}, {"phase": "Running"}, {"sequence": 0}])
def test_nothing_published_is_a_new_search(status):
    assert seed.from_status(status, PROBLEM, "u1") is None
