"""Beside the reconcile loops: the keys of ServiceAccounts, the check of every watch, what ended objects still need."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Protocol

from kernelsearch.controller import handlers
from kernelsearch.controller.builders import names
from kernelsearch.controller.cluster import KINDS, Cluster, ClusterError, Kind
from kernelsearch.controller.exposition import Health
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.controller.plan import conditions
from kernelsearch.metrics import OperatorMetrics

log = logging.getLogger(__name__)

KEYS_S = 300.0
CHECK_S = 60.0
SWEEP_S = 30.0
FILLING_ROUNDS = 10
"""Of the check of watches, while indices are filled: among thousands of objects that takes longer than one round."""
OWNED = f"{handlers.SELECTOR},{names.OWNER_KIND},{names.OWNER_NAME}"
"""What the index keeps of other kinds: a stranger's object without the owner's labels would look like one missed."""
WATCHED = {
    **{kind: "" for kind in KINDS.values() if handlers.OURS.get(kind.name) == kind.plural},
    **{kind: OWNED for kind in KINDS.values() if (kind.group, kind.plural) in handlers.CHILDREN},
}
"""Every kind of which kopf has a stream, and the labels of the objects that it should have brought."""


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
        self._unseen: dict[Kind, set[tuple[str, str]]] = {}
        self._rounds = 0

    async def look(self, namespaces: tuple[str, ...]) -> None:
        """One round. A version that was already unseen a round ago means that the stream is dead."""
        self._rounds += 1
        if not self._observer.filled and self._rounds <= FILLING_ROUNDS:
            return
        there = {kind: await self._versions(kind, selector, namespaces) for kind, selector in WATCHED.items()}
        seen = self._observer.versions()
        for kind, versions in there.items():
            if versions is not None:
                self._compare(kind, {(uid, version) for uid, version in versions.items() if seen.get(uid) != version})

    async def _versions(self, kind: Kind, selector: str, namespaces: tuple[str, ...]) -> Mapping[str, str] | None:
        """None when the server cannot be asked: that says nothing about a watch."""
        found: dict[str, str] = {}
        try:
            for namespace in namespaces or (None,):
                found |= await self._cluster.versions(kind, namespace, selector)
        except ClusterError as error:
            self._metrics.unreachable.inc()
            log.warning("the API server cannot be asked about %s: %s", kind.name, error)
            return None
        return found

    def _compare(self, kind: Kind, unseen: set[tuple[str, str]]) -> None:
        if unseen & self._unseen.get(kind, set()):
            self._metrics.stalled.labels(kind.name).inc()
            self._health.trouble = (
                f"the watch of {kind.name} is dead: a change of {CHECK_S:.0f} s ago has not arrived\n"
            )
            log.error("%s", self._health.trouble.strip())
        self._unseen[kind] = unseen


class Sweeper:
    """Finished searches have no loop of their own: their time to live and their leftovers are looked at here."""

    def __init__(self, observer: Observer, reconcile: Callable[[Name], Awaitable[float]]) -> None:
        self._observer, self._reconcile = observer, reconcile

    async def sweep(self) -> None:
        for each in self._observer.all("KernelSearch"):
            metadata = each["metadata"]
            name = Name("KernelSearch", metadata["namespace"], metadata["name"])
            if conditions.holds(each.get("status") or {}, "Complete") and self._unfinished(each, name):
                await self._reconcile(name)

    def _unfinished(self, body: Manifest, name: Name) -> bool:
        """It will be deleted, something is left of it, or it still says that this failed."""
        if "ttlSecondsAfterFinished" in body["spec"] or conditions.holds(body["status"], "Degraded"):
            return True
        return any(each["kind"] != "ConfigMap" for each in self._observer.labelled(name))
