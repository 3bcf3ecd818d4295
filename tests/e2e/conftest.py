"""One whole node for the tier: images of this checkout, the chart installed, fake GPUs, policies enforced."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import images, machine, system
from watching import PATIENCE_S

GPUS = 2
NOT_OURS = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
"""Every namespace has them, some a moment after it was made."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Cluster]:
    """A node with the operator on it; a given one must have it already, because no image can be brought there."""
    state = tmp_path_factory.mktemp("node")
    if given := machine.given(state):
        system.operator(given)
        yield given
        return
    archives = [images.build(image) for image in (images.OPERATOR, images.VERIFIER)]
    with machine.held(state, node=True, images=archives, gpus=GPUS) as started:
        system.install(started)
        yield started


@dataclass
class Place:
    """A namespace of its own for one test, under the restricted standard, with torch to mount."""

    name: str
    cluster: machine.Cluster

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin, check=check)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def change(self, name: str, **spec: Any) -> None:
        """These parts of a search's spec."""
        self.kubectl("patch", "ksearch", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        labels = ("-l", f"app.kubernetes.io/component={component}") if component else ()
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", *labels, "-o", "json"))["items"]
        return found

    def names(self, kind: str) -> list[str]:
        return self.kubectl("get", kind, "-o", "name").split()

    def everything(self) -> set[str]:
        """Kind and name of all objects in it but events and what every namespace has."""
        kinds = self.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        wanted = ",".join(each for each in kinds if not each.startswith("events"))
        return set(self.kubectl("get", wanted, "-o", "name").split()) - NOT_OURS

    def wait(self, name: str, holds: Callable[[dict[str, Any]], Any], seconds: float = PATIENCE_S) -> dict[str, Any]:
        """The search as soon as it holds; on failure everything that would explain it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get("ksearch", name)
            if holds(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(self.evidence(found))
            time.sleep(0.5)

    def evidence(self, found: dict[str, Any]) -> str:
        pods = self.kubectl("get", "pods", "-o", "wide", check=False)
        logs = self.kubectl("logs", f"{found['metadata']['name']}-runner", "--tail=30", check=False)
        status = json.dumps(found.get("status"), indent=1)[:6000]
        return f"{status}\n{pods}\n{logs}\n{system.operator_log(self.cluster)}"


@pytest.fixture(scope="session")
def borrows_torch(cluster: machine.Cluster) -> bool:
    return system.borrows_torch(cluster)


@pytest.fixture
def place(cluster: machine.Cluster, borrows_torch: bool) -> Iterator[Place]:
    with made(cluster, borrows_torch) as place:
        yield place


@pytest.fixture(scope="module")
def shared(cluster: machine.Cluster, borrows_torch: bool) -> Iterator[Place]:
    """One for all tests of a file: a search that starts once serves them all."""
    with made(cluster, borrows_torch) as place:
        yield place


@contextmanager
def made(cluster: machine.Cluster, borrows_torch: bool) -> Iterator[Place]:
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    system.namespace(cluster, name)
    if borrows_torch:
        system.lend_torch(cluster, name)
    yield Place(name, cluster)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    cluster.kubectl("delete", "pv", f"site-{name}", "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def quickstart(root: Path) -> dict[str, Any]:
    """The example, answered by the replay in a ModelServer pod."""
    manifest: dict[str, Any] = yaml.safe_load((root / "examples/quickstart.yaml").read_text())
    return manifest
