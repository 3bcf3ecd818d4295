"""The runner's pod and what it may do: its own search's status and its two ConfigMaps, by name.

The pod's environment is the contract with `kernelsearch run --cluster`; `controller.running` documents it.
"""

from dataclasses import dataclass

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.references import KeyRef
from kernelsearch.controller.builders import names, pods
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.settings import Settings

GRACE_SECONDS = 10
"""To drop what is in flight and save; deleting a search must be over in half a minute."""
MOUNTS = "/var/run/kernelsearch"
TOKEN_SECONDS = 3600
"""The kubelet renews a projected token at four fifths of its life."""


def account(owner: Manifest) -> Manifest:
    name = names.runner(owner["metadata"]["name"])
    return names.child(owner, "ServiceAccount", name, names.RUNNER, automountServiceAccountToken=False)


def role(owner: Manifest) -> Manifest:
    """By name only: no verb here reaches another object. `list` and `watch` admit a field selector on one name."""
    search = owner["metadata"]["name"]
    own, maps = [search], [names.checkpoint(search), names.best(search)]
    group = names.DOMAIN
    rules = [
        {
            "apiGroups": [group],
            "resources": ["kernelsearches"],
            "resourceNames": own,
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [group], "resources": ["kernelsearches/status"], "resourceNames": own, "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": maps, "verbs": ["get", "update", "patch"]},
    ]
    return names.child(owner, "Role", names.runner(search), names.RUNNER, rules=rules)


def binding(owner: Manifest) -> Manifest:
    name, namespace = names.runner(owner["metadata"]["name"]), owner["metadata"]["namespace"]
    return names.child(
        owner,
        "RoleBinding",
        name,
        names.RUNNER,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    )


def config_map(owner: Manifest, name: str, *, owned: bool = True) -> Manifest:
    """Empty: the runner fills it. An apply to a missing one would need `create`, which no name can restrict."""
    made = names.child(owner, "ConfigMap", name, names.RUNNER)
    if not owned:
        del made["metadata"]["ownerReferences"]
    made["metadata"]["annotations"] = {f"{names.DOMAIN}/search-uid": owner["metadata"]["uid"]}
    return made


def pod(
    owner: Manifest, search: KernelSearch, settings: Settings, model_url: str, verifiers: str, restarts: int
) -> Manifest:
    """`verifiers`: host and port of their headless Service. `restarts`: how many runners ended just before this one."""
    name, policy = owner["metadata"]["name"], settings.policy
    scratch, scratch_mount = pods.scratch("tmp", "/tmp", "256Mi")  # noqa: S108 - the container's own
    files = _files(search)
    container = {
        "name": "runner",
        "image": settings.operator_image,
        "imagePullPolicy": policy.image_pull_policy,
        "args": ["run", "--cluster", f"{owner['metadata']['namespace']}/{name}"],
        "env": [
            pods.field("POD_NAME", "metadata.name"),
            pods.field("POD_UID", "metadata.uid"),
            *pods.environment(_environment(owner, model_url, verifiers)),
            *policy.runner.env,
        ],
        "ports": [{"name": "metrics", "containerPort": names.METRICS_PORT}],
        "readinessProbe": pods.probe("/readyz", "metrics", periodSeconds=2, failureThreshold=3),
        "livenessProbe": pods.probe("/healthz", "metrics", periodSeconds=20, failureThreshold=6),
        "resources": policy.runner.resources,
        "securityContext": pods.CONTAINER_SECURITY,
        "volumeMounts": [scratch_mount, *map(_mount, files), *policy.runner.extra_volume_mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    made = names.child(owner, "Pod", names.runner(name), names.RUNNER)
    made["metadata"]["annotations"] = {names.RESTARTS: str(restarts)}
    made["spec"] = pods.spec(
        policy,
        [container],
        restartPolicy="Never",
        serviceAccountName=names.runner(name),
        terminationGracePeriodSeconds=GRACE_SECONDS,
        volumes=[scratch, *(each.volume for each in files), *policy.runner.extra_volumes],
        **policy.runner.placement(),
    )
    return made


def _environment(owner: Manifest, model_url: str, verifiers: str) -> dict[str, str]:
    return {
        "KERNELSEARCH_MODEL_URL": model_url,
        "KERNELSEARCH_VERIFIER_SERVICE": verifiers,
        "KERNELSEARCH_SEARCH_UID": owner["metadata"]["uid"],
        "HOME": "/tmp",  # noqa: S108
    }


@dataclass(frozen=True)
class _Files:
    """A folder of files in the container."""

    name: str
    path: str
    source: Manifest

    @property
    def volume(self) -> Manifest:
        return {"name": self.name, **self.source}


def _mount(files: _Files) -> Manifest:
    return {"name": files.name, "mountPath": files.path, "readOnly": True}


def _files(search: KernelSearch) -> list[_Files]:
    """Secrets are mounted by the kubelet: nobody in this system may read them through the API."""
    found = [
        _Files("api-access", "/var/run/secrets/kubernetes.io/serviceaccount", _api_access()),
        _Files("verifier", f"{MOUNTS}/verifier", _token()),
    ]
    endpoint = search.spec.model.endpoint
    if ref := search.spec.problem.config_map_ref:
        found.append(_Files("problem", f"{MOUNTS}/problem", _config_map(ref, ref.key)))
    if endpoint and endpoint.api_key_secret_ref:
        found.append(_Files("model", f"{MOUNTS}/model", _secret(endpoint.api_key_secret_ref, "api-key")))
    if endpoint and endpoint.ca_config_map_ref:
        found.append(_Files("model-ca", f"{MOUNTS}/model-ca", _config_map(endpoint.ca_config_map_ref, "ca.crt")))
    return found


def _config_map(ref: KeyRef, path: str) -> Manifest:
    return {"configMap": {"name": ref.name, "items": [{"key": ref.key, "path": path}]}}


def _secret(ref: KeyRef, path: str) -> Manifest:
    return {"secret": {"secretName": ref.name, "items": [{"key": ref.key, "path": path}]}}


def _token() -> Manifest:
    """For verifiers: of an audience that the API server does not accept."""
    token = {"audience": names.AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    return {"projected": {"sources": [{"serviceAccountToken": token}]}}


def _api_access() -> Manifest:
    """What automounting would mount, but into the runner's own container only."""
    sources = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"projected": {"sources": sources}}
