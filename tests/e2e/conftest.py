"""One whole node for the tier: images of this checkout, the chart installed, fake GPUs, policies enforced."""

import json
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import images, machine, tools
from cluster.places import NODE_IP

GPUS = 2
SYSTEM = "kernelsearch-system"
SITE = "/opt/torch/site-packages"
"""Where the verifier's image looks for torch; here it is this environment's, mounted read-only."""
VALUES = {
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


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[machine.Cluster]:
    """A node with the operator on it."""
    archives = [images.build(image) for image in (images.OPERATOR, images.VERIFIER)]
    state = tmp_path_factory.mktemp("node")
    values = state / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    with machine.held(state, node=True, images=archives, gpus=GPUS) as started:
        started.kubectl("create", "namespace", SYSTEM)
        started.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
        chart = str(root / "charts/kernelsearch")
        helm(started, "install", "ks", chart, "-n", SYSTEM, "-f", str(values), "--wait", "--timeout", "120s")
        yield started


def helm(cluster: machine.Cluster, *arguments: str) -> str:
    program = str(tools.build(tools.HELM))
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=cluster.environment, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_operator_log(cluster)}"
    return done.stdout


def _operator_log(cluster: machine.Cluster) -> str:
    return cluster.kubectl("-n", SYSTEM, "logs", "deploy/ks-operator", "--tail=50", check=False)


@dataclass
class Place:
    """A namespace of its own for one test, under the restricted standard, with torch to mount."""

    name: str
    cluster: machine.Cluster
    made: list[str] = field(default_factory=list)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin, check=check)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def names(self, kind: str) -> list[str]:
        return self.kubectl("get", kind, "-o", "name").split()

    def wait(self, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The search as soon as it holds; on failure everything that would explain it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get("ksearch", name)
            if holds(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(self._evidence(found))
            time.sleep(0.5)

    def _evidence(self, found: dict[str, Any]) -> str:
        pods = self.kubectl("get", "pods", "-o", "wide", check=False)
        logs = self.kubectl("logs", f"{found['metadata']['name']}-runner", "--tail=30", check=False)
        status = json.dumps(found.get("status"), indent=1)[:6000]
        return f"{status}\n{pods}\n{logs}\n{_operator_log(self.cluster)}"


@pytest.fixture
def place(cluster: machine.Cluster) -> Iterator[Place]:
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    site = sysconfig.get_paths()["purelib"]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"site-{name}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadOnlyMany"],
            "hostPath": {"path": site},
            "storageClassName": "",
            "claimRef": {"namespace": name, "name": "site"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "site", "namespace": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": f"site-{name}",
            "resources": {"requests": {"storage": "10Gi"}},
        },
    }
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [namespace, volume, claim]})
    cluster.kubectl("apply", "-f", "-", stdin=text)
    yield Place(name, cluster)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    cluster.kubectl("delete", "pv", f"site-{name}", "--wait=false")


@pytest.fixture
def quickstart(root: Path) -> dict[str, Any]:
    """The example, answered by the replay in a ModelServer pod."""
    manifest: dict[str, Any] = yaml.safe_load((root / "examples/quickstart.yaml").read_text())
    return manifest
