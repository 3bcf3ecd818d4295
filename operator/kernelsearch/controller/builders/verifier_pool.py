"""What judges kernels: a Deployment, and a headless Service whose addresses are the verifiers.

Never two verifiers on one GPU: no surge, one at a time. Requests equal limits, because a quota that is borrowed and
taken back spoils every timing.
"""

from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.api.workload import Device, Gpu
from kernelsearch.controller.builders import names, pods, template
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.settings import Settings

GRACE_SECONDS = 20
"""For evaluations that run; the pod gives up earlier when its last client is gone."""
KEYS = "/etc/kernelverify/jwks"


def service(owner: Manifest) -> Manifest:
    return names.child(
        owner,
        "Service",
        names.verifier(owner["metadata"]["name"]),
        names.VERIFIER,
        spec={
            "clusterIP": "None",
            "selector": names.selector(owner, names.VERIFIER),
            "ports": [{"name": "http", "port": names.VERIFIER_PORT, "targetPort": "http"}],
        },
    )


def keys(owner: Manifest, pool: VerifierPool, issuer: str, jwks: str) -> Manifest:
    """What a verifier needs to check a runner's token by itself: it reaches nobody, the API server included.

    All of it may change while verifiers run, so none of it is an argument of theirs: that would make their pods anew in
    the middle of every search.
    """
    metadata = owner["metadata"]
    allowed = [metadata["namespace"], *pool.spec.allowed_namespaces]
    data = {"issuer": issuer, "jwks.json": jwks, "namespaces": "\n".join(allowed)}
    return names.child(owner, "ConfigMap", names.jwks(metadata["name"]), names.VERIFIER, data=data)


def deployment(owner: Manifest, pool: VerifierPool, settings: Settings, replicas: int, issuer: str) -> Manifest:
    labels = names.labels(owner, names.VERIFIER)
    spec = _pod(owner, pool, settings, issuer)
    pod = template.merged({"metadata": {"labels": labels}, "spec": spec}, pool.spec.pod_template)
    return names.child(
        owner,
        "Deployment",
        names.verifier(owner["metadata"]["name"]),
        names.VERIFIER,
        spec={
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": names.selector(owner, names.VERIFIER)},
            "template": pod,
        },
    )


def _pod(owner: Manifest, pool: VerifierPool, settings: Settings, issuer: str) -> Manifest:
    policy, spec = settings.policy, pool.spec
    scratch, scratch_mount = pods.scratch("tmp", "/tmp", "16Gi")  # noqa: S108 - the container's own
    keys_volume = {"name": "keys", "configMap": {"name": names.jwks(owner["metadata"]["name"])}}
    container = {
        "name": "verifier",
        "image": spec.image or settings.verifier_image,
        "imagePullPolicy": policy.image_pull_policy,
        "args": [
            *("serve", f"--device={spec.device.value}", "--host=0.0.0.0", f"--port={names.VERIFIER_PORT}"),
            *("--auth=jwks", f"--jwks-file={KEYS}/jwks.json", f"--issuer={issuer}"),
            *(f"--audience={names.AUDIENCE}", f"--namespaces-file={KEYS}/namespaces"),
        ],
        "env": [
            *pods.environment({"HOME": "/tmp", "KERNELVERIFY_CACHE": "/tmp/builds"}),  # noqa: S108
            *policy.verifier.env,
        ],
        "ports": [{"name": "http", "containerPort": names.VERIFIER_PORT}],
        "readinessProbe": pods.probe("/readyz", "http", periodSeconds=2, timeoutSeconds=5),
        "startupProbe": pods.probe("/readyz", "http", periodSeconds=2, timeoutSeconds=5, failureThreshold=150),
        "livenessProbe": pods.probe("/healthz", "http", periodSeconds=20, timeoutSeconds=10, failureThreshold=6),
        "resources": _resources(pool, policy.verifier.resources),
        "securityContext": pods.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            scratch_mount,
            {"name": "keys", "mountPath": KEYS, "readOnly": True},
            *policy.verifier.extra_volume_mounts,
        ],
    }
    return pods.spec(
        policy,
        [container],
        terminationGracePeriodSeconds=GRACE_SECONDS,
        volumes=[scratch, keys_volume, *policy.verifier.extra_volumes],
        **_runtime(policy.require_runtime_class or spec.runtime_class_name or ""),
        **_placement(pool),
    )


def _runtime(name: str) -> Manifest:
    return {"runtimeClassName": name} if name else {}


def _resources(pool: VerifierPool, defaults: Manifest) -> Manifest:
    if pool.spec.device is Device.CPU:
        return defaults
    gpu = pool.spec.gpu or Gpu()
    return {**defaults, "limits": {**defaults.get("limits", {}), gpu.resource_name: str(gpu.count)}}


def _placement(pool: VerifierPool) -> Manifest:
    gpu = pool.spec.gpu
    return {"nodeSelector": {"nvidia.com/gpu.product": gpu.product}} if gpu and gpu.product else {}
