"""A pod in the few values that decisions need: is it ready, why not, is it over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kernelsearch.controller.builders import names
from kernelsearch.controller.plan import clocks

BACKOFF_SECONDS = (0, 1, 2, 4, 8, 10)
"""Before the next runner, by how many ended in quick succession. A Job would wait 10, 20, 40 s: five kills
would cost five of fifteen minutes."""
STEADY_SECONDS = 60
"""A runner that lived so long has not failed in succession."""


STARTING = "its containers are starting"


@dataclass(frozen=True)
class Pod:
    """One pod, as observed."""

    name: str
    uid: str
    ready: bool
    over: bool
    """Succeeded or Failed."""
    deleting: bool
    gated: bool
    """Held back by a scheduling gate, such as a queue's."""
    trouble: str
    """Why it is not ready, in words; empty when it is."""
    restarts: int
    created: datetime | None
    ended: datetime | None
    """When its container did, or, where the kubelet kept no container's end (it refused or evicted the pod, its node is
    gone), when something was last noted about it."""
    exit_code: int | None


def read(manifest: Mapping[str, Any]) -> Pod:
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    containers = status.get("containerStatuses") or ()
    states: list[dict[str, Any]] = [each.get("state") or {} for each in containers]
    ended: dict[str, Any] = next((state["terminated"] for state in states if "terminated" in state), {})
    over = status.get("phase") in ("Succeeded", "Failed")
    ready = _condition(status, "Ready").get("status") == "True"
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        ready=ready and not metadata.get("deletionTimestamp"),
        over=over,
        deleting=bool(metadata.get("deletionTimestamp")),
        gated=_condition(status, "PodScheduled").get("reason") == "SchedulingGated",
        trouble="" if ready else _crash(containers) or _trouble(status, states),
        restarts=int((metadata.get("annotations") or {}).get(names.RESTARTS, "0")),
        created=clocks.time(metadata.get("creationTimestamp")),
        ended=clocks.time(ended.get("finishedAt")) or (_last_change(metadata, status) if over else None),
        exit_code=ended.get("exitCode"),
    )


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def _last_change(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> datetime | None:
    noted = [clocks.time(each.get("lastTransitionTime")) for each in status.get("conditions") or ()]
    return max(filter(None, noted), default=clocks.time(metadata.get("creationTimestamp")))


def _crash(containers: Sequence[Mapping[str, Any]]) -> str:
    """Of a container that ends again and again: its last words, which its log begins anew each time."""
    for each in containers:
        waiting = (each.get("state") or {}).get("waiting") or {}
        ended = (each.get("lastState") or {}).get("terminated")
        if waiting.get("reason") == "CrashLoopBackOff" and ended:
            lines = str(ended.get("message") or ended.get("reason") or "").strip().splitlines()
            return f"CrashLoopBackOff: exit code {ended.get('exitCode')}: {lines[-1] if lines else ''}"[:500]
    return ""


def _trouble(status: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> str:
    """The most telling sentence that Kubernetes has about it."""
    for state in states:
        for kind in ("waiting", "terminated"):
            if detail := state.get(kind):
                words = [str(detail[key]) for key in ("reason", "message") if detail.get(key)]
                if kind == "terminated" and "exitCode" in detail:
                    words.append(f"exit code {detail['exitCode']}")
                if words and words != ["ContainerCreating"]:
                    return ": ".join(words)[:500]
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}"[:500]
    if status.get("message"):
        return f"{status.get('reason', '')}: {status['message']}"[:500]
    return STARTING if states else "it is not scheduled yet"


def next_restarts(pod: Pod) -> int:
    """How many runners ended in quick succession, this one included."""
    lived = (pod.ended - pod.created).total_seconds() if pod.ended and pod.created else 0.0
    return 0 if lived >= STEADY_SECONDS else pod.restarts + 1


def replace_in(pod: Pod, now: datetime) -> float:
    """Seconds until an ended runner should be replaced; 0 for at once."""
    delay = BACKOFF_SECONDS[min(next_restarts(pod), len(BACKOFF_SECONDS) - 1)]
    return max(0.0, delay - (now - pod.ended).total_seconds()) if pod.ended else 0.0
