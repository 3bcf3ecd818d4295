"""Why a search is over. A chain of small checks, the first that finds something decides; None while it goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kernelsearch.api.spec import KernelSearchSpec
from kernelsearch.controller.plan import clocks, conditions
from kernelsearch.controller.plan.clocks import Clocks

STOP_PATIENCE_SECONDS = 20
"""For the runner to end its attempts and say so, once it was told to stop."""


@dataclass(frozen=True)
class Ending:
    """A reason of the condition `Complete`, and the sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Evidence:
    """What the decision needs."""

    spec: KernelSearchSpec
    status: Mapping[str, Any]
    clocks: Clocks
    now: datetime
    waiting_for: str
    """What is not ready, in words; empty when everything is."""
    runner_exists: bool


def solved(status: Mapping[str, Any]) -> bool:
    """A correct kernel exists: by the runner's word, whichever way it says so."""
    return bool(status.get("best")) or int((status.get("attempts") or {}).get("correct", 0)) > 0


def ending(seen: Evidence) -> Ending | None:
    """Why the search is over, or None."""
    return next((found for check in _CHECKS if (found := check(seen))), None)


def _told_by_runner(seen: Evidence) -> Ending | None:
    told = seen.status.get("outcome")
    return Ending(str(told["reason"]), str(told.get("message", ""))) if told else None


def _stopped(seen: Evidence) -> Ending | None:
    """The runner has the first word, because it may still be saving."""
    if not seen.spec.stop:
        return None
    since = conditions.since(seen.status, "Progressing", "False")
    asked = conditions.find(seen.status, "Progressing").get("reason") == "Stopping"
    silent = asked and since is not None and seen.now - since >= timedelta(seconds=STOP_PATIENCE_SECONDS)
    if silent or not seen.runner_exists:
        return Ending("Cancelled", "spec.stop is true; results are kept")
    return None


def _out_of_time(seen: Evidence) -> Ending | None:
    ends = clocks.patience_ends(seen.clocks, seen.spec.budget)
    if not seen.clocks.running or ends is None or seen.now < ends:
        return None
    if solved(seen.status):
        return Ending("DeadlineReached", "the deadline came; the runner did not report, its last facts stand")
    return Ending("NoCorrectKernel", "the deadline came without a correct kernel; the runner did not report")


def _never_started(seen: Evidence) -> Ending | None:
    ends = clocks.startup_ends(seen.clocks, seen.spec.budget)
    if ends is None or seen.now < ends:
        return None
    seconds = seen.spec.budget.startup_deadline_seconds
    return Ending("StartupDeadlineExceeded", f"not ready within {seconds} s: {seen.waiting_for}")


def _unavailable(seen: Evidence) -> Ending | None:
    if not seen.clocks.running:
        return None
    limit = timedelta(seconds=seen.spec.budget.unavailable_seconds)
    for kind, reason in (("ModelReady", "ModelUnavailable"), ("VerifiersReady", "VerifiersUnavailable")):
        since = conditions.since(seen.status, kind, "False")
        if since is not None and seen.now - since >= limit:
            why = conditions.find(seen.status, kind).get("message", "")
            return Ending(reason, f"unavailable for {seen.spec.budget.unavailable_seconds} s: {why}")
    return None


_CHECKS: tuple[Callable[[Evidence], Ending | None], ...] = (
    _told_by_runner,
    _stopped,
    _out_of_time,
    _never_started,
    _unavailable,
)
