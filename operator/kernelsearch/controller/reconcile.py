"""One pass over one object: observe, plan, apply, status. Whatever fails is told, counted and tried again."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kernelsearch.api import validation
from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller import status
from kernelsearch.controller.apply import Applier
from kernelsearch.controller.cluster import KINDS, Cluster, ClusterError, ConflictError, SilentError, TerminatingError
from kernelsearch.controller.manifest import Manifest, deleting, uid
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.controller.plan import conditions, model_server, search, shared, standing, verifier_pool
from kernelsearch.controller.settings import Settings
from kernelsearch.metrics import OperatorMetrics

log = logging.getLogger(__name__)

BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
AGAIN_S = 0.2
"""After a conflict: somebody wrote in between, and the object has to be read again."""

SIDE_BY_SIDE = 16
"""Passes at a time. With a thousand new searches at once, three thousand passes asked together, waited for each other
until every request had timed out, and began anew: nothing was ever finished. A pass that waits here sees, when its turn
comes, what the others have done.
"""
FAILED_SIDE_BY_SIDE = 4
"""Those whose last pass failed have turns of their own: where each takes twenty seconds to fail, as behind an
admission webhook that hangs, they would make all others late.
"""


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Reconciler:
    """Everything that passes share."""

    cluster: Cluster
    settings: Settings
    observer: Observer
    metrics: OperatorMetrics
    keys: Mapping[str, str]
    """`issuer` and `jwks`, as they are now."""
    clock: Callable[[], datetime] = now
    announce: Callable[[Manifest, str, str], None] = lambda *_: None
    """Tells an event: object, reason, message."""
    _failures: dict[Name, int] = field(default_factory=dict)
    _stale: set[Name] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._applier = Applier(self.cluster)
        self._turns, self._turns_of_failed = asyncio.Semaphore(SIDE_BY_SIDE), asyncio.Semaphore(FAILED_SIDE_BY_SIDE)

    async def run(self, name: Name) -> float:
        """Seconds until the next pass that time alone makes necessary. Raises nothing but CancelledError."""
        try:
            with self.metrics.duration.labels(name.kind).time():
                async with self._turns_of_failed if name in self._failures else self._turns:
                    return await self._guarded(name)
        finally:
            if self.observer.body(name) is None:  # it went while the pass lasted: nobody else would take it out
                self.forget(name)

    def forget(self, name: Name) -> None:
        """It is gone, and so is what was remembered of it."""
        self._failures.pop(name, None)
        self._stale.discard(name)
        self._applier.forget(name)

    async def _guarded(self, name: Name) -> float:
        try:
            wait = await self._pass(name)
        except ConflictError:
            self._stale.add(name)
            self.metrics.reconciles.labels(name.kind, "conflict").inc()
            return AGAIN_S
        except TerminatingError:
            return shared.LOOK_AGAIN_SECONDS
        except Exception as error:  # noqa: BLE001 - a daemon that ends is never started again: it must not end
            return await self._failed(name, error)
        self._failures.pop(name, None)
        self.metrics.reconciles.labels(name.kind, "ok").inc()
        return wait

    async def _failed(self, name: Name, error: Exception) -> float:
        count = self._failures.get(name, 0)
        self._failures[name] = count + 1
        # Of the API server's answers the words say it all; anything else is ours to find.
        ours = None if isinstance(error, ClusterError) else error
        log.error("%s %s/%s: a pass failed: %s", *name, error, exc_info=ours)
        self.metrics.reconciles.labels(name.kind, "error").inc()
        if not isinstance(error, SilentError):  # it would not answer to this either, and hold the turn twice as long
            await self._degrade(name, f"{type(error).__name__}: {str(error)[:800]}")
        return BACKOFF_S[min(count, len(BACKOFF_S) - 1)]

    async def _degrade(self, name: Name, words: str) -> None:
        """Tell it on the object, where that can be: what made the pass fail may forbid this as well."""
        body = self.observer.body(name)
        if body is None:
            return
        try:
            await self._write_status(body, standing.failed(body, words, self.clock()))
        except ConflictError:
            self._stale.add(name)
        except Exception as error:  # noqa: BLE001 - as above; the log has the failure already
            log.warning("%s %s/%s: the failure cannot be told on the object: %s", *name, error)

    async def _pass(self, name: Name) -> float:
        body = await self._body(name)
        if body is None or deleting(body):
            return shared.LOOK_AGAIN_SECONDS
        plan = await self._plan(name, body)
        body = await self._write_status(body, plan.status)
        await self._applier.children(body, plan, self.observer.labelled(name))
        body = await self._write_status(body, standing.recovered(body, self.clock()))
        if plan.delete:
            metadata = body["metadata"]
            await self.cluster.delete(KINDS[name.kind], metadata["namespace"], metadata["name"], uid(body))
        return plan.requeue_seconds

    async def _body(self, name: Name) -> Manifest | None:
        """From the index, but read anew after a conflict: the index lags behind our own writes."""
        if name in self._stale:
            self._stale.discard(name)
            return await self.cluster.get(KINDS[name.kind], name.namespace, name.name)
        return self.observer.body(name)

    async def _plan(self, name: Name, body: Manifest) -> shared.Plan:
        if name.kind == "KernelSearch":
            seen = await self.observer.search(name, body, self.cluster, self.clock())
            try:
                read = validation.stored(body)
            except validation.InvalidManifestError as error:
                return search.invalid(seen, str(error))
            return search.plan(seen, read, self.settings)
        found = self.observer.shared(name, body, self.clock(), self.keys)
        if name.kind == "ModelServer":
            return model_server.plan(found, ModelServer.stored(body), self.settings)
        return verifier_pool.plan(found, VerifierPool.stored(body), self.settings)

    async def _write_status(self, body: Manifest, wanted: Mapping[str, Any] | None) -> Manifest:
        """The object as it is then; None leaves it as it was."""
        if wanted is None or not status.differs(body, wanted):
            return body
        written = await status.write(self.cluster, body, wanted)
        self._tell(body, wanted)
        return written

    def _tell(self, body: Manifest, written: Mapping[str, Any]) -> None:
        """Events and counts for what has just changed; a crash before this line loses them, and never doubles them."""
        before = body.get("status") or {}
        for each in written["conditions"]:
            old = conditions.find(before, each["type"])
            changed = (old.get("status"), old.get("reason")) != (each["status"], each["reason"])
            if changed and each["reason"] not in {"NotYet", "Pending", "NotSuspended", "AsExpected"}:
                self.announce(body, f"{each['type']}{each['status']}", f"{each['reason']}: {each['message']}")
        ended = conditions.holds(written, "Complete") and not conditions.holds(before, "Complete")
        if ended and body["kind"] == "KernelSearch":
            reason, solved = conditions.find(written, "Complete")["reason"], conditions.holds(written, "Solved")
            self.metrics.count_finished(before, reason, solved=solved)
