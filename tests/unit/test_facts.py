"""The runner's part of the status, in the API's names, within its bounds."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelsearch.search.facts import (
    MAX_STATUS_SOURCE,
    Best,
    Counters,
    CurvePoint,
    Facts,
    Outcome,
    ProblemFacts,
    Reason,
    Recent,
    TokenCount,
    clip,
)

PROBLEM = ProblemFacts("relu", "ab" * 32, {"finding": "zeros"}, 101.23456)


def facts(**parts) -> Facts:
    return Facts(7, Counters(correct=2, no_code=1, infrastructure=4), 3, TokenCount(10, 20, 15), PROBLEM, **parts)


def best(source="x", speedup=1.23456, **parts) -> Best:
    return Best(5, source, "cpp", 61.9, speedup, **parts)


def test_counts_are_whole_and_infrastructure_is_apart():
    attempts = facts().to_status()["attempts"]

    assert attempts == {
        "total": 3,
        "inFlight": 3,
        "correct": 2,
        "incorrect": 0,
        "compileError": 0,
        "runtimeError": 0,
        "timeout": 0,
        "rewardHack": 0,
        "suspicious": 0,
        "noCode": 1,
        "truncated": 0,
        "infrastructure": 4,
    }


def test_what_is_not_known_is_left_out():
    assert set(facts().to_status()) == {"sequence", "attempts", "tokens", "curve", "recentAttempts", "problem"}


def test_the_best_in_the_apis_names():
    status = facts(best=best(ci99=(1.2, 1.3), baseline="eager", microseconds=80.0, verified_on="Fake CPU")).to_status()

    assert status["best"] == {
        "attempt": 5,
        "speedup": "1.235",
        "speedupCI": ["1.2", "1.3"],
        "baseline": "eager",
        "microseconds": "80",
        "language": "cpp",
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "source": "x",
        "verifiedOn": "Fake CPU",
        "foundAfterSeconds": 61,
    }


def test_a_kernel_that_was_never_timed_has_no_figure():
    assert "speedup" not in facts(best=best(speedup=None)).to_status()["best"]


def test_a_long_source_is_cut_and_marked_but_its_hash_is_the_whole_ones():
    status = facts(best=best(source="ü" * MAX_STATUS_SOURCE)).to_status()["best"]

    assert len(status["source"].encode()) <= MAX_STATUS_SOURCE
    assert status["sourceTruncated"] is True
    assert status["sha256"] == best(source="ü" * MAX_STATUS_SOURCE).sha256


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=50), st.integers(0, 60))
def test_clipping_never_splits_a_character(text, limit):
    clipped, cut = clip(text, limit)

    assert text.startswith(clipped)
    assert len(clipped.encode()) <= limit
    assert cut is (len(text.encode()) > limit)


@given(st.floats(1e-9, 1e12))
def test_fractions_are_plain_decimal_strings(value):
    status = facts(best=best(speedup=value)).to_status()

    assert re.fullmatch(r"\d+(\.\d+)?", status["best"]["speedup"])
    assert float(status["best"]["speedup"]) == pytest.approx(value, rel=1e-3)


def test_all_of_it_at_its_largest_fits_into_the_status():
    full = facts(
        best=best(source="\U0001f680" * MAX_STATUS_SOURCE),
        curve=tuple(CurvePoint(float(n), n, 1.5) for n in range(50)),
        recent=tuple(Recent(n, 3, "compile_error", 1.5, 9.0, "r" * 5000) for n in range(20)),
        outcome=Outcome(Reason.DEADLINE_REACHED, "m" * 5000, 900.0, "2026-01-01T00:00:00+00:00"),
    )

    assert len(json.dumps(full.to_status(), ensure_ascii=False).encode()) < 64 * 1024


def test_curve_recent_attempts_problem_and_outcome_in_the_apis_names():
    status = facts(
        first_correct_seconds=12.9,
        curve=(CurvePoint(12.9, 4, None), CurvePoint(20.0, 6, 1.5)),
        recent=(Recent(6, 1, "correct", 1.5, 20.0, "it is right"),),
        outcome=Outcome(Reason.TARGET_REACHED, "done", 20.0, "2026-01-01T00:00:00+00:00"),
    ).to_status()

    assert status["firstCorrectSeconds"] == 12
    assert status["curve"] == [{"seconds": 12, "attempts": 4}, {"seconds": 20, "attempts": 6, "bestSpeedup": "1.5"}]
    assert status["recentAttempts"] == [
        {"id": 6, "chain": 1, "verdict": "correct", "speedup": "1.5", "seconds": 20, "reason": "it is right"}
    ]
    assert status["problem"] == {
        "name": "relu",
        "sha256": "ab" * 32,
        "degenerate": {"finding": "zeros"},
        "baselineMicroseconds": "101.2",
    }
    assert status["outcome"] == {"reason": "TargetReached", "message": "done", "time": "2026-01-01T00:00:00+00:00"}
