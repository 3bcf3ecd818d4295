"""The operator's part of a status as it stands, for a pass that could decide nothing: all but one condition stays.

What is left out of an apply is erased, so that nothing less than the whole may be written.

`Degraded=True, ReconcileFailed` is set by a pass that failed, wherever it did, carried on by every plan, and cleared by
a pass that went through to its end: it is read back from the object, so that no restart forgets it.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kernelsearch.controller.plan import conditions
from kernelsearch.controller.plan.conditions import Condition

OWNED = (
    *("phase", "conditions", "observedGeneration", "startTime", "segmentStartTime", "deadlineTime", "usedSeconds"),
    *("startupSegmentStartTime", "startupUsedSeconds", "completionTime", "endpoint", "users", "activeSince"),
    *("idleSince", "readyReplicas"),
)
"""Every field that the operator writes in any kind; all others are the runner's."""


FAILED = "ReconcileFailed"
FIGURES = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")
"""Ports, times and ids, which differ in every report of one and the same failure."""


def failed(body: Mapping[str, Any], words: str, now: datetime) -> dict[str, Any] | None:
    """With the failure told; None where it stands there already, but for figures.

    Each write wakes the loop: one that failed in other figures each time would never wait for its backoff.
    """
    wanted = conditions.true("Degraded", FAILED, f"{words}; it is tried again")
    there = degraded(body.get("status") or {})
    if there.reason == FAILED and _without_figures(there.message) == _without_figures(wanted.message):
        return None
    return but(wanted, body, now)


def recovered(body: Mapping[str, Any], now: datetime) -> dict[str, Any] | None:
    """Without the failure that was told; None where none was."""
    if degraded(body.get("status") or {}).reason != FAILED:
        return None
    return but(_well(), body, now)


def degraded(status: Mapping[str, Any]) -> Condition:
    """For a plan, which cannot know yet how its pass will end: a failure that was told stands until then."""
    found = conditions.find(status, "Degraded")
    if found.get("reason") == FAILED:
        return Condition("Degraded", found["status"], FAILED, found["message"])
    return _well()


def _well() -> Condition:
    return conditions.false("Degraded", "AsExpected")


def _without_figures(message: str) -> str:
    return FIGURES.sub("#", message[: conditions.MAX_MESSAGE])


def but(wanted: Condition, body: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """With this condition in the place of the one of its type."""
    status = body.get("status") or {}
    (written,) = conditions.written([wanted], status, int(body["metadata"].get("generation", 0)), now)
    there = [dict(each) for each in status.get("conditions") or ()]
    told = [written if each["type"] == wanted.type else each for each in there]
    if written not in told:
        told.append(written)
    return {**{name: status[name] for name in OWNED if name in status}, "conditions": told}
