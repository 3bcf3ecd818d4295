"""What a ModelServer and a VerifierPool have in common: users, idleness, readiness, what was decided.

Invariants
1. Users are counted from what is observed now, never up and down.
2. The object stays when its pods go; only its owner's end removes it.
3. A spec that cannot be served leaves what runs alone and says so in `Ready`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kernelsearch.controller.manifest import Key, Manifest, deleting
from kernelsearch.controller.plan import clocks, conditions, pods
from kernelsearch.controller.settings import Policy

LOOK_AGAIN_SECONDS = 60.0
LIFETIME_OVER = "LifetimeOver"
"""Reason of `Ready` while pods stay away because of their age. It is read back: by it a pass knows that they are away
already, and does not start them again under those who used them."""


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

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    @property
    def generation(self) -> int:
        return int(self.body["metadata"].get("generation", 0))


@dataclass(frozen=True)
class Use:
    """Whether the object's pods should run, and the two times that this depends on."""

    active: bool
    idle_since: datetime | None
    active_since: datetime | None = None
    """When its pods were started. Kept while they are away because of their age."""
    outlived: bool = False
    """Its pods would run, were they not too old."""
    asks_again_in: float = LOOK_AGAIN_SECONDS


def use(seen: Seen, idle_ttl: int | None, max_lifetime: int | None = None) -> Use:
    """Whether pods should run. A pool that was never used is idle from its creation on."""
    idle, since = _idle_since(seen), _active_since(seen)
    released, over = _after(idle, idle_ttl), _after(since, max_lifetime)
    wanted = released is None or seen.now < released
    outlived = wanted and over is not None and seen.now >= over
    active = wanted and not outlived
    started = (since or seen.now) if active else since if outlived else None
    left = [(each - seen.now).total_seconds() for each in (released, over) if each is not None and each > seen.now]
    return Use(active, idle, started, outlived, max(1.0, min([LOOK_AGAIN_SECONDS, *left])))


def unserved(seen: Seen) -> Use:
    """Of a spec that cannot be served: what runs goes on growing older, and nothing starts."""
    return Use(active=False, idle_since=_idle_since(seen), active_since=_active_since(seen))


def _idle_since(seen: Seen) -> datetime | None:
    return None if seen.users else clocks.time(seen.status.get("idleSince")) or seen.now


def _active_since(seen: Seen) -> datetime | None:
    """A lifetime that is over stays over for those who saw its end; a new user or another spec begins the next one."""
    over = conditions.find(seen.status, "Ready").get("reason") == LIFETIME_OVER
    came = bool(seen.users) and "idleSince" in seen.status
    changed = seen.status.get("observedGeneration") != seen.generation
    return None if over and (came or changed) else clocks.time(seen.status.get("activeSince"))


def _after(since: datetime | None, seconds: int | None) -> datetime | None:
    return None if since is None or seconds is None else since + timedelta(seconds=seconds)


def ready_pods(seen: Seen) -> int:
    return sum(pods.read(each).ready for each in seen.pods)


def working(seen: Seen) -> bool:
    """An update would cost something: a pod answers, or loads. One that crashed has nothing to lose."""
    return any(pods.read(each).ready or _loads(each) for each in seen.pods)


def _loads(pod: Manifest) -> bool:
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    return not deleting(pod) and any(
        "running" in (each.get("state") or {}) and not each.get("restartCount") for each in containers
    )


def trouble(seen: Seen) -> str:
    """Why pods are not ready, in Kubernetes' own words."""
    words = {pods.read(each).trouble for each in seen.pods} | set(_refusals(seen))
    return "; ".join(sorted(filter(None, words)))[:1000] or "no pod exists yet"


def _refusals(seen: Seen) -> Iterator[str]:
    """Why a Deployment may not make its pods: a quota or an admission policy, which no pod is there to tell."""
    for child in seen.children.values():
        told = conditions.find(child.get("status") or {}, "ReplicaFailure")
        if child["kind"] == "Deployment" and told.get("status") == "True":
            yield f"{told.get('reason', 'FailedCreate')}: {told.get('message', '')}"[:500]


def floors(image: str | None, replicas: int, policy: Policy) -> Iterator[str]:
    """Where a spec asks for what this installation does not allow."""
    if image and policy.allowed_images and not any(_begins(image, each) for each in policy.allowed_images):
        yield f"spec.image: {image} is not allowed here; it must begin with {' or '.join(policy.allowed_images)}"
    if replicas > policy.max_replicas:
        yield f"spec.replicas: {replicas} are more than the {policy.max_replicas} that this installation allows"


def _begins(image: str, prefix: str) -> bool:
    """Whole parts of a name only: what begins with `example.com/acme` is not in `example.com/acme-evil`."""
    rest = image.removeprefix(prefix)
    return image.startswith(prefix) and (not rest or rest[0] in "/:@" or prefix[-1] in "/:@")


def status(seen: Seen, use_: Use, told: list[dict[str, Any]], phase: str, **more: Any) -> dict[str, Any]:
    """The operator's whole status of a shared object."""
    found = {
        "phase": phase,
        "conditions": told,
        "observedGeneration": seen.generation,
        "users": seen.users,
        "activeSince": clocks.text(use_.active_since),
        "idleSince": clocks.text(use_.idle_since),
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}
