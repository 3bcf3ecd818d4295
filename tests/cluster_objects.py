"""Objects as an API server would show them, for the pure parts of the controller."""

from datetime import UTC, datetime, timedelta
from typing import Any

from kernelsearch.api import validation
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.controller import settings
from kernelsearch.controller.builders import names
from kernelsearch.controller.manifest import key
from kernelsearch.controller.plan import clocks
from kernelsearch.controller.plan.readiness import Seen

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
REPLAY = {"engine": "custom", "image": "operator", "args": ["replay-model"]}
SETTINGS = settings.Settings(
    operator_image="kernelsearch:1", verifier_image="kernelverify:1", presets={"replay": REPLAY}
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    return str(clocks.text(at(seconds)))


def search(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    whole = {
        "problem": {"inline": {"reference": "class Model: ..."}},
        "model": {"name": "r1", "serve": {"preset": "replay"}},
        "verifiers": {"serve": {"device": "cpu"}},
        **spec,
    }
    metadata = {"name": "demo", "namespace": "ns", "uid": "u1", "generation": 3, "resourceVersion": "7"}
    body = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": metadata, "spec": whole}
    return {**body, "status": status} if status is not None else body


def read(body: dict[str, Any]) -> KernelSearch:
    return validation.read({**body, "status": None})


def shared(
    kind: str, *, ready: bool = True, owner: str = "u1", name: str = "demo", namespace: str = "ns", **spec: Any
) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "R", "message": "m"}
    return {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"{kind}-1", "ownerReferences": [{"uid": owner}]},
        "spec": spec,
        "status": {"conditions": [condition]},
    }


def pod(*, ready: bool = True, phase: str = "Running", restarts: int = 0, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "demo-runner",
            "namespace": "ns",
            "uid": "p1",
            "creationTimestamp": stamp(0),
            "annotations": {names.RESTARTS: str(restarts)},
            "ownerReferences": [{"uid": "u1"}],
        },
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            **status,
        },
    }


def ended(seconds: float, code: int = 1) -> dict[str, Any]:
    terminated = {"exitCode": code, "reason": "Error", "finishedAt": stamp(seconds)}
    return {"phase": "Failed", "ready": False, "containerStatuses": [{"state": {"terminated": terminated}}]}


def seen(body: dict[str, Any], seconds: float = 0, *children: dict[str, Any], **more: Any) -> Seen:
    """With model and verifiers ready, unless told otherwise."""
    parts = {
        "server": shared("ModelServer"),
        "pool": shared("VerifierPool"),
        "missing_reference": "",
        **more,
    }
    return Seen(body, {key(each): each for each in children}, now=at(seconds), **parts)
