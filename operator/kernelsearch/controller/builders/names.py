"""Names, labels and ports: everything by which parts of the system find one another."""

from collections.abc import Mapping
from typing import Any

from kernelsearch.controller.manifest import Manifest

DOMAIN = "kernelsearch.dev"
MANAGED_BY = {"app.kubernetes.io/managed-by": "kernelsearch"}
"""On every child; the operator's watches select by it, so that no other pod of the cluster travels to it."""
OWNER_KIND, OWNER_NAME = f"{DOMAIN}/owner-kind", f"{DOMAIN}/owner-name"
COMPONENT = "app.kubernetes.io/component"
RESTARTS = f"{DOMAIN}/restarts"
"""Annotation of a runner pod: how many came before it in quick succession."""

RUNNER, MODEL, VERIFIER = "runner", "model", "verifier"

MODEL_PORT, VERIFIER_PORT, METRICS_PORT = 8000, 8000, 9090
AUDIENCE = "kernelsearch-verifier"


def runner(search: str) -> str:
    return f"{search}-runner"


def checkpoint(search: str) -> str:
    return f"{search}-checkpoint"


def best(search: str) -> str:
    return f"{search}-best"


def model(server: str) -> str:
    return f"{server}-model"


def verifier(pool: str) -> str:
    """Deployment and headless Service."""
    return f"{pool}-verifier"


def jwks(pool: str) -> str:
    return f"{pool}-jwks"


def model_url(server: str, namespace: str) -> str:
    return f"http://{model(server)}.{namespace}.svc:{MODEL_PORT}/v1"


def verifier_service(pool: str, namespace: str) -> str:
    return f"{verifier(pool)}.{namespace}.svc:{VERIFIER_PORT}"


def labels(owner: Mapping[str, Any], component: str) -> dict[str, str]:
    """Of a child of `owner`."""
    return {
        **MANAGED_BY,
        "app.kubernetes.io/name": "kernelsearch",
        COMPONENT: component,
        OWNER_KIND: str(owner["kind"]),
        OWNER_NAME: str(owner["metadata"]["name"]),
    }


def selector(owner: Mapping[str, Any], component: str) -> dict[str, str]:
    """By which the pods of one component of `owner` are found."""
    wanted = labels(owner, component)
    return {key: wanted[key] for key in (COMPONENT, OWNER_KIND, OWNER_NAME)}


def child(owner: Mapping[str, Any], kind: str, name: str, component: str, **content: Any) -> Manifest:
    """A manifest that goes with its owner."""
    return {
        "apiVersion": _VERSIONS.get(kind, "v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": labels(owner, component),
            "ownerReferences": [reference(owner)],
        },
        **content,
    }


def reference(owner: Mapping[str, Any]) -> Manifest:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


_VERSIONS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ModelServer": f"{DOMAIN}/v1alpha1",
    "VerifierPool": f"{DOMAIN}/v1alpha1",
}
