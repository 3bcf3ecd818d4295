"""The operator's part of a status, written whole or not at all."""

from collections.abc import Mapping
from typing import Any

from kernelsearch.controller.apply import MANAGER
from kernelsearch.controller.cluster import Cluster, ConflictError, NotFoundError
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.plan.standing import OWNED


def differs(body: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Something that the operator owns is not as it should be."""
    there = body.get("status") or {}
    return any(there.get(name) != wanted.get(name) for name in OWNED)


async def write(cluster: Cluster, body: Manifest, wanted: Mapping[str, Any]) -> Manifest:
    """Onto this very object as it was read; ConflictError when it has changed since, or is no more."""
    metadata = body["metadata"]
    place = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")}
    patch = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": place, "status": dict(wanted)}
    try:
        return await cluster.apply_status(patch, MANAGER)
    except NotFoundError as error:
        raise ConflictError(f"it was deleted meanwhile: {error}") from error
