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

CHART = Path(__file__).parents[2] / "charts/kernelsearch"
NAMESPACE, RELEASE = "kernelsearch-system", "ks"
SITE = "/opt/torch/site-packages"
"""Where the verifier's image looks for torch."""
VALUES: dict[str, Any] = {
    "image": {"repository": "localhost/kernelsearch", "tag": "test", "pullPolicy": "Never"},
    "verifierImage": {"repository": "localhost/kernelverify", "tag": "test"},
    "networkPolicy": {"apiServerCIDRs": [f"{NODE_IP}/32"], "apiServerPorts": [6443]},
    "runner": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}},
    "verifier": {
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}},
        "extraVolumes": [{"name": "site", "persistentVolumeClaim": {"claimName": "site", "readOnly": True}}],
        "extraVolumeMounts": [{"name": "site", "mountPath": SITE, "readOnly": True}],
    },
}


def install(cluster: Cluster) -> None:
    """The operator, ready, in a namespace under the restricted standard."""
    namespace(cluster, NAMESPACE)
    values = cluster.state / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    helm(cluster, "install", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values), "--wait", "--timeout=120s")


def helm(cluster: Cluster, *arguments: str) -> str:
    """Its output. Raises AssertionError with the operator's last words."""
    done = subprocess.run(
        [str(tools.build(tools.HELM)), *arguments],
        capture_output=True,
        text=True,
        env=cluster.environment,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{done.stdout}\n{done.stderr}\n{operator_log(cluster)}")
    return done.stdout


def operator_log(cluster: Cluster) -> str:
    return cluster.kubectl("-n", NAMESPACE, "logs", f"deploy/{RELEASE}-operator", "--tail=50", check=False)


def namespace(cluster: Cluster, name: str) -> None:
    """Made if it is not there, and under the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def lend_torch(cluster: Cluster, name: str) -> None:
    """A claim `site` in the namespace. The restricted standard forbids hostPath volumes in pods, not behind claims."""
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"site-{name}"},
        "spec": {
            **common,
            "capacity": {"storage": "10Gi"},
            "hostPath": {"path": sysconfig.get_paths()["purelib"]},
            "claimRef": {"namespace": name, "name": "site"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "site", "namespace": name},
        "spec": {**common, "volumeName": f"site-{name}", "resources": {"requests": {"storage": "10Gi"}}},
    }
    apply(cluster, volume, claim)


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    cluster.kubectl("apply", "-f", "-", stdin=text)
