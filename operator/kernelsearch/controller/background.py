"""Beside the reconcile loops: the keys of ServiceAccounts, the check of every watch, what ended objects still need."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Protocol

from kernelsearch.controller.cluster import KINDS, Cluster, ClusterError
from kernelsearch.controller.exposition import Health
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.controller.plan import conditions
from kernelsearch.metrics import OperatorMetrics

log = logging.getLogger(__name__)

KEYS_S = 300.0
CHECK_S = 60.0
SWEEP_S = 30.0
OURS = ("KernelSearch", "ModelServer", "VerifierPool")


class Texts(Protocol):
    """A server of plain paths."""

    async def text(self, path: str) -> str:
        """The body. Raises a ClusterError."""


async def forever(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Again and again; what fails is logged and tried the next time."""
    while True:
        try:
            await work()
        except ClusterError as error:
            log.warning("%s", error)
        except Exception:
            # Whatever one round stumbled over, the next is still wanted: nobody would notice that it had stopped.
            log.exception("a round of the background work failed; the next comes in %.0f s", seconds)
        await asyncio.sleep(seconds)


async def refresh_keys(server: Texts, keys: MutableMapping[str, str]) -> None:
    """With these a verifier checks runners' tokens by itself. Every ServiceAccount may read them."""
    issuer = json.loads(await server.text("/.well-known/openid-configuration"))["issuer"]
    keys.update(issuer=issuer, jwks=await server.text("/openid/v1/jwks"))


class WatchCheck:
    """kopf has one watcher a kind, and each may stop silently: compares what the server has with what the index saw."""

    def __init__(self, cluster: Cluster, observer: Observer, health: Health, metrics: OperatorMetrics) -> None:
        self._cluster, self._observer, self._health, self._metrics = cluster, observer, health, metrics
        self._unseen: dict[str, set[tuple[str, str]]] = {}

    async def look(self, namespaces: tuple[str, ...]) -> None:
        """One round. A version that was already unseen a round ago means that the stream is dead."""
        for kind in OURS:
            try:
                versions = await self._versions(kind, namespaces)
            except ClusterError as error:
                self._metrics.unreachable.inc()
                log.warning("the API server cannot be asked about %s: %s", kind, error)
                continue
            unseen = self._not_in_index(kind, versions)
            if unseen & self._unseen.get(kind, set()):
                self._metrics.stalled.labels(kind).inc()
                self._health.trouble = f"the watch of {kind} is dead: a change of {CHECK_S:.0f} s ago has not arrived\n"
                log.error("%s", self._health.trouble.strip())
            self._unseen[kind] = unseen

    async def _versions(self, kind: str, namespaces: tuple[str, ...]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for namespace in namespaces or (None,):
            found |= await self._cluster.versions(KINDS[kind], namespace)
        return found

    def _not_in_index(self, kind: str, versions: Mapping[str, str]) -> set[tuple[str, str]]:
        seen = {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in self._observer.all(kind)}
        return {(uid, version) for uid, version in versions.items() if seen.get(uid) != version}


class Sweeper:
    """Finished searches have no loop of their own: their time to live and their leftovers are looked at here."""

    def __init__(self, observer: Observer, reconcile: Callable[[Name], Awaitable[float]]) -> None:
        self._observer, self._reconcile = observer, reconcile

    async def sweep(self) -> None:
        for each in self._observer.all("KernelSearch"):
            metadata = each["metadata"]
            name = Name("KernelSearch", metadata["namespace"], metadata["name"])
            over = conditions.holds(each.get("status") or {}, "Complete")
            if over and (self._leftovers(name) or "ttlSecondsAfterFinished" in each["spec"]):
                await self._reconcile(name)

    def _leftovers(self, name: Name) -> bool:
        return any(each["kind"] != "ConfigMap" for each in self._observer.labelled(name))
