"""What a VerifierPool should look like."""

from collections.abc import Iterator
from typing import Any

from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.api.workload import Gpu
from kernelsearch.controller.builders import names, network, template
from kernelsearch.controller.builders import verifier_pool as build
from kernelsearch.controller.plan import conditions, shared, standing
from kernelsearch.controller.settings import Settings


def plan(seen: shared.Seen, pool: VerifierPool, settings: Settings) -> shared.Plan:
    """Deployment, headless Service, keys and NetworkPolicy, or why not."""
    wrong = list(faults(pool, settings))
    if wrong:
        ready = conditions.false("Ready", "InvalidSpec", "; ".join(wrong))
        return shared.Plan((), _status(seen, shared.unserved(seen), ready, "Failed", pool), keep=True)
    use = shared.use(seen, pool.spec.idle_ttl_seconds)
    replicas = pool.spec.replicas if use.active else min(pool.spec.min_replicas, pool.spec.replicas)
    issuer = seen.extra.get("issuer", "")
    children = [
        build.keys(seen.body, pool, issuer, seen.extra.get("jwks", "")),
        build.deployment(seen.body, pool, settings, replicas, issuer),
        build.service(seen.body),
    ]
    if settings.policy.network_policy.enabled:
        children.append(network.verifier(seen.body, settings.policy.network_policy))
    ready, phase = _ready(seen, replicas)
    return shared.Plan(tuple(children), _status(seen, use, ready, phase, pool), use.asks_again_in)


def faults(pool: VerifierPool, settings: Settings) -> Iterator[str]:
    """What is wrong with a spec that the schema admits, each with its remedy."""
    spec = pool.spec
    yield from template.faults(spec.pod_template, "spec.podTemplate")
    yield from shared.floors(spec.image, spec.replicas, settings.policy)
    for field, name in _parts_of_gpus(spec.gpu or Gpu()):
        yield f"spec.gpu.{field}: {name} is no whole GPU, and timings on a part of one mean nothing; name a whole one"


def _parts_of_gpus(gpu: Gpu) -> Iterator[tuple[str, str]]:
    """By the names that NVIDIA's device plugin and its feature discovery give to shared GPUs and slices."""
    if gpu.product.endswith("-SHARED") or "-MIG-" in gpu.product:
        yield "product", gpu.product
    if gpu.resource_name.endswith(".shared") or "/mig-" in gpu.resource_name:
        yield "resourceName", gpu.resource_name


def _ready(seen: shared.Seen, replicas: int) -> tuple[conditions.Condition, str]:
    ready = shared.ready_pods(seen)
    if ready:
        return conditions.true("Ready", "Answering", f"{ready} of {replicas} verifiers take evaluations"), "Ready"
    if not replicas:
        return conditions.false("Ready", "Idle", "nobody uses it; its pods start again with the next search"), "Idle"
    return conditions.false("Ready", "Starting", shared.trouble(seen)), "Starting"


def _status(
    seen: shared.Seen, use: shared.Use, ready: conditions.Condition, phase: str, pool: VerifierPool
) -> dict[str, Any]:
    written = conditions.written([ready, standing.degraded(seen.status)], seen.status, seen.generation, seen.now)
    endpoint = names.verifier_service(pool.metadata.name, seen.body["metadata"]["namespace"])
    count = shared.ready_pods(seen)
    return shared.status(seen, use, written, phase, endpoint=endpoint, readyReplicas=count)
