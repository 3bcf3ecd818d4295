"""What a VerifierPool should look like."""

from collections.abc import Iterator
from typing import Any

from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller.builders import names, network, template
from kernelsearch.controller.builders import verifier_pool as build
from kernelsearch.controller.plan import conditions, shared
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
    spec, policy = pool.spec, settings.policy
    yield from template.faults(spec.pod_template, "spec.podTemplate")
    if spec.image and policy.allowed_images and not spec.image.startswith(policy.allowed_images):
        yield f"spec.image: {spec.image} is not allowed here; it must begin with {' or '.join(policy.allowed_images)}"
    if spec.replicas > policy.max_replicas:
        yield f"spec.replicas: {spec.replicas} are more than the {policy.max_replicas} that this installation allows"
    product = spec.gpu.product if spec.gpu else ""
    if product.endswith("-SHARED") or "-MIG-" in product:
        yield f"spec.gpu.product: {product} is a shared GPU, whose timings mean nothing; name a whole one"


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
    written = conditions.written([ready, shared.degraded(seen.trouble)], seen.status, seen.generation, seen.now)
    endpoint = names.verifier_service(pool.metadata.name, seen.body["metadata"]["namespace"])
    count = shared.ready_pods(seen)
    return shared.status(seen, use, written, phase, endpoint=endpoint, readyReplicas=count)
