"""Before an installation goes: stop its operator, then take the finalizers away that only it would have removed."""

import asyncio
import logging

from kernelsearch.api.resource import GROUP
from kernelsearch.controller.cluster import (
    DEPLOYMENT,
    KERNEL_SEARCH,
    MODEL_SERVER,
    POD,
    VERIFIER_POOL,
    ApiServer,
    ConflictError,
    Kind,
)
from kernelsearch.controller.manifest import Manifest

log = logging.getLogger(__name__)

FINALIZER = f"{GROUP}/finalizer"
OPERATOR = "app.kubernetes.io/name=kernelsearch,app.kubernetes.io/component=operator"
"""Pods of every installation's operator."""
INSTANCE = "app.kubernetes.io/instance"
WAIT_S = 120.0


async def run(server: ApiServer, namespace: str, deployment: str, release: str, watched: tuple[str, ...]) -> int:
    """How many objects were freed. Raises a ClusterError, or TimeoutError when the operator does not end."""
    await server.scale(DEPLOYMENT, namespace, deployment, 0)
    own = f"{OPERATOR},{INSTANCE}={release}"  # a second release may live in this namespace, and goes on
    async with asyncio.timeout(WAIT_S):  # a finalizer that is removed under a living operator comes back
        while await server.list(POD, namespace, own):  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.5)
    freed = 0
    for kind in (KERNEL_SEARCH, MODEL_SERVER, VERIFIER_POOL):
        for place in watched or (None,):
            for body in await server.list(kind, place):
                freed += await _free(server, kind, body)
    log.info("%d objects are free of our finalizer", freed)
    return freed


async def _free(server: ApiServer, kind: Kind, listed: Manifest) -> bool:
    """Whether the finalizer was there to take away. Runners live and publish: the object may have changed since."""
    body: Manifest | None = listed
    while body is not None and FINALIZER in (finalizers := body["metadata"].get("finalizers") or []):
        left = [each for each in finalizers if each != FINALIZER]
        try:
            return await server.patch(kind, body, {"metadata": {"finalizers": left}}) is not None
        except ConflictError:
            body = await server.get(kind, body["metadata"]["namespace"], body["metadata"]["name"])
    return False
