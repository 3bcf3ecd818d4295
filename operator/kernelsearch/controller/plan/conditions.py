"""Conditions as values: what is said about an object, and since when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kernelsearch.controller.plan import clocks

MAX_MESSAGE = 2000
"""Characters; the schema takes 2048."""


@dataclass(frozen=True)
class Condition:
    """One aspect of an object's state."""

    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str
    message: str = ""


def true(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(kind, "True", reason, message)


def false(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(kind, "False", reason, message)


def unknown(kind: str, reason: str = "Pending", message: str = "") -> Condition:
    return Condition(kind, "Unknown", reason, message)


def find(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition as it stands in a status; empty when it is not there."""
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def holds(status: Mapping[str, Any], kind: str) -> bool:
    """The condition is True."""
    return find(status, kind).get("status") == "True"


def since(status: Mapping[str, Any], kind: str, value: str) -> datetime | None:
    """Since when the condition has that status; None when it has another one."""
    found = find(status, kind)
    return clocks.time(found.get("lastTransitionTime")) if found.get("status") == value else None


def written(
    wanted: Iterable[Condition], status: Mapping[str, Any], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions for an apply, in the order given: all of them, each with the time at which its status changed."""
    return [_written(each, find(status, each.type), generation, now) for each in wanted]


def _written(wanted: Condition, before: Mapping[str, Any], generation: int, now: datetime) -> dict[str, Any]:
    same = before.get("status") == wanted.status and before.get("lastTransitionTime")
    return {
        "type": wanted.type,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message[:MAX_MESSAGE],
        "lastTransitionTime": before["lastTransitionTime"] if same else clocks.text(now),
        "observedGeneration": generation,
    }
