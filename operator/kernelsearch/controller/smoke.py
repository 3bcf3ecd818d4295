"""Try an installation: one small search from its creation to its end, and nothing left of it. `helm test` runs this."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from kernelsearch.controller.cluster import KERNEL_SEARCH, Cluster
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.plan import conditions

LOOK_S = 1.0


async def run(server: Cluster, manifest: Manifest, seconds: float, say: Callable[[str], None]) -> Manifest:
    """The search's status at its end, or when it was refused.

    Raises a ClusterError, or TimeoutError when it does not end in so many seconds.
    """
    metadata = manifest["metadata"]
    place = (metadata["namespace"], metadata["name"])
    async with asyncio.timeout(seconds):
        await _removed(server, *place)
        await server.create(manifest)
        try:
            return await _ended(server, *place, say)
        finally:
            await server.delete(KERNEL_SEARCH, *place)


async def _removed(server: Cluster, namespace: str, name: str) -> None:
    """One that an earlier try left."""
    while await server.get(KERNEL_SEARCH, namespace, name):
        await server.delete(KERNEL_SEARCH, namespace, name)
        await asyncio.sleep(LOOK_S)


async def _ended(server: Cluster, namespace: str, name: str, say: Callable[[str], None]) -> Manifest:
    said = ""
    while True:
        found = await server.get(KERNEL_SEARCH, namespace, name) or {}
        status: Manifest = found.get("status") or {}
        if (line := words(status)) != said:
            say(line)
            said = line
        refused = conditions.find(status, "Accepted").get("status") == "False"
        if refused or conditions.holds(status, "Complete"):
            return status
        await asyncio.sleep(LOOK_S)


def words(status: Mapping[str, Any]) -> str:
    """How it stands, in a line."""
    attempts = status.get("attempts") or {}
    told = next(
        (each for kind in ("Complete", "Accepted", "Progressing") if (each := _told(status, kind))),
        "the operator has not seen it",
    )
    return f"{status.get('phase', 'Pending')}, {attempts.get('total', 0)} attempts, {told}"


def _told(status: Mapping[str, Any], kind: str) -> str:
    found = conditions.find(status, kind)
    if found.get("status") == ("False" if kind == "Accepted" else "True"):
        return f"{found['reason']}: {found['message']}" if found.get("message") else str(found["reason"])
    return ""
