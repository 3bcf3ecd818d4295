"""Before an installation goes: stop its operator, then take the finalizers away that only it would have removed."""

import asyncio
import logging

from kernelsearch.api.resource import GROUP
from kernelsearch.controller.cluster import DEPLOYMENT, KERNEL_SEARCH, MODEL_SERVER, POD, VERIFIER_POOL, ApiServer

log = logging.getLogger(__name__)

FINALIZER = f"{GROUP}/finalizer"
OPERATOR = "app.kubernetes.io/name=kernelsearch,app.kubernetes.io/component=operator"
WAIT_S = 120.0


async def run(server: ApiServer, namespace: str, deployment: str, watched: tuple[str, ...]) -> int:
    """How many objects were freed. Raises a ClusterError, or TimeoutError when the operator does not end."""
    await server.scale(DEPLOYMENT, namespace, deployment, 0)
    async with asyncio.timeout(WAIT_S):  # a finalizer that is removed under a living operator comes back
        while await server.list(POD, namespace, OPERATOR):  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.5)
    freed = 0
    for kind in (KERNEL_SEARCH, MODEL_SERVER, VERIFIER_POOL):
        for place in watched or (None,):
            for body in await server.list(kind, place):
                finalizers = body["metadata"].get("finalizers") or []
                if FINALIZER in finalizers:
                    left = [each for each in finalizers if each != FINALIZER]
                    await server.patch(kind, body, {"metadata": {"finalizers": left}})
                    freed += 1
    log.info("%d objects are free of our finalizer", freed)
    return freed
