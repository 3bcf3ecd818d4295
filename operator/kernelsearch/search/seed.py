"""A checkpoint made from what was published, for when the checkpoint itself is lost. Pure.

Chains start anew and prompts lose their history; what was found, counted and paid for stays, so that nothing that was
published ever falls back.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kernelsearch.search import checkpoint, prompts
from kernelsearch.search.checkpoint import Checkpoint
from kernelsearch.search.facts import Counters, CurvePoint, Recent, TokenCount
from kernelsearch.search.population import Attempt, Kind, Population, Verdict
from kernelverify_api.request import Problem

SKIPPED_IDS = 1000
"""Attempt ids passed over: what was given out after the last publication is not known, and none may come twice."""


def from_status(status: Mapping[str, Any], problem: Problem, uid: str, source: str = "") -> Mapping[str, Any] | None:
    """The checkpoint, or None when nothing was ever published. `source`: the best kernel's, whole."""
    if not status.get("sequence"):
        return None
    recent = tuple(_recent(each) for each in status.get("recentAttempts") or ())
    best = _best(status["best"], source) if status.get("best") else None
    known = [each.id for each in recent] + ([best.id] if best else [])
    attempts, tokens = status.get("attempts") or {}, status.get("tokens") or {}
    state = Checkpoint(
        sequence=int(status["sequence"]),
        seconds=float(max((each.seconds for each in recent), default=0.0)),
        next_id=max([int(attempts.get("total", 0)), *known]) + SKIPPED_IDS,
        problem=problem,
        population=Population(
            chains=(),
            best=best,
            counters=Counters(**{each.name: int(attempts.get(_camel(each.name), 0)) for each in fields(Counters)}),
            tokens=TokenCount(**{each.name: int(tokens.get(each.name, 0)) for each in fields(TokenCount)}),
            first_correct_seconds=_number(status.get("firstCorrectSeconds")),
            curve=tuple(_point(each) for each in status.get("curve") or ()),
            recent=recent,
            baseline_us=_number((status.get("problem") or {}).get("baselineMicroseconds")),
        ),
        strategy="",
        seed=0,
        prompt_version=prompts.VERSION,
        uid=uid,
    )
    return checkpoint.to_mapping(state)


def _best(best: Mapping[str, Any], source: str) -> Attempt:
    low_high = best.get("speedupCI")
    return Attempt(
        id=int(best["attempt"]),
        chain=0,
        kind=Kind.FRESH,
        verdict=Verdict.CORRECT,
        seconds=float(best["foundAfterSeconds"]),
        reason="found before its checkpoint was lost",
        source=source or str(best["source"]),
        language=str(best["language"]),
        confirmed=best.get("speedup") is not None,
        speedup=_number(best.get("speedup")),
        ci99=(float(low_high[0]), float(low_high[1])) if low_high else None,
        baseline=str(best.get("baseline", "")),
        microseconds=_number(best.get("microseconds")),
        device=str(best.get("verifiedOn", "")),
    )


def _recent(each: Mapping[str, Any]) -> Recent:
    speedup = _number(each.get("speedup"))
    return Recent(
        int(each["id"]), int(each["chain"]), str(each["verdict"]), speedup, float(each["seconds"]), str(each["reason"])
    )


def _point(each: Mapping[str, Any]) -> CurvePoint:
    return CurvePoint(float(each["seconds"]), int(each["attempts"]), _number(each.get("bestSpeedup")))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
