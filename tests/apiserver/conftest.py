"""One control plane for the whole tier, one namespace for each test."""

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import chart
from cluster import machine, tools
from kernelsearch.controller import cluster as api


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[machine.Cluster]:
    """An API server with controllers and scheduler, and with our definitions installed."""
    state = tmp_path_factory.mktemp("control-plane")
    if given := machine.given(state):
        _define(given, root)
        yield given
        return
    with machine.held(state, node=False) as started:
        _define(started, root)
        yield started


def _define(cluster: machine.Cluster, root: Path) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(root / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(root / "crds"), "--timeout=30s")


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


@pytest.fixture
async def server(control_plane: machine.Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[api.ApiServer]:
    """Our own client, with every right."""
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    async with api.connect() as connected:
        yield connected


@dataclass
class Operator:
    """`kernelsearch operator` as a process of this machine, with the rights that the chart gives it and no others."""

    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it can be told to stop: a signal that comes earlier just ends the interpreter."""
        with self.log.open("a") as log:
            before = log.tell()
            command = [sys.executable, "-m", "kernelsearch.cli", "operator"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while "Initial authentication has finished" not in (said := self.log.read_bytes()[before:].decode()):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def kill(self) -> None:
        """As a node that vanishes would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(120)


PRESETS = {"replay-quickstart": {"engine": "custom", "image": "operator", "args": ["replay-model"]}}


@pytest.fixture(scope="session")
def operator(control_plane: machine.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Of every namespace."""
    control_plane.kubectl("create", "namespace", chart.NAMESPACE)
    started = _operator(control_plane, chart.NAMESPACE, tmp_path_factory.mktemp("operator"))
    started.start()
    yield started
    _ended_well(started)


@pytest.fixture
def without_operator(operator: Operator) -> Iterator[None]:
    """As after its pod has ended."""
    assert operator.stop() == 0
    yield
    operator.start()


@pytest.fixture
def namespaced(
    without_operator: None,  # noqa: ARG001 - one at a time
    namespace: Namespace,
    tmp_path: Path,
) -> Iterator[Operator]:
    """Of this namespace alone, with no right elsewhere."""
    started = _operator(namespace.cluster, namespace.name, tmp_path, namespace.name)
    started.start()
    yield started
    _ended_well(started)


def _operator(cluster: machine.Cluster, home: str, folder: Path, *watched: str) -> Operator:
    """Not started yet; `home` is the namespace of its account."""
    (folder / "presets.yaml").write_text(json.dumps(PRESETS))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **cluster.environment,
        "KUBECONFIG": str(_as_the_chart_has_it(cluster, home, folder, watched)),
        "KERNELSEARCH_OPERATOR_IMAGE": "kernelsearch:test",
        "KERNELSEARCH_VERIFIER_IMAGE": "kernelverify:test",
        "KERNELSEARCH_WATCH_NAMESPACES": ",".join(watched),
        "KERNELSEARCH_PRESETS_FILE": str(folder / "presets.yaml"),
        "KERNELSEARCH_PORT": str(port),
        "PYTHONWARNINGS": "",
    }
    return Operator(environment, folder / "log")


def _ended_well(started: Operator) -> None:
    code = started.stop()
    log = started.log.read_text()
    assert code == 0, log[-3000:]
    assert "a pass failed" not in log, log[-6000:]
    assert "forbidden" not in log.lower(), log[-6000:]


def _as_the_chart_has_it(cluster: machine.Cluster, home: str, folder: Path, watched: tuple[str, ...]) -> Path:
    tools.program(tools.HELM)  # built where it is not there: without it a whole file of tests would be skipped
    rendered = chart.render(folder, {"watchNamespaces": list(watched)}, ["-n", home])
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    rights = [each for kind in kinds for each in rendered.all(kind, **{"app.kubernetes.io/component": "operator"})]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": rights})
    cluster.kubectl("-n", home, "apply", "-f", "-", stdin=text)
    return cluster.kubeconfig_of(home, "kernelsearch-operator")
