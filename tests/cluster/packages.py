"""Debian's part of a cluster: container runtime, etcd and the tools around images."""

import os
import shutil
import subprocess
from pathlib import Path

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
    if programs is NODE and not Path(CNI).exists():
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
