"""One control plane for the whole tier, one namespace for each test."""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import machine

GIVEN = "KERNELSEARCH_TEST_KUBECONFIG"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[machine.Cluster]:
    """An API server with controllers and scheduler, and with our definitions installed."""
    if given := os.environ.get(GIVEN):
        state = tmp_path_factory.mktemp("given")
        (state / "pki").mkdir()
        (state / "pki/admin.kubeconfig").write_bytes(Path(given).read_bytes())
        started = machine.Cluster(state)
        started.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(root / "crds"))
        yield started
        return
    with machine.held(tmp_path_factory.mktemp("control-plane"), node=False) as started:
        started.kubectl("apply", "-f", str(root / "crds"))
        started.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield started


@dataclass
class Namespace:
    """A place of its own for one test."""

    name: str
    cluster: machine.Cluster

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin, check=check)

    def apply(self, *objects: dict[str, Any], check: bool = True) -> str:
        """What kubectl said."""
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("apply", "-f", "-", stdin=stdin, check=check)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found


@pytest.fixture
def namespace(control_plane: machine.Cluster) -> Iterator[Namespace]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    yield Namespace(name, control_plane)
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
