"""What serves a model: a Deployment and its Service. `Recreate`: a surge would ask for another eight GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.workload import ModelGpu
from kernelsearch.controller.builders import names, pods, template
from kernelsearch.controller.manifest import Manifest, digest
from kernelsearch.controller.settings import Settings

GRACE_SECONDS = 25
WEIGHTS_SECONDS = 2 * 3600
"""A server of 700 GB of weights is not dead while it reads them."""
PROBE_SECONDS = 5
WEIGHTS = "/models"
"""Where the claim is mounted."""
TEMPLATE = f"{names.DOMAIN}/template"
"""Annotation: digest of the pod template as it was built. What the API server shows has its defaults filled in."""


@dataclass(frozen=True)
class Serving:
    """What runs, after the preset and the spec's own fields were put together."""

    engine: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    port: int = names.MODEL_PORT
    gpu: ModelGpu | None = None
    memory_gb: int = 0
    """GPU memory that the weights need, for the preflight; 0 when unknown."""
    shm: str = ""
    """Size of /dev/shm; tensor parallelism needs gigabytes of it."""

    @classmethod
    def resolve(cls, server: ModelServer, preset: Mapping[str, Any], own_image: str) -> Self:
        """The spec's fields over the preset's. `operator` as a preset's image stands for our own."""
        spec = server.spec
        image = spec.image or str(preset.get("image", ""))
        gpu = spec.gpu or (ModelGpu.model_validate(preset["gpu"]) if preset.get("gpu") else None)
        return cls(
            engine=str(spec.engine or preset.get("engine", "custom")),
            image=own_image if image == "operator" else image,
            command=spec.command or tuple(preset.get("command", ())),
            args=spec.args if spec.args is not None else tuple(map(str, preset.get("args", ()))),
            port=spec.port or int(preset.get("port", names.MODEL_PORT)),
            gpu=gpu,
            memory_gb=int(preset.get("memoryGB", 0)),
            shm=str(preset.get("shm", "")),
        )


def service(owner: Manifest) -> Manifest:
    return names.child(
        owner,
        "Service",
        names.model(owner["metadata"]["name"]),
        names.MODEL,
        spec={
            "selector": names.selector(owner, names.MODEL),
            # the same for every engine, so that a runner knows the address before the pod's own port is known
            "ports": [{"name": "http", "port": names.MODEL_PORT, "targetPort": "http"}],
        },
    )


def deployment(owner: Manifest, server: ModelServer, serving: Serving, settings: Settings, replicas: int) -> Manifest:
    labels = names.labels(owner, names.MODEL)
    pod = {"metadata": {"labels": labels}, "spec": _pod(server, serving, settings)}
    merged = template.merged(pod, server.spec.pod_template)
    made = names.child(
        owner,
        "Deployment",
        names.model(owner["metadata"]["name"]),
        names.MODEL,
        spec={
            "replicas": replicas,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": names.selector(owner, names.MODEL)},
            "template": merged,
        },
    )
    made["metadata"]["annotations"] = {TEMPLATE: digest(merged)}
    return made


def same_template(wanted: Manifest, observed: Manifest) -> bool:
    """The observed Deployment's pods were last built from the wanted one's template."""
    return _built_from(observed) == _built_from(wanted)


def kept(wanted: Manifest, observed: Manifest) -> Manifest:
    """`wanted` with the pods as they run.

    The template is applied as the API server shows it, not as it was once built: whatever was filled in or changed
    since then, not one pod is made anew. That makes those fields ours too, until a template of our own is applied
    again: it gives them up, and the API server fills them in as before.
    """
    runs = observed["spec"]["template"]
    metadata = {name: value for name, value in runs["metadata"].items() if name != "creationTimestamp"}
    annotations = {TEMPLATE: built} if (built := _built_from(observed)) else {}
    return {
        **wanted,
        "metadata": {**wanted["metadata"], "annotations": annotations},
        "spec": {**wanted["spec"], "template": {**runs, "metadata": metadata}},
    }


def port(deployment: Manifest, default: int) -> int:
    """On which its pods answer."""
    ports = deployment["spec"]["template"]["spec"]["containers"][0].get("ports") or ()
    return next((int(each["containerPort"]) for each in ports if each.get("name") == "http"), default)


def _built_from(deployment: Manifest) -> str:
    return str((deployment["metadata"].get("annotations") or {}).get(TEMPLATE, ""))


def _pod(server: ModelServer, serving: Serving, settings: Settings) -> Manifest:
    policy, spec = settings.policy, server.spec
    scratch, scratch_mount = pods.scratch("tmp", "/tmp", policy.model.scratch)  # noqa: S108 - the container's own
    volumes, mounts = [scratch], [scratch_mount]
    if serving.shm:
        volume, mount = pods.scratch("shm", "/dev/shm", serving.shm, memory=True)  # noqa: S108
        volumes.append(volume)
        mounts.append(mount)
    if spec.weights.pvc:
        claim = {"claimName": spec.weights.pvc, "readOnly": True}
        volumes.append({"name": "weights", "persistentVolumeClaim": claim})
        mounts.append({"name": "weights", "mountPath": WEIGHTS, "readOnly": True})
    container: Manifest = {
        "name": "model",
        "image": serving.image,
        "imagePullPolicy": policy.image_pull_policy,
        "args": list(serving.args),
        "env": [*pods.environment({"HOME": "/tmp"}), *_token(server), *policy.model.env],  # noqa: S108
        "ports": [{"name": "http", "containerPort": serving.port}],
        "readinessProbe": pods.probe("/v1/models", "http", periodSeconds=PROBE_SECONDS, timeoutSeconds=3),
        "startupProbe": pods.probe(
            "/v1/models", "http", periodSeconds=PROBE_SECONDS, failureThreshold=WEIGHTS_SECONDS // PROBE_SECONDS
        ),
        "resources": _resources(serving, policy.model.resources),
        "securityContext": {**pods.CONTAINER_SECURITY, "readOnlyRootFilesystem": serving.engine == "custom"},
        "volumeMounts": [*mounts, *policy.model.extra_volume_mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if serving.command:
        container["command"] = list(serving.command)
    return pods.spec(
        policy,
        [container],
        terminationGracePeriodSeconds=GRACE_SECONDS,
        volumes=[*volumes, *policy.model.extra_volumes],
        **_placement(serving.gpu),
    )


def _token(server: ModelServer) -> list[Manifest]:
    ref = server.spec.weights.hf_token_secret_ref
    if ref is None:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}]


def _resources(serving: Serving, defaults: Manifest) -> Manifest:
    if not serving.gpu:
        return defaults
    amount = {serving.gpu.resource_name: str(serving.gpu.count)}
    return {**defaults, "limits": {**defaults.get("limits", {}), **amount}}


def _placement(gpu: ModelGpu | None) -> Manifest:
    return {"nodeSelector": {"nvidia.com/gpu.product": gpu.product}} if gpu and gpu.product else {}
