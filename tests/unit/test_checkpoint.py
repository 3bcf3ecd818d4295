"""The whole state, there and back, and never too large."""

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given

import strategies
from kernelsearch.search import checkpoint
from kernelsearch.search.checkpoint import Checkpoint, UnusableCheckpointError
from kernelsearch.search.population import Attempt, Kind, Population, Verdict
from kernelverify_api.request import Problem

PROBLEM = Problem(source="class Model: ...", name="relu")


def state(known: Population | None = None, **parts) -> Checkpoint:
    defaults = {"strategy": "BestOfN", "seed": 0, "prompt_version": "1", "population": known or Population.of(2)}
    return Checkpoint(**{"sequence": 1, "seconds": 2.5, "next_id": 17, "problem": PROBLEM, **defaults, **parts})


@given(strategies.checkpoints)
def test_a_checkpoint_survives_json(whole):
    mapping = json.loads(json.dumps(checkpoint.to_mapping(whole), allow_nan=False))

    assert checkpoint.from_mapping(mapping) == whole


def noise(seed: int, length: int = 60_000) -> str:
    """Text that gzip cannot shorten much."""
    return "".join(Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789 \n", k=length))


def crowded(chains: int, length: int = 60_000) -> Population:
    def attempt(number: int, verdict: Verdict) -> Attempt:
        text = noise(number, length)
        return Attempt(number, 0, Kind.FRESH, verdict, float(number), "", source=text, confirmed=True, speedup=1.0)

    lasts = tuple(
        replace(chain, last=attempt(number, Verdict.INCORRECT))
        for number, chain in enumerate(Population.of(chains).chains)
    )
    others = tuple(attempt(100 + number, Verdict.CORRECT) for number in range(3))
    return replace(Population.of(chains), chains=lasts, best=attempt(200, Verdict.CORRECT), others=others)


def kept(known: Population, limit: int = checkpoint.MAX_BYTES) -> Population:
    mapping = checkpoint.to_mapping(state(known), limit)
    assert checkpoint.size(mapping) <= limit
    return checkpoint.from_mapping(mapping).population


def test_a_state_within_its_bound_is_kept_whole():
    assert kept(crowded(2, length=30_000)) == crowded(2, length=30_000)


def test_a_crowded_state_keeps_within_its_bound_and_loses_the_oldest_failures_first():
    known = kept(crowded(4, length=50_000))

    assert [bool(chain.last.source) for chain in known.chains] == [False, False, True, True]
    assert len(known.others) == 3


def test_a_fuller_state_keeps_its_kernels():
    known = kept(crowded(30))

    assert not any(chain.last.source for chain in known.chains)
    assert known.best.source == noise(200)
    assert len(known.others) == 3


def test_the_tightest_bound_keeps_the_best():
    known = kept(crowded(30), limit=64 * 1024)

    assert known.others == ()
    assert known.best.source == noise(200)


@pytest.mark.parametrize("found", [2, None, "1"])
def test_another_schema_is_refused_with_what_to_do(found):
    with pytest.raises(UnusableCheckpointError, match="use the version that wrote it, or start anew"):
        checkpoint.from_mapping({**checkpoint.to_mapping(state()), "schema": found})


def test_a_damaged_checkpoint_is_refused_with_the_place():
    mapping = checkpoint.to_mapping(state())
    mapping["population"]["counters"]["correct"] = "many"

    with pytest.raises(UnusableCheckpointError, match=r"population\.counters\.correct: .*start anew"):
        checkpoint.from_mapping(mapping)


def test_the_uid_decides_whose_checkpoint_it_is():
    old = state(uid="u-1")

    checkpoint.same_search(old, "u-1", Problem(source="edited since"))
    with pytest.raises(UnusableCheckpointError, match="uid 'u-1', this one is 'u-2'"):
        checkpoint.same_search(old, "u-2", PROBLEM)


def test_without_a_uid_the_problem_decides():
    checkpoint.same_search(state(), "", Problem(source="class Model: ...", name="renamed"))
    with pytest.raises(UnusableCheckpointError, match="another problem"):
        checkpoint.same_search(state(), "", Problem(source="class Model: ...", dtype="float16"))


def test_the_clock_goes_on_where_it_stood():
    assert checkpoint.seconds_used(checkpoint.to_mapping(state())) == 2.5
    assert checkpoint.seconds_used(None) == 0.0
    assert checkpoint.seconds_used({"seconds": "soon"}) == 0.0
