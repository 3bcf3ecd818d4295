"""Makes the cluster look like a plan: the only writer of children."""

import time
from collections.abc import Iterable, Mapping

from kernelsearch.controller import manifest, observe
from kernelsearch.controller.builders import names
from kernelsearch.controller.cluster import KINDS, Cluster, ConflictError
from kernelsearch.controller.manifest import Key, Manifest, deleting, key, same, sealed, uid
from kernelsearch.controller.observe import Name
from kernelsearch.controller.plan.shared import Plan

MANAGER = "kernelsearch-operator"
REFRESH_S = 1800.0
"""What was changed by hand under an unchanged digest is put right after so long."""


class Applier:
    """Remembers when it last wrote each child of an owner that is there, and nothing else."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._written: dict[Name, dict[str, float]] = {}

    async def children(self, owner: Manifest, plan: Plan, labelled: Iterable[Manifest]) -> None:
        """Remove what should not be, then make or mend what should. Raises a ClusterError."""
        there = list(labelled)
        wanted = {key(each) for each in plan.children}
        for each in there:
            if _unwanted(each, owner, plan, wanted):
                await self._delete(each)
        existing = observe.own(there, uid(owner))
        times = self._times(observe.name_of(owner), existing.values())
        for child in plan.children:
            await self._ensure(sealed(child), existing, plan, times)

    def forget(self, owner: Name) -> None:
        """It is gone."""
        self._written.pop(owner, None)

    def _times(self, owner: Name, existing: Iterable[Manifest]) -> dict[str, float]:
        """Of the children that are there, by UID: one never seen before counts as written now."""
        known, now = self._written.get(owner, {}), time.monotonic()
        self._written[owner] = {uid(each): known.get(uid(each), now) for each in existing}
        return self._written[owner]

    async def _ensure(
        self, child: Manifest, existing: Mapping[Key, Manifest], plan: Plan, times: dict[str, float]
    ) -> None:
        found = None if key(child) in plan.remove else existing.get(key(child))
        if child["kind"] == "Pod":  # hardly a field of a pod can change: it is made once
            if found is None:
                await self._create(child)
            return
        if found is not None and same(child, found) and time.monotonic() - times[uid(found)] <= REFRESH_S:
            return
        written = await self._cluster.apply(child, MANAGER)
        times[uid(written)] = time.monotonic()

    async def _create(self, child: Manifest) -> None:
        try:
            await self._cluster.create(child)
        except ConflictError:  # it exists, or its predecessor is still ending: the next pass sees which
            return

    async def _delete(self, child: Manifest) -> None:
        if deleting(child):
            return
        metadata = child["metadata"]
        kind = KINDS[child["kind"]]
        try:
            await self._cluster.delete(kind, metadata["namespace"], metadata["name"], uid(child))
        except ConflictError:  # already another one of that name
            return


def _unwanted(child: Manifest, owner: Manifest, plan: Plan, wanted: set[Key]) -> bool:
    """Pods of a Deployment carry our labels too, but they are the Deployment's."""
    if manifest.key(child) in plan.remove and observe.belongs(child, uid(owner)):
        return True
    if observe.belongs(child, uid(owner)):
        return not plan.keep and key(child) not in wanted
    return _of_an_earlier_one(child, owner)


def _of_an_earlier_one(child: Manifest, owner: Manifest) -> bool:
    """It belonged to an object of the same kind and name that is gone: never adopted."""
    metadata = child["metadata"]
    noted = (metadata.get("annotations") or {}).get(f"{names.DOMAIN}/search-uid", "")
    references = metadata.get("ownerReferences") or ()
    named = [each for each in references if (each["kind"], each["name"]) == (owner["kind"], owner["metadata"]["name"])]
    return bool(named) or bool(noted and not references)
