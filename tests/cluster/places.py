"""Names, addresses and folders of a cluster. Its network is private, so all of them are fixed."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

NODE, NODE_IP = "node-0", "10.97.0.2"
SERVICES, API_SERVICE_IP, DNS_IP = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
PODS = "10.98.0.0/20"
CNI_PROGRAMS = "/usr/lib/cni"
GIVEN = "KERNELSEARCH_TEST_KUBECONFIG"
"""Environment variable: a kubeconfig of another cluster, which the tests use instead of one of their own."""
PAUSE, COREDNS = "localhost/pause:test", "localhost/coredns:test"
CONTAINERD = "/run/containerd/containerd.sock"


@dataclass
class Plan:
    """What `up` tells `init`, as a file in the state folder."""

    state: str
    programs: dict[str, str]
    """Path by name."""
    listener: int = -1
    """Descriptor of the listening socket."""
    life: int = -1
    """Descriptor whose end means that the parent is gone; -1: the cluster outlives its parent."""
    node: bool = True
    gpus: int = 0
    images: list[str] = field(default_factory=list)
    cgroups: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return Path(self.state)

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def conf(self) -> Path:
        return self.folder / "conf"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def write(self) -> None:
        (self.folder / "plan.json").write_text(json.dumps(asdict(self), indent=1))


def read(state: Path) -> Plan:
    return Plan(**json.loads((state / "plan.json").read_text()))
