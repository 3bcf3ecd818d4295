"""What every pod has, whoever runs in it: the `restricted` Pod Security Standard, and no more than it needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.settings import Policy

USER = 65532
"""nonroot, as in distroless images; the images have a passwd line for it."""

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(policy: Policy, containers: Sequence[Manifest], **more: Any) -> Manifest:
    """A pod's spec. No token of the API server unless the caller asks for one."""
    found: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": list(containers),
        **more,
    }
    if policy.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in policy.image_pull_secrets]
    return found


def environment(values: Mapping[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in values.items()]


def field(name: str, path: str) -> Manifest:
    """An environment variable from the pod's own metadata."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def probe(path: str, port: str | int, **more: Any) -> Manifest:
    return {"httpGet": {"path": path, "port": port}, **more}


def scratch(name: str, path: str, size: str, *, memory: bool = False) -> tuple[Manifest, Manifest]:
    """A private writable folder: its volume and its mount."""
    kind: Manifest = {"sizeLimit": size, **({"medium": "Memory"} if memory else {})}
    return {"name": name, "emptyDir": kind}, {"name": name, "mountPath": path}
