"""The private world of PID 1: mounts, files in place of machine-wide settings, one network interface."""

import contextlib
import subprocess
from pathlib import Path

from cluster import cgroups
from cluster.places import NODE, NODE_IP

SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What the kubelet sets for the whole machine: it is shown files that already say so."""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def mount() -> None:
    hierarchies = cgroups.hierarchies()
    run("mount", "--make-rshared", "/")  # a peer group of this namespace only: it was cut from the machine's
    run("umount", "-R", "-l", "/sys")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    cgroups.mount(hierarchies)
    for name, path in (("run", "/run"), ("varlib", "/var/lib"), ("varlog", "/var/log")):
        run("mount", "-t", "tmpfs", "-o", "mode=755", name, path)
    for name in ("kubelet", "cni", "containerd", "etcd"):
        Path("/var/lib", name).mkdir(0o700)
    for path in ("/run/netns", "/run/lock", "/run/kubelet-plugins", "/run/sysctl"):
        Path(path).mkdir(parents=True)
    for name, value in SETTINGS.items():
        file = Path("/run/sysctl", name.replace("/", "_"))
        file.write_text(f"{value}\n")
        run("mount", "--bind", str(file), f"/proc/sys/{name}")


def network() -> None:
    """One end of a veth pair is the node's interface; its default route leads nowhere."""
    run("hostname", NODE)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0p")
    run("ip", "addr", "add", f"{NODE_IP}/24", "dev", "node0")
    run("ip", "link", "set", "node0", "up")
    run("ip", "link", "set", "node0p", "up")
    run("ip", "route", "add", "default", "via", "10.97.0.1", "dev", "node0")
    for name in ("ip_forward", "conf/all/forwarding"):
        Path("/proc/sys/net/ipv4", name).write_text("1")
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")
