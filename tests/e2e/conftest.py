"""One whole node for the tier: images of this checkout, the chart installed, fake GPUs, policies enforced."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import images, machine, system

GPUS = 2


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
        return f"{status}\n{pods}\n{logs}\n{system.operator_log(self.cluster)}"


@pytest.fixture(scope="session")
def borrows_torch(cluster: machine.Cluster) -> bool:
    return system.borrows_torch(cluster)


@pytest.fixture
def place(cluster: machine.Cluster, borrows_torch: bool) -> Iterator[Place]:
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    system.namespace(cluster, name)
    if borrows_torch:
        system.lend_torch(cluster, name)
    yield Place(name, cluster)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    cluster.kubectl("delete", "pv", f"site-{name}", "--wait=false", "--ignore-not-found")


@pytest.fixture
def quickstart(root: Path) -> dict[str, Any]:
    """The example, answered by the replay in a ModelServer pod."""
    manifest: dict[str, Any] = yaml.safe_load((root / "examples/quickstart.yaml").read_text())
    return manifest
