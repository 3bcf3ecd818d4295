"""Our own system on a test cluster: the chart installed, and torch lent to verifiers' pods.

torch is 5 GB: instead of an image that holds it, pods mount the one of this Python environment, read-only, by a value
of the chart that users have a use for too.
"""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import yaml

from cluster import tools
from cluster.machine import Cluster
from cluster.places import NODE_IP
from kernelsearch.controller.uninstall import INSTANCE, OPERATOR

CHART = Path(__file__).parents[2] / "charts/kernelsearch"
NAMESPACE, RELEASE = "kernelsearch-system", "ks"
CLAIM = "site"
SITE = "/opt/torch/site-packages"
"""Where the verifier's image looks for torch."""
VALUES: dict[str, Any] = {
    "image": {"repository": "localhost/kernelsearch", "tag": "test", "pullPolicy": "Never"},
    "verifierImage": {"repository": "localhost/kernelverify", "tag": "test"},
    "networkPolicy": {"apiServerCIDRs": [f"{NODE_IP}/32"], "apiServerPorts": [6443]},
    "runner": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}},
    "verifier": {
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "8Gi"}},
        "extraVolumes": [{"name": "site", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}],
        "extraVolumeMounts": [{"name": "site", "mountPath": SITE, "readOnly": True}],
    },
}


def install(cluster: Cluster, **changes: Any) -> None:
    """The operator, ready, in a namespace under the restricted standard. Again: upgraded to these values."""
    namespace(cluster, NAMESPACE)
    _clear(cluster)
    values = cluster.state / "values.yaml"
    values.write_text(yaml.safe_dump({**VALUES, **changes}))
    chosen = ("-n", NAMESPACE, "-f", str(values), "--wait", "--timeout=120s")
    helm(cluster, "upgrade", "--install", RELEASE, str(CHART), *chosen)


def uninstall(cluster: Cluster) -> None:
    """Without the operator, until `install`."""
    helm(cluster, "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout=120s")


def _clear(cluster: Cluster) -> None:
    """Nothing of a release that helm began to change and never finished: it would refuse to upgrade that.

    Without the hook, for it may be what failed. Its Job tries again for minutes, and would stop the next operator.
    """
    if RELEASE not in helm(cluster, "list", "-n", NAMESPACE, "--pending", "--uninstalling", "--short").split():
        return
    job = ("-l", f"{INSTANCE}={RELEASE},app.kubernetes.io/component=uninstall", "--cascade=foreground")
    cluster.kubectl("-n", NAMESPACE, "delete", "job", *job, "--ignore-not-found")
    helm(cluster, "uninstall", RELEASE, "-n", NAMESPACE, "--no-hooks", "--ignore-not-found", "--wait", "--timeout=120s")


def helm(cluster: Cluster, *arguments: str) -> str:
    """Its output. Raises AssertionError with the operator's last words."""
    done = subprocess.run(
        [tools.program(tools.HELM), *arguments],
        capture_output=True,
        text=True,
        env=cluster.environment,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{done.stdout}\n{done.stderr}\n{operator_log(cluster)}")
    return done.stdout


def operator(cluster: Cluster) -> tuple[str, str]:
    """Namespace and name of its Deployment. On a given cluster, of whoever installed it: AssertionError without one."""
    if not cluster.given:
        return NAMESPACE, f"{RELEASE}-operator"
    found = json.loads(cluster.kubectl("get", "deployments", "-A", "-l", OPERATOR, "-o", "json"))["items"]
    assert len(found) == 1, f"{len(found)} operators on the given cluster; it must have one: docs/install.md"
    return found[0]["metadata"]["namespace"], found[0]["metadata"]["name"]


def operator_log(cluster: Cluster) -> str:
    namespace, name = operator(cluster)
    return cluster.kubectl("-n", namespace, "logs", f"deploy/{name}", "--tail=50", check=False)


def borrows_torch(cluster: Cluster) -> bool:
    """Its verifiers mount our claim: those of a given cluster do if `up --system` started it."""
    namespace, name = operator(cluster)
    return f"claimName: {CLAIM}" in cluster.kubectl("-n", namespace, "get", "configmap", name, "-o", "yaml")


def namespace(cluster: Cluster, name: str) -> None:
    """Made if it is not there, and under the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def lend_torch(cluster: Cluster, name: str) -> None:
    lend(cluster, name, CLAIM, Path(sysconfig.get_paths()["purelib"]))


def lend(cluster: Cluster, name: str, claim: str, folder: Path) -> None:
    """A folder of this machine, to read by a claim in the namespace.

    The restricted standard forbids hostPath volumes in pods, not behind claims.
    """
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{claim}-{name}"},
        "spec": {
            **common,
            "capacity": {"storage": "10Gi"},
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": name, "name": claim},
        },
    }
    claimed = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": name},
        "spec": {**common, "volumeName": f"{claim}-{name}", "resources": {"requests": {"storage": "10Gi"}}},
    }
    apply(cluster, volume, claimed)


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    cluster.kubectl("apply", "-f", "-", stdin=text)
