"""Is what a search needs ready: model, verifiers, runner? Each as a condition, in words that say what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.references import ObjectRef
from kernelsearch.controller.builders import names
from kernelsearch.controller.manifest import Key, Manifest, owned_by, uid
from kernelsearch.controller.plan import conditions, pods
from kernelsearch.controller.plan.conditions import Condition


@dataclass(frozen=True)
class Seen:
    """A search as observed."""

    body: Manifest
    children: Mapping[Key, Manifest]
    """Its own, by kind and name."""
    server: Manifest | None
    """The ModelServer that it uses, whoever owns it."""
    pool: Manifest | None
    """The VerifierPool that it uses, whoever owns it."""
    missing_reference: str
    """Why the problem's reference cannot be mounted; empty when it can."""
    now: datetime

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    @property
    def metadata(self) -> Mapping[str, Any]:
        metadata: Mapping[str, Any] = self.body["metadata"]
        return metadata

    @property
    def runner(self) -> pods.Pod | None:
        found = self.children.get(Key("Pod", names.runner(self.metadata["name"])))
        return pods.read(found) if found else None

    @property
    def gated(self) -> bool:
        """A pod is held back by a queue."""
        return self.runner is not None and self.runner.gated


def all_of(seen: Seen, search: KernelSearch) -> tuple[Condition, Condition, Condition]:
    """ModelReady, VerifiersReady, RunnerReady."""
    return model(seen, search), verifiers(seen, search), runner(seen, search)


def model(seen: Seen, search: KernelSearch) -> Condition:
    spec = search.spec.model
    if spec.endpoint is not None:
        return conditions.true("ModelReady", "External", f"asked at {spec.endpoint.url}; the runner reports failures")
    return _shared("ModelReady", "ModelServer", seen, seen.server, spec.server_ref)


def verifiers(seen: Seen, search: KernelSearch) -> Condition:
    return _shared("VerifiersReady", "VerifierPool", seen, seen.pool, search.spec.verifiers.pool_ref)


def runner(seen: Seen, search: KernelSearch) -> Condition:
    pod = seen.runner
    if pod is None:
        return conditions.false("RunnerReady", "NoPod", "the runner's pod is being made")
    if pod.ready:
        return conditions.true("RunnerReady", "Running", "")
    if pod.over:
        return conditions.false("RunnerReady", "Ended", pod.trouble)
    wanted = _mounted(search) if pod.trouble == pods.STARTING else ""
    return conditions.false(
        "RunnerReady", "Starting", f"{pod.trouble}{wanted}" if pod.trouble else "it is being removed"
    )


def _mounted(search: KernelSearch) -> str:
    """What a pod waits for in silence: a container is not made before all of it is there, and nobody says which is not.

    Whether a Secret exists cannot be looked up: nobody in this system may read Secrets.
    """
    endpoint = search.spec.model.endpoint
    wanted = []
    if endpoint and (ref := endpoint.api_key_secret_ref):
        wanted.append(f"Secret {ref.name} with key {ref.key} (spec.model.endpoint.apiKeySecretRef)")
    if endpoint and (ref := endpoint.ca_config_map_ref):
        wanted.append(f"ConfigMap {ref.name} with key {ref.key} (spec.model.endpoint.caConfigMapRef)")
    return f"; it needs {' and '.join(wanted)} in this namespace" if wanted else ""


def admits(shared: Manifest, search: Manifest, *, named: bool) -> bool:
    """Whether a search may use it: named, from its own namespace or one that it allows; not named, as its owner."""
    if not named:
        return owned_by(shared, uid(search))
    home, own = shared["metadata"]["namespace"], search["metadata"]["namespace"]
    return own == home or own in (shared["spec"].get("allowedNamespaces") or ())


def _shared(kind: str, what: str, seen: Seen, found: Manifest | None, ref: ObjectRef | None) -> Condition:
    own = seen.metadata["namespace"]
    name = ref.name if ref else seen.metadata["name"]
    if found is None:
        if ref is None:
            return conditions.false(kind, "Creating", f"{what} {name} is being made")
        place = ref.namespace or own
        return conditions.false(kind, f"{what}NotFound", f"no {what} {name} in namespace {place}; create it")
    admitted = admits(found, seen.body, named=ref is not None)
    if not admitted and ref is None:
        message = f"a {what} named {name} belongs to somebody else; rename the search, or use that one by name"
        return conditions.false(kind, "NameTaken", message)
    if not admitted and ref is not None:
        message = f"{what} {ref.namespace}/{name} does not admit namespace {own}; add it to its spec.allowedNamespaces"
        return conditions.false(kind, "NamespaceNotAllowed", message)
    ready = conditions.find(found.get("status") or {}, "Ready")
    if ready.get("status") == "True":
        return conditions.true(kind, str(ready["reason"]), str(ready.get("message", "")))
    return conditions.false(kind, str(ready.get("reason", "Starting")), str(ready.get("message", "it is starting")))
