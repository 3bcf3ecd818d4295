"""What a ModelServer and a VerifierPool have in common: users, idleness, readiness, what was decided.

Invariants
1. Users are counted from what is observed now, never up and down.
2. The object stays when its pods go; only its owner's end removes it.
3. A spec that cannot be served leaves what runs alone and says so in `Ready`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kernelsearch.controller.manifest import Key, Manifest
from kernelsearch.controller.plan import clocks, conditions, pods

LOOK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What should be, for one object."""

    children: tuple[Manifest, ...]
    status: Mapping[str, Any] | None
    """The operator's whole part; None to leave it as it is."""
    requeue_seconds: float = LOOK_AGAIN_SECONDS
    remove: frozenset[Key] = frozenset()
    """Children to delete first, even those that are made again."""
    keep: bool = False
    """Leave children that are not listed alone."""
    finished: bool = False
    delete: bool = False
    """Delete the object itself."""


@dataclass(frozen=True)
class Seen:
    """A shared object as observed."""

    body: Manifest
    children: Mapping[Key, Manifest]
    pods: Sequence[Manifest]
    users: int
    now: datetime
    extra: Mapping[str, str] = field(default_factory=dict)
    """`issuer` and `jwks`, for pools."""
    trouble: str = ""
    """Why the last pass failed; empty when it did not."""

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    @property
    def generation(self) -> int:
        return int(self.body["metadata"].get("generation", 0))


@dataclass(frozen=True)
class Use:
    """Since when the object has been idle, and whether its pods should run."""

    active: bool
    idle_since: datetime | None
    asks_again_in: float = LOOK_AGAIN_SECONDS


def use(seen: Seen, idle_ttl: int | None, max_lifetime: int | None = None) -> Use:
    """Whether pods should run. A pool that was never used is idle from its creation on."""
    if seen.users:
        return Use(active=not _too_old(seen, max_lifetime), idle_since=None)
    since = clocks.time(seen.status.get("idleSince")) or seen.now
    if idle_ttl is None:
        return Use(active=not _too_old(seen, max_lifetime), idle_since=since)
    ends = since + timedelta(seconds=idle_ttl)
    left = (ends - seen.now).total_seconds()
    return Use(active=left > 0, idle_since=since, asks_again_in=max(1.0, min(left, LOOK_AGAIN_SECONDS)))


def _too_old(seen: Seen, max_lifetime: int | None) -> bool:
    since = clocks.time(seen.status.get("activeSince"))
    return bool(max_lifetime and since and seen.now - since >= timedelta(seconds=max_lifetime))


def ready_pods(seen: Seen) -> int:
    return sum(pods.read(each).ready for each in seen.pods)


def trouble(seen: Seen) -> str:
    """Why pods are not ready, in Kubernetes' own words."""
    words = {pods.read(each).trouble for each in seen.pods}
    return "; ".join(sorted(filter(None, words)))[:1000] or "no pod exists yet"


def degraded(trouble: str) -> conditions.Condition:
    """What an operator that cannot do its work says about it."""
    if trouble:
        return conditions.true("Degraded", "ReconcileFailed", f"{trouble}; it is tried again")
    return conditions.false("Degraded", "AsExpected")


def status(seen: Seen, use_: Use, told: list[dict[str, Any]], phase: str, **more: Any) -> dict[str, Any]:
    """The operator's whole status of a shared object."""
    active_since = seen.status.get("activeSince") if use_.active else None
    found = {
        "phase": phase,
        "conditions": told,
        "observedGeneration": seen.generation,
        "users": seen.users,
        "activeSince": active_since or (clocks.text(seen.now) if use_.active else None),
        "idleSince": clocks.text(use_.idle_since),
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}
