"""The operator's part of a status as it stands, for a pass that could decide nothing: all but one condition stays.

What is left out of an apply is erased, so that nothing less than the whole may be written.
"""

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


def but(wanted: Condition, body: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """With this condition in the place of the one of its type."""
    status = body.get("status") or {}
    (written,) = conditions.written([wanted], status, int(body["metadata"].get("generation", 0)), now)
    there = [dict(each) for each in status.get("conditions") or ()]
    told = [written if each["type"] == wanted.type else each for each in there]
    if written not in told:
        told.append(written)
    return {**{name: status[name] for name in OWNED if name in status}, "conditions": told}
