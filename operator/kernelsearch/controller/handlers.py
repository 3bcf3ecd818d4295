"""kopf's part: watches, indices, one loop an object. No decision is made here.

Level-based: an event only wakes the loop of the object that it concerns, and the loop looks at everything anew. There
are no handlers of creation, update or deletion: their bookkeeping copies the spec into an annotation, which breaks at
256 KiB.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import kopf

from kernelsearch.api.resource import GROUP, VERSION
from kernelsearch.controller import observe
from kernelsearch.controller.builders import names
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.controller.plan import conditions

log = logging.getLogger(__name__)

SELECTOR = ",".join(f"{key}={value}" for key, value in names.MANAGED_BY.items())
OURS = {"KernelSearch": "kernelsearches", "ModelServer": "modelservers", "VerifierPool": "verifierpools"}
CHILDREN = (
    *(("", "pods"), ("", "services"), ("", "configmaps"), ("", "serviceaccounts"), ("apps", "deployments")),
    *(("rbac.authorization.k8s.io", "roles"), ("rbac.authorization.k8s.io", "rolebindings")),
    ("networking.k8s.io", "networkpolicies"),
)
CANCEL_S = 5.0
"""Twice: first a loop is told to end, then its task is cancelled."""
EXIT_S = 60
"""After so long an operator that was told to end kills itself. It ends in 2 s; with a tenth of a core, in the midst of
making twenty searches, within 22 s (measured). kopf's own waits add up to 17: 2 for events, twice `CANCEL_S` for loops,
5 for what it calls hung, such as its streams that were cut off amid an event. The chart's
`terminationGracePeriodSeconds` is longer, and the uninstall waits longer still."""
ABRUPT = kopf.DaemonStoppingReason.OPERATOR_EXITING | kopf.DaemonStoppingReason.RESOURCE_DELETED
"""Why a loop shall end without its pass. Not because its search is over: that very pass takes the pods away."""


class Passes(Protocol):
    """What the loops go round in."""

    async def run(self, name: Name) -> float:
        """One pass; seconds until the next one that time alone makes necessary."""

    def forget(self, name: Name) -> None:
        """The object is gone."""


class Wakers:
    """One bell a loop; ringing an object's makes its loop look again.

    For a moment an object may have two: the loop of one that was deleted still ends while that of the next begins.
    """

    def __init__(self) -> None:
        self._bells: dict[Name, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def bell(self, name: Name) -> Iterator[asyncio.Event]:
        own = asyncio.Event()
        self._bells.setdefault(name, set()).add(own)
        try:
            yield own
        finally:
            self._bells[name].discard(own)
            if not self._bells[name]:
                del self._bells[name]

    def ring(self, name: Name | None) -> None:
        for each in self._bells.get(name, ()) if name is not None else ():
            each.set()


def alive(body: kopf.Body, **_: Any) -> bool:
    """A finished search needs no loop, and no finalizer: it costs nothing but its place in the index."""
    status = dict(body.get("status") or {})
    return not conditions.holds(status, "Complete") and not _foreign(body)


def _foreign(body: Any) -> bool:
    return bool((body.get("spec") or {}).get("managedBy"))


def configure(settings: kopf.OperatorSettings, *, namespaced: bool) -> None:
    """What must be set; the reasons are in the design."""
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"progress.{GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"diff.{GROUP}")
    settings.posting.level = logging.WARNING
    settings.posting.loggers = False
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.execution.default_backoff = 10
    settings.process.ultimate_exiting_timeout = EXIT_S
    settings.scanning.disabled = namespaced
    for group, plural in CHILDREN:
        settings.watching.label_selectors[group, plural] = SELECTOR


class Handlers:
    """Everything that kopf shall call."""

    def __init__(self, observer: Observer, passes: Passes) -> None:
        self._observer, self._passes, self._wakers = observer, passes, Wakers()
        self._exiting = asyncio.Event()
        """The operator ends. kopf works off events meanwhile, and begins loops for them which it tells to end no more:
        on a busy machine these, and passes in flight, kept it from ending until it was killed."""

    def register(self, registry: kopf.OperatorRegistry) -> None:
        for plural in OURS.values():
            where = (GROUP, VERSION, plural)
            kopf.index(*where, registry=registry, id="ours")(self._index_ours)
            kopf.index(*where, registry=registry, id="children")(self._index_children)
            kopf.on.event(*where, registry=registry, id=f"changed-{plural}")(self._changed)
            kopf.daemon(
                *where,
                registry=registry,
                id="loop",
                when=alive,
                cancellation_backoff=CANCEL_S,
                cancellation_timeout=CANCEL_S,
            )(self._loop)
        kopf.index(GROUP, VERSION, OURS["KernelSearch"], registry=registry, id="referring")(self._index_referring)
        labels = dict(names.MANAGED_BY)
        for group, plural in CHILDREN:
            kopf.index(group, "v1", plural, registry=registry, id="children", labels=labels)(self._index_children)
            watch = kopf.on.event(group, "v1", plural, registry=registry, id=f"child-{plural}", labels=labels)
            watch(self._child_changed)

    @staticmethod
    def _index_ours(body: kopf.Body, **_: Any) -> dict[Name, Manifest]:
        return {observe.name_of(body): observe.kept(body)}

    @staticmethod
    def _index_children(body: kopf.Body, **_: Any) -> dict[Name, Manifest]:
        owner = observe.owner(body)
        return {owner: observe.kept(body)} if owner else {}  # nothing at all would leave it where it was before

    @staticmethod
    def _index_referring(body: kopf.Body, **_: Any) -> dict[Name, Manifest]:
        return {each: observe.kept(body) for each in observe.uses(body) if each is not None}

    async def _changed(self, body: kopf.Body, event: kopf.RawEvent, **indices: Any) -> None:
        self._observer.read(indices)
        name = observe.name_of(body)
        if event["type"] == "DELETED":
            self._passes.forget(name)
        self._wakers.ring(name)
        self._wakers.ring(observe.owner(body))
        if name.kind == "KernelSearch":
            concerned = [each for each in observe.uses(body) if each is not None]
        else:
            concerned = [observe.name_of(each) for each in self._observer.referrers(name)]
        for each in concerned:
            self._wakers.ring(each)

    async def _child_changed(self, body: kopf.Body, **indices: Any) -> None:
        self._observer.read(indices)
        self._wakers.ring(observe.owner(body))

    async def _loop(self, body: kopf.Body, stopped: kopf.DaemonStopped, **indices: Any) -> None:
        self._observer.read(indices)
        name, own = observe.name_of(body), body["metadata"]["uid"]
        ending = asyncio.ensure_future(self._told(stopped))
        with self._wakers.bell(name) as bell:
            try:
                while not (stopped or self._exiting.is_set()) and self._there(name, own):
                    bell.clear()
                    seconds = await self._pass(name, ending, stopped)
                    await _wait(asyncio.ensure_future(bell.wait()), ending, seconds)
            finally:
                ending.cancel()

    def _there(self, name: Name, uid: str) -> bool:
        """This very object. Of one that went before it had our finalizer, kopf tells its loop nothing."""
        found = self._observer.body(name)
        return found is not None and found["metadata"]["uid"] == uid

    async def _told(self, stopped: kopf.DaemonStopped) -> None:
        """Returns when this loop shall end: by kopf's word to it, or by its word to any, for it means them all."""
        words = asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(self._exiting.wait())
        try:
            await asyncio.wait(words, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in words:
                each.cancel()
        if stopped.reason is not None and kopf.DaemonStoppingReason.OPERATOR_EXITING in stopped.reason:
            self._exiting.set()

    async def _pass(self, name: Name, ending: asyncio.Future[None], stopped: kopf.DaemonStopped) -> float:
        """What it says, or 0 when it was broken off, which it may be anywhere: whoever looks next begins anew."""
        running = asyncio.ensure_future(self._passes.run(name))
        try:
            await asyncio.wait((running, ending), return_when=asyncio.FIRST_COMPLETED)
            abrupt = self._exiting.is_set() or (stopped.reason is not None and bool(stopped.reason & ABRUPT))
            return 0.0 if abrupt else await running
        finally:
            running.cancel()
            await asyncio.wait((running,))


async def _wait(ringing: asyncio.Future[Any], ending: asyncio.Future[Any], seconds: float) -> None:
    """Until something happened, the time has come, or the loop shall end."""
    try:
        await asyncio.wait((ringing, ending), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ringing.cancel()


def announce(body: Manifest, reason: str, message: str) -> None:
    """An event of Kubernetes. None from beside the loops: kopf's queue of events is known to its own tasks only."""
    with contextlib.suppress(LookupError):
        kopf.event(body, type="Normal", reason=reason[:128], message=message[:1000])  # type: ignore[arg-type]  # any mapping with metadata will do
