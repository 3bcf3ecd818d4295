"""Debian's part of a cluster: container runtime, etcd and the tools around images."""

import os
import shutil
import subprocess

CONTROL_PLANE = {"etcd": "etcd-server", "ip": "iproute2", "unshare": "util-linux"}
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
CNI = "/usr/lib/cni/ptp"


def missing(programs: dict[str, str]) -> list[str]:
    """Packages of which the program is not on the path."""
    lacking = [package for program, package in programs.items() if shutil.which(program) is None]
    if programs is NODE and not os.path.exists(CNI):
        lacking.append("containernetworking-plugins")
    return lacking


def install(programs: dict[str, str]) -> None:
    """Install what is missing, where apt is there and we are root. Raises CalledProcessError."""
    lacking = missing(programs)
    if not lacking:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # policy-rc.d would be another way; without systemd no service is started by these packages.
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *lacking]):
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def available() -> str:
    """Why the packages cannot be had here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root: the cluster lives in namespaces and cgroups of its own"
    if missing(CONTROL_PLANE) and shutil.which("apt-get") is None:
        return f"needs {', '.join(missing(CONTROL_PLANE))}"
    return ""
