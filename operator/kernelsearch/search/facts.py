"""What the runner states about its search: the runner's part of `status` (design: api.md), as frozen values.

`Facts.to_status()` is the only place that knows the wire names. Fractions travel as strings (a CRD has no floats),
seconds as whole seconds of the search clock. What is None is left out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from typing import Any

MAX_STATUS_SOURCE = 32 * 1024
"""Bytes of the best kernel's source in the status. Longer ones are cut and marked: one over-long field would reject the
whole write, and every watcher carries the whole object."""

MAX_STATUS_TEXT = 500
"""Characters of a reason or message in the status."""


class Reason(StrEnum):
    """Why a search ended. All but `Suspended` are reasons of the condition `Complete`."""

    TARGET_REACHED = "TargetReached"
    DEADLINE_REACHED = "DeadlineReached"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    NO_CORRECT_KERNEL = "NoCorrectKernel"
    PROBLEM_UNSOLVABLE = "ProblemUnsolvable"
    MODEL_UNAVAILABLE = "ModelUnavailable"
    VERIFIERS_UNAVAILABLE = "VerifiersUnavailable"
    CANCELLED = "Cancelled"
    SUSPENDED = "Suspended"
    """Not an end: the process stops, the search can be resumed. Never published as an outcome."""


@dataclass(frozen=True)
class Counters:
    """Finished attempts by verdict. What infrastructure broke is counted apart and is no attempt."""

    correct: int = 0
    incorrect: int = 0
    compile_error: int = 0
    runtime_error: int = 0
    timeout: int = 0
    reward_hack: int = 0
    suspicious: int = 0
    no_code: int = 0
    truncated: int = 0
    infrastructure: int = 0
    """Calls to model or verifier that failed and were repeated."""

    @property
    def total(self) -> int:
        """Attempts charged to the budget."""
        return sum(getattr(self, each.name) for each in fields(self) if each.name != "infrastructure")


@dataclass(frozen=True)
class TokenCount:
    """Tokens paid for. `completion` includes `reasoning`, as on the OpenAI API."""

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """What `maxTokens` limits."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class Best:
    """The best kernel so far, with the figure that its re-verification measured."""

    attempt: int
    source: str
    language: str
    found_after_seconds: float
    speedup: float | None = None
    """None when it is right but was never timed (an emulated language, or no re-verification before the end)."""
    ci99: tuple[float, float] | None = None
    baseline: str = ""
    microseconds: float | None = None
    verified_on: str = ""
    """Name of the device."""

    @property
    def sha256(self) -> str:
        """Of the whole source."""
        return hashlib.sha256(self.source.encode()).hexdigest()


@dataclass(frozen=True)
class CurvePoint:
    """The best so far improved."""

    seconds: float
    attempts: int
    speedup: float | None


@dataclass(frozen=True)
class Recent:
    """One of the last attempts, in a line."""

    id: int
    chain: int
    verdict: str
    speedup: float | None
    seconds: float
    """When its verdict came, on the search clock."""
    reason: str
    step: str = ""
    """For the prompt's history; not published."""
    idea: str = ""
    """For the prompt's history; not published."""


@dataclass(frozen=True)
class ProblemFacts:
    """The problem as judged."""

    name: str
    sha256: str
    degenerate: Mapping[str, str] | None = None
    baseline_microseconds: float | None = None
    """Of the fastest baseline, from the latest timing."""


@dataclass(frozen=True)
class Outcome:
    """Why the loop ended."""

    reason: Reason
    message: str
    seconds: float
    """On the search clock."""
    time: str = ""
    """RFC 3339, for people."""


@dataclass(frozen=True)
class Facts:
    """Everything that the runner owns in `status`: each publication is complete, what is left out would be erased."""

    sequence: int
    attempts: Counters
    in_flight: int
    tokens: TokenCount
    problem: ProblemFacts
    best: Best | None = None
    first_correct_seconds: float | None = None
    curve: tuple[CurvePoint, ...] = ()
    recent: tuple[Recent, ...] = ()
    outcome: Outcome | None = None

    def to_status(self) -> dict[str, Any]:
        """JSON-able, in the names of the API."""
        return _without_none(
            {
                "sequence": self.sequence,
                "attempts": _attempts(self.attempts, self.in_flight),
                "tokens": {each.name: getattr(self.tokens, each.name) for each in fields(self.tokens)},
                "best": self.best and _best(self.best),
                "firstCorrectSeconds": _seconds(self.first_correct_seconds),
                "curve": [_point(point) for point in self.curve],
                "recentAttempts": [_recent(attempt) for attempt in self.recent],
                "problem": _problem(self.problem),
                "outcome": self.outcome and _outcome(self.outcome),
            }
        )


def _attempts(counters: Counters, in_flight: int) -> dict[str, int]:
    by_verdict = {_camel(each.name): getattr(counters, each.name) for each in fields(counters)}
    return {"total": counters.total, "inFlight": in_flight, **by_verdict}


def _best(best: Best) -> dict[str, Any]:
    source, cut = clip(best.source, MAX_STATUS_SOURCE)
    return _without_none(
        {
            "attempt": best.attempt,
            "speedup": _fraction(best.speedup),
            "speedupCI": best.ci99 and [_fraction(bound) for bound in best.ci99],
            "baseline": best.baseline or None,
            "microseconds": _fraction(best.microseconds),
            "language": best.language,
            "sha256": best.sha256,
            "source": source,
            "sourceTruncated": cut or None,
            "verifiedOn": best.verified_on or None,
            "foundAfterSeconds": _seconds(best.found_after_seconds),
        }
    )


def _point(point: CurvePoint) -> dict[str, Any]:
    return _without_none(
        {
            "seconds": _seconds(point.seconds),
            "attempts": point.attempts,
            "bestSpeedup": _fraction(point.speedup),
        }
    )


def _recent(attempt: Recent) -> dict[str, Any]:
    return _without_none(
        {
            "id": attempt.id,
            "chain": attempt.chain,
            "verdict": attempt.verdict,
            "speedup": _fraction(attempt.speedup),
            "seconds": _seconds(attempt.seconds),
            "reason": attempt.reason[:MAX_STATUS_TEXT],
        }
    )


def _problem(problem: ProblemFacts) -> dict[str, Any]:
    return _without_none(
        {
            "name": problem.name,
            "sha256": problem.sha256,
            "degenerate": dict(problem.degenerate) if problem.degenerate else None,
            "baselineMicroseconds": _fraction(problem.baseline_microseconds),
        }
    )


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return _without_none(
        {
            "reason": outcome.reason.value,
            "message": outcome.message[:MAX_STATUS_TEXT],
            "time": outcome.time or None,
        }
    )


def clip(text: str, limit: int) -> tuple[str, bool]:
    """The text in at most `limit` bytes of UTF-8, and whether something was cut off."""
    raw = text.encode()
    return raw[:limit].decode(errors="ignore"), len(raw) > limit


def _fraction(value: float | None) -> str | None:
    """Four significant digits, more than any timing on a shared machine repeats; never in exponent notation."""
    return None if value is None else f"{Decimal(f'{value:.4g}'):f}"


def _seconds(value: float | None) -> int | None:
    return None if value is None else int(value)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _without_none(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None}
