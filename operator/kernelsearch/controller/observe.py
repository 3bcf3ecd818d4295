"""What is known of the cluster, read from kopf's indices: an informer's cache, filled before any handler runs."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kernelsearch.controller.builders import names
from kernelsearch.controller.cluster import CONFIG_MAP, Cluster
from kernelsearch.controller.manifest import Key, Manifest, key, owned_by, uid
from kernelsearch.controller.plan import conditions, readiness, shared

Index = Mapping[Any, Iterable[Any]]


class Name(NamedTuple):
    """One object of ours."""

    kind: str
    namespace: str
    name: str


def owner(body: Mapping[str, Any]) -> Name | None:
    """Whose child this is, by its labels."""
    labels = body["metadata"].get("labels") or {}
    if names.OWNER_KIND not in labels:
        return None
    return Name(labels[names.OWNER_KIND], body["metadata"]["namespace"], labels[names.OWNER_NAME])


def kept(body: Mapping[str, Any]) -> Manifest:
    """What an index keeps of an object: among a thousand searches, what nobody asks for would be most of the memory.

    That is the server's record of who wrote which field, and what runners keep in ConfigMaps: a checkpoint has up to
    256 KiB, and a digest among the annotations says what was written.
    """
    left = {"data", "binaryData"} if body["kind"] == "ConfigMap" else set()
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**{name: value for name, value in body.items() if name not in left}, "metadata": metadata}


class Observer:
    """Reads indices, which kopf hands to its handlers only: they are put here by whichever runs first.

    Each question is one look-up, so that a reconciliation costs the same among ten searches and among a thousand.
    """

    def __init__(self) -> None:
        self.filled = False
        """Whether there are indices yet: no handler runs before each is complete, and without objects none runs."""
        self.ours: Index = {}
        """Our objects by Name."""
        self.children: Index = {}
        """Everything with an owner of ours, by the owner's Name: owned ModelServers and VerifierPools too."""
        self.referring: Index = {}
        """Searches by the Names of the ModelServer and the VerifierPool that they use."""

    def read(self, indices: Mapping[str, Index]) -> None:
        """Take hold of what kopf handed to a handler."""
        self.filled = True
        self.ours, self.children, self.referring = indices["ours"], indices["children"], indices["referring"]

    def body(self, name: Name) -> Manifest | None:
        return next(iter(self.ours.get(name, ())), None)

    def all(self, kind: str) -> list[Manifest]:
        return [body for name in list(self.ours) if name.kind == kind for body in self.ours.get(name, ())]

    def versions(self) -> dict[str, str]:
        """Resource version by UID of everything that the watches have brought."""
        everything = [*_everything(self.children), *_everything(self.ours)]
        return {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in everything}

    def labelled(self, name: Name) -> list[Manifest]:
        """Everything that carries the owner's labels, pods of its Deployments included."""
        return list(self.children.get(name, ()))

    def users(self, body: Manifest) -> list[Name]:
        """Searches that use this ModelServer or VerifierPool now. Whom it does not admit keeps no GPU of it busy."""
        return [name_of(each) for each in self.referrers(name_of(body)) if _active(each) and _admitted(each, body)]

    def referrers(self, name: Name) -> list[Manifest]:
        """Searches that name it, whether they run or not."""
        return list(self.referring.get(name, ()))

    def shared(self, name: Name, body: Manifest, now: datetime, extra: Mapping[str, str]) -> shared.Seen:
        labelled = self.labelled(name)
        return shared.Seen(
            body,
            own(labelled, uid(body)),
            [each for each in labelled if each["kind"] == "Pod"],
            len(self.users(body)),
            now,
            extra,
        )

    async def search(self, name: Name, body: Manifest, cluster: Cluster, now: datetime) -> readiness.Seen:
        server, pool = uses(body)
        return readiness.Seen(
            body,
            own(self.labelled(name), uid(body)),
            self.body(server) if server else None,
            self.body(pool) if pool else None,
            await _missing_reference(body, cluster),
            now,
        )


def _everything(index: Index) -> Iterable[Manifest]:
    return (body for name in list(index) for body in index.get(name, ()))


def own(labelled: Iterable[Manifest], owner_uid: str) -> dict[Key, Manifest]:
    """The children that belong to this very object; those of an earlier one of its name are strangers."""
    return {key(each): each for each in labelled if belongs(each, owner_uid)}


def belongs(child: Mapping[str, Any], owner_uid: str) -> bool:
    noted = (child["metadata"].get("annotations") or {}).get(f"{names.DOMAIN}/search-uid")
    return owned_by(child, owner_uid) or noted == owner_uid


def uses(search: Mapping[str, Any]) -> tuple[Name | None, Name | None]:
    """The ModelServer and the VerifierPool of a search; owned ones bear its name."""
    external = "endpoint" in search["spec"].get("model", {})
    return None if external else _used(search, "ModelServer"), _used(search, "VerifierPool")


def _used(search: Mapping[str, Any], kind: str) -> Name:
    metadata, ref = search["metadata"], _ref(search, kind)
    if ref is None:
        return Name(kind, metadata["namespace"], metadata["name"])
    return Name(kind, ref.get("namespace") or metadata["namespace"], ref["name"])


def _ref(search: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """By which it names one of that kind; None where it has its own."""
    part, field = ("model", "serverRef") if kind == "ModelServer" else ("verifiers", "poolRef")
    found: Mapping[str, Any] | None = search["spec"].get(part, {}).get(field)
    return found


def _admitted(search: Manifest, by: Manifest) -> bool:
    return readiness.admits(by, search, named=_ref(search, by["kind"]) is not None)


def name_of(body: Mapping[str, Any]) -> Name:
    return Name(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def _active(search: Mapping[str, Any]) -> bool:
    status = search.get("status") or {}
    accepted, over = conditions.holds(status, "Accepted"), conditions.holds(status, "Complete")
    return accepted and not over and not search["spec"].get("suspend") and "deletionTimestamp" not in search["metadata"]


async def _missing_reference(body: Mapping[str, Any], cluster: Cluster) -> str:
    """Looked at before acceptance only: afterwards the runner has its own copy."""
    ref = body["spec"].get("problem", {}).get("configMapRef")
    if ref is None or (body.get("status") or {}).get("startTime"):
        return ""
    found = await cluster.get(CONFIG_MAP, body["metadata"]["namespace"], ref["name"])
    if found is None:
        return f"spec.problem.configMapRef: no ConfigMap {ref['name']} in this namespace; create it"
    if ref["key"] not in (found.get("data") or {}):
        keys = ", ".join(sorted(found.get("data") or {})) or "none"
        return f"spec.problem.configMapRef: ConfigMap {ref['name']} has no key {ref['key']}; it has {keys}"
    return ""
