"""What a ModelServer should look like."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kernelsearch.api.model_server import ModelServer
from kernelsearch.controller.builders import model_server as build
from kernelsearch.controller.builders import names, network, template
from kernelsearch.controller.manifest import Key, Manifest
from kernelsearch.controller.plan import conditions, shared, standing
from kernelsearch.controller.settings import Settings

GB_OF: tuple[tuple[frozenset[str], int], ...] = (
    (frozenset({"MIG"}), 0),
    (frozenset({"A100", "40GB"}), 40),
    (frozenset({"A100"}), 80),
    (frozenset({"H100", "NVL"}), 94),
    (frozenset({"H100"}), 80),
    (frozenset({"H200"}), 141),
    (frozenset({"B200"}), 180),
)
"""GPU memory by words of the product's name, the first that fits; 0 when nobody knows. Figures of the manufacturer's
data sheets."""
ENGINE = ("engine", "image", "command", "args")
"""Fields that make another engine of a preset."""


def plan(seen: shared.Seen, server: ModelServer, settings: Settings) -> shared.Plan:
    """Deployment, Service and NetworkPolicy, or why not."""
    wrong = list(faults(server, settings))
    serving = build.Serving.resolve(server, _preset(server, settings) or {}, settings.operator_image)
    if wrong:
        ready = conditions.false("Ready", "InvalidSpec", "; ".join(wrong))
        return shared.Plan((), _status(seen, shared.unserved(seen), ready, "Failed", server), keep=True)
    use = shared.use(seen, server.spec.idle_ttl_seconds, server.spec.max_lifetime_seconds)
    replicas = server.spec.replicas if use.active else 0
    deployment = build.deployment(seen.body, server, serving, settings, replicas)
    running = _in_use(seen, deployment)
    if running is not None:
        deployment = build.kept(deployment, running)
        serving = replace(serving, port=build.port(running, serving.port))
    children = [deployment, build.service(seen.body)]
    if settings.policy.network_policy.enabled:
        downloads = server.spec.weights.hf_token_secret_ref is not None
        policies = settings.policy.network_policy
        children.append(network.model(seen.body, policies, serving.port, downloads=downloads))
    ready, phase = _ready(seen, use)
    status = _status(seen, use, ready, phase, server, update_pending=running is not None)
    return shared.Plan(tuple(children), status, use.asks_again_in)


def faults(server: ModelServer, settings: Settings) -> Iterator[str]:
    """What is wrong with a spec that the schema admits, each with its remedy."""
    spec, policy = server.spec, settings.policy
    yield from template.faults(spec.pod_template, "spec.podTemplate")
    preset = _preset(server, settings)
    if spec.preset and preset is None:
        known = ", ".join(sorted(settings.presets)) or "none"
        yield f"spec.preset: no preset {spec.preset!r} in this installation; it has {known}"
        return
    if not policy.allow_custom_engine:
        for field in (each for each in ENGINE if getattr(spec, each) is not None):
            yield f"spec.{field}: this installation serves its presets as they are; write spec.preset alone"
    yield from shared.floors(spec.image, spec.replicas, policy)
    if spec.max_searches is not None:
        yield "spec.maxSearches: searches are not made to wait yet; leave it out, and bound them by quotas"
    serving = build.Serving.resolve(server, preset or {}, settings.operator_image)
    yield from _too_small(serving)
    if preset is not None and spec.image is None and spec.args is None:
        yield from _without_weights(server, serving, settings)


def _too_small(serving: build.Serving) -> Iterator[str]:
    """The preflight: weights that cannot fit are refused before a node is taken for an hour."""
    gpu = serving.gpu
    words = frozenset(gpu.product.split("-")) if gpu else frozenset()
    each = next((size for needed, size in GB_OF if needed <= words), 0)
    if gpu and each and each * gpu.count < serving.memory_gb:
        yield (
            f"spec.gpu: {gpu.count} x {gpu.product} hold {each * gpu.count} GB and the weights need "
            f"{serving.memory_gb} GB; ask for more GPUs, or for larger ones"
        )


def _without_weights(server: ModelServer, serving: build.Serving, settings: Settings) -> Iterator[str]:
    """A preset that reads a folder of weights would else start on an empty one, again and again."""
    reads = any(_below_weights(word) for word in (*serving.command, *serving.args))
    mounts = (*settings.policy.model.extra_volume_mounts, *template.mounts(server.spec.pod_template))
    mounted = server.spec.weights.pvc or any(_below_weights(str(each.get("mountPath", ""))) for each in mounts)
    if reads and not mounted:
        yield (
            f"spec.weights.pvc: preset {server.spec.preset} reads its weights from {build.WEIGHTS}, and nothing is "
            "mounted there; name the claim that holds them"
        )


def _below_weights(path: str) -> bool:
    return path == build.WEIGHTS or path.startswith(f"{build.WEIGHTS}/")


def _preset(server: ModelServer, settings: Settings) -> Mapping[str, Any] | None:
    return settings.presets.get(server.spec.preset) if server.spec.preset else None


def _in_use(seen: shared.Seen, wanted: Manifest) -> Manifest | None:
    """The Deployment as it runs, where another template would cost its users an hour of loading; None otherwise."""
    there = seen.children.get(Key("Deployment", wanted["metadata"]["name"]))
    if there is None or build.same_template(wanted, there):
        return None
    runs = wanted["spec"]["replicas"] and there["spec"].get("replicas")
    return there if runs and seen.users and shared.working(seen) else None


def _ready(seen: shared.Seen, use: shared.Use) -> tuple[conditions.Condition, str]:
    if use.outlived:
        words = "active for maxLifetimeSeconds; it starts again for the first search after its present ones are over"
        return conditions.false("Ready", shared.LIFETIME_OVER, f"{words}, or with another spec"), "Idle"
    if not use.active:
        return conditions.false("Ready", "Idle", "nobody uses it; its pods start again with the next search"), "Idle"
    if shared.ready_pods(seen):
        return conditions.true("Ready", "Answering", "its API answers"), "Ready"
    return conditions.false("Ready", "Starting", shared.trouble(seen)), "Starting"


def _status(
    seen: shared.Seen,
    use: shared.Use,
    ready: conditions.Condition,
    phase: str,
    server: ModelServer,
    *,
    update_pending: bool = False,
) -> dict[str, Any]:
    wanted = [ready, standing.degraded(seen.status)]
    if update_pending:
        message = "its pods are made anew once nobody uses them, or once none of them works"
        wanted.append(conditions.true("UpdatePending", "InUse", message))
    written = conditions.written(wanted, seen.status, seen.generation, seen.now)
    metadata = seen.body["metadata"]
    endpoint = names.model_url(server.metadata.name, metadata["namespace"])
    return shared.status(seen, use, written, phase, endpoint=endpoint)
